"""A Keras 3 model written down, so that it can be built again in tf_keras, which tfmot needs."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np

from kdkeras.compress import _calls

# Operations of `keras.ops`, as `x + y` in a Functional model makes them, and the layers that do the same.
_AS_LAYERS = {"Add": "Add", "Multiply": "Multiply", "Subtract": "Subtract", "Relu": "ReLU", "Softmax": "Softmax"}


class Plan:
    """The calls of a model as plain types, and its weights.

    Args:
        model: A Functional or Sequential model in float32; nested models are written down as the calls in them.

    Attributes:
        record: `"inputs"`, `"layers"`, `"calls"` and `"outputs"`, ready for JSON.
        weights: Arrays by `"layer/place"`.
        layers: The layers and operations, by their place in the record.

    Raises:
        ValueError: A layer cannot be rebuilt.
    """

    def __init__(self, model: keras.Model) -> None:
        self.layers: list[Any] = []
        self._layers: list[dict[str, Any]] = []
        self._places: dict[int, int] = {}
        self._calls: list[dict[str, Any]] = []
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []  # tensors are known by identity, so none may go
        self.weights: dict[str, np.ndarray] = {}
        graph = _calls.calls_of(model)
        inputs = [
            {"number": self._number(tensor), "shape": tensor.shape[1:], "dtype": tensor.dtype, "name": tensor.name}
            for tensor in graph.inputs
        ]
        self._write(graph, "")
        outputs = [self._number(tensor) for tensor in _calls.tensors(graph.outputs)]
        self.record = {"inputs": inputs, "layers": self._layers, "calls": self._calls, "outputs": outputs}

    def _number(self, tensor: Any) -> int:
        if id(tensor) not in self._numbers:
            self._kept.append(tensor)
        return self._numbers.setdefault(id(tensor), len(self._numbers))

    def _write(self, graph: _calls.Calls, prefix: str) -> None:
        for call in graph.calls:
            operation, given = call.operation, call.inputs
            if _calls.is_graph(operation):
                inner = _calls.calls_of(operation)
                for outer, tensor in zip(given, inner.inputs, strict=True):
                    self._same(tensor, outer)
                self._write(inner, f"{prefix}{operation.name}_")
                outputs = zip(_calls.tensors(call.outputs), _calls.tensors(inner.outputs), strict=True)
                for outer, tensor in outputs:
                    self._same(outer, tensor)
                continue
            outputs = [self._number(tensor) for tensor in _calls.tensors(call.outputs)]
            as_list = isinstance(call.args[0], (list, tuple)) or len(given) > 1
            numbers = [self._number(tensor) for tensor in given]
            place = self._place(operation, call, prefix)
            self._calls.append({"layer": place, "inputs": numbers, "as_list": as_list, "outputs": outputs})

    def _same(self, tensor: Any, known: Any) -> None:
        self._kept.append(tensor)
        self._numbers[id(tensor)] = self._number(known)

    def _place(self, operation: Any, call: _calls.Call, prefix: str) -> int:
        if id(operation) in self._places:
            return self._places[id(operation)]
        place = self._places[id(operation)] = len(self._layers)
        self.layers.append(operation)
        kind, path = type(operation).__name__, prefix + operation.name
        if isinstance(operation, keras.layers.Layer):
            if not type(operation).__module__.startswith("keras."):
                raise _refusal(path, kind, "it is not one of Keras' own layers")
            config = operation.get_config()
            self._layers.append(
                {"kind": kind, "path": path, "config": _plain(config), "usual": _usual(operation, config)}
            )
            arrays = enumerate(operation.get_weights())
            self.weights |= {f"{place}/{number}": array for number, array in arrays}
        elif kind in _AS_LAYERS and len(call.inputs) == len(call.args):
            self._layers.append({"kind": _AS_LAYERS[kind], "path": path, "config": {}, "usual": []})
        else:
            raise _refusal(path, kind, "this operation of `keras.ops` has no layer that does the same")
        return place


def _refusal(path: str, kind: str, why: str) -> ValueError:
    return ValueError(
        f"tfmot works on tf_keras models, and layer '{path}' ({kind}) cannot be rebuilt in tf_keras: {why}. Pass "
        "`build_fn`, a function that returns the same architecture made of `tf_keras.layers`, or use "
        "`compress.quantize_aware`, `PruneLowMagnitude` and `ClusterWeights`, which need no tfmot."
    )


def _usual(layer: keras.layers.Layer, config: dict[str, Any]) -> list[str]:
    """Return the settings that do nothing, or what is the default: tf_keras need not know them."""
    parameters = inspect.signature(type(layer).__init__).parameters

    def nothing(name: str, value: Any) -> bool:
        return value is None or value is False or (name, value) == ("data_format", "channels_last")

    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return [name for name, value in config.items() if nothing(name, value) or defaults.get(name, _usual) == value]


def _plain(config: Any) -> Any:
    """Return a config without what only Keras 3 can read."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return "float32"
        return {key: _plain(value) for key, value in config.items() if not key.endswith("_initializer")}
    if isinstance(config, (list, tuple)):
        return [_plain(value) for value in config]
    return config
