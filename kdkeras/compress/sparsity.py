"""What became of a model's kernels: how many weights are zero, and how many values they have."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import keras
import numpy as np
from tabulate import tabulate

from kdkeras.compress.kernels import Kernel, kernels_of
from kdkeras.compress.quantized_kernel import QuantizedKernel
from kdkeras.layer_paths import first_paths


@dataclass(frozen=True)
class KernelSparsity:
    """The weights of one kernel.

    Attributes:
        path: Path of its layer.
        layer_type: Class of the layer.
        weights: Number of weights.
        zeros: How many of them are exactly zero.
        unique: How many values they have.
    """

    path: str
    layer_type: str
    weights: int
    zeros: int
    unique: int

    @property
    def share(self) -> float:
        """Share of zeros."""
        return self.zeros / self.weights


@dataclass(frozen=True)
class Sparsity:
    """The kernels of a model. `print(sparsity)` shows a table.

    Attributes:
        rows: One row per kernel, in the order of the model.
        parameters: Number of all weights of the model, those of biases and normalisation too.
        bytes: Size of the kernels in float32.
        zip_bytes: The same, compressed as in a zip file.
    """

    rows: tuple[KernelSparsity, ...]
    parameters: int
    bytes: int
    zip_bytes: int

    @property
    def weights(self) -> int:
        """Number of weights in all kernels."""
        return sum(row.weights for row in self.rows)

    @property
    def share(self) -> float:
        """Share of zeros in all kernels together."""
        return sum(row.zeros for row in self.rows) / self.weights

    @property
    def share_of_parameters(self) -> float:
        """Zeros in kernels as a share of all weights of the model."""
        return sum(row.zeros for row in self.rows) / self.parameters

    def __str__(self) -> str:
        body = [(row.path, row.layer_type, row.weights, f"{row.share:.1%}", row.unique) for row in self.rows]
        table = tabulate(body, headers=("kernel of", "type", "weights", "zero", "values"), intfmt=",")
        sizes = f"{self.bytes / 1000:,.1f} kB, zipped {self.zip_bytes / 1000:,.1f} kB"
        return (
            f"{table}\n{self.share:.1%} of {self.weights:,} weights in kernels are zero, "
            f"{self.share_of_parameters:.1%} of all {self.parameters:,}. {sizes}."
        )


def sparsity(model: keras.Model) -> Sparsity:
    """Count the zeros and the values of a model's kernels, as they are used: of rounded kernels the rounded ones.

    Args:
        model: A built model of any form.

    Returns:
        A `Sparsity`.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: It has no kernels.

    Example:
        >>> import keras
        >>> from kdkeras import compress
        >>> zeros = keras.layers.Dense(3, kernel_initializer="zeros", name="head")
        >>> print(compress.sparsity(keras.Sequential([keras.Input((4,)), zeros])))
        kernel of    type      weights  zero      values
        -----------  ------  ---------  ------  --------
        head         Dense          12  100.0%         1
        100.0% of 12 weights in kernels are zero, 80.0% of all 15. 0.0 kB, zipped 0.0 kB.
    """
    kernels = kernels_of(model)
    rounding = {layer.layer: layer for layer in first_paths(model) if isinstance(layer, QuantizedKernel)}
    values = [_used(kernel, rounding.get(kernel.layer)) for kernel in kernels]
    rows = [
        KernelSparsity(k.path, type(k.layer).__name__, w.size, int((w == 0).sum()), len(np.unique(w)))
        for k, w in zip(kernels, values, strict=True)
    ]
    content = b"".join(np.ascontiguousarray(array, "float32").tobytes() for array in values)
    return Sparsity(tuple(rows), model.count_params(), len(content), len(zlib.compress(content)))


def _used(kernel: Kernel, rounding: QuantizedKernel | None) -> np.ndarray:
    return keras.ops.convert_to_numpy(kernel.variable if rounding is None else rounding.rounded_kernel())
