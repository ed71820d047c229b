"""Quantization-aware training: a copy of a model that computes, while it trains, as its int8 file will."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import keras
from keras import ops

from kdkeras.compress import _calls
from kdkeras.compress._calls import Call, Calls
from kdkeras.compress._copying import Copying, clone
from kdkeras.compress.fake_quantize import FakeQuantize
from kdkeras.compress.quantized_kernel import QuantizedKernel
from kdkeras.inputs import check_arrays, is_array_like
from kdkeras.layer_paths import find_layer

_LAYERS = keras.layers
_KERNELS = (_LAYERS.Conv1D, _LAYERS.Conv2D, _LAYERS.Conv2DTranspose, _LAYERS.DepthwiseConv2D, _LAYERS.Dense)
"""Layers whose kernels are rounded. Only these very classes: what a subclass does with its kernel is unknown."""

# By the name of the class: the operations of `keras.ops` in a Functional model have no public classes.
_RELU = {"ReLU", "Relu", "Relu6"}
_SUMS = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"}
_READERS = {"Concatenate", "Mean", "Softmax", "Sigmoid", "Tanh", "Silu", "Gelu", "LeakyReLU", "LeakyRelu", "ELU"}
_READERS |= {"AveragePooling1D", "AveragePooling2D", "GlobalAveragePooling1D", "GlobalAveragePooling2D"}
# Values pass these layers unchanged, at least in a file: what was rounded before them need not be again.
_MOVERS = {"Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "Identity"}
_MOVERS |= {"Flatten", "Reshape", "Permute", "ZeroPadding1D", "ZeroPadding2D", "Cropping1D", "Cropping2D"}
_MOVERS |= {"MaxPooling1D", "MaxPooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "RepeatVector"}
_FIXED = {"softmax", "sigmoid", "tanh"}
"""Activations whose range TFLite fixes itself."""
_FREE = (_LAYERS.BatchNormalization, _LAYERS.Normalization)
"""Layers whose weights the converter folds into others, or that prepare the data."""
_FUSED = ("linear", "relu", "relu6")
_POLICIES = {"float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}
_SAMPLES, _BATCH = 512, 64


def quantize_aware(
    model: keras.Model,
    weight_bits: Literal[8, 4] = 8,
    *,
    calibration: Any = None,
    momentum: float = 0.99,
    skip: Sequence[str] = (),
) -> keras.Model:
    """Return a copy of a model that trains as its quantized file will compute.

    Kernels of `Dense`, `Conv1D`, `Conv2D`, `Conv2DTranspose` and `DepthwiseConv2D` are rounded to `weight_bits` in
    every forward pass (`QuantizedKernel`), and every tensor that the file will hold is rounded to 8 bits
    (`FakeQuantize`): not between a layer and the BatchNormalization and ReLU behind it, which the converter folds into
    one operation. A `SeparableConv2D` becomes its two convolutions, and an activation other than ReLU inside of a layer
    becomes a layer of its own. Gradients pass through the rounding unchanged.

    Train the copy as any model, alone or as the student of a `Distiller`; it is saved and loaded as any model.
    `kdkeras.export.tflite(copy, path, quantize="int8", calibration=x)` then takes the trained ranges, and with
    `weight_bits=4` the file holds 4-bit kernels. `strip` gives a plain model back.

    Start from trained weights: rounding is learnt in a few epochs, at a lower learning rate.

    Args:
        model: A built Functional or Sequential model, nested ones too. It is not changed.
        weight_bits: 8, or 4 for half the size. Activations have 8 bits always, and so have kernels of
            `Conv2DTranspose`, which TFLite does not take in 4.
        calibration: Inputs that set the ranges of activations at once: what `model.predict` takes; 512 samples at most
            are used. Default: the first training batch sets them, and until then they are [-6, 6].
        momentum: How slowly ranges follow the batches, in [0, 1). Default 0.99.
        skip: Paths of layers that are left in float, such as an LSTM; the converter decides what becomes of them.

    Returns:
        A Functional model with the same layer names and weights, not compiled.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: It is not a built Functional or Sequential model, it has layers that cannot be rounded and are not
            named in `skip`, it is quantization-aware already, an option is out of range, or `calibration` holds no
            samples, or such as the model does not take.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import compress
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
        >>> copy = compress.quantize_aware(model, weight_bits=4, calibration=np.random.rand(64, 4))
        >>> copy.compile("adam", "mse")
        >>> history = copy.fit(np.random.rand(64, 4), np.random.rand(64, 3), verbose=0)

    Reference:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
        2018, arXiv:1712.05877.
    """
    _calls.check_graph(model, "quantize_aware")
    if weight_bits not in (4, 8):
        raise ValueError(f"`weight_bits` must be 8 or 4. Received: {weight_bits!r}.")
    if not 0 <= momentum < 1:
        raise ValueError(f"`momentum` must lie in [0, 1). Received: {momentum!r}.")
    if any(isinstance(layer, (FakeQuantize, QuantizedKernel)) for layer in model._flatten_layers()):
        raise ValueError(
            f"`quantize_aware` needs a plain model. Received: '{model.name}', which is quantization-aware already. "
            "`compress.strip(model)` makes it plain."
        )
    skipped = {id(find_layer(model, path)) for path in skip}
    if unknown := _unknown(model, skipped):
        named = ", ".join(f"'{path}' ({kind})" for path, kind in unknown)
        raise ValueError(
            f"`quantize_aware` cannot round the weights of {named}. To leave them in float, pass "
            f"skip={[path for path, _ in unknown]}."
        )
    copy = _Rounding(weight_bits, momentum, skipped).copy(model)
    if calibration is not None:
        if is_array_like(calibration):
            check_arrays(model, calibration, name="calibration")
        _set_ranges(copy, calibration)
    return copy


class _Rounding(Copying):
    """Copies models, with rounding put in place."""

    def __init__(self, weight_bits: int, momentum: float, skipped: set[int]) -> None:
        super().__init__()
        self._bits, self._momentum, self._skipped = weight_bits, momentum, skipped

    def wire(self, graph: Calls, inputs: list[keras.KerasTensor], inputs_are: str = "open") -> Any:
        wiring = _Wiring(graph, inputs, self._momentum, inputs_are)
        for call in graph.calls:
            self._visit(call, wiring)
        outputs = [wiring.rounded(tensor) for tensor in _calls.tensors(graph.outputs)]
        return keras.tree.pack_sequence_as(graph.outputs, outputs)

    def _visit(self, call: Call, wiring: _Wiring) -> None:
        """Wire the copy of one layer."""
        kind, activation = type(call.operation).__name__, _activation(call.operation)
        chain = self.once(call.operation)
        if _calls.is_graph(call.operation):
            wiring.run(call, chain, "ready")
        elif isinstance(chain[-1], QuantizedKernel):
            wiring.run(call, chain, "kernel" if _activation(chain[-1]) == "linear" else "open")
        elif isinstance(call.operation, _LAYERS.BatchNormalization):
            wiring.run(call, chain, "scaled", unrounded=("kernel",))
        elif kind in _RELU or (kind == "Activation" and activation in _FUSED[1:]):
            wiring.run(call, chain, "open", unrounded=("kernel", "scaled"))
        elif kind == "Activation" and activation == "linear":
            wiring.run(call, chain, None, unrounded=("kernel", "scaled", "open"))
        elif kind in _MOVERS or activation in _FIXED or kind.lower() in _FIXED:
            wiring.run(call, chain, "ready")
        elif activation is not None or kind in _SUMS | _READERS:
            wiring.run(call, chain, "scaled" if kind in _SUMS else "open")
        else:  # what these do is unknown, and with it whether their inputs bear rounding: masks of -1e9 do not
            wiring.run(call, chain, "open", unrounded=("open",))

    def make(self, operation: Any) -> list[Any]:
        """Return the layers that take the place of one, in the order in which they run."""
        if _calls.is_graph(operation):
            return [self._copy(operation, inputs_are="ready")]
        if type(operation) is _LAYERS.SeparableConv2D and id(operation) not in self._skipped:
            return [made for layer in self._separated(operation) for made in layer]
        if type(operation) in _KERNELS and id(operation) not in self._skipped:
            return self._kernel(operation, operation.get_weights())
        return [super().make(operation)]

    def _kernel(self, layer: keras.layers.Layer, weights: list[Any]) -> list[Any]:
        """Return a layer that rounds its kernel, and the activation that must come apart from it."""
        inner, after = clone(layer), []
        if _activation(layer) not in _FUSED:
            activation, inner = layer.get_config()["activation"], clone(layer, activation="linear")
            after = [_LAYERS.Activation(activation, name=f"{layer.name}_activation", dtype=layer.dtype_policy)]
        bits = 8 if isinstance(layer, _LAYERS.Conv2DTranspose) else self._bits  # TFLite has none of 4 bits
        wrapper = QuantizedKernel(inner, bits, name=layer.name, dtype=layer.dtype_policy)
        wrapper.trainable = layer.trainable
        return [self.with_weights(wrapper, weights), *after]

    def _separated(self, layer: keras.layers.SeparableConv2D) -> list[list[Any]]:
        """Return the depthwise and the pointwise convolution that a separable one consists of."""
        config = layer.get_config()
        shared = {key: config[key] for key in ("data_format", "dtype", "trainable")}
        depthwise = _LAYERS.DepthwiseConv2D.from_config(
            shared
            | {key: config[key] for key in ("kernel_size", "strides", "padding", "depth_multiplier", "dilation_rate")}
            | {key: config[key] for key in ("depthwise_regularizer", "depthwise_constraint")}
            | {"use_bias": False, "name": f"{layer.name}_depthwise"}
        )
        pointwise = _LAYERS.Conv2D.from_config(
            shared
            | {key: config[key] for key in ("filters", "activation", "use_bias", "bias_regularizer", "name")}
            | {f"kernel_{key}": config[f"pointwise_{key}"] for key in ("regularizer", "constraint")}
            | {"kernel_size": 1}
        )
        first, *rest = layer.get_weights()
        return [self._kernel(depthwise, [first]), self._kernel(pointwise, rest)]


class _Wiring:
    """Wires the copies of layers, with `FakeQuantize` where the file will hold a tensor.

    A tensor of the model that is copied is `"kernel"` where a linear layer made it, `"scaled"` where a ReLU can still
    be folded into what made it, `"open"` where it will be held as it is, and `"ready"` where it needs no rounding.
    """

    def __init__(self, graph: Calls, inputs: list[keras.KerasTensor], momentum: float, state: str) -> None:
        self._momentum, self._uses = momentum, graph.uses()
        pairs = list(zip(graph.inputs, inputs, strict=True))
        self._new = {id(old): new for old, new in pairs}
        self._state = {id(old): state for old, _ in pairs}
        self._names = {id(old): "input" for old, _ in pairs}
        self._taken: set[str] = set()

    def run(self, call: Call, chain: list[Any], state: str | None, *, unrounded: tuple[str, ...] = ()) -> None:
        """Call copies of a layer one behind the other.

        Args:
            call: The call of the layer.
            chain: The copies.
            state: The state of what comes out; `None` for that of what goes in.
            unrounded: The states in which its inputs are taken as they are.
        """
        inputs = {}
        for tensor in call.inputs:
            taken = self._state[id(tensor)] in unrounded
            alone = self._uses[id(tensor)] == 1 or self._state[id(tensor)] == "open"
            inputs[id(tensor)] = self._new[id(tensor)] if taken and alone else self.rounded(tensor)
        state = self._state[id(call.inputs[0])] if state is None else state
        outputs = call.run(chain[0], inputs)
        for layer in chain[1:]:
            outputs = layer(self._round(outputs, chain[0].name))
        for old, new in zip(_calls.tensors(call.outputs), _calls.tensors(outputs), strict=True):
            self._new[id(old)], self._state[id(old)], self._names[id(old)] = new, state, call.operation.name

    def rounded(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        """Return the copy of a tensor, rounded if it needs it; from then on everyone reads that."""
        if self._state[id(tensor)] != "ready":
            self._new[id(tensor)] = self._round(self._new[id(tensor)], self._names[id(tensor)])
            self._state[id(tensor)] = "ready"
        return self._new[id(tensor)]

    def _round(self, tensor: keras.KerasTensor, origin: str) -> keras.KerasTensor:
        if not keras.backend.is_float_dtype(tensor.dtype):
            return tensor
        name, number = f"{origin}_range", 1
        while name in self._taken:
            name, number = f"{origin}_range_{number}", number + 1
        self._taken.add(name)
        policy = _POLICIES.get(tensor.dtype, tensor.dtype)
        return FakeQuantize(momentum=self._momentum, name=name, dtype=policy)(tensor)


def _activation(operation: Any) -> str | None:
    """Return the name of the activation that a layer has in it, or `None`."""
    config = operation.get_config() if isinstance(operation, (_LAYERS.Activation, *_KERNELS)) else {}
    if isinstance(operation, QuantizedKernel):
        return _activation(operation.layer)
    name = config.get("activation")
    return name if name is None or isinstance(name, str) else str(name)  # one of the user's own is a dict


def _unknown(model: keras.Model, skipped: set[int]) -> list[tuple[str, str]]:
    """Return path and class of all layers whose weights would stay in float."""
    found = []

    def look(parent: keras.Model, prefix: str) -> None:
        for layer in parent.layers:
            if _calls.is_graph(layer):
                look(layer, f"{prefix}{layer.name}/")
            elif layer.weights and id(layer) not in skipped and not _is_known(layer):
                found.append((f"{prefix}{layer.name}", type(layer).__name__))

    look(model, "")
    return found


def _is_known(layer: keras.layers.Layer) -> bool:
    if type(layer) is _LAYERS.SeparableConv2D or isinstance(layer, _FREE):
        return True
    # The kernel of a layer with LoRA, or one that Keras has quantized, is no variable.
    return type(layer) in _KERNELS and any(layer.kernel is weight for weight in layer.weights)


def _set_ranges(model: keras.Model, calibration: Any) -> None:
    """Set every range to the mean of what batches of data show, with nothing else of the model changing."""
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, FakeQuantize)]
    momenta = [layer.momentum for layer in layers]
    try:
        for count, batch in enumerate(_batches(calibration)):
            for layer in layers:
                layer.observing, layer.momentum = True, count / (count + 1)
            model(batch, training=False)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.observing, layer.momentum = False, momentum
    if not any(float(ops.convert_to_numpy(layer.seen)) for layer in layers):
        raise ValueError(
            "`calibration` must hold samples. Received: none. A generator that has been used up yields nothing: make a "
            "new one."
        )


def _batches(calibration: Any) -> Iterator[Any]:
    """Yield batches of inputs, of arrays or of a dataset."""
    if is_array_like(calibration):
        size = min(len(keras.tree.flatten(calibration)[0]), _SAMPLES)
        for start in range(0, size, _BATCH):
            yield keras.tree.map_structure(
                lambda array, start=start: ops.convert_to_tensor(array[start : min(start + _BATCH, size)]), calibration
            )
        return
    seen = 0
    for element in calibration:
        if seen >= _SAMPLES:
            break
        batch = keras.utils.unpack_x_y_sample_weight(element)[0]
        seen += len(keras.tree.flatten(batch)[0])
        yield batch
