"""The picture of a soft decision tree: its upper levels, and the whole path of one sample.

A tree of depth 6 has 63 splits and 64 leaves, too many for one legible picture. The upper part therefore draws the
first levels and sums up what lies below them; the lower part draws every split on the way of one sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kdkeras._plain_text import plain_text
from kdkeras.trees import drawing
from kdkeras.trees.anatomy import Anatomy, DecisionPath, class_labels, feature_labels
from kdkeras.trees.checks import need_classes
from kdkeras.trees.pruning import Subtrees, level_of, subtrees
from kdkeras.trees.wording import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _MARGIN = 15.0, 0.45  # inches, as all sizes here
_TITLE = 0.8
_ROW = 1.62  # of one level of splits
_OUTCOMES = 1.45  # of the row of leaves
_NODE, _NODE_WIDE = 1.0, 2.1  # of a split: image, features
_LEAF = 0.75
_CAPTION = 0.22  # above each picture


class _Scene(NamedTuple):
    figure: Figure
    canvas: Axes  # lies below all others and is measured in inches: lines and words
    anatomy: Anatomy
    below: Subtrees
    features: list[str]
    classes: list[str]
    levels: int  # of splits that the upper part shows
    path: DecisionPath | None
    height: float

    @property
    def image(self) -> bool:
        return drawing.is_image(self.anatomy.filters.shape[1:])


@plain_text
def plot_tree(
    anatomy: Anatomy,
    *,
    sample: np.ndarray | None = None,
    path: DecisionPath | None = None,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    max_depth: int | None = None,
    min_mass: float | None = None,
) -> Figure:
    """Draw a tree, and the path of one sample through it.

    Splits of image trees show their filter, others their three heaviest features: blue leads right, red leads left.
    Lines are the thicker the more training samples pass. Below the last level drawn stand the leaves, or the mean
    leaf of each subtree. With a sample, its path to the best leaf is marked, with the probability of each turn, and
    the lower part shows each split on it beside the evidence weight × value that the sample gives there.

    Args:
        anatomy: The tree.
        sample: One sample, in the shape of a filter.
        path: Its path, from `SoftDecisionTree.decision_path(sample[None])`.
        feature_names: One name per flattened feature. Default: positions, "x[0]".
        class_names: One name per class. Default: class numbers.
        max_depth: How many levels of splits the upper part shows, 1…5. Default 4 for images, 3 otherwise, which
            keeps every label legible.
        min_mass: Share of the training samples below which leaves are merged, see `kdkeras.trees.pruning.subtrees`;
            merged ones stand where their subtree would begin. The path in the lower part stays whole. Default: none.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ValueError: The number of names does not fit, `max_depth` or `min_mass` is out of range, or it is a regression
            tree.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees import SoftDecisionTree
        >>> from kdkeras.trees.pictures import plot_tree
        >>> tree = SoftDecisionTree(depth=2, num_classes=3)
        >>> tree.build((None, 4, 4, 1))
        >>> len(plot_tree(tree.anatomy()).axes)  # canvas, 3 splits, 4 leaves
        8
    """
    from matplotlib.figure import Figure

    need_classes(anatomy.task, "`plot`", "Draw it with `to_graphviz`")
    shape = anatomy.filters.shape[1:]
    if max_depth is None:
        max_depth = 4 if drawing.is_image(shape) else 3
    if not 1 <= max_depth <= 5:
        raise ValueError(f"`max_depth` must be in 1…5. Received: {max_depth}. Draw a sample to see a path to its end.")
    below = subtrees(anatomy, min_mass)
    levels = min(max_depth, max(level_of(node) for node in below.shown()))
    tree_height = _TITLE + levels * _ROW + _OUTCOMES
    height = tree_height + (0 if path is None else _panel_height(shape))
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set_axis_off()
    canvas.set(xlim=(0, _WIDTH), ylim=(0, height))
    if class_names is None:
        class_names = [f"class {number}" for number in range(anatomy.leaves.shape[1])]
    names = feature_labels(shape, feature_names), class_labels(anatomy.leaves.shape[1], class_names)
    if not drawing.is_image(shape):
        anatomy = anatomy._replace(filters=anatomy.filters.reshape(len(anatomy.filters), -1))
        sample = None if sample is None else sample.ravel()
    scene = _Scene(figure, canvas, anatomy, below, *names, levels, path, height)
    _draw_title(scene)
    for node in below.shown():
        level, position = level_of(node), node + 1 - 2 ** level_of(node)
        if level < levels and not below.closed[node]:
            _draw_split(scene, level, position)
        elif level <= levels:
            _draw_outcome(scene, level, position)
    if path is not None:
        _draw_panel(scene, sample, height - tree_height)
    return figure


def _place(scene: _Scene, level: int, position: int) -> tuple[float, float]:
    """Return the centre of a node in inches."""
    slot = (_WIDTH - 2 * _MARGIN) / 2**level
    return _MARGIN + (position + 0.5) * slot, scene.height - _TITLE - (level + 0.5) * _ROW


def _on_path(scene: _Scene, level: int, position: int) -> bool:
    return scene.path is not None and int(scene.path.leaf[0]) >> (scene.anatomy.depth - level) == position


def _draw_title(scene: _Scene) -> None:
    depth = scene.anatomy.depth
    nodes = scene.below.shown()
    whole = max(level_of(node) for node in nodes) == scene.levels  # all that there is to see
    title = f"Soft decision tree of depth {depth}"
    title += "" if len(nodes) == len(scene.below.mass) else f", {len(nodes) // 2} of its {2**depth - 1} splits"
    title += "" if whole else f", first {scene.levels} levels"
    subject = "pixels" if scene.image else "features"
    lower = "leaves" if whole and len(nodes) == len(scene.below.mass) else "leaf, or mean of the leaves below"
    text = f"Splits: blue {subject} lead right, red lead left (each scaled to its own maximum). Bars: {lower}. "
    text += "Percentages: running share of the training samples."
    scene.canvas.text(_MARGIN, scene.height - 0.36, title, fontsize=14, weight="bold", color=drawing.INK)
    scene.canvas.text(_MARGIN, scene.height - 0.64, text, fontsize=9, color=drawing.INK)


def _draw_split(scene: _Scene, level: int, position: int) -> None:
    node = 2**level - 1 + position
    x, y = _place(scene, level, position)
    accent = _on_path(scene, level, position)
    slot = (_WIDTH - 2 * _MARGIN) / 2**level
    width = min(_NODE if scene.image else _NODE_WIDE, 0.85 * slot)
    for turn in (0, 1):
        _draw_edge(scene, level, position, turn)
    axes = drawing.axes_at(scene.figure, x, y, width, min(width, _NODE) if scene.image else _NODE)
    if scene.image:
        drawing.draw_signed(axes, scene.anatomy.filters[node], accent=accent)
    else:
        drawing.draw_features(axes, scene.anatomy.filters[node], scene.features, accent=accent)
    text = f"{node} · {percent(scene.below.mass[node])}"
    axes.set_title(text if slot < 1.2 else f"split {text}", fontsize=drawing.SMALL, color=drawing.INK, pad=3)


def _draw_edge(scene: _Scene, level: int, position: int, turn: int) -> None:
    """Draw the line to one child, behind the pictures, with the probability of the turn where the path takes it."""
    x, y = _place(scene, level, position)
    child_x, child_y = _place(scene, level + 1, 2 * position + turn)
    child = 2 ** (level + 1) - 1 + 2 * position + turn
    mass = scene.below.mass[child]
    accent = _on_path(scene, level + 1, 2 * position + turn)
    outcome = level + 1 == scene.levels or scene.below.closed[child]
    top, bottom = y - _NODE / 2, child_y + (_LEAF / 2 + 0.1 if outcome else _NODE / 2) + _CAPTION
    colour = drawing.ACCENT if accent else drawing.QUIET
    scene.canvas.plot([x, child_x], [top, bottom], color=colour, linewidth=0.6 + 5 * mass, zorder=2 if accent else 1)
    if accent:
        probability = scene.path.probabilities[0, level]
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colour, "linewidth": 0.8}
        middle = (x + child_x) / 2, (top + bottom) / 2
        scene.canvas.text(
            *middle, f"{probability:.2f}", fontsize=8.5, ha="center", va="center", color=drawing.INK, bbox=box, zorder=3
        )


def _draw_outcome(scene: _Scene, level: int, position: int) -> None:
    x, y = _place(scene, level, position)
    node = 2**level - 1 + position
    slot = (_WIDTH - 2 * _MARGIN) / 2**level
    distribution = scene.below.values[node]
    accent = _on_path(scene, level, position)
    axes = drawing.axes_at(scene.figure, x, y + 0.1, min(0.85 * slot, 1.4), _LEAF)
    drawing.draw_distribution(axes, distribution, accent=accent)
    best = int(distribution.argmax())
    name = drawing.shorten(scene.classes[best], max(4, int(slot * 11)))
    axes.set_title(name, fontsize=drawing.SMALL + 1, color=drawing.INK, pad=3, weight="bold")
    label = f"p {distribution[best]:.2f}" + (f" · {percent(scene.below.mass[node])}" if slot > 0.8 else "")
    axes.set_xlabel(label, fontsize=drawing.SMALL - 0.5, color=drawing.INK, labelpad=3)


def _panel_height(shape: tuple[int, ...]) -> float:
    return 3.85 if drawing.is_image(shape) else 2.45


def _draw_panel(scene: _Scene, sample: np.ndarray, top: float) -> None:
    """Draw the sample, every split on its path with the evidence, and the leaf, from left to right."""
    path, anatomy = scene.path, scene.anatomy
    columns = anatomy.depth + 2
    slot = (_WIDTH - 2 * _MARGIN) / columns
    size = min(0.86 * slot, 1.35 if scene.image else _NODE_WIDE)
    first = top - 1.4  # the centre of the first row
    best = int(path.leaf_distribution[0].argmax())
    title = f"Path of the sample to its best leaf (path probability {path.path_probability[0]:.2f})"
    if not scene.image:
        title += ": evidence weight × value at each split"
    scene.canvas.text(_MARGIN, top - 0.25, title, fontsize=12, weight="bold", color=drawing.INK)
    centres = _MARGIN + (np.arange(columns) + 0.5) * slot
    _draw_sample(scene, sample, centres[0], first, size)
    for step in range(anatomy.depth):
        _draw_step(scene, sample, step, centres[step + 1], first, size)
    axes = drawing.axes_at(scene.figure, centres[-1], first, min(size, 1.4), min(size, 1.1))
    drawing.draw_distribution(axes, path.leaf_distribution[0], accent=True)
    name = drawing.shorten(scene.classes[best], 14)
    axes.set_title(f"leaf {path.leaf[0]}\n{name}", fontsize=drawing.SMALL + 1, color=drawing.INK, pad=3)
    axes.set_xlabel(f"p {path.leaf_distribution[0, best]:.2f}", fontsize=drawing.SMALL, labelpad=3, color=drawing.INK)


def _draw_sample(scene: _Scene, sample: np.ndarray, x: float, y: float, size: float) -> None:
    if scene.image:
        axes = drawing.axes_at(scene.figure, x, y, size, size)
        drawing.draw_sample(axes, sample)
        axes.set_title("sample", fontsize=drawing.SMALL + 1, color=drawing.INK, pad=3)
        text = "above: filter\nbelow: evidence,\nfilter × sample"
        scene.canvas.text(x, y - 1.5, text, ha="center", va="center", fontsize=drawing.SMALL, color=drawing.INK)
        return
    nodes = scene.anatomy.filters[scene.path.nodes[0]]  # (depth, features)
    evidence = np.abs(nodes * sample).sum(axis=0)
    heaviest = np.argsort(-evidence, kind="stable")[:5]
    room = int(14 * (_WIDTH - 2 * _MARGIN) / (scene.anatomy.depth + 2)) - 8  # letters that fit before the value
    lines = [f"{drawing.shorten(scene.features[i], max(4, room))} = {sample[i]:.3g}" for i in heaviest]
    text = "\n".join(["sample", *lines])
    scene.canvas.text(x, y, text, ha="center", va="center", fontsize=drawing.SMALL, color=drawing.INK, linespacing=1.6)


def _draw_step(scene: _Scene, sample: np.ndarray, step: int, x: float, y: float, size: float) -> None:
    """Draw one split of the path: its filter and, below it, weight × value; or the heaviest weight × value."""
    path = scene.path
    node = int(path.nodes[0, step])
    weights = scene.anatomy.filters[node]
    turn = "right" if path.right[0, step] else "left"
    title = f"split {node}\n{turn}, p {path.probabilities[0, step]:.2f}"
    axes = drawing.axes_at(scene.figure, x, y, size, size if scene.image else 1.1)
    axes.set_title(title, fontsize=drawing.SMALL + 1, color=drawing.INK, pad=3)
    if scene.image:
        drawing.draw_signed(axes, weights)
        drawing.draw_signed(drawing.axes_at(scene.figure, x, y - 1.5, size, size), weights * sample)
    else:
        drawing.draw_features(axes, weights * sample, scene.features)
