"""The pointing game: does the most relevant place lie where it should?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdkeras.explain.explanation import Explanation
from kdkeras.explain.measures.attributions import attributions_of, is_constant


def pointing_game(
    explanation: Explanation | Any, *, boxes: Sequence[Any] | None = None, masks: Any = None, tolerance: float = 0
) -> np.ndarray:
    """Score whether the largest value of each map lies within the region of its object.

    Args:
        explanation: An `Explanation`, whose `maps` are taken, or maps `(n, height, width)`.
        boxes: Of each sample one box or several, in pixels: `(top, left, bottom, right)`, the last two exclusive, so
            that a box is `map[top:bottom, left:right]`. Shape `(n, 4)`, or a sequence of n arrays `(k, 4)`.
        masks: In place of boxes, the regions themselves: boolean, or 0 and 1, shape `(n, height, width)`.
        tolerance: How far outside of the region, in pixels, the largest value may lie. 0; the paper has 15, on
            photographs of some hundred pixels.

    Returns:
        1 for a hit, 0 for a miss, float64 `(n,)`; the share of hits where several places are equally large. NaN for
        constant maps, which point nowhere, and for samples without a region. The mean is the game's accuracy.

    Raises:
        ValueError: Not exactly one of `boxes` and `masks` is given, or they do not fit the maps.

    Example:
        >>> import numpy as np
        >>> from kdkeras import explain
        >>> maps = np.zeros((2, 4, 4))
        >>> maps[:, 1, 2] = 1
        >>> explain.pointing_game(maps, boxes=[(0, 2, 2, 4), (2, 0, 4, 4)])
        array([1., 0.])

    Reference:
        Zhang, Lin, Brandt, Shen and Sclaroff, "Top-down neural attention by excitation backprop", 2018.
    """
    maps = attributions_of(explanation)
    if maps.ndim != 3:
        raise ValueError(f"The pointing game needs maps of shape (n, height, width). Received: shape {maps.shape}.")
    if (boxes is None) == (masks is None):
        raise ValueError("The pointing game needs either `boxes` or `masks`. Received: both or neither.")
    if not tolerance >= 0:
        raise ValueError(f"`tolerance` must be at least 0 pixels. Received: tolerance={tolerance}.")
    regions = _boxed(boxes, maps.shape) if masks is None else _masked(masks, maps.shape)
    known = regions.any(axis=(1, 2)) & ~is_constant(maps)
    hits = np.full(len(maps), np.nan)
    for i in np.flatnonzero(known):
        largest = maps[i] == maps[i].max()
        hits[i] = _widened(regions[i], tolerance)[largest].mean()
    return hits


def _widened(region: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the region with all places that are at most `tolerance` pixels away from it."""
    from scipy import ndimage

    return ndimage.distance_transform_edt(~region) <= tolerance


def _masked(masks: Any, shape: tuple[int, ...]) -> np.ndarray:
    masks = np.asarray(masks)
    if masks.shape != shape or not np.isin(masks, (0, 1)).all():
        raise ValueError(
            f"`masks` must be boolean, or 0 and 1, of the maps' shape {shape}. Received: shape {masks.shape} of "
            f"{masks.dtype}. Resize them to the images, and compare them with a threshold."
        )
    return masks.astype(bool)


def _boxed(boxes: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Return the boxes as masks."""
    if len(boxes) != shape[0]:
        raise ValueError(f"`boxes` must hold one entry per map. Received: {len(boxes)} for {shape[0]} maps.")
    regions = np.zeros(shape, dtype=bool)
    for region, given in zip(regions, boxes, strict=True):
        given = np.asarray(given, dtype="float64").reshape(-1, 4) if np.size(given) % 4 == 0 else np.asarray(given)
        for box in given:
            _check_box(box, shape)
            top, left, bottom, right = box.astype(int)
            region[top:bottom, left:right] = True
    return regions


def _check_box(box: np.ndarray, shape: tuple[int, ...]) -> None:
    fits = np.shape(box) == (4,) and (box == box.astype(int)).all()
    fits = fits and 0 <= box[0] < box[2] <= shape[1] and 0 <= box[1] < box[3] <= shape[2]
    if not fits:
        raise ValueError(
            f"A box must be whole pixels (top, left, bottom, right) within maps of {shape[1]}×{shape[2]}, the last two "
            f"exclusive. Received: {np.asarray(box).tolist()}. Scale and round the boxes to the images first."
        )
