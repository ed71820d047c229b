"""What lies below each node of a tree, and which subtrees a reader may see as one leaf.

The tree itself is a full binary array and stays whole: pruning here is a way of reading it, and changes no prediction.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kdkeras.trees.anatomy import Anatomy
from kdkeras.trees.checks import need_classes


def level_of(node: int) -> int:
    """Return the level of a node in heap order: 0 for the root, then 1, 1, 2, 2, 2, 2 and so on."""
    return (node + 1).bit_length() - 1


class Subtrees(NamedTuple):
    """Every subtree of a tree as if it were one leaf. Splits and leaves stand in one row, numbered like a heap.

    Node i is split i, or leaf i − (2^depth − 1) where i is no split; its children are 2i + 1 and 2i + 2.

    Attributes:
        mass: Running share of the training samples that reaches each node, shape (splits + leaves,).
        values: Class probabilities below each node, the mean of its leaves weighted by their masses, shape
            (splits + leaves, classes).
        closed: True where a node is shown as one leaf, boolean (splits + leaves,). Leaves are always closed.
    """

    mass: np.ndarray
    values: np.ndarray
    closed: np.ndarray

    @property
    def depth(self) -> int:
        """Number of levels of splits."""
        return len(self.mass).bit_length() - 1

    def leaves_below(self, node: int) -> tuple[int, int]:
        """Return the first and the last leaf below a node, which for a leaf are the leaf itself."""
        level = level_of(node)
        width = 2 ** (self.depth - level)
        first = (node + 1 - 2**level) * width
        return first, first + width - 1

    def shown(self) -> list[int]:
        """Return the nodes that a reader sees, parents first, each followed by its left subtree."""

        def below(node: int) -> list[int]:
            return [node] if self.closed[node] else [node, *below(2 * node + 1), *below(2 * node + 2)]

        return below(0)


def subtrees(anatomy: Anatomy, min_mass: float | None = None) -> Subtrees:
    """Return what lies below each node, and close the subtrees that need not be told apart.

    From the leaves upwards, two sibling leaves become one, with the mean of their distributions weighted by mass, if
    they name the same class, or if fewer than `min_mass` of the training samples reach the lighter one and the mean
    names the class of the heavier one. A subtree that becomes one leaf can in turn be merged with its sibling.

    Merging leaves of one class changes no class that the greedy path or the best leaf names. Each merging of a light
    leaf changes the class of those few samples that reach it. Probabilities become means. A split whose two sides
    stay apart is shown, however light one of them is.

    Args:
        anatomy: The tree.
        min_mass: Share of the training samples in 0…1 below which a leaf need not be told apart from its sibling; 0
            merges only leaves of the same class. Default: None, which merges nothing.

    Returns:
        The `Subtrees`.

    Raises:
        ValueError: `min_mass` is not in 0…1, or is given for a regression tree, whose leaves name no class.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.anatomy import Anatomy
        >>> from kdkeras.trees.pruning import subtrees
        >>> leaves = np.array([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4], [0.0, 1.0]])
        >>> mass = np.array([0.2, 0.2, 0.01, 0.59])
        >>> parts = Anatomy(np.zeros((3, 5)), np.zeros(3), leaves, np.array([1, 0.4, 0.6]), mass)
        >>> subtrees(parts, 0).shown()  # leaves 0 and 1 (nodes 3 and 4) name class 0: node 1 stands for both
        [0, 1, 2, 5, 6]
        >>> subtrees(parts, 0.05).shown()
        [0, 1, 2]
        >>> subtrees(parts, 0.05).values[1]
        array([0.8, 0.2])
    """
    if min_mass is not None and not 0 <= min_mass <= 1:
        raise ValueError(f"`min_mass` must be a share in 0…1, or None to merge nothing. Received: {min_mass}.")
    if min_mass is not None:
        need_classes(anatomy.task, "`min_mass`", "Leave it out")
    splits = len(anatomy.biases)
    mass = np.concatenate([anatomy.node_mass, anatomy.leaf_mass])
    values = np.concatenate([np.zeros((splits, anatomy.leaves.shape[1])), anatomy.leaves])
    weights = mass.astype("float64") + 1e-9  # so that leaves that nobody reaches have a mean, too
    closed = np.arange(len(mass)) >= splits
    for node in reversed(range(splits)):
        pair = np.array([2 * node + 1, 2 * node + 2])
        weights[node] = weights[pair].sum()
        values[node] = weights[pair] @ values[pair] / weights[node]
        if min_mass is not None and closed[pair].all():
            light, heavy = pair[np.argsort(weights[pair], kind="stable")]
            best, of_light, of_heavy = (values[i].argmax() for i in (node, light, heavy))
            closed[node] = of_light == of_heavy or (mass[light] < min_mass and best == of_heavy)
    return Subtrees(mass, values, closed)
