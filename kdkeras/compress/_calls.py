"""The calls that make up a model, so that a changed copy of it can be built call by call."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import keras

from kdkeras.inputs import input_specs


class Call(NamedTuple):
    """One call of a layer or an operation inside a model.

    Attributes:
        operation: The layer, nested model or operation.
        args: Its positional arguments, with `keras.KerasTensor`s.
        kwargs: Its keyword arguments.
        outputs: What it returns, nested as it returns it.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Any

    @property
    def inputs(self) -> list[keras.KerasTensor]:
        """The tensors among the arguments, flat."""
        return tensors((self.args, self.kwargs))

    def run(self, operation: Any, replaced: dict[int, Any]) -> Any:
        """Call `operation` in place of this one's, with other tensors in place of the arguments."""
        args, kwargs = swapped((self.args, self.kwargs), replaced)
        return operation(*args, **kwargs)


class Calls(NamedTuple):
    """All calls of a model, in the order in which they run.

    Attributes:
        inputs: The model's inputs, flat.
        outputs: Its outputs, nested as the model gives them.
        calls: The calls; those inside a nested model are not among them.
    """

    inputs: list[keras.KerasTensor]
    outputs: Any
    calls: list[Call]

    def uses(self) -> dict[int, int]:
        """Count by identity how often each tensor is read, an output of the model counting too."""
        counts: dict[int, int] = {}
        for tensor in [t for call in self.calls for t in call.inputs] + tensors(self.outputs):
            counts[id(tensor)] = counts.get(id(tensor), 0) + 1
        return counts


def calls_of(model: keras.Model) -> Calls:
    """Return the calls of a Functional or Sequential model.

    Args:
        model: A model for which `is_graph` holds.

    Returns:
        Its `Calls`.

    Example:
        >>> from kdkeras.compress._calls import calls_of
        >>> from kdkeras.testing import tiny_cnn
        >>> [call.operation.name for call in calls_of(tiny_cnn()).calls][:2]
        ['conv', 'pool']
    """
    found: list[Call] = []

    def visit(operation: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = keras.tree.map_structure(
            lambda tensor: keras.KerasTensor(tensor.shape, tensor.dtype),
            operation.compute_output_spec(*args, **kwargs),
        )
        found.append(Call(operation, args, kwargs, outputs))
        return outputs

    inputs = [keras.KerasTensor(tensor.shape, tensor.dtype, name=tensor.name) for tensor in model.inputs]
    if isinstance(model, keras.Sequential):
        outputs = functools.reduce(lambda tensor, layer: visit(layer, tensor), model.layers, inputs[0])
    else:
        outputs = model._run_through_graph(inputs, call_fn=visit)  # as `keras.models.clone_model` does
    return Calls(inputs, outputs, found)


def is_graph(operation: Any) -> bool:
    """Tell whether this is a model that runs its layers as Keras wired them, in no `call` of its own."""
    graph = isinstance(operation, (keras.Function, keras.Sequential))
    return graph and type(operation).call.__module__.startswith("keras.")


def check_graph(model: Any, asked_by: str) -> None:
    """Raise unless the calls of a model can be read.

    Args:
        model: What a user gave.
        asked_by: The function that was called, for the message.

    Raises:
        TypeError: It is no Keras model.
        ValueError: It is subclassed, or has no inputs yet.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`{asked_by}` needs a keras.Model. Received: {type(model).__name__}.")
    if not is_graph(model):
        raise ValueError(
            f"`{asked_by}` needs a Functional or Sequential model, whose layers it can follow. Received: "
            f"'{model.name}', a {type(model).__name__} with a `call` of its own. Write it as "
            "`keras.Model(inputs, outputs)`."
        )
    if not model.built or input_specs(model) is None:
        raise ValueError(f"`{asked_by}` needs a built model. Received: '{model.name}'. Give it a `keras.Input` first.")


def tensors(nest: Any) -> list[keras.KerasTensor]:
    """Return the symbolic tensors of any nest, in order."""
    return [leaf for leaf in keras.tree.flatten(nest) if isinstance(leaf, keras.KerasTensor)]


def swapped(nest: Any, replaced: dict[int, Any]) -> Any:
    """Return a nest with other tensors in place of those that `replaced` knows by identity."""
    return keras.tree.map_structure(lambda leaf: replaced.get(id(leaf), leaf), nest)
