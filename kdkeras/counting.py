"""How much arithmetic a model does: multiply-accumulates (MACs), counted layer by layer from the shapes.

The field's convention: one MAC is one multiplication with its addition; the linear maps count (dense, convolutional
and recurrent kernels) and so do the two products of attention. Biases, activations, normalisation, pooling,
embedding look-ups, element-wise products, resizing and custom layers without weights count zero. Products with the
zeros of a padding count, as they do in the published numbers. Twice the MACs are the FLOPs.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import keras

_Shape = tuple[int | None, ...]
_Call = dict[str, Any]  # the arguments of one call by name, with symbolic tensors

# Products without weights, outside of any layer with weights, whose cost this module does not work out.
_OTHER_PRODUCTS = {"Einsum", "Dot", "Tensordot", "Inner", "Outer", "Vdot", "Vecdot", "Kron"}
_OTHER_PRODUCTS |= {"Conv", "DepthwiseConv", "SeparableConv", "ConvTranspose", "DotProductAttention"}


@runtime_checkable
class CountsMacs(Protocol):
    """What a custom layer or model implements so that it can be counted.

    A class with this method is asked instead of being looked into. A layer whose cost depends on its input notes
    what it needs in its `build`.

    Example:
        >>> import keras
        >>> from kdkeras.counting import CountsMacs, count_macs
        >>> class Halves(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.kernel = self.add_weight(shape=(shape[-1] // 2, 4))
        ...     def call(self, x):
        ...         return keras.ops.matmul(x[:, ::2], self.kernel)
        ...     def count_macs(self):
        ...         return self.kernel.shape[0] * self.kernel.shape[1]
        >>> isinstance(Halves(), CountsMacs)
        True
        >>> count_macs(keras.Sequential([keras.Input((10,)), Halves()]))
        20
    """

    def count_macs(self) -> int:
        """Return the multiply-accumulates of one call on one sample."""
        ...


@dataclass(frozen=True)
class LayerCost:
    """The cost of one call of one layer.

    Attributes:
        path: Name of the layer, after the names of the nested models around it: `"backbone/conv1"`.
        layer_type: Class of the layer or operation, such as `"Conv2D"`.
        output_shape: Shape of the (first) output, the batch axis 1; `None` for a subclassed model as a whole.
        macs: Multiply-accumulates for one sample.
        parameters: Number of its weights; 0 for a later call of the same layer, which brings none.
    """

    path: str
    layer_type: str
    output_shape: _Shape | None
    macs: int
    parameters: int


@dataclass(frozen=True)
class Count:
    """What a model is made of.

    Attributes:
        model: Its name.
        parameters: Number of its weights, trainable or not.
        macs: Multiply-accumulates of one sample.
        layers: The cost of every layer call; empty where they cannot be read.
        exact: Whether the MACs were worked out layer by layer; `False` where they are half of the floating-point
            operations that TensorFlow's profiler finds, which counts loops once, and more than products.
    """

    model: str
    parameters: int
    macs: int
    layers: tuple[LayerCost, ...]
    exact: bool

    def __str__(self) -> str:
        about = "" if self.exact else " (half of the operations that TensorFlow's profiler finds)"
        title = f"{self.model}: {self.parameters:,} parameters, {self.macs:,} MACs{about}"
        shown = [cost for cost in self.layers if cost.macs or cost.parameters]
        rows = [("layer", "type", "output", "parameters", "MACs", "share")]
        for cost in shown:
            shape = "" if cost.output_shape is None else "×".join(str(size) for size in cost.output_shape[1:])
            share = f"{cost.macs / max(self.macs, 1):.1%}"
            rows.append((cost.path, cost.layer_type, shape, f"{cost.parameters:,}", f"{cost.macs:,}", share))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        return "\n".join([title, *(line.rstrip() for line in lines if shown)])

    def to_dict(self) -> dict[str, Any]:
        """Return the count as plain types, ready for JSON."""
        return asdict(self)


def count(model: keras.Model) -> Count:
    """Return parameters and multiply-accumulates of a model, layer by layer.

    Args:
        model: A built Keras model. Of a subclassed one without `CountsMacs`, which cannot be read, TensorFlow's
            profiler gives a figure for the whole, and the result says so.

    Returns:
        A `Count`; printed, it is a table.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: The model is not built, or has a layer or size that cannot be counted, as for `count_macs`.

    Example:
        >>> import keras
        >>> from kdkeras.evaluate import count
        >>> head = [keras.layers.Flatten(), keras.layers.Dense(10, name="head")]
        >>> layers = [keras.Input((6, 6, 1)), keras.layers.Conv2D(8, 3, name="conv"), *head]
        >>> print(count(keras.Sequential(layers, name="student")))
        student: 1,370 parameters, 2,432 MACs
        layer  type    output  parameters   MACs  share
        conv   Conv2D  4×4×8           80  1,152  47.4%
        head   Dense   10           1,290  1,280  52.6%
    """
    if isinstance(model, keras.Model) and not isinstance(model, CountsMacs) and not _has_graph(model):
        return Count(model.name, _weights(model), _profiled_macs(model), (), exact=False)
    costs = layer_macs(model)
    return Count(model.name, _weights(model), sum(cost.macs for cost in costs), costs, exact=True)


def _profiled_macs(model: keras.Model) -> int:
    """Return half of the floating-point operations of one sample that TensorFlow's profiler finds."""
    import tensorflow as tf
    from tensorflow.python.profiler import model_analyzer, option_builder

    shape = (model.get_build_config() or {}).get("input_shape") if model.built else None
    if not isinstance(shape, tuple | list) or not all(isinstance(size, int) for size in shape[1:]):
        raise ValueError(
            f"`count` needs a subclassed model that was built for one input of known shape. Received: {model.name!r}. "
            "Call it once on a batch, or give the class a method `count_macs`."
        )
    spec = tf.TensorSpec((1, *shape[1:]), model.input_dtype)
    graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec).graph
    options = option_builder.ProfileOptionBuilder(option_builder.ProfileOptionBuilder.float_operation())
    return model_analyzer.profile(graph, options=options.with_empty_output().build()).total_float_ops // 2


def count_macs(model: keras.Model) -> int:
    """Return the multiply-accumulates of one inference of `model` on one sample.

    See the head of this module for what counts. A layer that is called several times counts each time. A model that
    was built for a fixed batch size is counted for one batch of that size.

    Args:
        model: A built Functional or Sequential model, or one that implements `CountsMacs`.

    Returns:
        The number of multiply-accumulates.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: The model cannot be counted exactly: it is not built, it is subclassed without `CountsMacs`, it
            holds a layer with weights or a product that this module does not know, or a size is left open.

    Example:
        >>> import keras
        >>> from kdkeras.counting import count_macs
        >>> layers = [keras.layers.Conv2D(8, 3), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(10)]
        >>> count_macs(keras.Sequential([keras.Input((28, 28, 1)), *layers]))  # 26*26 * 3*3*1*8 + 8*10
        48752
    """
    return sum(cost.macs for cost in layer_macs(model))


def layer_macs(model: keras.Model) -> tuple[LayerCost, ...]:
    """Return the cost of every layer call of `model`, in the order in which the layers run.

    Args:
        model: A built Functional or Sequential model, or one that implements `CountsMacs` (then one row).

    Returns:
        One `LayerCost` per call, those inside nested models included, those of operations such as `add` too.

    Raises:
        TypeError: As `count_macs`.
        ValueError: As `count_macs`.

    Example:
        >>> import keras
        >>> from kdkeras.counting import layer_macs
        >>> model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, name="a"), keras.layers.ReLU(name="r")])
        >>> [(cost.path, cost.macs) for cost in layer_macs(model)]
        [('a', 20), ('r', 0)]
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {type(model).__name__}.")
    if isinstance(model, CountsMacs):
        return (LayerCost(model.name, type(model).__name__, None, int(model.count_macs()), _weights(model)),)
    if not _has_graph(model):
        raise _uncountable(model, "what a subclassed model does inside its `call` cannot be read")
    if not model.built or not model.inputs:
        raise ValueError(f"Model '{model.name}' has no input shape yet: give it a `keras.Input` first.")
    costs: list[LayerCost] = []
    inputs = [_one_sample(tensor) for tensor in model.inputs]
    _walk(model, inputs[0] if len(inputs) == 1 else inputs, "", costs)
    return tuple(costs)


def _weights(layer: keras.layers.Layer) -> int:
    return sum(math.prod(weight.shape) for weight in layer.weights)


def _one_sample(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """Return an input of batch size 1, so that a reshape of the batch axis is followed too."""
    batch, *rest = tensor.shape
    return keras.KerasTensor((batch or 1, *rest), dtype=tensor.dtype)


def _has_graph(operation: Any) -> bool:
    """Tell whether this is a model that runs its layers as Keras wired them, in no `call` of its own."""
    graph = isinstance(operation, keras.Function | keras.Sequential)
    return graph and type(operation).call.__module__.startswith("keras.")


def _uncountable(operation: Any, why: str) -> ValueError:
    return ValueError(
        f"`count_macs` cannot count '{operation.name}' of type {type(operation).__name__}: {why}. "
        "Give the class a method `count_macs(self) -> int` (see `kdkeras.counting.CountsMacs`)."
    )


def _walk(model: keras.Model, inputs: Any, prefix: str, costs: list[LayerCost]) -> Any:
    """Append the costs of all calls inside a model and return its symbolic outputs."""

    def visit(operation: Any, *args: Any, **kwargs: Any) -> Any:
        return _visit(operation, args, kwargs, prefix, costs)

    if isinstance(model, keras.Sequential):
        return functools.reduce(lambda tensor, layer: visit(layer, tensor), model.layers, inputs)
    # The graph runner behind `keras.models.clone_model`; that function itself would compile the copy too.
    return model._run_through_graph(inputs, call_fn=visit)


def _visit(operation: Any, args: tuple, kwargs: dict[str, Any], prefix: str, costs: list[LayerCost]) -> Any:
    """Append the cost of one call, or of all calls inside it, and return its symbolic outputs."""
    path = prefix + operation.name
    declared = isinstance(operation, CountsMacs)
    if _has_graph(operation) and not declared:
        return _walk(operation, args[0], path + "/", costs)
    outputs = operation.compute_output_spec(*args, **kwargs)
    shape = keras.tree.flatten(outputs)[0].shape
    call = inspect.signature(operation.call).bind(*args, **kwargs).arguments
    macs = int(operation.count_macs()) if declared else _macs(operation, call, shape)
    again = any(cost.path == path for cost in costs)
    parameters = 0 if again or not isinstance(operation, keras.layers.Layer) else _weights(operation)
    costs.append(LayerCost(path, type(operation).__name__, shape, macs, parameters))
    return outputs


@functools.singledispatch
def _macs(operation: Any, call: _Call, output: _Shape) -> int:
    """Return the cost of one call of a layer or operation; each type that costs something is registered below."""
    kind = type(operation).__name__
    if kind == "Matmul":  # (..., n, k) @ (..., k, m)
        return _size(operation, output) * call["x1"].shape[-1]
    if kind in _OTHER_PRODUCTS:
        raise _uncountable(operation, "the cost of this product is not worked out")
    own = type(operation).__module__.startswith("keras.")
    if kind == "LayerScale" and own:  # of ConvNeXt, element-wise; the class is not public
        return 0
    if isinstance(operation, keras.layers.Layer) and operation.weights:
        raise _uncountable(operation, "what this layer does with its weights is unknown")
    return 0


def _shapes(call: _Call) -> list[_Shape]:
    """Return the shapes of the tensors in the first argument."""
    return [tensor.shape for tensor in keras.tree.flatten(next(iter(call.values())))]


def _size(operation: Any, shape: _Shape) -> int:
    if None in shape:
        raise ValueError(
            f"`count_macs` needs every size but the batch's. Received: shape {shape} at '{operation.name}'. "
            "Build the model with a `keras.Input` of fixed shape."
        )
    return math.prod(shape)


@_macs.register(keras.layers.BatchNormalization)
@_macs.register(keras.layers.LayerNormalization)
@_macs.register(keras.layers.GroupNormalization)
@_macs.register(keras.layers.RMSNormalization)
@_macs.register(keras.layers.Normalization)
@_macs.register(keras.layers.PReLU)
@_macs.register(keras.layers.Embedding)
def _free(layer: Any, call: _Call, output: _Shape) -> int:
    return 0


@_macs.register(keras.layers.Dense)
def _dense(layer: Any, call: _Call, output: _Shape) -> int:
    return _size(layer, output) * _shapes(call)[0][-1]


@_macs.register(keras.layers.EinsumDense)
def _einsum_dense(layer: Any, call: _Call, output: _Shape) -> int:
    """Each input element meets each kernel index that it does not carry itself."""
    inputs, kernel, _ = re.split(",|->", layer.equation.replace(" ", ""))
    new = [size for letter, size in zip(kernel, layer.kernel.shape, strict=True) if letter not in inputs]
    return _size(layer, _shapes(call)[0]) * math.prod(new)


@_macs.register(keras.layers.ReversibleEmbedding)
def _reversible_embedding(layer: Any, call: _Call, output: _Shape) -> int:
    """A look-up forwards; backwards a dense layer from the embedding to the vocabulary."""
    return _size(layer, output) * _shapes(call)[0][-1] if call.get("reverse") else 0


@_macs.register(keras.layers.Conv1D)
@_macs.register(keras.layers.Conv2D)
@_macs.register(keras.layers.Conv3D)
def _conv(layer: Any, call: _Call, output: _Shape) -> int:
    """Each output element is a sum over the window and the input channels of its group."""
    return _size(layer, output) * math.prod(layer.kernel.shape[:-1])  # (window…, channels / groups, filters)


@_macs.register(keras.layers.Conv1DTranspose)
@_macs.register(keras.layers.Conv2DTranspose)
@_macs.register(keras.layers.Conv3DTranspose)
def _conv_transpose(layer: Any, call: _Call, output: _Shape) -> int:
    """Each input element is spread over the window and the filters."""
    return _size(layer, _shapes(call)[0]) * math.prod(layer.kernel.shape[:-1])  # (window…, filters, channels)


@_macs.register(keras.layers.DepthwiseConv1D)
@_macs.register(keras.layers.DepthwiseConv2D)
def _depthwise_conv(layer: Any, call: _Call, output: _Shape) -> int:
    return _size(layer, output) * math.prod(layer.kernel_size)


@_macs.register(keras.layers.SeparableConv1D)
@_macs.register(keras.layers.SeparableConv2D)
def _separable_conv(layer: Any, call: _Call, output: _Shape) -> int:
    """A depthwise convolution, with the strides, then a pointwise one at each position."""
    positions = _size(layer, output) // layer.filters
    return positions * (math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape))


@_macs.register(keras.layers.RNN)
def _rnn(layer: Any, call: _Call, output: _Shape) -> int:
    """Each time step multiplies the input and the state with the kernels of all gates."""
    cells = layer.cell.cells if isinstance(layer.cell, keras.layers.StackedRNNCells) else [layer.cell]
    known = keras.layers.LSTMCell | keras.layers.GRUCell | keras.layers.SimpleRNNCell
    if not all(isinstance(cell, known) for cell in cells):
        raise _uncountable(layer, "its cell is none of LSTM, GRU and SimpleRNN")
    steps = _size(layer, _shapes(call)[0][:2])
    return steps * sum(math.prod(cell.kernel.shape) + math.prod(cell.recurrent_kernel.shape) for cell in cells)


@_macs.register(keras.layers.Bidirectional)
def _bidirectional(layer: Any, call: _Call, output: _Shape) -> int:
    return sum(_macs(half, call, output) for half in (layer.forward_layer, layer.backward_layer))


@_macs.register(keras.layers.TimeDistributed)
def _time_distributed(layer: Any, call: _Call, output: _Shape) -> int:
    tensor = next(iter(call.values()))
    batch, steps, *rest = tensor.shape
    costs: list[LayerCost] = []
    _visit(layer.layer, (keras.KerasTensor((batch, *rest), dtype=tensor.dtype),), {}, "", costs)
    return _size(layer, (steps,)) * sum(cost.macs for cost in costs)


@_macs.register(keras.layers.SpectralNormalization)
def _spectral_normalization(layer: Any, call: _Call, output: _Shape) -> int:
    """The power iteration runs in training alone."""
    return _macs(layer.layer, call, output)


@_macs.register(keras.layers.Attention)
@_macs.register(keras.layers.AdditiveAttention)
def _attention(layer: Any, call: _Call, output: _Shape) -> int:
    """Scores (queries × keys × width), then the weighted sum of the values."""
    query, value = _shapes(call)[:2]
    return _size(layer, query[:-1]) * _size(layer, value[1:-1]) * (query[-1] + value[-1])


@_macs.register(keras.layers.MultiHeadAttention)
def _multi_head_attention(layer: Any, call: _Call, output: _Shape) -> int:
    return _heads(layer, call, output, (layer.num_heads, layer.num_heads), (layer.key_dim, layer.value_dim))


@_macs.register(keras.layers.GroupQueryAttention)
def _group_query_attention(layer: Any, call: _Call, output: _Shape) -> int:
    heads = (layer.num_query_heads, layer.num_key_value_heads)
    return _heads(layer, call, output, heads, (layer.head_dim, layer.head_dim))


def _heads(layer: Any, call: _Call, output: _Shape, heads: tuple[int, int], widths: tuple[int, int]) -> int:
    """The four projections, those of a gate, and for each head the scores and the weighted sum.

    `heads` are those of the queries and those of keys and values; `widths` those of a key and of a value.
    """
    (query_heads, key_heads), (key_width, value_width) = heads, widths
    query, value = call["query"].shape, call["value"].shape
    key = value if call.get("key") is None else call["key"].shape
    config = layer.get_config()
    axes = config.get("attention_axes") or range(1, len(value) - 1)
    projections = (
        _size(layer, query) * query_heads * (key_width + (value_width if config["use_gate"] else 0))
        + _size(layer, key) * key_heads * key_width
        + _size(layer, value) * key_heads * value_width
        + _size(layer, output) * query_heads * value_width
    )
    seen = _size(layer, tuple(value[axis] for axis in axes))  # keys that each query looks at
    return projections + _size(layer, query[:-1]) * seen * query_heads * (key_width + value_width)
