"""Drawing feature importances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kdkeras._plain_text import plain_text
from kdkeras.explain.importance import FeatureImportance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kdkeras.explain.reference_importance import ReferenceImportance

_COLOURS = ("#6f9bc4", "#e3a664")  # teacher, student: light enough for the error bars to stand out
_REFERENCE = "#b0b0b0"


@plain_text
def importance_bars(
    panels: Sequence[tuple[str, FeatureImportance | ReferenceImportance]], n: int, *, title: str = ""
) -> Figure:
    """Draw one panel of bars per model, all with the features in the order of the first.

    Args:
        panels: Title and importances of each panel, a `FeatureImportance` first; all of the same features.
        n: Number of features to draw: the most important ones of the first panel.
        title: Title of the figure.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ValueError: `n` is below 1.
    """
    from matplotlib.figure import Figure

    if n < 1:
        raise ValueError(f"`n` must be at least 1. Received: n={n}.")
    first = panels[0][1]
    order = np.argsort(-first.importances, kind="stable")[:n]
    width = 3.4 if len(panels) < 3 else 2.2
    figure = Figure(figsize=(2.2 + width * len(panels), 1.3 + 0.27 * len(order)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (name, importance), colour in zip(axes, panels, [*_COLOURS, *[_REFERENCE] * len(panels)], strict=False):
        errors = importance.std[order] if isinstance(importance, FeatureImportance) else None
        _draw(axis, importance.importances[order], errors, colour)
        same = name.lower() == importance.model.lower()
        axis.set_title(name if same else f"{name} {importance.model}".strip(), fontsize=10)
    axes[0].set_yticks(range(len(order)), [first.names[i] for i in order], fontsize=9)
    axes[0].invert_yaxis()
    if title:
        figure.suptitle(title, fontsize=11)
    shuffled = f"loss of {first.score} when the feature is shuffled (mean ± sd)"
    if all(isinstance(importance, FeatureImportance) for _, importance in panels):
        figure.supxlabel(shuffled, fontsize=9)
    else:
        for axis, (_, importance) in zip(axes, panels, strict=True):
            alike = isinstance(importance, FeatureImportance)
            axis.set_xlabel(
                f"loss of {first.score}\nwhen shuffled" if alike else _broken(importance.measure), fontsize=8
            )
    return figure


def _broken(words: str) -> str:
    """Break words over two lines, to fit below a narrow panel."""
    middle = words.index(" ", len(words) // 2)
    return f"{words[:middle]}\n{words[middle + 1 :]}"


def _draw(axis: Axes, values: np.ndarray, errors: np.ndarray | None, colour: str) -> None:
    marks = {"elinewidth": 1, "ecolor": "0.2", "capsize": 2}
    axis.barh(range(len(values)), values, xerr=errors, color=colour, height=0.65, error_kw=marks)
    axis.axvline(0, color="0.5", linewidth=0.8)
    axis.grid(axis="x", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
