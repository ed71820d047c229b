"""Attributions of one model: which parts of an input a prediction rests on."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from kdkeras.explain.class_activation import GradCAM, GradCAMPlusPlus, LayerCAM, ScoreCAM
from kdkeras.explain.explanation import Explanation
from kdkeras.explain.gradients import GradientTimesInput, IntegratedGradients, Saliency, SmoothGrad
from kdkeras.explain.layer_choice import last_map_layer
from kdkeras.explain.lime import LIME
from kdkeras.explain.method import Method
from kdkeras.explain.perturbation import RISE, Occlusion
from kdkeras.explain.readers import Readers
from kdkeras.explain.rollout import AttentionRollout
from kdkeras.explain.shap import SHAP
from kdkeras.explain.subject import Subject

_CLASSES = (
    GradCAM,
    GradCAMPlusPlus,
    LayerCAM,
    ScoreCAM,
    Saliency,
    SmoothGrad,
    GradientTimesInput,
    IntegratedGradients,
    Occlusion,
    RISE,
    LIME,
    SHAP,
    AttentionRollout,
)
METHODS = {each.name: each for each in _CLASSES}


def attribute(
    model: keras.Model,
    x: Any,
    target: Any = None,
    method: str | Method = "grad_cam",
    layer: str | None = None,
    *,
    batch_size: int = 32,
) -> Explanation:
    """Explain one logit of each sample by numbers over its input.

    The numbers belong to the logit of `target`, taken before the model's softmax or sigmoid, whichever way the model
    was built: Functional, Sequential, subclassed, with nested models, in half precision. Of images, each pixel gets
    one; of tables, each feature; of sequences, each value or token. Where a model has several inputs, the one with most
    axes is explained, the images where there are any.

    | method | needs | sign | forward passes per batch |
    |---|---|---|---|
    | `"grad_cam"`, `"grad_cam_plus_plus"`, `"layer_cam"` | a layer with positions | no | 1, and a gradient |
    | `"score_cam"` | images, and a layer of images | no | one per channel |
    | `"saliency"` | floats, or words that are embedded | no | 1, and a gradient |
    | `"smooth_grad"` | the same | no | 25, and gradients |
    | `"gradient_times_input"` | the same | yes | 1, and a gradient |
    | `"integrated_gradients"` | the same | yes | 32, and gradients |
    | `"occlusion"` | nothing | yes | one per window, feature or position |
    | `"rise"` | nothing | yes | 500 |
    | `"lime"` | the extra `explain` | yes | 1,000 |
    | `"shap"` | the extra `explain` | yes | 500; of tables times 50 background rows |
    | `"attention_rollout"` | a transformer; the same map for every target | no | 1 |

    Args:
        model: A Keras model that returns `(batch, units)`.
        x: Inputs, scaled as in training: images `(n, height, width, channels)`, tables `(n, features)`, sequences
            `(n, length, ...)`; for several inputs, a list or dict of arrays.
        target: Index of the unit to explain: one integer, or one per sample, shape `(n,)`. By default, the class that
            the model predicts for each sample; unit 0 for models with a single output.
        method: A name, or a method with settings of its own, such as `explain.IntegratedGradients(steps=64)`.
        layer: Path of the layer whose output is used, for methods that look at one. By default the last layer that is
            called with a height and width above 1 (in a transformer, with a length, before the last attention); an
            earlier one gives finer maps of simpler features.
        batch_size: Samples per pass: more need more memory. 32, as in Keras' `predict`.

    Returns:
        The `Explanation`.

    Raises:
        TypeError: `model` is not a Keras model, or `method` neither a name nor a method.
        ValueError: `method`, `layer`, `target` or the inputs do not fit the model, or it has no layer with a feature
            map.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> layers = [keras.layers.Conv2D(2, 3, name="conv"), keras.layers.Flatten(), keras.layers.Dense(3)]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        >>> explanation = explain.attribute(model, np.ones((4, 8, 8, 1)), target=2)
        >>> explanation.raw.shape, explanation.maps.shape, explanation.layer
        ((4, 6, 6), (4, 8, 8), 'conv')
        >>> explain.attribute(model, np.ones((4, 8, 8, 1)), method="integrated_gradients").raw.shape
        (4, 8, 8)
    """
    return Explainer(model, method, layer, batch_size=batch_size)(x, target)


class Explainer:
    """`attribute` for many calls: what it compiles for the first is used again.

    Args:
        model: A Keras model that returns `(batch, units)`.
        method: A name, or a method with settings of its own.
        layer: Path of the layer, for methods that look at one; by default as for `attribute`.
        batch_size: Samples per pass.
        freeze: Whether the weights that the model has at the first call become constants, on TensorFlow: MobileNetV2's
            Grad-CAM then takes two thirds of the time (`benchmarks/grad_cam_speed.py`), and what the model learns later
            is not seen. Methods that ask the model in ways of their own (the library's engine, words by their
            embedding) are as without it. Default `False`.

    Raises:
        TypeError: `model` is not a Keras model, or `method` neither a name nor a method.
        ValueError: The method is not known, or looks at no layer and is given one. At the first call: the weights
            cannot become constants, and why.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> explainer = explain.Explainer(model, "saliency")
        >>> [explainer(np.ones((n, 4))).maps.shape for n in (2, 3)]
        [(2, 4), (3, 4)]
    """

    def __init__(
        self,
        model: keras.Model,
        method: str | Method = "grad_cam",
        layer: str | None = None,
        *,
        batch_size: int = 32,
        freeze: bool = False,
    ) -> None:
        if not isinstance(model, keras.Model):
            raise TypeError(f"A model must be a `keras.Model`. Received: {model!r} of type {type(model).__name__}.")
        self.model, self.method, self.layer, self.batch_size = model, _method(method), layer, batch_size
        if layer is not None and not self.method.of_layer:
            raise ValueError(
                f"'{self.method.name}' looks at the input, at no layer. Received: layer={layer!r}. Leave it out."
            )
        self._readers = Readers(model, freeze=freeze)

    def __call__(self, x: Any, target: Any = None) -> Explanation:
        """Explain samples.

        Args:
            x: As `attribute` takes them.
            target: As `attribute` takes it.

        Returns:
            The `Explanation`.

        Raises:
            ValueError: The samples or the target do not fit the model, or it has no layer with a feature map.
        """
        subject = Subject(self.model, x, target, batch_size=self.batch_size, readers=self._readers)
        if self.method.of_layer and self.layer is None:
            self.layer = last_map_layer(self.model, subject.rows(0, 1))
        raw = self.method.maps(subject, self.layer)
        maps = _scaled(_like_input(raw, subject.array, self.layer))
        return Explanation(
            self.method.name,
            self.model.name,
            self.layer,
            subject.target,
            raw,
            maps,
            subject.array,
            subject.predictions,
            self.method,
        )


def _method(method: str | Method) -> Method:
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        raise TypeError(f"`method` must be a name, or a method such as `explain.RISE()`. Received: {method!r}.")
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}. Received: method={method!r}.")
    return METHODS[method]()


def _like_input(raw: np.ndarray, x: np.ndarray, layer: str | None) -> np.ndarray:
    """Return maps with the positions of the input."""
    if raw.shape == (x.shape[:3] if x.ndim == 4 else x.shape):
        return raw
    if x.ndim == 4:
        return _resized(raw if raw.ndim == 3 else _as_grid(raw, layer), x.shape[1:3])
    if raw.ndim != 2 or x.ndim < 2:
        raise ValueError(
            f"Maps of layer '{layer}' must have the axes of the input. Received: maps {raw.shape} for inputs "
            f"{x.shape}. Choose another layer, or a method of the input."
        )
    along = _resized(raw[..., np.newaxis], (x.shape[1], 1))[..., 0]  # (n, length)
    return np.broadcast_to(along.reshape(*along.shape, *[1] * (x.ndim - 2)), x.shape).copy()


def _as_grid(raw: np.ndarray, layer: str | None) -> np.ndarray:
    """Return the tokens of a vision transformer as the square that they were cut from; a class token is left out."""
    length = raw.shape[1]
    for tokens in (length, length - 1):
        side = math.isqrt(tokens)
        if side * side == tokens and side > 1:
            return raw[:, length - tokens :].reshape(-1, side, side)
    where = f"layer '{layer}'" if layer else "the attention"
    raise ValueError(
        f"The tokens of {where} must make up a square, with or without a class token before them. Received: {length} "
        "tokens. Choose a layer with height and width, or a method of the input."
    )


def _resized(maps: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return maps of another size, bilinear by pixel centres."""
    resized = keras.ops.image.resize(maps[..., np.newaxis], size, interpolation="bilinear", data_format="channels_last")
    return np.asarray(resized)[..., 0]


def _scaled(maps: np.ndarray) -> np.ndarray:
    """Divide each map by its largest absolute value; maps of zeros stay zeros."""
    largest = np.abs(maps).max(axis=tuple(range(1, maps.ndim)), keepdims=True)
    return maps / np.where(largest > 0, largest, 1)
