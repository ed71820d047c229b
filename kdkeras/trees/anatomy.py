"""The readable content of a soft decision tree as plain arrays, for rules and pictures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Anatomy(NamedTuple):
    """What a tree consists of. Nodes and leaves are numbered as in `kdkeras.trees.routing`.

    Attributes:
        filters: Weights of every split, shape (nodes, *sample_shape); positive evidence leads right.
        biases: Shape (nodes,).
        leaves: Class probabilities of every leaf, shape (leaves, classes).
        node_mass: Share of the training samples that reaches each split, shape (nodes,).
        leaf_mass: The same for leaves, shape (leaves,).
        task: `"classification"`, or `"regression"`, where leaves hold means instead of probabilities.
    """

    filters: np.ndarray
    biases: np.ndarray
    leaves: np.ndarray
    node_mass: np.ndarray
    leaf_mass: np.ndarray
    task: str = "classification"

    @property
    def depth(self) -> int:
        """Number of levels of splits."""
        return len(self.biases).bit_length()


class DecisionPath(NamedTuple):
    """The way of each sample to its best leaf, the one that it reaches with the greatest probability.

    Attributes:
        nodes: Splits from the root down, shape (n, depth).
        right: True where the path turns right, shape (n, depth).
        probabilities: Probability of the turn taken at each split, shape (n, depth).
        leaf: Leaf number, counted from the left, shape (n,).
        leaf_distribution: Class probabilities of that leaf, shape (n, classes).
        path_probability: Product of the turns' probabilities, shape (n,). Near 1, the leaf alone explains the
            prediction; far below, the mixture draws on other leaves too.
    """

    nodes: np.ndarray
    right: np.ndarray
    probabilities: np.ndarray
    leaf: np.ndarray
    leaf_distribution: np.ndarray
    path_probability: np.ndarray


def importances(anatomy: Anatomy) -> np.ndarray:
    """Return the share of each feature in the decisions: Σ_i mass_i · |w_i| / Σ_j |w_ij|, scaled to sum to 1.

    Args:
        anatomy: The tree.

    Returns:
        Array of the shape of one sample.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.anatomy import Anatomy, importances
        >>> filters = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]])  # root, left, right
        >>> importances(Anatomy(filters, np.zeros(3), np.zeros((4, 2)), np.array([1, 0.5, 0.5]), np.zeros(4)))
        array([0.625, 0.375])
    """
    size = np.abs(anatomy.filters.reshape(len(anatomy.filters), -1))  # (nodes, features)
    share = size / np.maximum(size.sum(axis=1, keepdims=True), np.finfo(size.dtype).tiny)
    total = anatomy.node_mass @ share  # (features,)
    return (total / total.sum()).reshape(anatomy.filters.shape[1:])


def feature_labels(sample_shape: tuple[int, ...], names: list[str] | tuple[str, ...] | None) -> list[str]:
    """Return one name per flattened feature: the given ones, or positions such as "x[3, 4, 0]".

    Args:
        sample_shape: Shape of one sample.
        names: Names in the order of the flattened features, or None.

    Returns:
        As many names as features.

    Raises:
        ValueError: There are more or fewer names than features.

    Example:
        >>> from kdkeras.trees.anatomy import feature_labels
        >>> feature_labels((2,), None)
        ['x[0]', 'x[1]']
    """
    positions = list(np.ndindex(*sample_shape))
    if names is None:
        return [f"x[{', '.join(map(str, position))}]" for position in positions]
    return _checked(names, len(positions), "feature_names")


def class_labels(num_classes: int, names: list[str] | tuple[str, ...] | None) -> list[str]:
    """Return one name per class: the given ones, or the class numbers.

    Args:
        num_classes: Number of classes.
        names: Names in the order of the class numbers, or None.

    Returns:
        As many names as classes.

    Raises:
        ValueError: There are more or fewer names than classes.

    Example:
        >>> from kdkeras.trees.anatomy import class_labels
        >>> class_labels(2, ["no", "yes"])
        ['no', 'yes']
    """
    if names is None:
        return [str(number) for number in range(num_classes)]
    return _checked(names, num_classes, "class_names")


def _checked(names: list[str] | tuple[str, ...], count: int, argument: str) -> list[str]:
    labels = [str(name) for name in names]
    if len(labels) != count:
        raise ValueError(f"`{argument}` needs {count} names. Received: {len(labels)}. Give one per entry, in order.")
    return labels
