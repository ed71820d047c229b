"""Drawing deletion and insertion curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kdkeras._plain_text import plain_text
from kdkeras.explain.summary import summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kdkeras.explain.measures.curves import PerturbationCurve

_COLOURS = {"deletion": "#b35806", "insertion": "#2166ac"}  # orange and blue: told apart by every kind of sight
_WORDS = {"deletion": ("removed", "lower is better"), "insertion": ("revealed", "higher is better")}


@plain_text
def curve_panels(curves: Sequence[PerturbationCurve], controls: Sequence[PerturbationCurve] = ()) -> Figure:
    """Draw one panel per curve: the mean over the samples, with the 95 % confidence interval of the mean.

    Args:
        curves: The curves, of one score.
        controls: Of each the curve of random maps, to be drawn behind it.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ValueError: No sample of a curve has one.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.7 + 3.3 * len(curves), 2.9), layout="constrained")
    axes = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for index, (axis, curve) in enumerate(zip(axes, curves, strict=True)):
        _draw(axis, curve, controls[index] if controls else None)
    probability = curves[0].score == "probability" and all(np.nanmax(curve.scores) <= 1 for curve in curves)
    if probability:
        axes[0].set_ylim(-0.02, 1.02)
    axes[0].set_ylabel(f"{'probability' if probability else 'score'} of the target", fontsize=9)
    return figure


def _draw(axis: Axes, curve: PerturbationCurve, control: PerturbationCurve | None) -> None:
    area = curve.summary
    if not area.n:
        raise ValueError(
            f"There is no {curve.kind} curve to draw: all attributions are constant. Explain other samples or layers."
        )
    done, better = _WORDS[curve.kind]
    means = np.nanmean(curve.scores, axis=0)
    colour = _COLOURS[curve.kind]
    if control is not None:
        random = np.nanmean(control.scores, axis=0)
        axis.plot(control.share, random, color="0.45", linewidth=1.2, linestyle="--", label="random maps")
    if area.n > 1:
        low, high = np.transpose([summarise(column).interval for column in curve.scores.T])
        axis.fill_between(curve.share, low, high, color=colour, alpha=0.2, linewidth=0, label="95 % interval")
    axis.plot(curve.share, means, color=colour, linewidth=1.8, label=f"mean of {area.n}")
    axis.set_title(f"{curve.kind.capitalize()}: area {area.mean:.3f} ({better})", fontsize=10)
    axis.set_xlabel(f"share {done}, most relevant first", fontsize=9)
    axis.set_xlim(0, 1)
    axis.tick_params(labelsize=8)
    axis.grid(color="0.92", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False, loc="best")
