"""Splits that see only a random part of the features each."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops


def subset_size(max_features: int | float | str | None, features: int) -> int:
    """Return how many features each split sees.

    Args:
        max_features: As in scikit-learn: a number, a share in 0…1, `"sqrt"`, `"log2"`, or None for all.
        features: How many there are.

    Returns:
        A number in 1…features.

    Raises:
        TypeError: `max_features` is none of these.
        ValueError: It is out of range, or more than there are.

    Example:
        >>> from kdkeras.trees.feature_subsets import subset_size
        >>> subset_size("sqrt", 64), subset_size(0.25, 64), subset_size(3, 64), subset_size(None, 64)
        (8, 16, 3, 64)
    """
    check_max_features(max_features)
    if max_features is None:
        return features
    if max_features in ("sqrt", "log2"):
        return max(1, int(math.sqrt(features) if max_features == "sqrt" else math.log2(features)))
    if isinstance(max_features, (float, np.floating)):
        return max(1, int(max_features * features))
    if max_features > features:
        raise ValueError(f"`max_features` must be at most the {features} features of x. Received: {max_features}.")
    return int(max_features)


def check_max_features(max_features: Any) -> None:
    """Raise if `max_features` is not what `subset_size` takes, whatever the number of features.

    Raises:
        TypeError: It is neither a number, a name nor None.
        ValueError: It is out of range, or another name.
    """
    wanted = "a whole number of at least 1, a share above 0 and at most 1.0, 'sqrt', 'log2' or None"
    message = f"SoftDecisionTree needs max_features to be {wanted}. Received: {max_features!r}."
    if isinstance(max_features, bool) or not isinstance(
        max_features, (int, float, np.integer, np.floating, str, type(None))
    ):
        raise TypeError(message)
    if isinstance(max_features, str):
        fits = max_features in ("sqrt", "log2")
    elif isinstance(max_features, (float, np.floating)):
        fits = 0 < max_features <= 1
    else:
        fits = max_features is None or max_features >= 1
    if not fits:
        raise ValueError(message)


def random_mask(shape: tuple[int, ...], dtype: str | None = None, *, size: int) -> Any:
    """Return ones for `size` features of each split, drawn without replacement with Keras' seed, zeros elsewhere.

    Args:
        shape: (features, nodes).
        dtype: Of the result.
        size: Ones in each column.

    Returns:
        Tensor of that shape.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.feature_subsets import random_mask
        >>> np.asarray(random_mask((5, 3), "float32", size=2)).sum(axis=0)
        array([2., 2., 2.], dtype=float32)
    """
    rank = ops.argsort(ops.argsort(keras.random.uniform(shape), axis=0), axis=0)
    return ops.cast(rank < size, dtype or keras.config.floatx())


class Subset(keras.constraints.Constraint):
    """Keeps the weights of the features that a split does not see at zero.

    Args:
        mask: Variable of shape (features, nodes), ones and zeros.
    """

    def __init__(self, mask: keras.Variable) -> None:
        self.mask = mask

    def __call__(self, w: Any) -> Any:
        """Return w where the mask is 1, and 0 elsewhere."""
        return w * ops.cast(self.mask, w.dtype)

    def initializer(self, shape: tuple[int, ...], dtype: str | None = None) -> Any:
        """Return LeCun's normal weights, as for as many features as a split sees."""
        seen = ops.sum(ops.cast(self.mask, dtype), axis=0)  # (nodes,)
        return self(keras.initializers.LecunNormal()(shape, dtype) * ops.sqrt(shape[0] / seen))
