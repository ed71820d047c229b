"""Does an explanation stay when the sample hardly changes? Max-sensitivity and average stability."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kdkeras.explain.explanation import Explanation
from kdkeras.explain.measures.attributions import is_zero
from kdkeras.explain.measures.explainers import Explains, explainer_of
from kdkeras.explain.measures.randomness import check_floats, generators
from kdkeras.explain.measures.variants import single_subject
from kdkeras.explain.method import Method
from kdkeras.inputs import check_count


def max_sensitivity(
    model: keras.Model,
    x: Any,
    explainer: str | Method | Explanation | Explains = "grad_cam",
    target: Any = None,
    *,
    radius: float = 0.02,
    samples: int = 10,
    batch_size: int = 32,
    seed: int = 0,
) -> np.ndarray:
    """Largest relative change of the explanation within a small box around each sample.

        SENS_MAX = max over ‖δ‖∞ ≤ r of ‖φ(x + δ) − φ(x)‖₂ / ‖φ(x)‖₂

    0 where the explanation does not move at all, as the gradient of a linear model; small is good, but an explanation
    that ignores the model is stable too. The target stays that of the sample itself. The maximum is that of random δ:
    a lower bound.

    Args:
        model: A Keras model with one input, that returns `(batch, units)`.
        x: The samples, floats, scaled as in training.
        explainer: A method of `attribute` or its name, whose `maps` are compared; an `Explanation`, for its method, its
            layer and its targets; or a function `(model, x, target) -> attributions` of x's shape, with or without the
            last axis.
        target: Index of the unit to explain, as for `deletion`.
        radius: r, in units of x. 0.02, as in Captum.
        samples: Number of random δ, uniform in the box. 10, as in Captum.
        batch_size: Samples per pass. 32, as in Keras' `predict`.
        seed: Seed of δ.

    Returns:
        Values of at least 0, float64 `(n,)`; NaN where φ(x) is zero everywhere.

    Raises:
        TypeError: `model` is not a Keras model, or `explainer` nothing that explains.
        ValueError: The model has several inputs, x is integers, or x, target or options do not fit the model.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> gradient = lambda model, x, target: np.tile(model.get_weights()[0][:, 0], (len(x), 1))
        >>> explain.max_sensitivity(model, np.ones((2, 3)), gradient)
        array([0., 0.])

    Reference:
        Yeh, Hsieh, Suggala, Inouye and Ravikumar, "On the (in)fidelity and sensitivity of explanations", 2019.
    """
    return changes(model, x, explainer, target, radius, samples, batch_size, seed).max(axis=1)


def average_stability(
    model: keras.Model,
    x: Any,
    explainer: str | Method | Explanation | Explains = "grad_cam",
    target: Any = None,
    *,
    radius: float = 0.02,
    samples: int = 10,
    batch_size: int = 32,
    seed: int = 0,
) -> np.ndarray:
    """Mean relative change of the explanation within a small box around each sample.

        mean over ‖δ‖∞ ≤ r of ‖φ(x + δ) − φ(x)‖₂ / ‖φ(x)‖₂

    The average where `max_sensitivity` has the maximum, over the same δ: 0 is most stable.

    Args:
        model: A Keras model with one input, that returns `(batch, units)`.
        x: The samples, as for `max_sensitivity`.
        explainer: As for `max_sensitivity`.
        target: Index of the unit to explain, as for `deletion`.
        radius: r, in units of x. 0.02, as for `max_sensitivity`.
        samples: Number of random δ, uniform in the box. 10, as for `max_sensitivity`.
        batch_size: Samples per pass. 32, as in Keras' `predict`.
        seed: Seed of δ.

    Returns:
        Values of at least 0, float64 `(n,)`; NaN where φ(x) is zero everywhere.

    Raises:
        TypeError: `model` is not a Keras model, or `explainer` nothing that explains.
        ValueError: The model has several inputs, x is integers, or x, target or options do not fit the model.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> itself = lambda model, x, target: x  # moves with the sample: by r/√3 of it on average
        >>> explain.average_stability(model, np.ones((1, 3)), itself, radius=0.1, samples=1000).round(2)
        array([0.06])

    Reference:
        Bhatt, Weller and Moura, "Evaluating and aggregating feature-based model explanations", 2020.
    """
    return changes(model, x, explainer, target, radius, samples, batch_size, seed).mean(axis=1)


def changes(
    model: keras.Model,
    x: Any,
    explainer: str | Method | Explanation | Explains,
    target: Any,
    radius: float,
    samples: int,
    batch_size: int,
    seed: int,
) -> np.ndarray:
    """Return the relative change of the explanation for each random δ.

    Args:
        model: As for `max_sensitivity`.
        x: As for `max_sensitivity`.
        explainer: As for `max_sensitivity`.
        target: As for `max_sensitivity`.
        radius: As for `max_sensitivity`.
        samples: As for `max_sensitivity`.
        batch_size: As for `max_sensitivity`.
        seed: As for `max_sensitivity`.

    Returns:
        float64 `(n, samples)`; rows of NaN where the explanation is zero everywhere.
    """
    check_count("samples", samples)
    if not radius > 0:
        raise ValueError(f"`radius` must be positive. Received: radius={radius}.")
    explain = explainer_of(explainer, batch_size)
    if target is None and isinstance(explainer, Explanation):
        target = explainer.target
    asked = single_subject(model, x, target, batch_size=batch_size)
    originals = asked.array
    check_floats(originals)
    original = explain(model, originals, asked.target)
    distances = np.empty(len(originals) * samples)
    together = max(batch_size, len(originals))  # few calls, because each may compile, but no more memory than for x
    for start in range(0, len(distances), together):
        pairs = np.arange(start, min(start + together, len(distances)))
        index, versions = np.divmod(pairs, samples)
        shifts = [random.uniform(-radius, radius, originals.shape[1:]) for random in generators(seed, index, versions)]
        moved = (originals[index] + np.stack(shifts)).astype(originals.dtype)
        change = explain(model, moved, asked.target[index]) - original[index]
        distances[pairs] = np.linalg.norm(change.reshape(len(pairs), -1), axis=1)
    size = np.linalg.norm(original.reshape(len(original), -1), axis=1)
    return distances.reshape(-1, samples) / np.where(is_zero(original), np.nan, size)[:, np.newaxis]
