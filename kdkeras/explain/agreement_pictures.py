"""Drawing how much two models' explanations agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from kdkeras._plain_text import plain_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#2166ac", "#e08214")  # blue and orange: told apart by the colour-blind, and in grey
_BINS = 24


@plain_text
def histogram(groups: Mapping[str, np.ndarray], floor: np.ndarray | None, title: str) -> Figure:
    """Draw how values are spread, group upon group, with the floor as an outline.

    Args:
        groups: Values of each group by its name, at most two; NaN are left out.
        floor: Values of a random student, or `None`.
        title: Title of the picture.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ValueError: No value is defined.
    """
    from matplotlib.figure import Figure

    defined = {name: values[~np.isnan(values)] for name, values in groups.items()}
    everything = np.concatenate(list(defined.values()))
    if not len(everything):
        raise ValueError("There is nothing to draw: every pair has a map that is zero everywhere. Try another layer.")
    random = np.zeros(0) if floor is None else floor[~np.isnan(floor)]
    low, high = (limit(np.concatenate([everything, random])) for limit in (np.min, np.max))
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    labels = [f"{name} ({len(values)})" for name, values in defined.items()]
    axes.hist(list(defined.values()), edges, stacked=True, color=_COLOURS[: len(defined)], label=labels)
    if len(random):
        axes.hist(random, edges, histtype="step", color="black", linestyle="--", label="student with random weights")
    axes.axvline(everything.mean(), color="black", linewidth=1, label=f"mean {everything.mean():.2f}")
    axes.set_title(title, fontsize=11)
    axes.set_ylabel("images")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    return figure
