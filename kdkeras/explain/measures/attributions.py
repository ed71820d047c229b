"""Attributions as numbers: checked against the samples that they explain."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kdkeras.explain.explanation import Explanation
from kdkeras.explain.measures.variants import single_subject
from kdkeras.explain.subject import Subject
from kdkeras.inputs import check_finite


def attributions_of(explanation: Explanation | Any) -> np.ndarray:
    """Return attributions as an array.

    Args:
        explanation: An `Explanation`, whose `maps` are taken, or attributions `(n, ...)`.

    Returns:
        float64 `(n, ...)`, with at least one axis after the samples'.

    Raises:
        ValueError: They are empty, not finite, or have no axis but the samples'.

    Example:
        >>> from kdkeras.explain.measures.attributions import attributions_of
        >>> attributions_of([[1, 2], [0, 1]]).shape
        (2, 2)
    """
    values = explanation.maps if isinstance(explanation, Explanation) else explanation
    values = np.asarray(values, dtype="float64")
    if values.ndim < 2 or not values.size:
        raise ValueError(
            "Attributions must have shape (n, height, width) or (n, features), not empty. "
            f"Received: shape {values.shape}. Pass one row of attributions per sample."
        )
    check_finite(values, "The attributions")
    return values


def check_fit(attributions: np.ndarray, x: np.ndarray) -> None:
    """Raise unless there is an attribution for each place in the samples, or for each place but its channels.

    Args:
        attributions: Shape `(n, ...)`.
        x: The samples.

    Raises:
        ValueError: The shapes do not belong together.

    Example:
        >>> import numpy as np
        >>> from kdkeras.explain.measures.attributions import check_fit
        >>> check_fit(np.zeros((2, 8, 8)), np.zeros((2, 8, 8, 3)))
    """
    if attributions.shape not in (x.shape, x.shape[:-1]):
        raise ValueError(
            f"Attributions must have the shape of x, with or without its last axis (the channels). Received: "
            f"attributions of shape {attributions.shape} for x of shape {x.shape}. Resize the maps to the images, or "
            "pass the samples that were explained."
        )


def spread(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return values of places with axes added, so that each holds for all channels of its place.

    Args:
        values: Shape `(k, *places)`.
        x: Samples, of which the places are all axes, or all but the channels.

    Returns:
        Shape `(k, *places)` or `(k, *places, 1)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.explain.measures.attributions import spread
        >>> spread(np.zeros((2, 8, 8)), np.zeros((5, 8, 8, 3))).shape
        (2, 8, 8, 1)
    """
    return values.reshape(*values.shape, *(1,) * (x.ndim - values.ndim))


def is_zero(attributions: np.ndarray) -> np.ndarray:
    """Return which attributions are zero everywhere, boolean `(n,)`: they explain nothing.

    Args:
        attributions: Shape `(n, ...)`.

    Returns:
        Boolean `(n,)`.
    """
    return ~attributions.reshape(len(attributions), -1).any(axis=1)


def is_constant(attributions: np.ndarray) -> np.ndarray:
    """Return which attributions are the same everywhere, boolean `(n,)`: they put nothing before anything else.

    Args:
        attributions: Shape `(n, ...)`.

    Returns:
        Boolean `(n,)`, also true where they are zero.
    """
    rows = attributions.reshape(len(attributions), -1)
    return rows.max(axis=1) == rows.min(axis=1)


def question(
    model: keras.Model, x: Any, explanation: Explanation | Any, target: Any, batch_size: int
) -> tuple[Subject, np.ndarray]:
    """Return what is explained, and the explanation, once both are checked.

    Args:
        model: The model.
        x: The samples.
        explanation: An `Explanation`, or attributions.
        target: The target; `None` for the explanation's own, or the predicted class where it is but attributions.
        batch_size: Samples per pass.

    Returns:
        The `Subject` and the attributions, float64.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: Model, samples, attributions and targets do not fit one another.
    """
    if target is None and isinstance(explanation, Explanation):
        target = explanation.target
    attributions = attributions_of(explanation)
    subject = single_subject(model, x, target, batch_size=batch_size)
    check_fit(attributions, subject.array)
    return subject, attributions
