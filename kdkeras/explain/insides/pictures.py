"""Drawing what is inside of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kdkeras._plain_text import plain_text
from kdkeras.explain.pictures import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kdkeras.explain.insides.selectivity import ClassSelectivity
    from kdkeras.explain.insides.similarity import LayerSimilarity
    from kdkeras.explain.insides.structure import LayerRow, ModelStructure, StructureComparison

_COLOURS = "viridis"
_LABELLED = 40  # more ticks than this cannot be read: every n-th is named
_LONGEST = 27  # characters of a name
# Okabe and Ito's colours, which the colour-blind tell apart.
_KINDS = {
    "convolution": ("Conv", "#56b4e9"),
    "dense": ("Dense", "#e69f00"),
    "attention": ("Attention", "#cc79a7"),
    "recurrent": ("LSTM|GRU|RNN|Bidirectional", "#009e73"),
    "embedding": ("Embedding", "#f0e442"),
}
_OTHER = "#dddddd"
_LINE = "#d55e00"


@plain_text
def similarity_map(similarity: LayerSimilarity) -> Figure:
    """Draw similarities of layers as a heat map.

    Args:
        similarity: The similarities.

    Returns:
        A matplotlib `Figure`.
    """
    from matplotlib.figure import Figure

    rows, columns = similarity.values.shape
    size = (min(14, 3.4 + 0.32 * columns), min(14, 2.4 + 0.28 * rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(similarity.values, cmap=_COLOURS, vmin=0, vmax=1, origin="lower", aspect="auto")
    _name_ticks(axes.xaxis, similarity.student_layers, rotation=90)
    _name_ticks(axes.yaxis, similarity.teacher_layers)
    axes.set_xlabel(f"student '{similarity.student}'")
    axes.set_ylabel(f"teacher '{similarity.teacher}'")
    for column, path in enumerate(similarity.student_layers):
        if path in similarity.nearest:
            row = similarity.teacher_layers.index(similarity.nearest[path][0])
            axes.plot(column, row, "o", color="white", markeredgecolor="black", markersize=5)
    figure.colorbar(drawn, ax=axes, label="linear CKA")
    axes.set_title("How alike the layers are", fontsize=11)
    return figure


@plain_text
def selectivity_map(selectivity: ClassSelectivity, class_names: Sequence[str] = ()) -> Figure:
    """Draw the mean activation of each unit for each class, and the selectivity of each unit above.

    Args:
        selectivity: The selectivities.
        class_names: Name of each class; by default its index.

    Returns:
        A matplotlib `Figure`.
    """
    from matplotlib.figure import Figure

    speaking = np.flatnonzero(selectivity.preferred >= 0)
    order = speaking[np.lexsort((-selectivity.index[speaking], selectivity.preferred[speaking]))]
    means = selectivity.means[:, order]
    figure = Figure(figsize=(min(12, 3.5 + 0.09 * max(len(order), 12)), 1.9 + 0.28 * len(means)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.5))
    above.bar(np.arange(len(order)), selectivity.index[order], width=1, color="#2166ac")
    above.set_ylim(0, 1)
    above.set_ylabel("selectivity", fontsize=9)
    above.spines[["top", "right"]].set_visible(False)
    drawn = below.imshow(means / np.maximum(means.max(axis=0), 1e-12), cmap=_COLOURS, vmin=0, vmax=1, aspect="auto")
    below.set_yticks(range(len(means)), [*class_names] if len(class_names) else [str(k) for k in range(len(means))])
    below.tick_params(labelsize=8)
    silent = f", {selectivity.silent} silent ones left out" if selectivity.silent else ""
    below.set_xlabel(f"units of '{selectivity.layer}', by the class that they prefer{silent}", fontsize=9)
    figure.colorbar(drawn, ax=below, label="÷ the unit's\nlargest mean")
    figure.suptitle(f"What the units of '{selectivity.model}' stand for", fontsize=11)
    return figure


@plain_text
def side_by_side(comparison: StructureComparison, rows: int) -> Figure:
    """Draw two models as columns of layers.

    Args:
        comparison: The models.
        rows: Most layers to draw of a model.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ValueError: `rows` is below 4.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    if rows < 4:
        raise ValueError(f"`rows` must be at least 4. Received: rows={rows}.")
    models = comparison.teacher, comparison.student
    kept = [{link[place] for link in comparison.links} for place in (2, 1)]
    folded = [fold(model, paths, rows) for model, paths in zip(models, kept, strict=True)]
    height = max(map(len, folded))
    figure = Figure(figsize=(11, 1.3 + 0.29 * height), layout="constrained")
    axes = figure.subplots()
    axes.set_xlim(-0.05, 11.05)
    axes.set_ylim(height + 0.1, -1.1)
    axes.axis("off")
    most = max((layer.parameters for layers in folded for layer in layers), default=1) or 1
    places = []
    for left, role, model, layers in zip((0, 6.2), ("Teacher", "Student"), models, folded, strict=True):
        words = f"{role} '{shortened(model.model, _LONGEST)}': {model.parameters:,} parameters"
        axes.text(left, -0.75, words, fontsize=11, fontweight="bold", va="center")
        start = (height - len(layers)) / 2
        for place, layer in enumerate(layers):
            _draw_layer(axes, left, start + place, layer, most)
        places.append({layer.path: start + place + 0.4 for place, layer in enumerate(layers)})
        places[-1][""] = start + len(layers) - 0.6  # the output
    pairs: dict[tuple[str, str], list[str]] = {}
    for loss, ours, theirs in comparison.links:
        pairs.setdefault((theirs, ours), []).append(shortened(loss, _LONGEST))
    for (theirs, ours), losses in pairs.items():
        ends = places[0][theirs], places[1][ours]
        axes.plot((4.8, 6.2), ends, color=_LINE, linewidth=1.6, zorder=1)
        where = 5.5, sum(ends) / 2
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": _LINE, "linewidth": 0.6}
        axes.text(*where, "\n".join(losses), fontsize=7, ha="center", va="center", bbox=box, zorder=3)
    shown = {_colour(layer) for layers in folded for layer in layers}
    patches = [Patch(color=colour, label=kind) for kind, (_, colour) in _KINDS.items() if colour in shown]
    patches += [Patch(color=_OTHER, label="other")] if _OTHER in shown else []
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, fontsize=8)
    return figure


def fold(model: ModelStructure, kept: set[str], rows: int) -> list[LayerRow]:
    """Return at most `rows` layers: what changes least goes with the layer before it, with its parameters.

    Args:
        model: The model.
        kept: Paths of layers that are never folded.
        rows: Most layers, but for those that are kept.

    Returns:
        The layers; the kind of one that others went with ends in `+n`, their number.
    """
    layers = list(model.layers)
    # From fine to coarse: all; those with parameters; with a new shape as well; with a new size of the map.
    rules = [
        lambda now, before: True,
        lambda now, before: now.parameters > 0,
        lambda now, before: now.parameters > 0 and now.shape != before.shape,
        lambda now, before: now.parameters > 0 and now.shape[:-1] != before.shape[:-1],
    ]
    folded: list[LayerRow] = []
    for rule in rules:
        groups: list[list[LayerRow]] = []
        for now in layers:
            if not groups or now.path in kept or now is layers[-1] or rule(now, groups[-1][0]):
                groups.append([])
            groups[-1].append(now)
        folded = [_together(group) for group in groups]
        if len(folded) <= rows:
            break
    return folded


def _together(layers: list[LayerRow]) -> LayerRow:
    first, *more = layers
    kind = f"{first.kind} +{len(more)}" if more else first.kind
    return replace(first, kind=kind, parameters=sum(layer.parameters for layer in layers))


def _draw_layer(axes: Axes, left: float, top: float, layer: LayerRow, most: int) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((left, top), 4.8, 0.8, facecolor="white", edgecolor="#999999", linewidth=0.6))
    axes.add_patch(Rectangle((left, top), 0.12, 0.8, facecolor=_colour(layer), edgecolor="none"))
    axes.add_patch(Rectangle((left + 0.12, top + 0.68), 4.68 * layer.parameters / most, 0.12, facecolor="#555555"))
    shape = "×".join(map(str, layer.shape)) or "1"
    small = {"fontsize": 7, "va": "center", "clip_on": True}
    axes.text(left + 0.22, top + 0.36, shortened(layer.path, _LONGEST), **small)
    axes.text(left + 2.2, top + 0.36, layer.kind[:22], color="#555555", **small)
    axes.text(left + 4.05, top + 0.36, shape, ha="right", **small)
    axes.text(left + 4.74, top + 0.36, f"{layer.parameters:,}" if layer.parameters else "", ha="right", **small)


def _colour(layer: LayerRow) -> str:
    for words, colour in _KINDS.values():
        if any(word in layer.kind for word in words.split("|")):
            return colour
    return _OTHER


def _name_ticks(axis: object, names: Sequence[str], **more: object) -> None:
    every = -(-len(names) // _LABELLED)
    places = range(0, len(names), every)
    axis.set_ticks(places, [shortened(names[place], _LONGEST) for place in places], fontsize=7, **more)
