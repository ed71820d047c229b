"""Half-precision models, rebuilt in float32: TFLite converts no mixed_float16 graph."""

from __future__ import annotations

from typing import Any

import keras

from kdkeras.export.signature import is_graph

_HALF = ("float16", "bfloat16")


def float32_model(model: keras.Model) -> keras.Model:
    """Return `model` itself when it computes in float32, else a float32 copy with the same weights.

    `keras.models.clone_model` keeps every layer's dtype policy, so the policy is replaced in each layer's config.

    Args:
        model: A built Keras model.

    Returns:
        A model that computes in float32; the caller's model is not changed.

    Raises:
        ValueError: A half-precision model cannot be cloned: it is subclassed, or a layer has no full config.

    Example:
        >>> import keras
        >>> from kdkeras.export.precision import float32_model
        >>> layer = keras.layers.Dense(2, dtype="mixed_float16")
        >>> model = keras.Sequential([keras.Input((4,)), layer])
        >>> float32_model(model).layers[0].compute_dtype
        'float32'
    """
    if not _is_half(model):
        return model
    if not is_graph(model):
        raise ValueError(_advice(model, "which is subclassed and cannot be cloned"))
    try:
        clone = keras.models.clone_model(model, clone_function=_float32_layer, recursive=True)
    except (TypeError, ValueError) as error:  # a lambda, or a layer without a full `get_config`
        raise ValueError(_advice(model, "which has a layer that cannot be rebuilt from its config")) from error
    clone.set_weights(model.get_weights())
    for layer in clone._flatten_layers():
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            layer.finalize_state()  # what was adapted takes effect here, not when the weights are set
    return clone


def _advice(model: keras.Model, reason: str) -> str:
    return (
        f"An export needs a model that computes in float32. Received: the half-precision model {model.name!r}, "
        f"{reason}. Build it again under keras.config.set_dtype_policy('float32') and copy the weights with "
        "`set_weights`."
    )


def _is_half(layer: keras.layers.Layer) -> bool:
    if is_graph(layer):
        return any(_is_half(inner) for inner in layer.layers)
    return layer.compute_dtype in _HALF


def _float32_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
    return type(layer).from_config(_float32_config(layer.get_config()))


def _float32_config(config: Any) -> Any:
    """Replace every half-precision policy in a config, also those of layers inside wrappers."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return "float32"
        return {key: _float32_config(value) for key, value in config.items()}
    if isinstance(config, list):
        return [_float32_config(value) for value in config]
    return config
