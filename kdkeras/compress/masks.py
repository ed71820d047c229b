"""Which weights of a kernel stay: the largest, one by one, in groups or in blocks."""

from __future__ import annotations

import numpy as np


def magnitude_mask(weights: np.ndarray, sparsity: float) -> np.ndarray:
    """Return where the largest weights are.

    Args:
        weights: Weights of any shape.
        sparsity: Share that goes, in [0, 1]; the number is rounded.

    Returns:
        Booleans of the same shape; of equal magnitudes the first go.

    Example:
        >>> import numpy as np
        >>> from kdkeras.compress.masks import magnitude_mask
        >>> magnitude_mask(np.array([3.0, -1.0, 0.5, -2.0]), 0.5)
        array([ True, False, False,  True])
    """
    mask = np.ones(weights.size, bool)
    mask[np.argsort(np.abs(weights), axis=None, kind="stable")[: round(sparsity * weights.size)]] = False
    return mask.reshape(weights.shape)


def group_mask(weights: np.ndarray, sparsity: float, *, axis: int, group: int = 4, most: int = 2) -> np.ndarray:
    """Return where the largest weights of each group are, as hardware for '2 of 4' wants them.

    Args:
        weights: Weights of any shape.
        sparsity: Share that goes from each group; the number is rounded down, and is `most` at most.
        axis: The axis along which neighbours form groups. A rest that makes no whole group stays.
        group: Weights in a group. Default 4.
        most: Most zeros in a group. Default 2.

    Returns:
        Booleans of the same shape.

    Example:
        >>> import numpy as np
        >>> from kdkeras.compress.masks import group_mask
        >>> group_mask(np.array([3.0, -1.0, 0.5, -2.0, 9.0]), 0.5, axis=0)
        array([ True, False, False,  True,  True])
    """
    moved = np.moveaxis(np.abs(weights), axis, -1)
    whole = moved.shape[-1] // group * group
    groups = moved[..., :whole].reshape(*moved.shape[:-1], -1, group)
    ranks = groups.argsort(axis=-1, kind="stable").argsort(axis=-1)
    mask = np.ones(moved.shape, bool)
    mask[..., :whole] = (ranks >= min(int(sparsity * group + 1e-6), most)).reshape(*moved.shape[:-1], whole)
    return np.moveaxis(mask, -1, axis)


def block_mask(weights: np.ndarray, sparsity: float, *, block: tuple[int, int]) -> np.ndarray:
    """Return where the blocks with the largest mean magnitude are.

    Args:
        weights: Weights `(..., inputs, outputs)`: all axes but the last together are the rows of a matrix.
        sparsity: Share of the blocks that goes; the number is rounded.
        block: Rows and columns of a block. Those at the edges may be smaller.

    Returns:
        Booleans of the same shape.

    Example:
        >>> import numpy as np
        >>> from kdkeras.compress.masks import block_mask
        >>> block_mask(np.array([[1.0, 2.0, 0.1], [1.0, 2.0, 0.1]]), 0.5, block=(2, 2))
        array([[ True,  True, False],
               [ True,  True, False]])
    """
    matrix = np.abs(weights.reshape(-1, weights.shape[-1]))
    rows, columns = (np.arange(size) // length for size, length in zip(matrix.shape, block, strict=True))
    blocks = np.zeros((rows[-1] + 1, columns[-1] + 1))
    np.add.at(blocks, (rows[:, None], columns[None]), matrix)
    sizes = np.bincount(rows)[:, None] * np.bincount(columns)[None]
    return magnitude_mask(blocks / sizes, sparsity)[rows[:, None], columns[None]].reshape(weights.shape)
