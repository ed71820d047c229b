"""Explanations by looking at what happens when parts of the input are hidden: any model, no gradient."""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

import keras
import numpy as np

from kdkeras.explain.baselines import baseline_of
from kdkeras.explain.method import Method
from kdkeras.explain.subject import Subject


class Occlusion(Method):
    """How much the logit falls when a part of the input is hidden.

    Of images a window slides over them, and each pixel has the mean fall of the windows that cover it; elsewhere
    each value, or each position of a sequence, is hidden by itself.

    Args:
        window: Side of the window in pixels. By default an eighth of the shorter side.
        stride: Pixels from window to window. By default half a window.
        baseline: What is put in the place of the hidden part: a number, an array that broadcasts to the samples, or
            `"blur"`. By default 0, and the mean of the given samples for tables.

    Raises:
        ValueError: A number is below 1, or the window larger than the images; or the baseline does not fit.

    Example:
        >>> from kdkeras import explain
        >>> explain.Occlusion(window=8, stride=4).window
        8

    Reference:
        Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, 2014, arXiv:1311.2901.
    """

    name: ClassVar[str] = "occlusion"
    title: ClassVar[str] = "Occlusion"

    def __init__(self, window: int | None = None, stride: int | None = None, baseline: Any = None) -> None:
        for given, value in (("window", window), ("stride", stride)):
            if value is not None and value < 1:
                raise ValueError(f"`Occlusion` needs a {given} of at least 1. Received: {value}.")
        self.window, self.stride, self.baseline = window, stride, baseline

    def maps(self, subject: Subject, layer: str | None) -> np.ndarray:
        """Return the maps, with sign: what speaks for the target is positive."""
        x = subject.array
        hidden = baseline_of(x, self.baseline).astype(x.dtype)
        before = subject.scores()
        total = np.zeros(x.shape[:3] if x.ndim == 4 else x.shape, "float64")
        count = np.zeros(total.shape[1:], "int64")
        for part in self._parts(x.shape):
            changed = x.copy()
            changed[part] = hidden[part]
            fall = before - subject.scores(changed)
            total[part] += fall.reshape(-1, *[1] * (total[part].ndim - 1))
            count[part[1:]] += 1
        return (total / count).astype("float32")

    def _parts(self, shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
        """Return what is hidden at a time."""
        everyone = slice(None)
        if len(shape) != 4:
            return [(everyone, *(slice(i, i + 1) for i in place)) for place in np.ndindex(*shape[1:])]
        sides = shape[1:3]
        window = self.window or max(1, min(sides) // 8)
        if window > min(sides):
            raise ValueError(f"`Occlusion` needs a window within the images. Received: {window} for {sides}.")
        stride = self.stride or max(1, window // 2)
        starts = [[*range(0, side - window, stride), side - window] for side in sides]
        windows = ((slice(row, row + window), slice(left, left + window)) for row, left in itertools.product(*starts))
        return [(everyone, *each) for each in windows]


class RISE(Method):
    """By how much the target's probability is above its mean when a place is seen: a mean of random masks.

    Each mask is weighed by the probability when the input is seen through it, less the mean of these probabilities;
    the mean is divided by the share that is kept. The paper subtracts nothing, which adds the same number everywhere.
    Masks of images are coarse random grids, enlarged with a random shift; those of tables and sequences hide each
    value by itself. What is hidden is 0.

    Args:
        masks: Number of masks; each costs a forward pass. Default 500; the paper has 4,000 to 8,000 for ImageNet, and
            maps of few masks are noisy.
        cells: Cells of the grid along each side. Default 7, as in the paper.
        keep: Probability that a cell is seen. Default 0.5, as in the paper.
        seed: Seed of the masks.

    Raises:
        ValueError: A number is below 1, or `keep` not between 0 and 1.

    Example:
        >>> from kdkeras import explain
        >>> explain.RISE(masks=2000).masks
        2000

    Reference:
        Petsiuk, Das, Saenko: RISE: Randomized Input Sampling for Explanation of Black-box Models, 2018,
        arXiv:1806.07421.
    """

    name: ClassVar[str] = "rise"
    title: ClassVar[str] = "RISE"

    def __init__(self, masks: int = 500, cells: int = 7, keep: float = 0.5, *, seed: int = 0) -> None:
        if masks < 1 or cells < 1:
            raise ValueError(f"`RISE` needs masks and cells of at least 1. Received: masks={masks}, cells={cells}.")
        if not 0 < keep < 1:
            raise ValueError(f"`RISE` needs keep between 0 and 1. Received: {keep}.")
        self.masks, self.cells, self.keep, self.seed = masks, cells, keep, seed

    def maps(self, subject: Subject, layer: str | None) -> np.ndarray:
        """Return the maps, with sign."""
        x, random = subject.array, np.random.default_rng(self.seed)
        images = x.ndim == 4
        total = np.zeros(x.shape[:3] if images else x.shape, "float64")
        scores, seen_at_all = np.zeros(len(x)), np.zeros(total.shape[1:])
        for _ in range(self.masks):
            mask = self._grid(x.shape[1:3], random) if images else random.random(x.shape[1:]) < self.keep
            seen = (x * (mask[..., None] if images else mask)).astype(x.dtype)
            score = subject.scores(seen, "probability")
            total += np.multiply.outer(score, mask)
            scores += score
            seen_at_all += mask
        mean = np.multiply.outer(scores / self.masks, seen_at_all)
        return ((total - mean) / (self.masks * self.keep)).astype("float32")

    def _grid(self, sides: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
        """Return a mask in [0, 1] of the size of the images."""
        cell = [math.ceil(side / self.cells) for side in sides]
        grid = (random.random((self.cells + 1, self.cells + 1, 1)) < self.keep).astype("float32")
        size = [(self.cells + 1) * length for length in cell]
        large = np.asarray(keras.ops.image.resize(grid, size, interpolation="bilinear", data_format="channels_last"))
        top, left = (int(random.integers(0, length)) for length in cell)
        return large[top : top + sides[0], left : left + sides[1], 0]
