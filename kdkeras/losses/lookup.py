"""A loss by name, with its default settings or with published ones."""

from __future__ import annotations

import importlib
from typing import Any

from kdkeras import recipes
from kdkeras.losses.base import DistillationLoss


def get(name: str, *, recipe: str | None = None, **settings: Any) -> DistillationLoss:
    """Return a loss by name, with the settings of a recipe.

    Args:
        name: Name of its module: one of `kdkeras.recipes.names()`.
        recipe: Name of published settings, such as `"cifar100"`; by default the loss's own defaults. What a recipe says
            beside the loss's settings (the task's weight, a warm-up) stands in `kdkeras.recipes.recipe(name, recipe)`.
        **settings: Arguments of the loss, which have the last word. Losses between layers need those here.

    Returns:
        The loss.

    Raises:
        ValueError: There is no such loss or recipe.
        TypeError: Settings are missing, or unknown.

    Example:
        >>> from kdkeras import losses
        >>> losses.get("soft_targets", recipe="cifar100").temperature
        4.0
        >>> losses.get("hints", recipe="cifar100", student_layer="c2", teacher_layer="c5").weight
        100.0
    """
    entry = recipes.entry(name)
    published = {} if recipe is None else recipes.recipe(name, recipe).settings
    kind = getattr(importlib.import_module(f"kdkeras.losses.{name}"), entry.loss)
    try:
        return kind(**{**published, **settings})
    except TypeError as error:
        raise TypeError(f"Loss '{name}' cannot be made of these settings: {error}. Pass them to `get`.") from error
