"""Does an explanation depend on what the model learned? The cascading randomisation of Adebayo et al."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from kdkeras import metrics
from kdkeras._recorder import record
from kdkeras.explain.explanation import Explanation
from kdkeras.explain.measures.explainers import Explains, explainer_of
from kdkeras.explain.measures.variants import single_subject
from kdkeras.explain.method import Method
from kdkeras.explain.summary import Summary, summarise
from kdkeras.inputs import input_specs
from kdkeras.layer_paths import find_layer, layer_paths


@dataclass(frozen=True, eq=False)
class Randomisation:
    """How much explanations change while a model's weights become random, from the top layer down.

    Attributes:
        model: Name of the model.
        layers: Path of the lowest layer that is random, one per step; all layers above it are random too.
        similarity: Similarity of each sample's attributions to those of the trained model, shape `(layers, n)`, by
            name: `"spearman"`, `"cosine"`, and for maps `"ssim"` of both stretched to [0, 1], as `kdkeras.metrics`
            defines them. NaN where one of the two is zero everywhere, or constant for `"spearman"` and `"ssim"`.
    """

    model: str
    layers: tuple[str, ...]
    similarity: dict[str, np.ndarray] = field(repr=False)

    @property
    def summary(self) -> dict[str, tuple[Summary, ...]]:
        """The `Summary` of each similarity at each layer, by name."""
        return {name: tuple(summarise(row) for row in rows) for name, rows in self.similarity.items()}

    def table(self) -> list[tuple[str, ...]]:
        """Return the mean similarities as text: a header, then one line per layer, from the top down."""
        rows = zip(self.layers, *self.summary.values(), strict=True)
        header = ("random down to", *(_NAMES[name] for name in self.similarity), "samples")
        return [
            header,
            *((path, *(f"{each.mean:.3f}" for each in row), f"{min(each.n for each in row)}") for path, *row in rows),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the means as plain Python values, ready for JSON: NaN becomes `None`."""
        means = {
            name: [None if np.isnan(each.mean) else each.mean for each in row] for name, row in self.summary.items()
        }
        return {"model": self.model, "layers": list(self.layers), "similarity": means}

    def __str__(self) -> str:
        from tabulate import tabulate

        header, *lines = self.table()
        table = tabulate(lines, header, disable_numparse=True, colalign=("left", *("right",) * (len(header) - 1)))
        return f"similarity to the explanations of '{self.model}' as it was trained\n{table}"


_ADDED = ("name", "trainable", "dtype")  # to the configuration of every layer
_NAMES = {"spearman": "Spearman", "cosine": "cosine", "ssim": "SSIM"}


def model_randomisation(
    model: keras.Model,
    x: Any,
    explainer: str | Method | Explanation | Explains = "grad_cam",
    target: Any = None,
    *,
    layers: Sequence[str] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    verbose: int = 0,
) -> Randomisation:
    """Replace a model's weights by random ones, from the top layer down, and watch the explanations change.

    An explanation that stays the same when the model is random shows the image, not the model: the similarity has to
    fall. All of it happens on a clone; the caller's model is never changed.

    Kernels become normal numbers of the same root mean square, so that activations keep their scale; vectors (biases,
    scales, statistics of BatchNorm) are shuffled; what a `Normalization` was adapted to stays. So do the targets: those
    of the trained model.

    Args:
        model: A Keras model with one input, that returns `(batch, units)`. Keras must be able to clone it: a subclassed
            model needs `get_config`, unless its arguments are plain values.
        x: The samples, scaled as in training.
        explainer: A method of `attribute` or its name, whose `maps` are compared; an `Explanation`, for its method, its
            layer and its targets; or a function `(model, x, target) -> attributions` of x's shape, with or without the
            last axis.
        target: Index of the unit to explain, as for `deletion`.
        layers: Paths of the layers after which attributions are compared. By default each layer with a kernel.
        batch_size: Samples per pass. 32, as in Keras' `predict`.
        seed: Seed of the weights.
        verbose: 1 shows a progress bar over the layers. 0.

    Returns:
        The `Randomisation`.

    Raises:
        TypeError: `model` is not a Keras model, or `explainer` nothing that explains.
        ValueError: The model has several inputs, cannot be cloned or has no kernel, or a layer does not exist.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, name="only")])
        >>> itself = lambda model, x, target: x  # an 'explanation' that does not look at the model
        >>> explain.model_randomisation(model, np.random.default_rng(0).normal(size=(4, 6)), itself).table()
        [('random down to', 'Spearman', 'cosine', 'samples'), ('only', '1.000', '1.000', '4')]

    Reference:
        Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, "Sanity checks for saliency maps", 2018.
    """
    explain = explainer_of(explainer, batch_size)
    if target is None and isinstance(explainer, Explanation):
        target = explainer.target
    asked = single_subject(model, x, target, batch_size=batch_size)
    clone = _clone(model, asked.array[:1])
    order = _top_down(clone, asked.array[:1])
    wanted = _wanted(clone, order, layers)
    original = explain(clone, asked.array, asked.target)
    random = np.random.default_rng(seed)
    progress = keras.utils.Progbar(len(wanted), verbose=verbose)
    similarities = []
    for path, variables in order.items():
        for variable in variables:
            variable.assign(_random(keras.ops.convert_to_numpy(variable), random))
        if path in wanted:
            similarities.append(_similarity(explain(clone, asked.array, asked.target), original))
            progress.update(len(similarities))
    measures = {name: np.stack([each[name] for each in similarities]) for name in similarities[0]}
    return Randomisation(model.name, tuple(path or model.name for path in order if path in wanted), measures)


def _clone(model: keras.Model, sample: np.ndarray) -> keras.Model:
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


def _made_again(model: keras.Model) -> keras.Model:
    if isinstance(model, keras.Sequential) or input_specs(model) is not None:
        return keras.models.clone_model(model)
    # A subclassed model that does not hand `**kwargs` on to Keras cannot take what Keras adds to its arguments.
    config = model.get_config()
    try:
        return type(model).from_config(config)
    except TypeError:
        return type(model).from_config({key: config[key] for key in config if key not in _ADDED})


def _top_down(model: keras.Model, sample: np.ndarray) -> dict[str, list[keras.Variable]]:
    """Return the weights of each layer that has some of its own, the last called first.

    A layer that is not called itself, as a cell whose recurrent layer runs it in one kernel, goes with the layer that
    it lies in; what is left comes last.
    """
    paths = _paths(model)
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


def _paths(model: keras.Model) -> dict[keras.layers.Layer, str]:
    """Return the first path of each layer, in the order in which the model holds them."""
    return {layer: path for path, layer in reversed(layer_paths(model).items())}


def _own_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Return the float weights of a layer that are none of its sublayers', and were learned: not `adapt`ed."""
    if isinstance(layer, keras.layers.Normalization):
        return []
    sublayers = layer._flatten_layers(include_self=False, recursive=False)
    inner = {id(variable) for each in sublayers for variable in each.weights}
    return [each for each in layer.weights if id(each) not in inner and keras.backend.is_float_dtype(each.dtype)]


def _wanted(model: keras.Model, order: dict[str, list[keras.Variable]], layers: Sequence[str] | None) -> set[str]:
    """Return the paths of the layers after which attributions are compared."""
    with_kernel = {path for path, variables in order.items() if any(len(each.shape) > 1 for each in variables)}
    if not with_kernel:
        raise ValueError(f"Model '{model.name}' has no layer with a kernel that could be made random.")
    if layers is None:
        return with_kernel
    paths = _paths(model)
    wanted = {paths[find_layer(model, path)] for path in layers}
    unknown = sorted(wanted - set(order))
    if unknown or not wanted:
        raise ValueError(
            f"`layers` must name layers with weights of their own, such as {list(order)[:3]}. "
            f"Received: {unknown or list(layers)}."
        )
    return wanted


def _random(weight: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if weight.ndim < 2:
        return random.permutation(weight) if weight.ndim else weight
    values = weight.astype("float64")
    return random.normal(0, np.sqrt((values**2).mean()), weight.shape)


def _similarity(now: np.ndarray, original: np.ndarray) -> dict[str, np.ndarray]:
    as_rows = [each.reshape(len(each), 1, -1) for each in (now, original)]
    similarity = {"spearman": metrics.spearman(*as_rows), "cosine": metrics.cosine(*as_rows)}
    if original.ndim == 3 and min(original.shape[1:]) > 1:
        window = min(7, *original.shape[1:])
        similarity["ssim"] = metrics.ssim(_unit(now), _unit(original), window=window)
    return similarity


def _unit(maps: np.ndarray) -> np.ndarray:
    """Stretch each map to [0, 1], as the paper does before SSIM; constant ones become zeros."""
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    return (maps - low) / np.where(high > low, high - low, 1)
