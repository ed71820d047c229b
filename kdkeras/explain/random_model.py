"""A clone of a model whose weights are made random: what explanations are worth where nothing was learned."""

from __future__ import annotations

import keras
import numpy as np

from kdkeras._recorder import record
from kdkeras.inputs import input_specs
from kdkeras.layer_paths import first_paths

_ADDED = ("name", "trainable", "dtype")  # to the configuration of every layer


def random_clone(model: keras.Model, sample: np.ndarray, seed: int = 0) -> keras.Model:
    """Return a clone of a model in which all that was learned is random.

    Kernels become normal numbers of the same root mean square, so that activations keep their scale; vectors (biases,
    scales, statistics of BatchNorm) are shuffled; what a `Normalization` was adapted to stays.

    Args:
        model: The model; it is not changed.
        sample: One sample as the model takes it.
        seed: Seed of the weights.

    Returns:
        The clone.

    Raises:
        ValueError: Keras cannot clone the model.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.explain.random_model import random_clone
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> random = random_clone(model, np.ones((1, 4), "float32"))
        >>> bool(np.allclose(random.get_weights()[0], model.get_weights()[0]))
        False
    """
    clone = clone_of(model, sample)
    random = np.random.default_rng(seed)
    for variables in weights_from_the_top(clone, sample).values():
        for variable in variables:
            make_random(variable, random)
    return clone


def clone_of(model: keras.Model, sample: np.ndarray) -> keras.Model:
    """Return a clone of a model with the same weights, of which it was seen that it returns the same.

    Args:
        model: The model.
        sample: One sample as the model takes it.

    Returns:
        The clone.

    Raises:
        ValueError: Keras cannot clone it.
    """
    try:
        clone = _made_again(model)
        if not clone.built:
            clone(sample, training=False)
        clone.set_weights(model.get_weights())
        for layer in clone._flatten_layers():
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # it computes with what it made of its weights
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"Model '{model.name}' cannot be cloned, and the caller's own is never made random. Give it a `get_config` "
            "that returns the arguments of its constructor."
        ) from error
    same = [keras.ops.convert_to_numpy(each(sample, training=False)).astype("float32") for each in (model, clone)]
    if not np.allclose(*same, rtol=1e-2, atol=1e-3, equal_nan=True):
        raise ValueError(
            f"A clone of model '{model.name}' with the same weights does not return the same. Let its `get_config` "
            "return all arguments of its constructor."
        )
    return clone


def weights_from_the_top(model: keras.Model, sample: np.ndarray) -> dict[str, list[keras.Variable]]:
    """Return the weights of each layer that has some of its own, the last called first.

    A layer that is not called itself, as a cell whose recurrent layer runs it in one kernel, goes with the layer that
    it lies in; what is left comes last.

    Args:
        model: The model.
        sample: One sample as the model takes it.

    Returns:
        Variables by the layer's path, `""` for the model's own.
    """
    paths = first_paths(model)
    with record([(layer, "call") for layer in paths]) as records:
        model(sample, training=False)
    by_id = {id(layer): path for layer, path in paths.items()}
    places = {by_id[owner]: place for place, (owner, _) in enumerate(records)}

    def place(path: str) -> int:
        while path and path not in places:
            path = path.rpartition("/")[0]
        return places.get(path, -1)

    own = {path: _own_weights(layer) for layer, path in paths.items()} | {"": _own_weights(model)}
    return {path: own[path] for path in sorted(own, key=place, reverse=True) if own[path]}


def make_random(variable: keras.Variable, random: np.random.Generator) -> None:
    """Put normal numbers of the same root mean square into a kernel; shuffle a vector.

    Args:
        variable: The weights.
        random: Where the numbers come from.
    """
    weight = keras.ops.convert_to_numpy(variable)
    if weight.ndim < 2:
        variable.assign(random.permutation(weight) if weight.ndim else weight)
    else:
        size = np.sqrt((weight.astype("float64") ** 2).mean())
        variable.assign(random.normal(0, size, weight.shape))


def _made_again(model: keras.Model) -> keras.Model:
    if isinstance(model, keras.Sequential) or input_specs(model) is not None:
        return keras.models.clone_model(model)
    # A subclassed model that does not hand `**kwargs` on to Keras cannot take what Keras adds to its arguments.
    config = model.get_config()
    try:
        return type(model).from_config(config)
    except TypeError:
        return type(model).from_config({key: config[key] for key in config if key not in _ADDED})


def _own_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Return the float weights of a layer that are none of its sublayers', and were learned: not `adapt`ed."""
    if isinstance(layer, keras.layers.Normalization):
        return []
    sublayers = layer._flatten_layers(include_self=False, recursive=False)
    inner = {id(variable) for each in sublayers for variable in each.weights}
    return [each for each in layer.weights if id(each) not in inner and keras.backend.is_float_dtype(each.dtype)]
