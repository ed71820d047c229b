"""A plain model again."""

from __future__ import annotations

from typing import Any

import keras

from kdkeras.compress import _calls
from kdkeras.compress._copying import Copying, clone
from kdkeras.compress.fake_quantize import FakeQuantize
from kdkeras.compress.quantized_kernel import QuantizedKernel


def strip(model: keras.Model) -> keras.Model:
    """Return a plain model of Keras' own layers, without anything that compression put into it.

    Pruned and shared weights stay as they are, but nothing holds them any more: trained on, they come apart. Of a
    quantization-aware model the kernels are the rounded ones, and activations are rounded no more; export such a model
    before it is stripped, for its ranges are gone.

    Args:
        model: A built Functional or Sequential model. It is not changed.

    Returns:
        A model with the same layer names, not compiled.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: It is not a built Functional or Sequential model.

    Example:
        >>> import keras
        >>> from kdkeras import compress
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")])
        >>> copy = compress.quantize_aware(model)
        >>> [layer.name for layer in copy.layers[1:]], [layer.name for layer in compress.strip(copy).layers[1:]]
        (['input_range', 'head', 'head_range'], ['head'])
    """
    _calls.check_graph(model, "strip")
    return _Stripping().copy(model)


class _Stripping(Copying):
    """Copies models without the layers that compression put into them."""

    def make(self, operation: Any) -> Any:
        if isinstance(operation, FakeQuantize):
            return None
        if not isinstance(operation, QuantizedKernel):
            return super().make(operation)
        layer = operation.layer
        values = [operation.rounded_kernel() if weight is layer.kernel else weight for weight in layer.weights]
        copy = clone(layer, name=operation.name)
        return self.with_weights(copy, [keras.ops.convert_to_numpy(value) for value in values])
