"""Random subsets of the places of a sample."""

from __future__ import annotations

import numpy as np

from kdkeras.explain.measures.randomness import generators


class Subsets:
    """Random subsets of the places of each sample, all of one size.

    For images the subsets are made of the cells of a grid: single pixels hardly matter to a convolutional network, and
    many of them, drawn at random, are the same noise each time.

    Args:
        shape: Shape of one sample's attributions, without the sample axis: one axis, or height and width first.
        share: Share of the cells in a subset, in (0, 1).
        grid: Number of cells along height and width; at most one per pixel.
        seed: Seed. The subsets of a sample depend on it and on the sample's index alone.

    Raises:
        ValueError: `share` or `grid` is out of range, or there is only one cell to draw.

    Example:
        >>> from kdkeras.explain.measures.subsets import Subsets
        >>> Subsets((4, 4), share=0.25, grid=2, seed=0).draw([0], [0]).sum()  # one cell of four, of four pixels
        np.int64(4)
    """

    def __init__(self, shape: tuple[int, ...], *, share: float, grid: int, seed: int) -> None:
        if not 0 < share < 1:
            raise ValueError(f"`share` must be a share of the places in (0, 1), such as 0.2. Received: share={share}.")
        if grid < 1:
            raise ValueError(f"`grid` must be at least 1. Received: grid={grid}.")
        self._cells = _cells(shape, grid)
        self._count = int(self._cells.max()) + 1
        if self._count < 2:
            raise ValueError(
                f"Random subsets need at least 2 places to draw from. Received: attributions of shape {shape} and "
                f"grid={grid}."
            )
        self._size = min(max(1, round(share * self._count)), self._count - 1)
        self._seed = seed

    def draw(self, samples: np.ndarray, versions: np.ndarray) -> np.ndarray:
        """Return one subset for each pair of a sample's index and the number of the draw.

        Args:
            samples: Index of the sample, shape `(k,)`.
            versions: Number of the draw, shape `(k,)`.

        Returns:
            Boolean `(k, *shape)`.
        """
        chosen = np.zeros((len(samples), self._count), dtype=bool)
        for row, random in zip(chosen, generators(self._seed, samples, versions), strict=True):
            row[random.choice(self._count, self._size, replace=False)] = True
        return chosen[:, self._cells]


def _cells(shape: tuple[int, ...], grid: int) -> np.ndarray:
    """Return the number of the cell that each place lies in, for images those of a grid."""
    if len(shape) == 1:
        return np.arange(shape[0])
    height, width = shape[:2]
    rows = np.arange(height) * min(grid, height) // height
    columns = np.arange(width) * min(grid, width) // width
    cells = rows[:, np.newaxis] * min(grid, width) + columns
    return np.broadcast_to(cells.reshape(*cells.shape, *(1,) * (len(shape) - 2)), shape)
