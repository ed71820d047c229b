"""Which activation a model ends in."""

from __future__ import annotations

from typing import Any

import keras

from kdkeras._recorder import unwrapped

# By the function's name: Keras' own, TensorFlow's (`softmax_v2`) and JAX's.
_ACTIVATIONS = {"linear": "linear", "softmax": "softmax", "softmax_v2": "softmax", "sigmoid": "sigmoid"}


def head_candidates(model: keras.Model) -> list[tuple[Any, str, str]]:
    """Return (owner, attribute, kind) of everything in `model` that could be its final activation."""
    found: list[tuple[Any, str, str]] = []
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Softmax) and layer.axis in (-1, [-1]):
            found.append((layer, "call", "softmax"))
        kind = _ACTIVATIONS.get(getattr(unwrapped(getattr(layer, "activation", None)), "__name__", ""))
        # An `Activation("linear")` shows nothing: it may only cast what a softmax returned in half precision.
        if kind is not None and not (kind == "linear" and isinstance(layer, keras.layers.Activation)):
            found.append((layer, "activation", kind))
        # Only Functional models have a graph of operations, and Keras does not export their class.
        graph = getattr(layer, "operations", ())
        found += [(operation, "call", type(operation).__name__.lower()) for operation in graph if _is_head(operation)]
    return found


def _is_head(operation: Any) -> bool:
    """Whether a node of a Functional graph is `keras.ops.softmax` over the last axis, or `keras.ops.sigmoid`."""
    if isinstance(operation, keras.layers.Layer):
        return False
    kind = type(operation).__name__
    return kind == "Sigmoid" or (kind == "Softmax" and operation.axis == -1)
