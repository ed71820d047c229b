"""Which class a single unit stands for, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kdkeras.explain.insides.features import batches_of_features, feature_layers
from kdkeras.explain.layer_choice import last_map_layer
from kdkeras.explain.subject import prepared
from kdkeras.inputs import check_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class ClassSelectivity:
    """How much each unit of a layer stands for one class.

    Attributes:
        model: Name of the model.
        layer: Path of the layer.
        means: Mean activation of each unit for each class, float64 `(classes, units)`, at least 0.
        index: Selectivity of each unit, in [0, 1], shape `(units,)`: 0 where all classes move it alike, 1 where a
            single class does. NaN for a unit that never speaks.
        preferred: The class that moves each unit most, shape `(units,)`; −1 for a unit that never speaks.
    """

    model: str
    layer: str
    means: np.ndarray = field(repr=False)
    index: np.ndarray = field(repr=False)
    preferred: np.ndarray = field(repr=False)

    @property
    def silent(self) -> int:
        """Number of units that never speak."""
        return int(np.isnan(self.index).sum())

    def table(self, class_names: Sequence[str] = ()) -> list[tuple[str, ...]]:
        """Return the classes as text: a header, then per class how many units prefer it and how selective they are.

        Args:
            class_names: Name of each class; by default its index.
        """
        lines = [("class", "units", "mean selectivity", "most selective unit")]
        for label in range(len(self.means)):
            units = np.flatnonzero(self.preferred == label)
            name = class_names[label] if len(class_names) else str(label)
            best = units[self.index[units].argmax()] if len(units) else None
            figures = ("–", "–") if best is None else (f"{self.index[units].mean():.3f}", f"{best}")
            lines.append((name, f"{len(units)}", *figures))
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain Python values, ready for JSON: NaN becomes `None`."""
        return {
            "model": self.model,
            "layer": self.layer,
            "index": [None if np.isnan(value) else float(value) for value in self.index],
            "preferred": self.preferred.tolist(),
            "means": self.means.tolist(),
        }

    def __str__(self) -> str:
        from tabulate import tabulate

        header, *lines = self.table()
        said = "–" if self.silent == len(self.index) else f"{np.nanmean(self.index):.3f}"
        return (
            f"{len(self.index)} units of '{self.layer}' in '{self.model}': mean class selectivity {said}, "
            f"{self.silent} silent\n{tabulate(lines, header, disable_numparse=True)}"
        )

    def plot(self, *, class_names: Sequence[str] = ()) -> Figure:
        """Draw the mean activation of each unit for each class, units sorted by the class that they prefer.

        Args:
            class_names: Name of each class; by default its index.

        Returns:
            A matplotlib `Figure`, not registered with pyplot.
        """
        from kdkeras.explain.insides.pictures import selectivity_map

        return selectivity_map(self, class_names)


def class_selectivity(
    model: keras.Model, x: Any, y: Any, layer: str | None = None, *, batch_size: int = 128
) -> ClassSelectivity:
    """Return how much each unit of a layer stands for one class.

    For each unit, with μ the mean activation over the samples of a class (and over the positions, for feature maps):

        (μ_max − μ_rest) / (μ_max + μ_rest),

    μ_max of the class that moves it most, μ_rest the mean of the other classes' μ. Activations below 0 count as 0: the
    index is defined for what a ReLU lets through.

    Args:
        model: A Keras model.
        x: Samples, scaled as in training; for several inputs, a list or dict of arrays.
        y: Label of each sample, integers of at least 0, shape `(n,)`, of two classes or more.
        layer: Path of the layer; its last axis holds the units. By default the last one with positions, as for
            `attribute`; in models without, the last one before the output.
        batch_size: Samples per pass.

    Returns:
        The `ClassSelectivity`; a class of which there is no sample has a mean of 0 and is left out of the index.

    Raises:
        TypeError: x is not of arrays.
        ValueError: Labels do not fit the samples, or there is no such layer.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU(name="units"), keras.layers.Dense(2)])
        >>> found = explain.class_selectivity(model, [[1.0, 1.0], [0.0, 3.0]], [0, 1], "units")
        >>> found.index, found.preferred  # unit 0 speaks for class 0 alone; unit 1: (3 − 1) / (3 + 1)
        (array([1. , 0.5]), array([0, 1]))

    Reference:
        Morcos, Barrett, Rabinowitz, Botvinick: On the Importance of Single Directions for Generalization, 2018,
        arXiv:1803.06959.
    """
    check_count("batch_size", batch_size)
    x, labels = prepared(model, x), np.asarray(y)
    samples = len(keras.tree.flatten(x)[0])
    if labels.dtype.kind not in "iu" or labels.shape != (samples,) or labels.min() < 0:
        raise ValueError(
            f"`y` must be a label of at least 0 for each sample, integers of shape ({samples},). Received: shape "
            f"{labels.shape} of {labels.dtype}. One-hot rows become labels by `y.argmax(axis=1)`."
        )
    path = feature_layers(model, x, [layer or _usual_layer(model, x)])[0]
    means = np.concatenate([_unit_means(each[path]) for each in batches_of_features(model, x, [path], batch_size)])
    classes = int(labels.max()) + 1
    counts = np.bincount(labels, minlength=classes)
    if (counts > 0).sum() < 2:
        raise ValueError("Class selectivity needs samples of two classes or more. Received: samples of one class.")
    sums = np.zeros((classes, means.shape[1]))
    np.add.at(sums, labels, means)
    by_class = sums / np.maximum(counts, 1)[:, None]
    largest = by_class.max(axis=0)
    rest = (by_class[counts > 0].sum(axis=0) - largest) / ((counts > 0).sum() - 1)
    silent = largest == 0
    index = np.where(silent, np.nan, (largest - rest) / np.where(silent, 1, largest + rest))
    return ClassSelectivity(model.name, path, by_class, index, np.where(silent, -1, by_class.argmax(axis=0)))


def _unit_means(features: np.ndarray) -> np.ndarray:
    """Return the mean of what is above 0 over the positions, `(batch, units)`."""
    positive = np.maximum(features.astype("float64"), 0)
    return positive.reshape(len(features), -1, features.shape[-1]).mean(axis=1)


def _usual_layer(model: keras.Model, x: Any) -> str:
    try:
        return last_map_layer(model, keras.tree.map_structure(lambda array: array[:1], x))
    except ValueError:  # a model without positions
        return feature_layers(model, x)[-2:][0]
