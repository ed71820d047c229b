"""Finding the layers of a model by their paths, also inside nested models."""

from __future__ import annotations

import difflib

import keras


def layer_paths(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Return every layer of `model`, also inside nested models, by its path.

    Args:
        model: A Keras model.

    Returns:
        A dict from path, such as `"backbone/conv4"`, to layer, in the order in which the model holds them.

    Example:
        >>> import keras
        >>> from kdkeras.layer_paths import layer_paths
        >>> inner = keras.Sequential([keras.layers.Dense(3, name="hidden")], name="body")
        >>> list(layer_paths(keras.Sequential([inner, keras.layers.Dense(2, name="head")])))
        ['body', 'body/hidden', 'head']
    """
    paths: dict[str, keras.layers.Layer] = {}

    def walk(parent: keras.layers.Layer, prefix: str) -> None:
        # `layers` is public on models only; composite layers hold sublayers too.
        for layer in parent._flatten_layers(include_self=False, recursive=False):
            path = prefix + layer.name
            if path not in paths:
                paths[path] = layer
                walk(layer, path + "/")

    walk(model, "")
    return paths


def first_paths(model: keras.Model) -> dict[keras.layers.Layer, str]:
    """Return the first path of each layer, in the order in which the model holds them.

    Args:
        model: The model.

    Returns:
        Paths by layer.
    """
    return {layer: path for path, layer in reversed(layer_paths(model).items())}


def find_layer(model: keras.Model, path: str) -> keras.layers.Layer:
    """Return the layer at `path`, or the only layer of that name anywhere in the model.

    Args:
        model: A Keras model.
        path: A layer name, or a path through nested models such as `"backbone/conv4"`.

    Returns:
        The layer.

    Raises:
        ValueError: No layer, or more than one, answers to `path`.

    Example:
        >>> import keras
        >>> from kdkeras.layer_paths import find_layer
        >>> find_layer(keras.Sequential([keras.layers.Dense(3, name="hidden")]), "hidden").units
        3
    """
    paths = layer_paths(model)
    if path in paths:
        return paths[path]
    matches = [candidate for candidate in paths if candidate.endswith("/" + path)]
    if len(matches) == 1:
        return paths[matches[0]]
    if matches:
        raise ValueError(f"Layer name '{path}' is ambiguous in model '{model.name}': use one of the paths {matches}.")
    near = difflib.get_close_matches(path, paths, n=3, cutoff=0.3) or list(paths)[-3:]
    raise ValueError(f"Model '{model.name}' has no layer '{path}'. The nearest names are {near}: use one of them.")
