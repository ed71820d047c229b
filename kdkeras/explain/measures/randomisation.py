"""Does an explanation depend on what the model learned? The cascading randomisation of Adebayo et al."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from kdkeras import metrics
from kdkeras.explain.explanation import Explanation
from kdkeras.explain.measures.explainers import Explains, explainer_of
from kdkeras.explain.measures.variants import single_subject
from kdkeras.explain.method import Method
from kdkeras.explain.random_model import clone_of, make_random, weights_from_the_top
from kdkeras.explain.summary import Summary, summarise
from kdkeras.layer_paths import find_layer, first_paths


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
    clone = clone_of(model, asked.array[:1])
    order = weights_from_the_top(clone, asked.array[:1])
    wanted = _wanted(clone, order, layers)
    original = explain(clone, asked.array, asked.target)
    random = np.random.default_rng(seed)
    progress = keras.utils.Progbar(len(wanted), verbose=verbose)
    similarities = []
    for path, variables in order.items():
        for variable in variables:
            make_random(variable, random)
        if path in wanted:
            similarities.append(_similarity(explain(clone, asked.array, asked.target), original))
            progress.update(len(similarities))
    measures = {name: np.stack([each[name] for each in similarities]) for name in similarities[0]}
    return Randomisation(model.name, tuple(path or model.name for path in order if path in wanted), measures)


def _wanted(model: keras.Model, order: dict[str, list[keras.Variable]], layers: Sequence[str] | None) -> set[str]:
    """Return the paths of the layers after which attributions are compared."""
    with_kernel = {path for path, variables in order.items() if any(len(each.shape) > 1 for each in variables)}
    if not with_kernel:
        raise ValueError(f"Model '{model.name}' has no layer with a kernel that could be made random.")
    if layers is None:
        return with_kernel
    paths = first_paths(model)
    wanted = {paths[find_layer(model, path)] for path in layers}
    unknown = sorted(wanted - set(order))
    if unknown or not wanted:
        raise ValueError(
            f"`layers` must name layers with weights of their own, such as {list(order)[:3]}. "
            f"Received: {unknown or list(layers)}."
        )
    return wanted


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
