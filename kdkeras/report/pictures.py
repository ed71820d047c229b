"""Pictures for a report."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdkeras._plain_text import plain_text
from kdkeras.report.record import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#444c56", "#c8642a", "#1f5fa8", "#3d8b5f", "#8a4fa3")
_DPI = 150


def picture(figure: Figure, *, alt: str, caption: str = "", wide: bool = True) -> Picture:
    """Turn a matplotlib figure into a picture of a report.

    Args:
        figure: The figure.
        alt: What it shows, for those who cannot see it.
        caption: What to see in it.
        wide: Whether a small screen scrolls it, because its text would be too small when it is shrunk.

    Returns:
        The `Picture`.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from kdkeras.report import picture
        >>> picture(Figure(figsize=(1, 1)), alt="nothing").png[1:4]
        b'PNG'
    """
    buffer = io.BytesIO()
    # No date and no version inside: the same run gives the same bytes.
    figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
    return Picture(buffer.getvalue(), alt, caption, wide)


@plain_text
def training_curves(histories: Mapping[str, Sequence[float]], *, ylabel: str) -> Figure:
    """Draw one curve per model over its epochs.

    Args:
        histories: A figure per epoch, by model name.
        ylabel: What the figure is.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: There are no curves.

    Example:
        >>> from kdkeras.report import training_curves
        >>> len(training_curves({"student": [0.5, 0.8]}, ylabel="validation accuracy").axes[0].lines)
        1
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not histories:
        raise ValueError("`training_curves` needs at least one curve. Received: none. Pass {name: values}.")
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for (name, values), colour in zip(histories.items(), _COLOURS * len(histories), strict=False):
        axes.plot(range(1, len(values) + 1), values, color=colour, linewidth=1.8, label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e7ec")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="best")
    return figure
