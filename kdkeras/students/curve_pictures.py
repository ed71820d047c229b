"""Drawing fidelity against size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdkeras._plain_text import plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kdkeras.students.size_curve import SizeCurve, SizePoint

_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
)  # Okabe and Ito: safe for the colour-blind
_MARKERS = "osD^v<"


@plain_text
def size_curves(curve: SizeCurve) -> Figure:
    """Draw one panel for the fidelity, and one for the accuracy where there are labels.

    Args:
        curve: The curve.

    Returns:
        A matplotlib `Figure`.
    """
    from matplotlib.figure import Figure

    numbers = curve.points[0].fidelity.agreement is None
    panels = {"R² to the teacher": "r2"} if numbers else {"agreement with the teacher": "agreement"}
    if curve.points[0].fidelity.accuracy is not None:
        panels["accuracy"] = "accuracy"
    figure = Figure(figsize=(1.9 + 3.7 * len(panels), 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (title, measure) in zip(axes, panels.items(), strict=True):
        _panel(axis, curve, measure)
        axis.set_title(title, fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    figure.supxlabel("parameters", fontsize=9)
    return figure


def _panel(axis: Axes, curve: SizeCurve, measure: str) -> None:
    kinds = list(dict.fromkeys(each.name for each in curve.points if each.learned_from))
    for index, kind in enumerate(kinds):
        for source in ("teacher", "labels"):
            points = [each for each in curve.points if (each.name, each.learned_from) == (kind, source)]
            if points:
                _line(axis, sorted(points, key=lambda each: each.parameters), measure, index, source)
    given = [each for each in curve.points if not each.learned_from]
    for index, each in enumerate(given):
        value = getattr(each.fidelity, measure)
        axis.plot([each.parameters], [value], "*PX"[index % 3], color="0.15", markersize=9, label=each.name, ls="")
    axis.set_xscale("log")
    axis.grid(color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _line(axis: Axes, points: list[SizePoint], measure: str, index: int, source: str) -> None:
    taught = source == "teacher"
    name = points[0].name.replace("_", " ")
    axis.plot(
        [each.parameters for each in points],
        [getattr(each.fidelity, measure) for each in points],
        marker=_MARKERS[index % 6],
        color=_COLOURS[index % 6],
        linestyle="-" if taught else ":",
        markerfacecolor=None if taught else "white",
        markersize=4.5,
        linewidth=1.5 if taught else 1.1,
        label=name if taught else f"{name}, from labels",
    )
