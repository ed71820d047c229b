"""Copying a model layer by layer, with some layers changed on the way."""

from __future__ import annotations

from typing import Any

import keras

from kdkeras._distribution import strategy_scope
from kdkeras.compress import _calls


class Copying:
    """Copies a model and the models nested in it; a layer that is called twice is one layer again in the copy.

    As it stands it changes nothing. A subclass overrides `make` for what takes a layer's place, or `wire`.
    """

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}
        self._weights: list[tuple[keras.layers.Layer, list[Any]]] = []

    def copy(self, model: keras.Model) -> keras.Model:
        """Return a copy of a model, with its weights."""
        with strategy_scope(model):
            copy = self._copy(model)
            for layer, weights in self._weights:
                layer.set_weights(weights)
        return copy

    def _copy(self, model: keras.Model, **settings: Any) -> keras.Model:
        inputs = self.inputs_of(model)
        outputs = self.wire(_calls.calls_of(model), inputs, **settings)
        structure = keras.tree.pack_sequence_as(_calls.input_specs(model), inputs)
        return keras.Model(structure, outputs, name=model.name, trainable=model.trainable)

    def inputs_of(self, model: keras.Model) -> list[keras.KerasTensor]:
        """Return the inputs of the copy."""
        names = [None if tensor.name.startswith("keras_tensor") else tensor.name for tensor in model.inputs]
        tensors = zip(model.inputs, names, strict=True)
        return [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=name) for t, name in tensors]

    def wire(self, graph: _calls.Calls, inputs: list[keras.KerasTensor]) -> Any:
        """Make all calls of a model on the copies of its layers, and return its outputs."""
        new = {id(old): tensor for old, tensor in zip(graph.inputs, inputs, strict=True)}
        for call in graph.calls:
            operation = self.once(call.operation)
            outputs = new[id(call.inputs[0])] if operation is None else call.run(operation, new)
            pairs = zip(_calls.tensors(call.outputs), _calls.tensors(outputs), strict=True)
            new |= {id(old): tensor for old, tensor in pairs}
        return _calls.swapped(graph.outputs, new)

    def once(self, operation: Any) -> Any:
        """Return what takes the place of a layer, made when it is first asked for."""
        if id(operation) not in self._made:
            self._made[id(operation)] = self.make(operation)
        return self._made[id(operation)]

    def make(self, operation: Any) -> Any:
        """Return a copy of a layer, nested model or operation; `None` leaves it out."""
        if _calls.is_graph(operation):
            return self._copy(operation)
        if not isinstance(operation, keras.layers.Layer):
            return operation  # it has no state
        return self.with_weights(clone(operation), operation.get_weights())

    def with_weights(self, layer: keras.layers.Layer, weights: list[Any]) -> keras.layers.Layer:
        """Return a layer that gets these weights once it is built."""
        self._weights.append((layer, weights))
        return layer


def clone(layer: keras.layers.Layer, **settings: Any) -> keras.layers.Layer:
    """Return an unbuilt layer of the same settings, but for those given."""
    return type(layer).from_config({**layer.get_config(), **settings})
