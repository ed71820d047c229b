"""The greedy reading of a tree as a list of rules: all conditions on the way to a leaf, and what stands there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kdkeras.trees.anatomy import Anatomy, class_labels, feature_labels
from kdkeras.trees.checks import check_samples
from kdkeras.trees.pruning import subtrees
from kdkeras.trees.wording import describe, leaf_range, likeliest, percent, weighted_sum


class Condition(NamedTuple):
    """One turn of a rule: Σ weights · x > threshold, or ≤ threshold.

    Attributes:
        node: Number of the split.
        weights: One weight per feature, in the shape of one sample.
        threshold: What the weighted sum is compared with.
        direction: `"right"`: the sum is above the threshold. `"left"`: it is not.
        text: The condition in words, with the heaviest features.
    """

    node: int
    weights: np.ndarray
    threshold: float
    direction: str
    text: str

    def holds(self, x: Any) -> np.ndarray:
        """Return which samples meet the condition.

        Args:
            x: Samples, shape (n, *sample_shape).

        Returns:
            Booleans of shape (n,).

        Raises:
            TypeError: The samples are not numbers.
            ValueError: They do not have the shape of the weights, or are not finite.
        """
        x = check_samples(x, self.weights.shape)
        right = x.reshape(len(x), -1) @ self.weights.ravel() > self.threshold
        return right if self.direction == "right" else ~right


class Rule(NamedTuple):
    """One leaf with the conditions of the greedy path to it, in the order of the splits.

    Attributes:
        conditions: One per split on the way.
        leaves: First and last leaf that the rule stands for; the same number twice where nothing was merged.
        class_index: The likeliest class there; −1 in a regression tree.
        probability: Its probability; NaN in a regression tree.
        distribution: Probabilities of all classes, shape (classes,), or the means of all targets.
        mass: Running share of the training samples that reaches the leaves.
        text: The rule in words, which `str(rule)` returns, too.
    """

    conditions: tuple[Condition, ...]
    leaves: tuple[int, int]
    class_index: int
    probability: float
    distribution: np.ndarray
    mass: float
    text: str

    def holds(self, x: Any) -> np.ndarray:
        """Return which samples meet every condition.

        Args:
            x: Samples, shape (n, *sample_shape).

        Returns:
            Booleans of shape (n,).

        Raises:
            TypeError: The samples are not numbers.
            ValueError: They do not fit the tree, or are not finite.
        """
        return np.logical_and.reduce([condition.holds(x) for condition in self.conditions] or [np.ones(len(x), bool)])

    def __str__(self) -> str:
        return self.text


def list_rules(
    anatomy: Anatomy,
    *,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    max_features: int = 3,
    min_mass: float | None = None,
) -> list[Rule]:
    """Return the greedy tree as rules, from the leftmost leaf to the rightmost.

    Exactly one rule holds for each sample, and its class is that of `predict(x, mode="greedy")`, unless `min_mass`
    merges leaves of different classes. Predictions of the mixture draw on all leaves and can differ.

    Args:
        anatomy: The tree.
        feature_names: One name per flattened feature. Default: positions, "x[0]".
        class_names: One name per class. Default: class numbers.
        max_features: How many features of each condition the text shows. Default 3. The records hold all weights.
        min_mass: Share of the training samples below which leaves are merged, see `kdkeras.trees.pruning.subtrees`.
            Default: none are.

    Returns:
        A list of `Rule`, at most one per leaf. A tree that is merged to one leaf has one rule without conditions.

    Raises:
        ValueError: The number of names does not fit, `max_features` is below 1, or `min_mass` is not in 0…1.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.anatomy import Anatomy
        >>> from kdkeras.trees.rule_list import list_rules
        >>> leaves = np.array([[0.9, 0.1], [0.2, 0.8]])
        >>> parts = Anatomy(np.array([[2.0, -1.0]]), np.array([0.5]), leaves, np.ones(1), np.array([0.6, 0.4]))
        >>> rules = list_rules(parts, feature_names=["age", "dose"], class_names=["no", "yes"])
        >>> print(rules[1])
        if 2.00*age - 1.00*dose > -0.50 (split 0)
        then class yes, probability 0.80 (leaf 1, 40% of the training samples)
        >>> rules[1].holds(np.array([[1.0, 0.0], [-1.0, 0.0]]))
        array([ True, False])
    """
    features = feature_labels(anatomy.filters.shape[1:], feature_names)
    classes = class_labels(anatomy.leaves.shape[1], class_names)
    below = subtrees(anatomy, min_mass)
    rules = []

    def turn(node: int, direction: str) -> Condition:
        weights, threshold = anatomy.filters[node], -float(anatomy.biases[node])
        sign = ">" if direction == "right" else "<="
        text = f"{weighted_sum(weights, features, max_features)} {sign} {threshold:.2f} (split {node})"
        return Condition(node, weights, threshold, direction, text)

    def collect(node: int, conditions: tuple[Condition, ...]) -> None:
        if not below.closed[node]:
            collect(2 * node + 1, (*conditions, turn(node, "left")))
            collect(2 * node + 2, (*conditions, turn(node, "right")))
            return
        mass, leaves = float(below.mass[node]), below.leaves_below(node)
        best, probability = likeliest(below.values[node], anatomy.task)
        if_text = "\nand ".join(condition.text for condition in conditions)
        text = describe(below.values[node], classes, anatomy.task)
        text += f" ({leaf_range(*leaves)}, {percent(mass)} of the training samples)"
        text = f"if {if_text}\nthen {text}" if conditions else f"always {text}"
        rules.append(Rule(conditions, leaves, best, probability, below.values[node], mass, text))

    collect(0, ())
    return rules
