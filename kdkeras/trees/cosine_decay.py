"""How the learning rate of a soft tree falls where the user gives no optimizer."""

from __future__ import annotations

import math
from typing import Any

import keras

LEARNING_RATE = 0.02  # from cross-validation on digits, between 0.01 and 0.05


class CosineDecay(keras.callbacks.Callback):
    """Lowers the learning rate from `LEARNING_RATE` to nearly 0 over the epochs.

    Args:
        epochs: How many there will be.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Set the rate of the epoch."""
        self.model.optimizer.learning_rate = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
