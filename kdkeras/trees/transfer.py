"""What a teacher hands to a tree: class probabilities or values for the samples, computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from kdkeras.ops import log_soften
from kdkeras.signals import predict_logits
from kdkeras.trees.checks import check_probabilities, check_values

_SMALLEST = 1e-30  # stands in for log 0


def teacher_targets(
    teacher: keras.Model | Callable[[Any], Any], x: np.ndarray, num_classes: int, temperature: float
) -> np.ndarray:
    """Return softmax(teacher logits / temperature) for each sample.

    Args:
        teacher: A Keras classifier that ends in logits or softmax, or a function of `x` that returns class
            probabilities (n, num_classes).
        x: Samples, shape (n, ...).
        num_classes: The tree's number of classes.
        temperature: Temperature T > 0; larger is softer.

    Returns:
        float32 array of shape (n, num_classes), rows summing to 1.

    Raises:
        TypeError: The teacher is neither a Keras model nor a function.
        ValueError: The number of classes differs, rows do not sum to 1, values are not finite, or T is not above 0.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.transfer import teacher_targets
        >>> teacher_targets(lambda x: np.array([[0.2, 0.8]]), np.zeros((1, 3)), num_classes=2, temperature=2.0)
        array([[0.333..., 0.666...]], dtype=float32)
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"`temperature` must be finite and above 0. Received: {temperature}.")
    if isinstance(teacher, keras.Model):
        logits = predict_logits(teacher, x)
        if logits.shape != (len(x), num_classes):
            raise ValueError(
                f"Teacher '{teacher.name}' must have {num_classes} classes like the tree. Received: outputs of shape "
                f"{logits.shape}. Make the tree with the teacher's `num_classes`."
            )
        if not np.isfinite(logits).all():
            raise ValueError(f"Teacher '{teacher.name}' returns NaN or infinite values. Check its weights and inputs.")
    elif callable(teacher):
        probabilities = check_probabilities(teacher(x), len(x), num_classes, "The teacher's output")
        logits = np.log(np.maximum(probabilities, _SMALLEST))
    else:
        raise TypeError(
            f"`teacher` must be a Keras model or a function that returns class probabilities. Received: "
            f"{type(teacher).__name__}. Of a scikit-learn classifier, pass its `predict_proba`."
        )
    return ops.convert_to_numpy(ops.exp(log_soften(logits, temperature)))


def teacher_values(
    teacher: keras.Model | Callable[[Any], Any], x: np.ndarray, num_targets: int, temperature: float
) -> np.ndarray:
    """Return what a regression teacher predicts for each sample.

    Args:
        teacher: A Keras model, or a function of `x`, that returns values (n, num_targets), or (n,) for one target.
        x: Samples, shape (n, ...).
        num_targets: The tree's number of target values.
        temperature: Must be 1: values are not softened.

    Returns:
        float32 array of shape (n, num_targets).

    Raises:
        TypeError: The teacher is neither a Keras model nor a function.
        ValueError: Its values do not fit the tree, or a temperature is given.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.transfer import teacher_values
        >>> teacher_values(lambda x: 2 * x[:, 0], np.ones((2, 3)), num_targets=1, temperature=1.0)
        array([[2.],
               [2.]], dtype=float32)
    """
    if temperature != 1:
        raise ValueError(f"Values have no temperature: it must be 1 for a regression tree. Received: {temperature}.")
    if isinstance(teacher, keras.Model):
        return check_values(teacher.predict(x, verbose=0), len(x), num_targets, "The teacher's output")
    if callable(teacher):
        return check_values(teacher(x), len(x), num_targets, "The teacher's output")
    raise TypeError(
        f"`teacher` must be a Keras model or a function that returns values. Received: {type(teacher).__name__}. "
        "Of a scikit-learn regressor, pass its `predict`."
    )
