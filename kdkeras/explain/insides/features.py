"""Outputs of layers, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from kdkeras.layer_paths import find_layer, first_paths
from kdkeras.signals import Reader, called_layers


def feature_layers(model: keras.Model, x: Any, layers: Sequence[str] | None = None) -> list[str]:
    """Return the paths of the layers to look at: those asked for, or each one called that has a kernel.

    Args:
        model: The model.
        x: Inputs, as `prepared` returns them.
        layers: Paths or names of layers; `None` for all with a kernel.

    Returns:
        Paths, in the order in which the layers are called.

    Raises:
        ValueError: There is no such layer, or it returns no single tensor of its own.
    """
    called = shapes_of_layers(model, x)
    if layers is None:
        found = [path for path in called if any(len(each.shape) > 1 for each in find_layer(model, path).weights)]
        if not found:
            raise ValueError(f"Model '{model.name}' has no layer with a kernel. Name the layers to look at.")
        return found
    by_layer = first_paths(model)
    found = [by_layer[find_layer(model, path)] for path in layers]
    missing = [path for path in found if path not in called]
    if missing or not found:
        raise ValueError(
            f"Each layer of model '{model.name}' must return a tensor of its own, as {list(called)[:3]} do. Received: "
            f"{missing or list(layers)}."
        )
    return sorted(set(found), key=list(called).index)


def shapes_of_layers(model: keras.Model, x: Any) -> dict[str, tuple[int, ...]]:
    """Return which layers are called, in order, with the shapes of their outputs for one sample.

    Args:
        model: The model.
        x: Inputs, as `prepared` returns them.

    Returns:
        Shapes by path, the batch axis 1.
    """
    return called_layers(model, keras.tree.map_structure(lambda array: keras.ops.convert_to_tensor(array[:1]), x))


def batches_of_features(
    model: keras.Model, x: Any, layers: Sequence[str], batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the outputs of layers for each batch.

    Args:
        model: The model.
        x: Inputs, as `prepared` returns them.
        layers: Paths of the layers.
        batch_size: Samples per pass.

    Yields:
        float32 arrays `(batch, ...)` by path.
    """
    reader = Reader(model, layers)
    for start in range(0, len(keras.tree.flatten(x)[0]), batch_size):
        stop = start + batch_size
        batch = keras.tree.map_structure(lambda array, start=start, stop=stop: array[start:stop], x)
        features = reader.predict_on_batch(batch).features
        yield {path: np.asarray(features[path], dtype="float32") for path in layers}
