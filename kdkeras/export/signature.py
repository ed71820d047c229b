"""What goes into a model: the names, shapes and dtypes of its inputs, in one flat order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras
import numpy as np

_AUTOMATIC = re.compile(r"(keras_tensor|input_layer)(_\d+)?")


class Input(NamedTuple):
    """One input tensor.

    Attributes:
        name: Its name in the TFLite signature.
        key: The key under which the model takes it, when the model takes a dict.
        shape: Its shape; the first entry is the batch, `None` stands for an unknown size.
        dtype: Its dtype, as a string.
    """

    name: str
    key: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Signature:
    """The inputs of a model, flat, with the structure that the model expects.

    Attributes:
        inputs: The inputs, in the order of `keras.tree.flatten`.
        structure: The model's own structure (a tensor, a list, a dict) of placeholders.
    """

    inputs: tuple[Input, ...]
    structure: Any

    def pack(self, flat: Sequence[Any]) -> Any:
        """Return flat tensors in the structure that the model is called with."""
        return keras.tree.pack_sequence_as(self.structure, list(flat))

    def fixed(self, samples: Sequence[np.ndarray], batch_size: int = 1) -> Signature:
        """Return this signature at one batch size, unknown sizes filled from `samples`."""
        shapes = [(batch_size, *array.shape[1:]) for array in samples]
        pairs = zip(self.inputs, shapes, strict=True)
        return replace(self, inputs=tuple(item._replace(shape=shape) for item, shape in pairs))


def signature_of(model: keras.Model) -> Signature:
    """Read the inputs of a built model: Functional, Sequential or subclassed.

    Input names are those given to `keras.Input`; unnamed inputs are called `input_0`, `input_1`, ... because the
    automatic names of Keras change from run to run.

    Args:
        model: A built Keras model.

    Returns:
        Its `Signature`.

    Raises:
        ValueError: The model is not built, its input shape is unknown, or its batch size is fixed above 1.

    Example:
        >>> import keras
        >>> from kdkeras.export.signature import signature_of
        >>> model = keras.Sequential([keras.Input((4,), name="pixels"), keras.layers.Dense(2)])
        >>> signature_of(model).inputs[0].name
        'pixels'
    """
    if is_graph(model) and model.built:
        structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
        _refuse_fixed_batch(model, structure)
    else:
        structure = _built_structure(model)
    tensors = keras.tree.flatten(structure)
    names = _names([tensor.name for tensor in tensors])
    inputs = (
        Input(name, tensor.name, (None, *tensor.shape[1:]), keras.backend.standardize_dtype(tensor.dtype))
        for name, tensor in zip(names, tensors, strict=True)
    )
    return Signature(tuple(inputs), structure)


def is_graph(model: Any) -> bool:
    """Whether `model` is Sequential or Functional: a graph of layers, with inputs known before any call."""
    # Keras exports no name for the Functional class, only `keras.Model(inputs, outputs)`, which makes one.
    return isinstance(model, keras.Sequential) or any(base.__name__ == "Functional" for base in type(model).__mro__)


def _refuse_fixed_batch(model: keras.Model, structure: Any) -> None:
    for tensor in keras.tree.flatten(structure):
        if tensor.shape[0] not in (None, 1):
            raise ValueError(
                f"An export sets the batch size itself, so it needs a model with a free batch size. Received: "
                f"{model.name!r} with input shape {tensor.shape}. Rebuild it with `keras.Input(shape=...)` and copy "
                "the weights."
            )


def _built_structure(model: keras.Model) -> Any:
    """Placeholders for a subclassed model, from the input shape that it was built with."""
    config = model.get_build_config() if model.built else None
    shapes = (config or {}).get("input_shape")
    if not shapes:
        raise ValueError(
            f"An export needs a built model with a known input shape. Received: {model.name!r}, which has none. "
            "Call it once on a batch of data, or `model.build(input_shape)`, before the export."
        )
    dtype = model.input_dtype
    if isinstance(shapes, dict):
        return {key: keras.KerasTensor(shape, dtype, name=key) for key, shape in shapes.items()}
    if isinstance(shapes[0], (tuple, list)):
        return [keras.KerasTensor(shape, dtype, name=f"input_{index}") for index, shape in enumerate(shapes)]
    return keras.KerasTensor(shapes, dtype, name="input_0")


def safe_name(name: str) -> str:
    """Return a name of Keras as TensorFlow accepts it: letters, digits and underscores.

    Args:
        name: Any name.

    Returns:
        The name in the file's signature.
    """
    return re.sub(r"\W", "_", name)


def _names(tensor_names: list[str]) -> list[str]:
    """Names that TensorFlow accepts as they are, so that they stand unchanged in the file."""
    names = [
        f"input_{index}" if _AUTOMATIC.fullmatch(name) else safe_name(name) for index, name in enumerate(tensor_names)
    ]
    if len(set(names)) < len(names):
        return [f"input_{index}" for index in range(len(names))]
    return names
