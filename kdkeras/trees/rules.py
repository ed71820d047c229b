"""The rules of a soft decision tree in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdkeras.trees.anatomy import Anatomy, class_labels, feature_labels


def export_text(
    anatomy: Anatomy,
    *,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    max_features: int = 3,
) -> str:
    """Return the splits and leaves as indented text, in the manner of scikit-learn's `export_text`.

    Each split shows its weightiest features, its bias, and the share of the training samples that reaches it; each
    leaf shows its likeliest class.

    Args:
        anatomy: The tree.
        feature_names: One name per flattened feature. Default: positions, "x[0]".
        class_names: One name per class. Default: class numbers.
        max_features: How many features a split shows. Default 3.

    Returns:
        Text of one line per branch.

    Raises:
        ValueError: The number of names does not fit, or `max_features` is below 1.

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
    if max_features < 1:
        raise ValueError(f"`max_features` must be at least 1. Received: {max_features}.")
    features = feature_labels(anatomy.filters.shape[1:], feature_names)
    classes = class_labels(anatomy.leaves.shape[1], class_names)
    shown = (
        "all features" if max_features >= len(features) else f"the heaviest {max_features} of {len(features)} features"
    )
    lines = [f"Each split goes right with probability sigmoid(score). Shown: {shown} of a score."]
    lines.append("In brackets: running share of the training samples.")
    last = len(anatomy.biases)  # the first leaf, in the numbering of nodes

    def describe(node: int, prefix: str, branch: str) -> None:
        if node >= last:
            lines.append(prefix + branch + _leaf(anatomy, node - last, classes))
            return
        lines.append(prefix + branch + _split(anatomy, node, features, max_features))
        inner = prefix + "|   " if branch else prefix
        describe(2 * node + 1, inner, "|--- left:  ")
        describe(2 * node + 2, inner, "|--- right: ")

    describe(0, "", "")
    return "\n".join(lines)


def _split(anatomy: Anatomy, node: int, features: list[str], max_features: int) -> str:
    weights = anatomy.filters[node].ravel()
    top = np.argsort(-np.abs(weights), kind="stable")[:max_features]
    terms = [f"{_signed(weights[i])}*{features[i]}" for i in top]
    terms += ["+ ..."] if len(top) < len(weights) else []
    terms.append(_signed(anatomy.biases[node]))
    score = " ".join(terms)
    score = "-" + score[2:] if score.startswith("-") else score[2:]  # no space, or no plus, before the first term
    return f"split {node} [{_percent(anatomy.node_mass[node])}]: score = {score}"


def _signed(weight: float) -> str:
    return f"{'-' if weight < 0 else '+'} {abs(weight):.2f}"


def _leaf(anatomy: Anatomy, leaf: int, classes: list[str]) -> str:
    best = int(anatomy.leaves[leaf].argmax())
    probability = anatomy.leaves[leaf, best]
    return f"leaf {leaf} [{_percent(anatomy.leaf_mass[leaf])}]: class {classes[best]}, probability {probability:.2f}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "<1%"
