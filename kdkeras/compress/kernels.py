"""Which weights of a model are kernels, to be pruned or shared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import keras

from kdkeras.compress.quantized_kernel import QuantizedKernel
from kdkeras.layer_paths import find_layer, layer_paths

Scope = Literal["kernels", "all"] | Sequence[str]

_NAMES = ("kernel", "recurrent_kernel", "pointwise_kernel", "depthwise_kernel")


class Kernel(NamedTuple):
    """A kernel of a model.

    Attributes:
        path: Path of its layer, with the name of the weight behind it where the layer has several kernels.
        layer: The layer.
        variable: The kernel.
    """

    path: str
    layer: keras.layers.Layer
    variable: keras.Variable

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.variable.shape)

    @property
    def is_depthwise(self) -> bool:
        """Whether it has no input channels to sum over."""
        depthwise = isinstance(self.layer, (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D))
        return depthwise or self.variable.name == "depthwise_kernel"

    @property
    def input_axis(self) -> int:
        """The axis of the input channels."""
        transposed = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
        if isinstance(self.layer, transposed):
            return len(self.variable.shape) - 1  # (window…, filters, channels)
        if isinstance(self.layer, keras.layers.EinsumDense):
            return 0
        return len(self.variable.shape) - 2  # (window…, channels, filters)


def kernels_of(model: keras.Model, scope: Scope = "all", *, trained: bool = False) -> list[Kernel]:
    """Return the kernels of dense, convolutional and recurrent layers, in the order of the model.

    Args:
        model: A built model of any form.
        scope: `"kernels"` leaves out depthwise kernels, `"all"` takes every one, and a list of paths takes those of the
            layers (or nested models) that it names.
        trained: Whether kernels that are not trained are left out.

    Returns:
        The kernels.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: A path does not exist, or nothing is left.

    Example:
        >>> from kdkeras.compress.kernels import kernels_of
        >>> from kdkeras.testing import tiny_cnn
        >>> [kernel.path for kernel in kernels_of(tiny_cnn())]
        ['conv', 'head']
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {type(model).__name__}.")
    if isinstance(scope, str) and scope not in ("kernels", "all"):
        raise ValueError(f"`scope` must be 'kernels', 'all' or a list of layer paths. Received: {scope!r}.")
    found = [kernel for kernel in _all(model) if kernel.variable.trainable or not trained]
    if scope == "kernels":
        found = [kernel for kernel in found if not kernel.is_depthwise]
    elif scope != "all":
        wanted = {id(weight) for path in scope for weight in find_layer(model, path).weights}
        found = [kernel for kernel in found if id(kernel.variable) in wanted]
    if not found:
        raise ValueError(
            f"Model '{model.name}' has no kernels to compress in scope {scope!r}: build it first, or name "
            "layers that are dense, convolutional or recurrent."
        )
    return found


def _all(model: keras.Model) -> list[Kernel]:
    found: dict[int, Kernel] = {}
    paths = layer_paths(model)
    inside = {layer.layer: path for path, layer in paths.items() if isinstance(layer, QuantizedKernel)}
    for path, layer in paths.items():
        if isinstance(layer, QuantizedKernel):
            continue
        own = [variable for variable in _own_variables(layer) if variable.name in _NAMES]
        for variable in own:
            name = inside.get(layer, path) if len(own) == 1 else f"{path}/{variable.name}"
            found.setdefault(id(variable), Kernel(name, layer, variable))
    return list(found.values())


def _own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    below = {
        id(weight) for inner in layer._flatten_layers(include_self=False, recursive=False) for weight in inner.weights
    }
    return [weight for weight in layer.weights if id(weight) not in below]
