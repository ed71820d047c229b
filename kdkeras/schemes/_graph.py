"""Models whose layers can be branched off: Functional and built Sequential ones."""

from __future__ import annotations

from typing import Any

import keras

from kdkeras._distribution import strategy_scope
from kdkeras.inputs import input_specs
from kdkeras.layer_paths import find_layer


class Graph:
    """The symbolic tensors of a model, from which others can be made of the same layers.

    Args:
        model: A Functional or a built Sequential model.
        asked_by: Who asks, for the messages.

    Attributes:
        model: The model.
        input: Its symbolic inputs, nested as it takes them.
        output: Its symbolic outputs, nested as it gives them.

    Raises:
        TypeError: It is no Keras model.
        ValueError: It is neither Functional nor a built Sequential model.

    Example:
        >>> from kdkeras.schemes._graph import Graph
        >>> from kdkeras.testing import tiny_cnn
        >>> Graph(tiny_cnn(), asked_by="me").output_of("conv").shape
        (None, 6, 6, 4)
    """

    def __init__(self, model: keras.Model, *, asked_by: str) -> None:
        if not isinstance(model, keras.Model):
            raise TypeError(f"`{asked_by}` needs a Keras model. Received: {model!r} of type {type(model).__name__}.")
        self.model, self._asked_by = model, asked_by
        self.input = input_specs(model)
        # Only a graph has symbolic outputs; a subclassed model may know its inputs.
        if self.input is None or getattr(model, "outputs", None) is None:
            raise ValueError(
                f"`{asked_by}` needs a Functional or a built Sequential model, to branch off its layers. Received: "
                f"'{model.name}', a {type(model).__name__}. Make it with `keras.Model(inputs, outputs)`."
            )
        self.output = model.outputs[0] if isinstance(model, keras.Sequential) else model.output
        self._outputs = _outputs_by_layer(model)

    def output_of(self, path: str) -> Any:
        """Return the symbolic output of one of the model's own layers.

        Args:
            path: Name of the layer.

        Returns:
            A `keras.KerasTensor`.

        Raises:
            ValueError: There is no such layer, it lies inside another model, is used twice, or has several outputs.
        """
        name = self.model.name
        found = self._outputs.get(id(find_layer(self.model, path)), [])
        if not found:
            raise ValueError(
                f"`{self._asked_by}` needs layers of model '{name}' itself. Received: '{path}', which lies inside "
                f"another model. Name one of {[layer.name for layer in self.model.layers]}."
            )
        if len(found) > 1:
            raise ValueError(
                f"`{self._asked_by}` needs layers that are used once and have one output. Received: '{path}' of model "
                f"'{name}', with {len(found)} outputs. Name another."
            )
        return found[0]

    def up_to(self, path: str) -> keras.Model:
        """Return the model up to one of its layers, of the same layers.

        Args:
            path: Name of the layer.

        Returns:
            A Functional model.

        Raises:
            ValueError: As `output_of`.
        """
        with strategy_scope(self.model):
            return keras.Model(self.input, self.output_of(path), name=f"{self.model.name}_up_to_{path}")


def _outputs_by_layer(model: keras.Model) -> dict[int, list[Any]]:
    """Return the tensors that each layer has in the graph of a model, by the layer's identity.

    `layer.output` may be that of another model, or of a Sequential model before its last layer was added. That a tensor
    knows where it comes from has no public name.
    """
    outputs: dict[int, list[Any]] = {}
    seen: set[tuple[int, int]] = set()
    waiting = list(model.outputs)
    while waiting:
        operation, place, _ = waiting.pop()._keras_history
        if (id(operation), place) not in seen:
            seen.add((id(operation), place))
            node = operation._inbound_nodes[place]
            outputs.setdefault(id(operation), []).extend(node.output_tensors)
            waiting.extend(node.input_tensors)
    return outputs
