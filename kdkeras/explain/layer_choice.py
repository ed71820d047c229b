"""Which layer a class activation map looks at when none is named."""

from __future__ import annotations

from typing import Any

import keras

from kdkeras.layer_paths import find_layer, layer_paths
from kdkeras.signals import called_layers

_ATTENTION = (
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.MultiHeadAttention,
)


def last_map_layer(model: keras.Model, sample: Any) -> str:
    """Return the path of the last layer *called* whose output has positions: height and width above 1, or a length.

    Args:
        model: A Keras model.
        sample: Inputs of one sample, nested as the model takes them.

    Returns:
        The last of `map_layers`.

    Raises:
        ValueError: There is no such layer.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.explain.layer_choice import last_map_layer
        >>> layers = [keras.layers.Conv2D(2, 3, name="conv"), keras.layers.Flatten(), keras.layers.Dense(3)]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        >>> last_map_layer(model, np.zeros((1, 8, 8, 1), "float32"))
        'conv'
    """
    return map_layers(model, sample)[-1]


def map_layers(model: keras.Model, sample: Any) -> list[str]:
    """Return the paths of the layers whose output has positions, in the order in which they are called.

    In a transformer they end before the last attention: what comes after that may reach the output through a single
    token. A model without any kernel on positions has none: layers that only prepare the inputs have no features.

    Args:
        model: A Keras model.
        sample: Inputs of one sample, nested as the model takes them.

    Returns:
        Their paths, at least one.

    Raises:
        ValueError: There is no such layer.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.explain.layer_choice import map_layers
        >>> layers = [keras.layers.Conv2D(2, 3, name="conv"), keras.layers.ReLU(name="relu"), keras.layers.Flatten()]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(3)])
        >>> map_layers(model, np.zeros((1, 8, 8, 1), "float32"))
        ['conv', 'relu']
    """
    called = called_layers(model, keras.tree.map_structure(keras.ops.convert_to_tensor, sample))
    attention = tuple(path for path, layer in layer_paths(model).items() if isinstance(layer, _ATTENTION))
    inner = tuple(f"{path}/" for path in attention)  # what is called inside of them
    paths = list(called)
    ends = [place for place, path in enumerate(paths) if path in attention or path.startswith(inner)]
    maps = [path for path in paths if _has_positions(called[path])]
    if ends:
        last = next(each for each in attention if f"{paths[ends[-1]]}/".startswith(f"{each}/"))
        before = next(place for place, path in enumerate(paths) if f"{path}/".startswith(f"{last}/"))
        maps = [path for path in paths[:before] if path in maps and not path.startswith(inner)]
    else:  # what an image was flattened into tells less
        maps = [path for path in maps if len(called[path]) == 4] or maps
    if not any(len(weight.shape) > 1 for path in maps for weight in find_layer(model, path).weights):
        raise ValueError(
            f"Model '{model.name}' has no layer with a feature map (batch, height, width, channels) of height, width "
            "> 1, or (batch, length, channels), which a class activation map needs. Take a method of the input, such "
            "as 'integrated_gradients', or for tabular models `kdkeras.explain.feature_importance`."
        )
    return maps


def _has_positions(shape: tuple[int, ...]) -> bool:
    """Whether a shape is `(batch, height, width, channels)` or `(batch, length, channels)` with several positions."""
    return len(shape) in (3, 4) and all(size > 1 for size in shape[1:-1])
