"""Data of which teacher and student see the same augmented view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kdkeras.losses.base import checked_number


class SameViews(keras.utils.PyDataset):
    """Batches of inputs that are augmented before any model sees them, so that all see the same pixels.

    An augmentation inside the student, or in the pipeline of one model only, lets the teacher answer for another image
    than the student is asked about. Here a batch is cropped, flipped and mixed once, and given to both.

    With `mixup`, each sample is mixed with its neighbour in the batch, x̃_i = λ x_i + (1 − λ) x_{i−1}, with one λ for
    the batch, uniform between 0 and 1: the "aggressive" mixup of the paper, by which images reach beyond those there
    are. There are no labels to be mixed: the teacher answers for the mixture.

    Order and λ follow from seed, epoch and batch alone; pass `shuffle=False` to `fit`, as `function_matching` does, or
    Keras shuffles the batches once more. With `Resume(also=[views])` a training goes on exactly, if `augment` has no
    state of its own.

    Args:
        x: Inputs: an array, or a nest of arrays.
        batch_size: Samples per batch. Default 32.
        augment: A Keras layer (called with `training=True`) or a function of a batch of inputs that returns the
            augmented batch, such as `keras.Sequential([keras.layers.RandomCrop(24, 24), keras.layers.RandomFlip()])`.
        mixup: Whether samples are mixed after that. Default `True`.
        seed: Seed of order and mixture. Default 0.
        **kwargs: Arguments of `keras.utils.PyDataset`.

    Raises:
        TypeError: `augment` is no function.
        ValueError: There are no samples, or the arrays differ in length.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.schemes import SameViews
        >>> views = SameViews(np.random.rand(8, 6, 6, 1), 4, augment=keras.layers.RandomCrop(4, 4))
        >>> len(views), views[0][0].shape
        (2, (4, 4, 4, 1))

    Reference:
        Beyer et al.: Knowledge distillation: A good teacher is patient and consistent, CVPR 2022, arXiv:2106.05237.
        Mixture as in its code, `big_vision/utils.py: get_mixup` with p=1.
    """

    def __init__(
        self,
        x: Any,
        batch_size: int = 32,
        *,
        augment: Callable[[Any], Any] | None = None,
        mixup: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if augment is not None and not callable(augment):
            raise TypeError(
                f"`SameViews` needs a layer or a function as `augment`. Received: {type(augment).__name__}."
            )
        checked_number("SameViews", "batch_size", batch_size, minimum=1)
        self.x = keras.tree.map_structure(np.asarray, x)
        lengths = {len(np.atleast_1d(array)) for array in keras.tree.flatten(self.x)}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                f"`SameViews` needs arrays of one length, at least 1. Received: lengths {sorted(lengths)}. Pass as "
                "many samples in each."
            )
        self.samples = lengths.pop()
        self.batch_size, self.augment, self.mixup, self.seed = batch_size, augment, mixup, seed
        self.epoch = 0
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Any]:
        rows = self._rows()[index * self.batch_size : (index + 1) * self.batch_size]
        views = keras.tree.map_structure(lambda array: array[rows], self.x)
        if self.augment is not None:
            training = {"training": True} if isinstance(self.augment, keras.layers.Layer) else {}
            views = keras.tree.map_structure(keras.ops.convert_to_numpy, self.augment(views, **training))
        if self.mixup:
            share = np.random.default_rng([self.seed, self.epoch, index]).random()
            views = keras.tree.map_structure(lambda view: _mixed(view, share), views)
        return (views,)

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        self.epoch += 1

    def _rows(self) -> np.ndarray:
        """Return the order of this epoch, kept while it lasts."""
        if self._order is None or self._order[0] != self.epoch:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.samples)
            self._order = (self.epoch, order)
        return self._order[1]


def _mixed(values: np.ndarray, share: float) -> np.ndarray:
    values = values if values.dtype.kind == "f" else values.astype("float32")
    return (share * values + (1 - share) * np.roll(values, 1, axis=0)).astype(values.dtype)
