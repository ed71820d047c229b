"""The recipe book: the published settings of every loss, as data.

One JSON file per loss, named as its module in `kdkeras.losses`. `kdkeras.losses.get` makes a loss of a recipe.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """The settings of one loss in one experiment.

    Attributes:
        settings: Arguments of the loss; layers are not among them, for they depend on the models.
        task_weight: Factor on the task loss beside it.
        warm_up_epochs: Epochs over which the weight rises from 0, see `kdkeras.callbacks.warm_up`.
        beside: Other losses that the experiment trains with, by name, each with its settings.
        source: Where the settings come from.
    """

    settings: Mapping[str, Any]
    task_weight: float
    source: str
    warm_up_epochs: int = 0
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """What the book says of one loss.

    Attributes:
        loss: Name of the class in `kdkeras.losses`.
        kind: `"logits"`, `"features"`, `"relations"`, `"contrastive"`, `"transformers"`, `"dense"` or `"explanations"`.
        paper: Where it was published.
        follows: Where paper and reference code differ, or ours from both: what is followed.
        recipes: The settings, by name of the experiment.
    """

    loss: str
    kind: str
    paper: str
    follows: str
    recipes: Mapping[str, Recipe]


@functools.cache
def names() -> tuple[str, ...]:
    """Return the losses that the book has recipes for, in alphabetical order.

    Returns:
        Names of modules in `kdkeras.losses`.

    Example:
        >>> from kdkeras import recipes
        >>> "soft_targets" in recipes.names()
        True
    """
    files = importlib.resources.files("kdkeras.recipes").iterdir()
    return tuple(sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json")))


@functools.cache
def entry(loss: str) -> Entry:
    """Return what the book says of a loss.

    Args:
        loss: Its name, one of `names()`.

    Returns:
        The `Entry`.

    Raises:
        ValueError: There is none of that name.

    Example:
        >>> from kdkeras import recipes
        >>> recipes.entry("soft_targets").loss
        'SoftTargets'
    """
    if loss not in names():
        raise ValueError(f"There is no loss '{loss}'{_nearest(loss, names())}. Take one of {', '.join(names())}.")
    text = importlib.resources.files("kdkeras.recipes").joinpath(f"{loss}.json").read_text(encoding="utf-8")
    content = json.loads(text)
    found = {name: Recipe(**settings) for name, settings in content.pop("recipes").items()}
    return Entry(**content, recipes=MappingProxyType(found))


def recipe(loss: str, name: str) -> Recipe:
    """Return one recipe of a loss.

    Args:
        loss: Its name, one of `names()`.
        name: Name of the experiment, such as `"cifar100"`.

    Returns:
        The `Recipe`.

    Raises:
        ValueError: There is no such loss, or no such recipe of it.

    Example:
        >>> from kdkeras import recipes
        >>> recipes.recipe("soft_targets", "cifar100").task_weight
        0.1
    """
    known = entry(loss).recipes
    if name not in known:
        raise ValueError(f"Loss '{loss}' has no recipe '{name}'. Take one of {', '.join(known)}.")
    return known[name]


def _nearest(word: str, words: tuple[str, ...]) -> str:
    import difflib

    close = difflib.get_close_matches(word, words, n=2)
    return f" (do you mean {' or '.join(map(repr, close))}?)" if close else ""
