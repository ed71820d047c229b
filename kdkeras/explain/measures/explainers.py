"""Explaining again: what stability and randomisation ask of an explanation method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kdkeras.explain.attribution import METHODS, attribute
from kdkeras.explain.explanation import Explanation
from kdkeras.explain.measures.attributions import attributions_of, check_fit
from kdkeras.explain.method import Method

Explains = Callable[[keras.Model, np.ndarray, np.ndarray], Any]


def explainer_of(explainer: str | Method | Explanation | Explains, batch_size: int) -> Explains:
    """Return a function from model, samples and targets to attributions of the samples' shape.

    Args:
        explainer: A method of `attribute` or its name; an `Explanation`, for its method and layer; or such a function.
        batch_size: Samples per pass of `attribute`.

    Returns:
        The function; what it returns is checked, float64.

    Raises:
        TypeError: `explainer` is nothing of the kind.
        ValueError: There is no method of this name.
    """
    if isinstance(explainer, Explanation):
        method, layer = explainer.how, explainer.layer
    elif isinstance(explainer, (str, Method)):
        method, layer = explainer, None
    elif callable(explainer):
        return _checked(explainer)
    else:
        raise TypeError(
            "`explainer` must be the name of a method, an `Explanation`, or a function (model, x, target) -> "
            f"attributions. Received: {type(explainer).__name__}."
        )
    if isinstance(method, str) and method not in METHODS:
        raise ValueError(f"`explainer` must be one of {', '.join(METHODS)}. Received: explainer={method!r}.")

    def by_name(model: keras.Model, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        return attribute(model, x, target, method, layer, batch_size=batch_size).maps

    return _checked(by_name)


def _checked(explainer: Explains) -> Explains:
    def explain(model: keras.Model, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        attributions = attributions_of(explainer(model, x, target))
        check_fit(attributions, x)
        return attributions

    return explain
