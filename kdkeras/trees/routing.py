"""How a sample spreads over a soft tree: path probabilities, leaf choices and the balance of the splits.

Nodes and leaves are numbered like a heap: node 0 is the root, the children of node i are 2i + 1 (left) and
2i + 2 (right), level d holds nodes 2^d − 1 … 2^(d+1) − 2, and leaves are counted from left to right.
All functions are pure `keras.ops` and loop over levels, never over nodes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

MODES = ("mixture", "best_leaf", "greedy")


def node_depths(depth: int) -> np.ndarray:
    """Return the level of every inner node of a full tree.

    Args:
        depth: Number of levels of splits.

    Returns:
        Integers of shape (2^depth − 1,): 0 for the root, then 1, 1, 2, 2, 2, 2, …

    Example:
        >>> from kdkeras.trees.routing import node_depths
        >>> node_depths(3)
        array([0, 1, 1, 2, 2, 2, 2])
    """
    return np.repeat(np.arange(depth), 2 ** np.arange(depth))


def log_path_probabilities(node_logits: Any) -> Any:
    """Return the log-probability of the path to every leaf: log P_ℓ = Σ over the path of log σ(±z).

    Args:
        node_logits: Tensor of shape (batch, 2^depth − 1), z of every node; positive leans right.

    Returns:
        Tensor of shape (batch, 2^depth).

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.routing import log_path_probabilities
        >>> log_path = log_path_probabilities(np.log([[3.0, 1.0, 1.0]]))  # right with 3/4, then a coin
        >>> np.exp(log_path).round(3)
        array([[0.125, 0.125, 0.375, 0.375]])
    """
    log_right = ops.log_sigmoid(node_logits)
    turns = ops.stack([log_right - node_logits, log_right], axis=-1)  # log σ(−z) = log σ(z) − z: (b, nodes, 2)
    log_reach = ops.zeros_like(node_logits[:, :1])
    for branches in _levels(turns):  # (b, 2^d, 2)
        log_reach = ops.reshape(log_reach[:, :, None] + branches, (-1, 2 * branches.shape[1]))  # (b, 2^(d+1))
    return log_reach


def reach_probabilities(node_logits: Any) -> tuple[Any, Any]:
    """Return the probabilities that a sample reaches each inner node and each leaf.

    The same products as `log_path_probabilities`, in linear space: for predictions, where an underflow to zero
    is the right answer and where the operations convert to integer TFLite, and for the balance of the splits.

    Args:
        node_logits: Tensor of shape (batch, 2^depth − 1).

    Returns:
        The pair of (batch, 2^depth − 1) for nodes, every level summing to 1, and (batch, 2^depth) for leaves.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.routing import reach_probabilities
        >>> nodes, leaves = reach_probabilities(np.log([[3.0, 1.0, 1.0]]))
        >>> np.asarray(nodes).round(3)
        array([[1.  , 0.25, 0.75]])
        >>> np.asarray(leaves).round(3)
        array([[0.125, 0.125, 0.375, 0.375]])
    """
    reach = ops.ones_like(node_logits[:, :1])
    nodes = []
    for logits in _levels(node_logits):  # (b, 2^d)
        nodes.append(reach)
        right = ops.sigmoid(logits)
        branches = ops.stack([1.0 - right, right], axis=-1)  # (b, 2^d, 2)
        reach = ops.reshape(reach[:, :, None] * branches, (-1, 2 * logits.shape[1]))  # (b, 2^(d+1))
    return ops.concatenate(nodes, axis=1), reach


def masses(leaf_mass: Any) -> tuple[Any, Any]:
    """Return what reaches each inner node, and what turns right there, from what reaches the leaves.

    Args:
        leaf_mass: Tensor of shape (2^depth,), such as the mean of the path probabilities over a batch.

    Returns:
        The pair of two tensors of shape (2^depth − 1,): the mean of P_i, and the mean of P_i p_i.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.routing import masses
        >>> mass, right = masses(np.array([0.125, 0.125, 0.375, 0.375]))
        >>> np.asarray(mass), np.asarray(right)
        (array([1.  , 0.25, 0.75]), array([0.75 , 0.125, 0.375]))
    """
    levels = []
    below = leaf_mass
    while below.shape[0] > 1:
        pairs = ops.reshape(below, (-1, 2))  # (2^d, 2): left and right child of each node
        below = ops.sum(pairs, axis=1)
        levels.append((below, pairs[:, 1]))
    mass, right = zip(*reversed(levels), strict=True)
    return ops.concatenate(mass), ops.concatenate(right)


def best_leaf(node_logits: Any) -> Any:
    """Return the leaf that a sample reaches with the greatest probability.

    Args:
        node_logits: Tensor of shape (batch, 2^depth − 1).

    Returns:
        Leaf numbers of shape (batch,).

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.routing import best_leaf
        >>> int(best_leaf(np.log([[1.5, 9.0, 1.0]]))[0])  # .4 · .9 beats .6 · .5
        1
    """
    return ops.argmax(log_path_probabilities(node_logits), axis=-1)


def greedy_leaf(node_logits: Any) -> Any:
    """Return the leaf that a sample reaches by taking the likelier branch at every split.

    It can differ from `best_leaf`: a likely branch may spread over many leaves.

    Args:
        node_logits: Tensor of shape (batch, 2^depth − 1).

    Returns:
        Leaf numbers of shape (batch,).

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.routing import greedy_leaf
        >>> int(greedy_leaf(np.log([[1.5, 9.0, 1.0]]))[0])
        2
    """
    position = ops.zeros_like(node_logits[:, 0], dtype="int32")  # within the level
    for logits in _levels(node_logits):  # (b, 2^d)
        here = ops.take_along_axis(logits, position[:, None], axis=1)[:, 0]
        position = 2 * position + ops.cast(here > 0, "int32")
    return position


def choose_leaf(node_logits: Any, mode: str) -> Any:
    """Return the one leaf of `mode`, "best_leaf" or "greedy", with shape (batch,)."""
    return best_leaf(node_logits) if mode == "best_leaf" else greedy_leaf(node_logits)


def path_nodes(leaves: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes on the way from the root to each leaf, and the turns taken there.

    Args:
        leaves: Leaf numbers of shape (n,).
        depth: Number of levels of splits.

    Returns:
        Node numbers of shape (n, depth), and booleans of the same shape: True where the path turns right.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.routing import path_nodes
        >>> nodes, right = path_nodes(np.array([5]), depth=3)
        >>> nodes, right
        (array([[0, 2, 5]]), array([[ True, False,  True]]))
    """
    heights = depth - np.arange(depth)  # levels left below each node of the path
    nodes = (leaves[:, None] >> heights) + 2 ** np.arange(depth) - 1
    right = (leaves[:, None] >> (heights - 1)) & 1
    return nodes, right.astype(bool)


def _levels(node_logits: Any) -> list[Any]:
    """Split (b, 2^depth − 1, ...) into one (b, 2^d, ...) tensor per level d."""
    depth = int(node_logits.shape[1]).bit_length()
    return [node_logits[:, 2**d - 1 : 2 ** (d + 1) - 1] for d in range(depth)]
