"""How a soft tree is trained where the user gives no optimizer: Adam, with weight decay, at a falling rate."""

from __future__ import annotations

import math
from typing import Any

import keras

# The rate is from cross-validation on digits, between 0.01 and 0.05. No decay is best everywhere: 0.1 on Fashion-MNIST,
# 0 on digits. 0.03 is never far from the best in the divergence from the teacher (`benchmarks/soft_tree.py --select`).
LEARNING_RATE, WEIGHT_DECAY = 0.02, 0.03


def default_optimizer(
    learning_rate: Any = LEARNING_RATE, weight_decay: float = WEIGHT_DECAY
) -> keras.optimizers.Optimizer:
    """Return Adam with weight decay on the filters of the splits, and on nothing else.

    A filter that shrinks wherever the samples do not need it overfits less, and is easier to look at.

    Args:
        learning_rate: A number or a Keras schedule. Default 0.02.
        weight_decay: Share of a filter that each step takes away, times the learning rate. Default 0.03; on
            Fashion-MNIST 0.1 is better, and less lets splits become crisper.

    Returns:
        A fresh `keras.optimizers.AdamW`.

    Example:
        >>> import kdkeras
        >>> tree = kdkeras.SoftDecisionTree(depth=2, num_classes=2)
        >>> tree.compile(kdkeras.trees.default_optimizer(0.005))

    Reference:
        [Loshchilov & Hutter, 2019](https://arxiv.org/abs/1711.05101)
    """
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["phi", "bias", "beta"])
    return optimizer


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
