"""Checks of what a soft decision tree is given, before any work is done with it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from kdkeras.inputs import check_finite

MAX_DEPTH = 12  # 4095 splits: each level doubles time and memory, and nobody reads a larger tree


def check_settings(
    depth: int,
    penalty: float,
    noise: float,
    objective: str,
    objectives: Collection[str],
) -> None:
    """Raise if a tree cannot be made so.

    Args:
        depth: Levels of splits.
        penalty: Weight of the balance penalty.
        noise: Standard deviation of the noise in training.
        objective: Name of the training loss.
        objectives: The names that exist.

    Raises:
        TypeError: `depth` is not an integer.
        ValueError: A value is out of its range.
    """
    check_integer("depth", depth)
    if not 1 <= depth <= MAX_DEPTH:
        raise ValueError(f"SoftDecisionTree needs a depth in 1…{MAX_DEPTH}. Received: {depth}.")
    if not 0 <= penalty < float("inf"):
        raise ValueError(f"SoftDecisionTree needs a finite penalty of at least 0. Received: {penalty}.")
    if not 0 <= noise <= 1:
        raise ValueError(f"SoftDecisionTree needs a noise in 0…1. Received: {noise}. Scale the features instead.")
    if objective not in objectives:
        raise ValueError(f"SoftDecisionTree needs an objective of {tuple(objectives)}. Received: {objective!r}.")


def check_integer(name: str, value: Any, minimum: int | None = None) -> None:
    """Raise if a setting is not a whole number, or below its minimum.

    Args:
        name: Name of the setting.
        value: Its value.
        minimum: Least value. Default: none.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is too small.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"SoftDecisionTree needs an integer {name}. Received: {value!r}.")
    if minimum is not None and value < minimum:
        raise ValueError(f"SoftDecisionTree needs {name} of at least {minimum}. Received: {value}.")


def check_beta(beta: Any) -> None:
    """Raise if β is neither a number above 0 nor "learned".

    Args:
        beta: What was given.

    Raises:
        TypeError: It is neither a number nor a name.
        ValueError: It is out of its range, or another name.
    """
    if isinstance(beta, bool) or not isinstance(beta, (int, float, np.number, str)):
        raise TypeError(f"SoftDecisionTree needs a number or 'learned' as beta. Received: {beta!r}.")
    if (isinstance(beta, str) and beta != "learned") or (not isinstance(beta, str) and not 0 < beta < float("inf")):
        raise ValueError(f"SoftDecisionTree needs a finite beta above 0, or 'learned'. Received: {beta!r}.")


def need_classes(task: str, what: str, instead: str) -> None:
    """Raise if a tree has no classes.

    Args:
        task: The tree's.
        what: What needs them.
        instead: What to do.

    Raises:
        ValueError: It is a regression tree.
    """
    if task == "regression":
        raise ValueError(f"{what} needs leaves that name a class. Received: a regression tree. {instead}.")


def check_samples(x: Any, sample_shape: tuple[int, ...] | None, name: str = "x") -> np.ndarray:
    """Return samples as an array, or raise if the tree cannot take them.

    Args:
        x: Samples, shape (n, ...).
        sample_shape: Shape of one sample; None while the tree is not built and takes any.
        name: What to call them in the message.

    Returns:
        `x` as a numpy array.

    Raises:
        TypeError: The samples are not numbers.
        ValueError: There are none, or some are NaN or infinite, or they have another shape.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.checks import check_samples
        >>> check_samples(np.zeros((5, 3)), (4,))
        Traceback (most recent call last):
        ValueError: The tree takes samples of shape (4,). Received: x of shape (5, 3). Pass an array (n, 4).
    """
    x = np.asarray(x)
    if x.dtype.kind not in "fiub":
        raise TypeError(f"The tree takes numbers. Received: {name} of dtype {x.dtype}. Encode its columns as numbers.")
    if x.ndim < 2:
        raise ValueError(
            f"The tree takes samples of shape (n, features) or (n, ...). Received: {name} of shape {x.shape}. "
            "Add a batch axis (`x[None]`)."
        )
    if not x.size:
        raise ValueError(f"{name} has no samples or no features. Received: shape {x.shape}. Pass at least one of each.")
    if sample_shape is not None and x.shape[1:] != sample_shape:
        wanted = ", ".join(map(str, ("n", *sample_shape)))
        raise ValueError(
            f"The tree takes samples of shape {sample_shape}. Received: {name} of shape {x.shape}. "
            f"Pass an array ({wanted})."
        )
    check_finite(x, name)
    return x


def check_targets(y: Any, samples: int, num_classes: int) -> np.ndarray:
    """Return targets as an array, or raise if they are neither class numbers nor class probabilities.

    Args:
        y: Integer labels (n,) or (n, 1), or one-hot or soft targets (n, num_classes).
        samples: The n that x has.
        num_classes: The tree's number of classes.

    Returns:
        `y` as a numpy array.

    Raises:
        TypeError: The targets are missing, or not numbers.
        ValueError: Number, shape, range or row sums do not fit.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.checks import check_targets
        >>> check_targets(np.array([0, 3]), samples=2, num_classes=3)
        Traceback (most recent call last):
        ValueError: Labels must be whole numbers in 0…2 (num_classes=3). Received: values from 0 to 3.
    """
    y = np.asarray(y)
    if y.dtype.kind not in "fiub":
        raise TypeError(f"The tree needs class numbers or class probabilities as y. Received: dtype {y.dtype}.")
    if len(np.atleast_1d(y)) != samples:
        raise ValueError(f"x and y need the same number of samples. Received: {samples} and {len(np.atleast_1d(y))}.")
    check_finite(y, "y")
    if y.shape in ((samples,), (samples, 1)):
        if (y != np.floor(y)).any() or y.min() < 0 or y.max() >= num_classes:
            raise ValueError(
                f"Labels must be whole numbers in 0…{num_classes - 1} (num_classes={num_classes}). "
                f"Received: values from {y.min():g} to {y.max():g}."
            )
        return y
    return check_probabilities(y, samples, num_classes, "y")


def check_probabilities(values: Any, samples: int, num_classes: int, name: str) -> np.ndarray:
    """Return class probabilities as an array, or raise if they are none.

    Args:
        values: Array of shape (n, num_classes).
        samples: The n that x has.
        num_classes: The tree's number of classes.
        name: What to call them in the message.

    Returns:
        `values` as a float32 numpy array.

    Raises:
        ValueError: The shape differs, a value is negative or not finite, or a row does not sum to 1.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.checks import check_probabilities
        >>> check_probabilities(np.ones((1, 2)), 1, 2, "The teacher's output")
        Traceback (most recent call last):
        ValueError: The teacher's output must be probabilities whose rows sum to 1. Received: row sums from 2 to 2...
    """
    values = np.asarray(values, dtype="float32")
    if values.shape != (samples, num_classes):
        raise ValueError(
            f"{name} must have shape ({samples}, {num_classes}): samples, num_classes. Received: {values.shape}. "
            "Give the tree that many classes (`num_classes=`)."
        )
    check_finite(values, name)
    sums = values.sum(axis=1)
    if values.min() < 0 or not np.allclose(sums, 1, atol=1e-3):
        raise ValueError(
            f"{name} must be probabilities whose rows sum to 1. Received: row sums from {sums.min():g} to "
            f"{sums.max():g}, least value {values.min():g}. Apply a softmax first."
        )
    return values


def check_values(values: Any, samples: int, targets: int, name: str) -> np.ndarray:
    """Return target values as an array, or raise if they are none.

    Args:
        values: Array of shape (n, targets), or (n,) where there is one target.
        samples: The n that x has.
        targets: The tree's number of target values.
        name: What to call them in the message.

    Returns:
        `values` as a float32 numpy array of shape (n, targets).

    Raises:
        TypeError: They are missing, or not numbers.
        ValueError: The shape differs, or a value is not finite.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.checks import check_values
        >>> check_values(np.zeros((5, 2)), samples=5, targets=1, name="y")
        Traceback (most recent call last):
        ValueError: y must have shape (5, 1): samples, num_targets. Received: (5, 2)...
    """
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        raise TypeError(f"The tree needs numbers as targets. Received: {name} of dtype {values.dtype}.")
    if targets == 1 and values.ndim == 1:
        values = values[:, None]
    if values.shape != (samples, targets):
        raise ValueError(
            f"{name} must have shape ({samples}, {targets}): samples, num_targets. Received: {values.shape}. "
            "Give the tree that many targets (`num_targets=`)."
        )
    check_finite(values, name)
    return values.astype("float32")
