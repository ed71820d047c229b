"""The small pictures that a tree's picture is made of: a filter, a distribution, the heaviest features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RIGHT, LEFT = "#2166ac", "#b2182b"  # the ends of matplotlib's "RdBu"
ACCENT = "#d98200"
QUIET = "#b4b9bf"
INK = "#2b2f33"
SMALL = 8.0  # points


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether samples of this shape are drawn as images: (height, width) or (height, width, channels).

    Example:
        >>> from kdkeras.trees.drawing import is_image
        >>> is_image((8, 8, 1)), is_image((30,)), is_image((100, 1))
        (True, False, False)
    """
    return len(shape) in (2, 3) and min(shape[:2]) >= 3


def axes_at(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Add axes centred on (x, y), all in inches from the lower left corner."""
    total_width, total_height = figure.get_size_inches()
    left, bottom = (x - width / 2) / total_width, (y - height / 2) / total_height
    return figure.add_axes((left, bottom, width / total_width, height / total_height))


def frame(axes: Axes, *, accent: bool) -> None:
    """Leave a thin frame, or a strong one for what lies on the path."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(ACCENT if accent else QUIET)
        spine.set_linewidth(2.2 if accent else 0.6)


def draw_signed(axes: Axes, values: np.ndarray, *, accent: bool = False) -> None:
    """Draw weights or evidence as an image: blue leads right, red leads left; scaled to its own maximum."""
    flat = values if values.ndim == 2 else values.sum(axis=-1)  # (h, w, c) -> (h, w)
    limit = max(float(np.abs(flat).max()), np.finfo("float32").tiny)
    axes.imshow(flat, cmap="RdBu", vmin=-limit, vmax=limit)
    frame(axes, accent=accent)


def draw_sample(axes: Axes, sample: np.ndarray) -> None:
    """Draw one sample as an image, colours for three channels and greys otherwise."""
    low, high = float(sample.min()), float(sample.max())
    scaled = (sample.astype("float32") - low) / max(high - low, np.finfo("float32").tiny)
    if scaled.ndim == 3 and scaled.shape[-1] == 3:
        axes.imshow(scaled)
    else:
        axes.imshow(scaled if scaled.ndim == 2 else scaled.mean(axis=-1), cmap="gray_r", vmin=0, vmax=1)
    frame(axes, accent=True)


def draw_features(axes: Axes, values: np.ndarray, labels: Sequence[str], *, accent: bool = False, top: int = 3) -> None:
    """Draw the heaviest features as bars from a middle line, names above the bars."""
    order = np.argsort(-np.abs(values), kind="stable")[:top]
    limit = max(float(np.abs(values).max()), np.finfo("float32").tiny)
    room = int(15 * axes.bbox.width / axes.figure.dpi)  # letters that fit
    for row, index in enumerate(order):
        value = values[index] / limit
        axes.barh(row, value, height=0.34, color=RIGHT if value > 0 else LEFT)
        axes.plot([0, 0], [row - 0.26, row + 0.26], color=QUIET, linewidth=0.8, zorder=0)
        name = shorten(labels[index], room)
        axes.text(0, row - 0.28, name, ha="center", va="bottom", fontsize=SMALL - 0.5, color=INK)
    axes.set_xlim(-1.1, 1.1)
    axes.set_ylim(top - 0.65, -0.85)  # the heaviest on top
    frame(axes, accent=accent)


def draw_distribution(axes: Axes, probabilities: np.ndarray, *, accent: bool = False) -> None:
    """Draw class probabilities as bars, the likeliest dark."""
    colours = [QUIET] * len(probabilities)
    colours[int(probabilities.argmax())] = ACCENT if accent else INK
    axes.bar(np.arange(len(probabilities)), probabilities, width=0.8, color=colours)
    axes.set_xlim(-0.7, len(probabilities) - 0.3)
    axes.set_ylim(0, 1.02)
    frame(axes, accent=accent)


def shorten(text: str, length: int) -> str:
    """Cut a text to `length` characters, with an ellipsis.

    Example:
        >>> from kdkeras.trees.drawing import shorten
        >>> shorten("concavity", 6)
        'conca…'
    """
    return text if len(text) <= length else text[: length - 1] + "…"
