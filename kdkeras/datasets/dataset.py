"""A data set in three fixed splits, and how one is split off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

_SEED = 0  # of every split; changing it would change all published numbers
_SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """One data set in three splits.

    Images are float32 `(n, height, width, 1)` in [0, 1]. Tables are float32 `(n, features)`, standardised with the
    mean and the standard deviation of the training split alone. Class labels are int32 `(n,)`; regression targets
    are float32 `(n,)`, standardised in the same way: `y * target_scale + target_mean` is the original unit.

    Attributes:
        name: Name that `load` knows.
        task: `"classification"` or `"regression"`.
        kind: `"image"` or `"tabular"`.
        x_train: Features to train on.
        y_train: Targets to train on.
        x_valid: Features to choose and to calibrate by.
        y_valid: Targets to choose by.
        x_test: Features for the last measurement alone.
        y_test: Targets for the last measurement alone.
        class_names: Name of each class by label; empty for regression.
        feature_names: Name of each column; empty for images.
        source: Where the data come from, and their licence.
        target_mean: Mean of the training targets in their unit; 0 for classification.
        target_scale: Standard deviation of the training targets in their unit; 1 for classification.

    Example:
        >>> from kdkeras import datasets
        >>> data = datasets.digits()
        >>> data.input_shape, data.num_classes, len(data.x_train), len(data.x_valid), len(data.x_test)
        ((8, 8, 1), 10, 1077, 360, 360)
    """

    name: str
    task: Literal["classification", "regression"]
    kind: Literal["image", "tabular"]
    x_train: np.ndarray
    y_train: np.ndarray
    x_valid: np.ndarray
    y_valid: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    source: str
    target_mean: float = 0.0
    target_scale: float = 1.0

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for regression."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.x_train.shape[1:])

    def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return features and targets of one split.

        Args:
            split: `"train"`, `"valid"` or `"test"`.

        Returns:
            The pair `(x, y)`.

        Raises:
            ValueError: `split` is none of the three.
        """
        if split not in _SPLITS:
            raise ValueError(f"`split` must be one of {', '.join(_SPLITS)}. Received: split={split!r}.")
        return getattr(self, f"x_{split}"), getattr(self, f"y_{split}")

    def tf_data(self, split: str, batch_size: int = 32, shuffle_seed: int | None = None) -> tf.data.Dataset:
        """Return one split as batches of `(x, y)`.

        Args:
            split: `"train"`, `"valid"` or `"test"`.
            batch_size: Samples per batch, 32 as in Keras' `fit`; the last batch may be smaller.
            shuffle_seed: With a seed, the samples are shuffled anew in each epoch, the same way in each run.
                Without, they keep their order.

        Returns:
            A `tf.data.Dataset` of `(features, targets)` batches.

        Raises:
            ValueError: `split` is unknown or `batch_size` is below 1.

        Example:
            >>> from kdkeras import datasets
            >>> x, y = next(iter(datasets.wine().tf_data("train", batch_size=16, shuffle_seed=0)))
            >>> x.shape, y.shape
            (TensorShape([16, 13]), TensorShape([16]))
        """
        import tensorflow as tf

        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}.")
        arrays = self.arrays(split)
        batches = tf.data.Dataset.from_tensor_slices(arrays)
        if shuffle_seed is not None:
            batches = batches.shuffle(len(arrays[0]), seed=shuffle_seed)
        return batches.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def split_off(x: np.ndarray, y: np.ndarray, strata: np.ndarray, size: int) -> list[np.ndarray]:
    """Split `size` samples off, with the same share of each stratum, and the same ones at each call.

    Args:
        x: Features, `(n, ...)`.
        y: Targets, `(n,)`.
        strata: Group of each sample, `(n,)`.
        size: Number of samples to split off.

    Returns:
        `[x_rest, x_split, y_rest, y_split]`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.datasets.dataset import split_off
        >>> labels = np.repeat([0, 1], 10)
        >>> np.bincount(split_off(np.arange(20), labels, labels, size=4)[3])
        array([2, 2])
    """
    from sklearn.model_selection import train_test_split

    return train_test_split(x, y, test_size=size, stratify=strata, random_state=_SEED)
