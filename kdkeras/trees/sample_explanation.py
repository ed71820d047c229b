"""Why one sample ends in its leaf, split by split, in words and as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kdkeras.trees.anatomy import Anatomy, DecisionPath, class_labels, feature_labels
from kdkeras.trees.wording import describe, heaviest, likeliest


class Step(NamedTuple):
    """One split on the way of a sample.

    Attributes:
        node: Number of the split.
        right: Whether the way turns right.
        probability: Probability of the turn that is taken. Below 0.5 where the best leaf lies on the less likely side.
        score: Σ contributions − threshold; above 0 it leans right.
        threshold: What the contributions are weighed against.
        contributions: Weight × value of each feature, in the shape of one sample; positive ones lead right.
        text: The split in words, with the features that weigh most.
    """

    node: int
    right: bool
    probability: float
    score: float
    threshold: float
    contributions: np.ndarray
    text: str


class SampleExplanation(NamedTuple):
    """The way of one sample to its best leaf.

    Attributes:
        steps: One per level of splits, from the root down.
        leaf: Number of the leaf.
        class_index: The likeliest class of that leaf; −1 in a regression tree.
        probability: Its probability there; NaN in a regression tree.
        distribution: Probabilities of all classes in that leaf, shape (classes,), or the means of all targets.
        path_probability: Probability that the sample reaches the leaf. Far below 1, other leaves matter too.
        mixture: The same by all leaves together, what `predict` returns, shape (classes,).
        text: All of it in words, which `str(explanation)` returns, too.
    """

    steps: tuple[Step, ...]
    leaf: int
    class_index: int
    probability: float
    distribution: np.ndarray
    path_probability: float
    mixture: np.ndarray
    text: str

    def __str__(self) -> str:
        return self.text


def explain_path(
    anatomy: Anatomy,
    sample: np.ndarray,
    path: DecisionPath,
    mixture: np.ndarray,
    *,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    max_features: int = 3,
) -> SampleExplanation:
    """Return each split on the way of one sample: score = Σ_j w_j x_j − threshold, with the features that weigh most.

    Args:
        anatomy: The tree.
        sample: One sample, in the shape of a filter.
        path: Its path, from `SoftDecisionTree.decision_path(sample[None])`.
        mixture: What the tree predicts for it, shape (classes,).
        feature_names: One name per flattened feature. Default: positions, "x[0]".
        class_names: One name per class. Default: class numbers.
        max_features: How many features of each split the text shows. Default 3. The record holds all contributions.

    Returns:
        A `SampleExplanation`.

    Raises:
        ValueError: The number of names does not fit, or `max_features` is below 1.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.anatomy import Anatomy, DecisionPath
        >>> from kdkeras.trees.sample_explanation import explain_path
        >>> leaves = np.array([[0.9, 0.1], [0.2, 0.8]])
        >>> parts = Anatomy(np.array([[2.0, -1.0]]), np.array([0.5]), leaves, np.ones(1), np.array([0.6, 0.4]))
        >>> one = (np.array([[0]]), np.array([[True]]), np.array([[0.88]]), np.array([1]), leaves[1:], np.array([0.88]))
        >>> mixture = np.array([0.28, 0.72])
        >>> print(explain_path(parts, np.array([1.0, 0.5]), DecisionPath(*one), mixture, max_features=1))
        Split 0 leads right with probability 0.88: the sum 1.50 is above the threshold -0.50.
            +2.00  x[0] = 1 (weight 2.00)
            -0.50  the other feature
        Leaf 1: class 1, probability 0.80. The sample reaches it with probability 0.88.
        All leaves together: class 1, probability 0.72.
    """
    features = feature_labels(anatomy.filters.shape[1:], feature_names)
    classes = class_labels(anatomy.leaves.shape[1], class_names)
    steps = tuple(
        _step(anatomy, sample, int(node), bool(right), float(probability), features, max_features)
        for node, right, probability in zip(path.nodes[0], path.right[0], path.probabilities[0], strict=True)
    )
    leaf, distribution, reached = int(path.leaf[0]), path.leaf_distribution[0], float(path.path_probability[0])
    best, probability = likeliest(distribution, anatomy.task)
    lines = [step.text for step in steps]
    lines.append(f"Leaf {leaf}: {describe(distribution, classes, anatomy.task)}. ")
    lines[-1] += f"The sample reaches it with probability {reached:.2f}."
    lines.append(f"All leaves together: {describe(mixture, classes, anatomy.task)}.")
    return SampleExplanation(steps, leaf, best, probability, distribution, reached, mixture, "\n".join(lines))


def _step(
    anatomy: Anatomy,
    sample: np.ndarray,
    node: int,
    right: bool,
    probability: float,
    features: Sequence[str],
    max_features: int,
) -> Step:
    weights, threshold = anatomy.filters[node], -float(anatomy.biases[node])
    contributions = weights * sample
    total = float(contributions.sum())
    turn, other = ("right", "left") if right else ("left", "right")
    text = f"Split {node} leads {turn} with probability {probability:.2f}: "
    text += f"the sum {total:.2f} is {'above' if total > threshold else 'not above'} the threshold {threshold:.2f}"
    text += f" ({other} is likelier, but the best leaf lies here)." if (total > threshold) != right else "."
    top = heaviest(contributions, max_features)
    lines = [text]
    for i in top:
        value, weight = sample.ravel()[i], weights.ravel()[i]
        lines.append(f"    {contributions.ravel()[i]:+.2f}  {features[i]} = {value:.3g} (weight {weight:.2f})")
    left_out = len(features) - len(top)
    if left_out:
        rest = total - float(contributions.ravel()[top].sum())
        name = "the other feature" if left_out == 1 else f"the other {left_out} features together"
        lines.append(f"    {rest:+.2f}  {name}")
    return Step(node, right, probability, total - threshold, threshold, contributions, "\n".join(lines))
