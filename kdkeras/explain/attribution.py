"""Attributions of one model: which parts of an image a prediction rests on."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kdkeras.explain.explanation import Explanation
from kdkeras.explain.grad_cam import GradCam, last_spatial_layer
from kdkeras.inputs import check_arrays, input_specs, is_array_like
from kdkeras.signals import Extractor, refuse_probabilities

METHODS = ("grad_cam",)


def attribute(
    model: keras.Model,
    x: Any,
    target: Any = None,
    method: str = "grad_cam",
    layer: str | None = None,
    *,
    batch_size: int = 32,
) -> Explanation:
    """Explain a model's logits by maps over its images.

    The maps belong to the logit of `target`, taken before the model's softmax or sigmoid, whichever way the model was
    built: Functional, Sequential, subclassed, with nested models, in half precision.

    Args:
        model: A Keras model that takes channels-last images and returns `(batch, units)`.
        x: Images `(n, height, width, channels)`, scaled as in training; for several inputs, a list or dict of arrays.
        target: Index of the unit to explain: one integer, or one per sample, shape `(n,)`. By default, the class that
            the model predicts for each sample; unit 0 for models with a single output.
        method: `"grad_cam"`.
        layer: Path of the layer whose feature map is used. By default the last layer that is called with a height and
            width above 1; an earlier one gives finer maps of simpler features.
        batch_size: Samples per pass: more need more memory. 32, as in Keras' `predict`.

    Returns:
        The `Explanation`.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: `method`, `layer`, `target` or the images do not fit the model, or it has no layer with a feature
            map.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> layers = [keras.layers.Conv2D(2, 3, name="conv"), keras.layers.Flatten(), keras.layers.Dense(3)]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        >>> explanation = explain.attribute(model, np.ones((4, 8, 8, 1)), target=2)
        >>> explanation.raw.shape, explanation.maps.shape, explanation.layer
        ((4, 6, 6), (4, 8, 8), 'conv')

    Reference:
        Selvaraju et al., "Grad-CAM: Visual explanations from deep networks via gradient-based localization", 2017.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}. Received: method={method!r}.")
    if not isinstance(model, keras.Model):
        raise TypeError(f"A model must be a `keras.Model`. Received: {model!r} of type {type(model).__name__}.")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}.")
    inputs = _prepared(model, x)
    images = _images(model, inputs)
    batches = [slice(start, start + batch_size) for start in range(0, len(images), batch_size)]
    sample = _rows(inputs, slice(0, 1))
    cam = GradCam(model, last_spatial_layer(model, sample) if layer is None else layer, sample)

    predictions, logits = _predicted(cam, [_rows(inputs, rows) for rows in batches])
    targets = _targets(target, logits, model.name)
    raw = np.concatenate([cam(_rows(inputs, rows), targets[rows]) for rows in batches])
    maps = np.concatenate([_scaled(raw[rows], images.shape[1:3]) for rows in batches])
    return Explanation(method, model.name, cam.layer, targets, raw, maps, images, predictions)


def units_of(model: keras.Model, x: Any) -> int:
    """Return how many units a model has, from a forward pass of the first sample.

    Args:
        model: The model.
        x: Inputs, as `attribute` takes them.

    Returns:
        The number of units.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: The inputs do not fit the model.
    """
    extractor = Extractor(model)
    first = _rows(_prepared(model, x), slice(0, 1))
    return int(extractor(keras.tree.map_structure(keras.ops.convert_to_tensor, first)).logits.shape[-1])


def _prepared(model: keras.Model, x: Any) -> Any:
    """Return the inputs as checked arrays, floats as float32."""
    if not is_array_like(x):
        raise TypeError(f"x must be arrays or tensors. Received: {type(x).__name__}. Take some images out of it first.")
    # A list of arrays is several inputs; any other list is one input written out.
    if not isinstance(x, (list, tuple, dict)) or not all(np.ndim(leaf) for leaf in keras.tree.flatten(x)):
        x = np.asarray(x)
    arrays = keras.tree.map_structure(np.asarray, x)
    check_arrays(model, arrays)
    flat = keras.tree.flatten(arrays)
    if len({len(array) for array in flat}) > 1:
        raise ValueError(f"All inputs need the same number of samples. Received: {[len(array) for array in flat]}.")
    specs = input_specs(model)
    # Only floats have gradients; where a model declares no inputs, integers too are meant as numbers.
    declared = ["float32"] * len(flat) if specs is None else [spec.dtype for spec in keras.tree.flatten(specs)]
    dtypes = ["float32" if keras.backend.is_float_dtype(dtype) else dtype for dtype in declared]
    flat = [array.astype(dtype) for array, dtype in zip(flat, dtypes, strict=True)]
    # Nested as declared, because Keras warns of a dict in another order.
    same_kind = specs is not None and isinstance(specs, dict) == isinstance(arrays, dict)
    return keras.tree.pack_sequence_as(specs if same_kind else arrays, flat)


def _images(model: keras.Model, inputs: Any) -> np.ndarray:
    """Return the input that has height and width; one with channels, where there are several."""
    arrays = keras.tree.flatten(inputs)
    images = sorted((array for array in arrays if array.ndim in (3, 4)), key=lambda array: -array.ndim)
    if not images:
        raise ValueError(
            "Grad-CAM needs images of shape (n, height, width, channels). "
            f"Received: {[array.shape for array in arrays]} for model '{model.name}'. For tabular models use "
            "`kdkeras.explain.feature_importance`."
        )
    return images[0]


def _rows(inputs: Any, rows: slice) -> Any:
    return keras.tree.map_structure(lambda array: array[rows], inputs)


def _predicted(cam: GradCam, batches: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions and logits of all batches, float32 `(n, units)`."""
    predictions, logits = [], []
    for batch in batches:
        signals = cam.read(batch)
        predictions.append(np.asarray(signals.predictions, dtype="float32"))
        logits.append(np.asarray(signals.logits, dtype="float32"))
    if cam.extractor.head is None:
        refuse_probabilities(np.concatenate(predictions), cam.model.name)
    return np.concatenate(predictions), np.concatenate(logits)


def _targets(target: Any, logits: np.ndarray, name: str) -> np.ndarray:
    """Return the index of the logit to explain, shape `(n,)`."""
    samples, units = logits.shape
    if target is None:
        return logits.argmax(axis=1)  # 0 where there is a single unit
    targets = np.asarray(target)
    if targets.dtype.kind not in "iu" or targets.shape not in ((), (samples,)):
        raise ValueError(
            f"`target` must be an integer, or one integer per sample, shape ({samples},). "
            f"Received: shape {targets.shape} of {targets.dtype}."
        )
    if targets.min() < 0 or targets.max() >= units:
        raise ValueError(
            f"`target` must be between 0 and {units - 1}, the units of model '{name}'. "
            f"Received: {targets.min()} … {targets.max()}."
        )
    return np.broadcast_to(targets.astype("int64"), (samples,)).copy()


def _scaled(raw: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize maps to `size` and divide each by its maximum; maps of zeros stay zeros."""
    resized = keras.ops.image.resize(raw[..., np.newaxis], size, interpolation="bilinear", data_format="channels_last")
    maps = np.asarray(resized)[..., 0]
    largest = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(largest > 0, largest, 1)
