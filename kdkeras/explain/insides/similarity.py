"""How alike the layers of two models are: linear centred kernel alignment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kdkeras.explain.insides.features import batches_of_features, feature_layers
from kdkeras.explain.subject import prepared
from kdkeras.inputs import check_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEWEST = 4  # the unbiased estimator divides by n (n − 3)


@dataclass(frozen=True, eq=False)
class LayerSimilarity:
    """How alike the layers of two models are.

    Attributes:
        teacher: Name of the teacher.
        student: Name of the student.
        teacher_layers: Paths of its layers, in the order in which they are called.
        student_layers: Paths of the student's.
        values: Linear CKA of each pair, float64 `(teacher layers, student layers)`: 1 for the same representation up to
            rotation and scale, around 0 for unrelated ones (the estimate is unbiased, so it can be below 0); NaN where
            a layer returns the same for every sample.
    """

    teacher: str
    student: str
    teacher_layers: tuple[str, ...]
    student_layers: tuple[str, ...]
    values: np.ndarray = field(repr=False)

    @property
    def nearest(self) -> dict[str, tuple[str, float]]:
        """The teacher's most similar layer of each of the student's, and their similarity: where hints may come from.

        A layer that returns the same for every sample has none.
        """
        found = {}
        for column, path in enumerate(self.student_layers):
            values = self.values[:, column]
            if not np.isnan(values).all():
                row = int(np.nanargmax(values))
                found[path] = self.teacher_layers[row], float(values[row])
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain Python values, ready for JSON: NaN becomes `None`."""
        return {
            "teacher": self.teacher,
            "student": self.student,
            "teacher_layers": list(self.teacher_layers),
            "student_layers": list(self.student_layers),
            "values": [[None if np.isnan(value) else float(value) for value in row] for row in self.values],
        }

    def __str__(self) -> str:
        from tabulate import tabulate

        rows = [(path, theirs, f"{value:.3f}") for path, (theirs, value) in self.nearest.items()]
        table = tabulate(rows, ("student's layer", "nearest of the teacher", "CKA"), disable_numparse=True)
        return f"linear CKA of '{self.student}' with '{self.teacher}'\n{table}"

    def plot(self) -> Figure:
        """Draw the similarities as a heat map, the teacher's layers from the bottom up; a dot marks each nearest one.

        Returns:
            A matplotlib `Figure`, not registered with pyplot.
        """
        from kdkeras.explain.insides.pictures import similarity_map

        return similarity_map(self)


def layer_similarity(
    teacher: keras.Model,
    student: keras.Model,
    x: Any,
    *,
    teacher_layers: Sequence[str] | None = None,
    student_layers: Sequence[str] | None = None,
    batch_size: int = 128,
) -> LayerSimilarity:
    """Compare what the layers of two models make of the same samples.

    Linear CKA of representations X and Y (samples × values, of all positions and channels) is

        HSIC(XXᵀ, YYᵀ) / √(HSIC(XXᵀ, XXᵀ) · HSIC(YYᵀ, YYᵀ)),

    blind to rotations and to the scale of a representation. HSIC is the unbiased estimate of a batch, averaged over the
    batches before the division, as Nguyen et al. have it: samples beyond one batch cost time and no memory.

    Args:
        teacher: A Keras model.
        student: Another, that takes the same inputs.
        x: Samples, scaled as in training; for several inputs, a list or dict of arrays. A few hundred are enough.
        teacher_layers: Paths of the teacher's layers; by default each one called that has a kernel.
        student_layers: Paths of the student's; likewise.
        batch_size: Samples per batch, at least 4. Default 128: larger batches give a steadier estimate.

    Returns:
        The `LayerSimilarity`.

    Raises:
        TypeError: x is not of arrays.
        ValueError: There are fewer than 4 samples, or a layer does not exist.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> layers = [keras.layers.Dense(8, activation="relu", name="hidden"), keras.layers.Dense(3, name="logits")]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> similarity = explain.layer_similarity(model, model, np.random.default_rng(0).normal(size=(32, 4)))
        >>> similarity.values.diagonal().round(6).tolist(), similarity.nearest["logits"][0]
        ([1.0, 1.0], 'logits')

    Reference:
        Kornblith, Norouzi, Lee, Hinton: Similarity of Neural Network Representations Revisited, 2019, arXiv:1905.00414.
        Nguyen, Raghu, Kornblith: Do Wide and Deep Networks Learn the Same Things?, 2021, arXiv:2010.15327.
    """
    check_count("batch_size", batch_size)
    theirs, ours = prepared(teacher, x), prepared(student, x)
    samples = len(keras.tree.flatten(ours)[0])
    if min(samples, batch_size) < _FEWEST:
        raise ValueError(
            f"Linear CKA needs at least {_FEWEST} samples in a batch. Received: {samples} samples in batches of "
            f"{batch_size}."
        )
    rows = feature_layers(teacher, theirs, teacher_layers)
    columns = feature_layers(student, ours, student_layers)
    pairs = zip(
        batches_of_features(teacher, theirs, rows, batch_size),
        batches_of_features(student, ours, columns, batch_size),
        strict=True,
    )
    across, own_rows, own_columns = np.zeros((len(rows), len(columns))), np.zeros(len(rows)), np.zeros(len(columns))
    for their_features, our_features in pairs:
        if len(our_features[columns[0]]) < _FEWEST:
            continue  # what is left over at the end
        their_kernels, our_kernels = _kernels(their_features), _kernels(our_features)
        across += _hsic(their_kernels, our_kernels)
        own_rows += _hsic(their_kernels, their_kernels).diagonal()
        own_columns += _hsic(our_kernels, our_kernels).diagonal()
    sizes = np.outer(own_rows, own_columns)
    values = np.where(sizes > 0, across / np.sqrt(np.where(sizes > 0, sizes, 1)), np.nan)
    return LayerSimilarity(teacher.name, student.name, tuple(rows), tuple(columns), values)


def _kernels(features: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the products of all pairs of samples in each layer, `(layers, n, n)`, without those with themselves."""
    kernels = []
    for each in features.values():
        rows = each.reshape(len(each), -1).astype("float64")
        # Less the mean: no difference to HSIC, but large means do not drown small differences.
        centred = np.zeros_like(rows) if (rows == rows[0]).all() else rows - rows.mean(axis=0)
        kernel = centred @ centred.T / rows.shape[1]
        np.fill_diagonal(kernel, 0)
        kernels.append(kernel)
    return np.stack(kernels)


def _hsic(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the unbiased estimate of Song et al. (2012) for all pairs of two stacks of kernels with diagonals of 0."""
    n = first.shape[-1]
    products = first.reshape(len(first), -1) @ second.reshape(len(second), -1).T
    sums = first.sum(axis=-1), second.sum(axis=-1)
    whole = np.outer(sums[0].sum(axis=-1), sums[1].sum(axis=-1)) / ((n - 1) * (n - 2))
    return (products + whole - 2 / (n - 2) * sums[0] @ sums[1].T) / (n * (n - 3))
