"""The rules of a soft decision tree in words."""

from __future__ import annotations

from collections.abc import Sequence

from kdkeras.trees.anatomy import Anatomy, class_labels, feature_labels
from kdkeras.trees.pruning import Subtrees, subtrees
from kdkeras.trees.wording import describe, leaf_range, percent, weighted_sum


def export_text(
    anatomy: Anatomy,
    *,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    max_features: int = 3,
    min_mass: float | None = None,
) -> str:
    """Return the splits and leaves as indented text, in the manner of scikit-learn's `export_text`.

    Each split shows its weightiest features, its bias, and the share of the training samples that reaches it; each
    leaf shows its likeliest class.

    Args:
        anatomy: The tree.
        feature_names: One name per flattened feature. Default: positions, "x[0]".
        class_names: One name per class. Default: class numbers.
        max_features: How many features a split shows. Default 3.
        min_mass: Share of the training samples below which leaves are merged, see `kdkeras.trees.pruning.subtrees`.
            Default: none are.

    Returns:
        Text of one line per branch.

    Raises:
        ValueError: The number of names does not fit, `max_features` is below 1, or `min_mass` is not in 0…1.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.anatomy import Anatomy
        >>> from kdkeras.trees.rules import export_text
        >>> leaves = np.array([[0.9, 0.1], [0.2, 0.8]])
        >>> parts = Anatomy(np.array([[2.0, -1.0]]), np.array([0.5]), leaves, np.ones(1), np.array([0.6, 0.4]))
        >>> print(export_text(parts, feature_names=["age", "dose"], max_features=1))
        Each split goes right with probability sigmoid(score). Shown: the heaviest 1 of 2 features of a score.
        In brackets: running share of the training samples.
        split 0 [100%]: score = 2.00*age + ... + 0.50
        |--- left:  leaf 0 [60%]: class 0, probability 0.90
        |--- right: leaf 1 [40%]: class 1, probability 0.80
    """
    features = feature_labels(anatomy.filters.shape[1:], feature_names)
    classes = class_labels(anatomy.leaves.shape[1], class_names)
    below = subtrees(anatomy, min_mass)
    shown = (
        "all features" if max_features >= len(features) else f"the heaviest {max_features} of {len(features)} features"
    )
    lines = [f"Each split goes right with probability sigmoid(score). Shown: {shown} of a score."]
    lines.append("In brackets: running share of the training samples.")

    def describe(node: int, prefix: str, branch: str) -> None:
        if below.closed[node]:
            lines.append(prefix + branch + _leaf(below, node, classes, anatomy.task))
            return
        score = weighted_sum(anatomy.filters[node], features, max_features, anatomy.biases[node])
        lines.append(f"{prefix}{branch}split {node} [{percent(below.mass[node])}]: score = {score}")
        inner = prefix + "|   " if branch else prefix
        describe(2 * node + 1, inner, "|--- left:  ")
        describe(2 * node + 2, inner, "|--- right: ")

    describe(0, "", "")
    return "\n".join(lines)


def _leaf(below: Subtrees, node: int, classes: list[str], task: str) -> str:
    name = f"{leaf_range(*below.leaves_below(node))} [{percent(below.mass[node])}]"
    return f"{name}: {describe(below.values[node], classes, task)}"
