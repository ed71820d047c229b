"""A tree as source text in DOT, the language of Graphviz."""

from __future__ import annotations

from collections.abc import Sequence

from kdkeras.trees.anatomy import Anatomy, DecisionPath, class_labels, feature_labels
from kdkeras.trees.drawing import ACCENT, INK, QUIET
from kdkeras.trees.pruning import subtrees
from kdkeras.trees.wording import leaf_range, percent, short_lines, weighted_sum


def dot_source(
    anatomy: Anatomy,
    *,
    path: DecisionPath | None = None,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    max_features: int = 3,
    min_mass: float | None = None,
) -> str:
    r"""Return the tree in DOT: splits with their heaviest features, leaves with their class, edges by their mass.

    Args:
        anatomy: The tree.
        path: The way of one sample to its best leaf, which is marked with the probability of each turn, from
            `SoftDecisionTree.decision_path(sample[None])`. Default: none.
        feature_names: One name per flattened feature. Default: positions, "x[0]".
        class_names: One name per class. Default: class numbers.
        max_features: How many features a split shows. Default 3.
        min_mass: Share of the training samples below which leaves are merged, see `kdkeras.trees.pruning.subtrees`.
            Default: none are.

    Returns:
        Source text in UTF-8's characters. `dot -Tsvg tree.dot -o tree.svg` draws it.

    Raises:
        ValueError: The number of names does not fit, `max_features` is below 1, or `min_mass` is not in 0…1.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.anatomy import Anatomy
        >>> from kdkeras.trees.dot import dot_source
        >>> leaves = np.array([[0.9, 0.1], [0.2, 0.8]])
        >>> parts = Anatomy(np.array([[2.0, -1.0]]), np.array([0.5]), leaves, np.ones(1), np.array([0.6, 0.4]))
        >>> print(dot_source(parts, class_names=["no", 'a "yes"']))
        digraph tree {
          graph [ranksep=0.4];
          node [shape=box, style="rounded,filled", fillcolor=white, color="#b4b9bf", fontcolor="#2b2f33", fontname=...];
          edge [color="#b4b9bf", fontcolor="#2b2f33", fontname="Helvetica"];
          0 [label="split 0 · 100%\n2.00*x[0] - 1.00*x[1] + 0.50"];
          0 -> 1 [label="left", penwidth=3.6];
          1 [label="no\np 0.90\nleaf 0 · 60%", fillcolor="#f1f2f3"];
          0 -> 2 [label="right", penwidth=2.6];
          2 [label="a \"yes\"\np 0.80\nleaf 1 · 40%", fillcolor="#f1f2f3"];
        }
    """
    features = feature_labels(anatomy.filters.shape[1:], feature_names)
    classes = class_labels(anatomy.leaves.shape[1], class_names)
    below = subtrees(anatomy, min_mass)
    turns = {} if path is None else _turns(path)
    look = f'color="{QUIET}", fontcolor="{INK}", fontname="Helvetica"'
    lines = ["digraph tree {", "  graph [ranksep=0.4];"]
    lines.append(f'  node [shape=box, style="rounded,filled", fillcolor=white, {look}];')
    lines.append(f"  edge [{look}];")
    for node in below.shown():
        share = percent(below.mass[node])
        accent = f', color="{ACCENT}", penwidth=2.5' if node in turns else ""
        if node:
            turn = "left" if node % 2 else "right"
            turn += f" {turns[node]:.2f}" if node in turns else ""
            colour = f', color="{ACCENT}"' if node in turns else ""
            width = 0.6 + 5 * below.mass[node]
            lines.append(f'  {(node - 1) // 2} -> {node} [label="{turn}", penwidth={width:.1f}{colour}];')
        if below.closed[node]:
            where = f"{leaf_range(*below.leaves_below(node))} · {share}"
            label = _label(*short_lines(below.values[node], classes, anatomy.task), where)
            lines.append(f'  {node} [label={label}, fillcolor="#f1f2f3"{accent}];')
        else:
            score = weighted_sum(anatomy.filters[node], features, max_features, anatomy.biases[node])
            lines.append(f"  {node} [label={_label(f'split {node} · {share}', score)}{accent}];")
    return "\n".join([*lines, "}"])


def _turns(path: DecisionPath) -> dict[int, float]:
    """Return the nodes on the path of the first sample, each with the probability of the turn that leads to it."""
    turns = {0: 1.0}
    for node, right, probability in zip(path.nodes[0], path.right[0], path.probabilities[0], strict=True):
        turns[2 * int(node) + 1 + int(right)] = float(probability)
    return turns


def _label(*lines: str) -> str:
    r"""Return lines as one quoted DOT string; a backslash would begin an escape such as \N, an ampersand an entity."""
    escapes = str.maketrans({"\\": "\\\\", '"': '\\"', "&": "&amp;"})
    return '"' + "\\n".join(" ".join(line.split()).translate(escapes) for line in lines) + '"'
