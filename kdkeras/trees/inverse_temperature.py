"""How crisp the splits are: the inverse temperature β, set by hand or learned."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kdkeras.trees.checks import check_beta

LEARNED = "learned"


class InverseTemperature(keras.layers.Layer):
    """Multiplies the sum of each split by β: the same number for all splits, or a trainable one for each.

    A number is a variable that does not train but may be set between steps, so that a callback can anneal it. A
    learned β is exp(θ_i), above 0 whatever θ_i, and begins at 1.

    Args:
        beta: A number above 0, or `"learned"`.
        nodes: Number of splits.
        **kwargs: Passed to `keras.layers.Layer`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.inverse_temperature import InverseTemperature
        >>> np.asarray(InverseTemperature(2.0, nodes=3)(np.ones((1, 3))))
        array([[2., 2., 2.]], dtype=float32)
    """

    def __init__(self, beta: float | str, nodes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_beta(beta)
        self.learned = beta == LEARNED
        self.variable = self.add_weight(
            shape=(nodes,) if self.learned else (),
            initializer="zeros" if self.learned else keras.initializers.Constant(beta),
            trainable=self.learned,
            autocast=False,
            name="log_beta" if self.learned else "beta",
        )
        self.build((None, nodes))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Nothing is left to create."""
        self.built = True

    def call(self, z: Any) -> Any:
        """Return β z for the sums z of the splits, shape (batch, nodes)."""
        return self._beta() * z

    def numbers(self) -> np.ndarray:
        """Return β: one number, or one per split, shape (nodes,)."""
        return ops.convert_to_numpy(self._beta())

    def set(self, beta: float) -> None:
        """Set a β that is not learned.

        Raises:
            TypeError: `beta` is no number.
            ValueError: It is not above 0, or the splits learn theirs.
        """
        if self.learned:
            raise ValueError("This tree learns its beta. To set or anneal it, make the tree with a number as `beta`.")
        check_beta(beta)
        self.variable.assign(beta)

    def _beta(self) -> Any:
        return ops.exp(self.variable) if self.learned else ops.convert_to_tensor(self.variable)
