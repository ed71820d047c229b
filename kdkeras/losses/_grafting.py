"""Cutting models at a layer, to put parts of two together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from kdkeras.layer_paths import find_layer, layer_paths


class _Call(NamedTuple):
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


def up_to(model: keras.Model, path: str, *, asked_by: str) -> keras.Model:
    """Return a copy of a model that ends in the output of one of its layers.

    Args:
        model: A Functional or Sequential model; it stays as it is.
        path: Path of the layer, also inside nested models.
        asked_by: Who asks, for messages.

    Returns:
        A Functional model with weights of its own.

    Raises:
        TypeError: The model, or a nested one on the path, is neither Functional nor Sequential.
        ValueError: There is no such layer, it is called several times, or a layer cannot be copied.
    """
    return _up_to(model, _parts(model, path), asked_by)


def after(model: keras.Model, path: str, *, asked_by: str) -> Callable[[Any], Any]:
    """Return a copy of what a model does with the output of one of its layers.

    Args:
        model: A Functional or Sequential model; it stays as it is.
        path: Path of the layer, also inside nested models.
        asked_by: Who asks, for messages.

    Returns:
        A function from a symbolic tensor, which takes the place of the layer's output, to what becomes of it. The
        weights are copies.

    Raises:
        TypeError: As for `up_to`.
        ValueError: As for `up_to`; or something passes by the layer, or it is the last one.
    """
    parts = _parts(model, path)
    pieces = _after(model, parts, asked_by)
    if not pieces:
        raise ValueError(
            f"`{asked_by}` needs a layer that others follow. Received: '{path}', the last of model '{model.name}'. "
            "Choose the layer before the classifier."
        )

    def rest(tensor: Any) -> Any:
        for number, piece in enumerate(pieces):
            tensor = _for_input(tensor, piece, f"reused_layers{number or ''}")(tensor)
        return tensor

    return rest


def _up_to(model: keras.Model, parts: list[str], asked_by: str) -> keras.Model:
    copy, calls = _copied(model, asked_by)
    call = _only(calls, parts[0], model, asked_by)
    output = call.output
    if parts[1:]:
        output = _up_to(copy.get_layer(parts[0]), parts[1:], asked_by)(*call.args, **call.kwargs)
    return keras.Model(copy.input, output, name=model.name)


def _after(model: keras.Model, parts: list[str], asked_by: str) -> list[keras.Model]:
    """Return the models that follow the layer one after the other, from the innermost to the outermost."""
    copy, calls = _copied(model, asked_by)
    output = _only(calls, parts[0], model, asked_by).output
    inner = _after(copy.get_layer(parts[0]), parts[1:], asked_by) if parts[1:] else []
    if output is copy.output:
        return inner
    try:
        return [*inner, keras.Model(output, copy.output)]
    except ValueError as error:
        raise ValueError(
            f"`{asked_by}` needs a layer through which all of the model passes. Received: '{parts[0]}' of model "
            f"'{model.name}', which another path goes around. Choose a later layer."
        ) from error


def _for_input(tensor: Any, model: keras.Model, name: str) -> keras.Model:
    """Return a model of the same layers for a tensor of another size or type than its own input."""
    inputs = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)
    again = keras.models.clone_model(model, input_tensors=inputs, clone_function=lambda layer: layer)
    return keras.Model(again.input, again.output, name=name)


def _parts(model: keras.Model, path: str) -> list[str]:
    layer = find_layer(model, path)
    return next(full for full, other in layer_paths(model).items() if other is layer).split("/")


def _copied(model: keras.Model, asked_by: str) -> tuple[keras.Model, dict[str, list[_Call]]]:
    """Return a Functional copy of a model, with what each layer was called on and returned in it."""
    graph = isinstance(model, keras.Sequential | keras.Function)
    if not graph or not type(model).call.__module__.startswith("keras."):
        raise TypeError(
            f"`{asked_by}` needs Functional or Sequential models, which it can cut at a layer. Received: "
            f"'{model.name}' of type {type(model).__name__}. Build it with `keras.Model(inputs, outputs)`."
        )
    calls: dict[str, list[_Call]] = {}

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        output = layer(*args, **kwargs)
        calls.setdefault(layer.name, []).append(_Call(args, kwargs, output))
        return output

    sequential = isinstance(model, keras.Sequential)
    ends = (model.inputs[0], model.outputs[0]) if sequential else (model.input, model.output)
    try:
        # Around the same layers, but not compiled: `clone_model` would compile its copy too.
        copy = keras.models.clone_model(keras.Model(*ends, name=model.name), call_function=call)
    except (TypeError, ValueError) as error:  # a lambda, or a layer without a full `get_config`
        raise ValueError(
            f"`{asked_by}` needs models that can be copied. Received: '{model.name}' with a layer that cannot be "
            "rebuilt from its config. Give that layer a `get_config`."
        ) from error
    copy.set_weights(model.get_weights())
    return copy, calls


def _only(calls: dict[str, list[_Call]], name: str, model: keras.Model, asked_by: str) -> _Call:
    if len(calls.get(name, ())) != 1:
        raise ValueError(
            f"`{asked_by}` needs a layer that the model calls once. Received: '{name}' of model '{model.name}', called "
            f"{len(calls.get(name, ()))} times. Choose another layer."
        )
    return calls[name][0]
