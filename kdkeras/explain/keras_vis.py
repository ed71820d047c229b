"""Grad-CAM by tf-keras-vis, for models that it cannot take by itself.

tf-keras-vis needs a Functional model whose outputs are logits. `GradCam` puts one around any model: a single layer that
runs the model once and returns its logits and the feature map of the chosen layer, both from the same forward pass, so
that the gradient flows from the one to the other.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kdkeras.layer_paths import find_layer
from kdkeras.signals import Extractor, Signals, called_layers


class GradCam:
    """Raw Grad-CAM maps of one layer of one model.

        map = ReLU(Σ_k α_k A_k),  α_k = mean over positions of ∂s/∂A_k

    A_k are the channels of the layer's output, s is the logit of the target. Only the ReLU touches the map: it is
    neither normalised nor resized.

    Args:
        model: A Keras model with channels-last images among its inputs.
        layer: Path of the layer.
        sample: Inputs of one sample, nested as the model takes them.

    Attributes:
        model: The model.
        layer: The path.
        extractor: Reads the model; knows how it ends.

    Raises:
        ValueError: The layer does not exist, is not called, or has no map of at least 2 positions; or the model has
            not one output of shape `(batch, units)`.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.explain.grad_cam import GradCam
        >>> layers = [keras.layers.Conv2D(2, 3, name="conv"), keras.layers.Flatten(), keras.layers.Dense(3)]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        >>> x = np.ones((4, 8, 8, 1), "float32")
        >>> GradCam(model, "conv", x[:1])(x, np.zeros(4, int)).shape
        (4, 6, 6)

    Reference:
        Selvaraju et al., "Grad-CAM: Visual explanations from deep networks via gradient-based localization", 2017.
    """

    def __init__(self, model: keras.Model, layer: str, sample: Any) -> None:
        self.model = model
        self.layer = layer
        if not model.built:
            model(_tensors(sample), training=False)  # `build` may make the layer
        self.extractor = Extractor(model, [layer])
        signals = self.extractor(_tensors(sample))
        self._check(signals)
        flat = keras.tree.flatten(sample)
        symbolic = [keras.Input(array.shape[1:], dtype=array.dtype) for array in flat]
        logits, features = _Tap(self.extractor, sample, signals)(symbolic)
        self._logits_model = keras.Model(symbolic, [logits])
        self._features_model = keras.Model(symbolic, features)  # tells tf-keras-vis which tensor to look at

    def read(self, inputs: Any) -> Signals:
        """Return predictions, logits and features of one batch."""
        return self.extractor(_tensors(inputs))

    def __call__(self, inputs: Any, target: np.ndarray) -> np.ndarray:
        """Return the maps of one batch.

        Args:
            inputs: Arrays, nested as the model takes them.
            target: Index of the logit to explain, shape `(n,)`.

        Returns:
            float32, shape `(n, height, width)` of the layer's output.

        Raises:
            ValueError: The logit does not depend on the layer, or a map is not finite.
        """
        explainer = _gradcam_class()(self._logits_model)
        with np.errstate(over="ignore", invalid="ignore"):  # maps that are not finite are refused below
            maps = explainer(
                lambda logits: tf.gather(logits, target, batch_dims=1),
                [tf.convert_to_tensor(array) for array in keras.tree.flatten(inputs)],
                penultimate_layer=self._features_model,
                seek_penultimate_conv_layer=False,
                gradient_modifier=self._float32_gradient,
                expand_cam=False,  # its zoom is corner-aligned, and fails on bfloat16 and on several inputs
                normalize_cam=False,
            )
        maps = np.asarray(maps, dtype="float32")
        if not np.isfinite(maps).all():
            bad = int((~np.isfinite(maps)).any(axis=(1, 2)).sum())
            raise ValueError(
                f"Grad-CAM of layer '{self.layer}' of model '{self.model.name}' is not finite for {bad} of {len(maps)} "
                "samples: the model overflows on them. Check its weights, and the scale of the images."
            )
        return maps

    def _float32_gradient(self, gradient: Any) -> Any:
        """Average the gradients of half-precision models in float32; refuse a missing gradient."""
        if gradient is None:
            raise ValueError(
                f"The logits of model '{self.model.name}' have no gradient with respect to layer '{self.layer}': it "
                "does not lie between an input of floats and the output. Choose another `layer`, or let the model take "
                "float images."
            )
        return tf.cast(gradient, "float32")

    def _check(self, signals: Signals) -> None:
        name, features = self.model.name, signals.features[self.layer]
        if not keras.ops.is_tensor(features) or not _is_spatial(features.shape):
            shapes = keras.tree.map_structure(lambda tensor: tuple(tensor.shape), features)
            raise ValueError(
                "Grad-CAM needs a layer whose output is (batch, height, width, channels) with height, width > 1. "
                f"Received: layer '{self.layer}' of model '{name}', whose output is {shapes}. "
                "Leave `layer` out to have one chosen."
            )
        if len(signals.logits.shape) != 2:
            raise ValueError(
                f"Grad-CAM needs a model whose output is (batch, units). Received: model '{name}', whose output is "
                f"{tuple(signals.logits.shape)}. Pool it, or explain a model of the part that you want."
            )


def last_spatial_layer(model: keras.Model, sample: Any) -> str:
    """Return the path of the layer that Grad-CAM looks at when none is named.

    It is the last layer *called* whose output has height and width above 1. Layers that only prepare the images, in a
    model without any kernel on them, do not count: they have no features.

    Args:
        model: A Keras model.
        sample: Inputs of one sample, nested as the model takes them.

    Returns:
        The path.

    Raises:
        ValueError: There is no such layer.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.explain.grad_cam import last_spatial_layer
        >>> layers = [keras.layers.Conv2D(2, 3, name="conv"), keras.layers.Flatten(), keras.layers.Dense(3)]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        >>> last_spatial_layer(model, np.zeros((1, 8, 8, 1), "float32"))
        'conv'
    """
    spatial = [path for path, shape in called_layers(model, _tensors(sample)).items() if _is_spatial(shape)]
    kernels = [any(len(weight.shape) > 1 for weight in find_layer(model, path).weights) for path in spatial]
    if not any(kernels):
        raise ValueError(
            f"Model '{model.name}' has no layer with a feature map (batch, height, width, channels) of height, width "
            "> 1, which Grad-CAM needs. For tabular models use `kdkeras.explain.feature_importance`."
        )
    return spatial[-1]


def _is_spatial(shape: Any) -> bool:
    """Whether a shape is `(batch, height, width, channels)` with more than one row and column."""
    return len(shape) == 4 and shape[1] > 1 and shape[2] > 1


class _Tap(keras.layers.Layer):
    """Runs a model once: flat inputs in, logits and feature map out."""

    def __init__(self, extractor: Extractor, sample: Any, signals: Signals) -> None:
        super().__init__(dtype="float32", autocast=False)
        self.extractor = extractor
        self._nested = functools.partial(keras.tree.pack_sequence_as, sample)  # Keras would sort a dict attribute
        self._signals = signals

    def call(self, inputs: list[Any]) -> tuple[Any, Any]:
        return _logits_and_features(self.extractor(self._nested(inputs)))

    def compute_output_spec(self, inputs: list[Any]) -> tuple[Any, Any]:
        # Shapes and dtypes as on the sample: no need to trace the model.
        logits, features = (
            keras.KerasTensor((None, *tensor.shape[1:]), dtype=keras.backend.standardize_dtype(tensor.dtype))
            for tensor in _logits_and_features(self._signals)
        )
        return logits, features


def _logits_and_features(signals: Signals) -> tuple[Any, Any]:
    (features,) = signals.features.values()
    return signals.logits, features


@functools.cache
def _gradcam_class() -> Any:
    with warnings.catch_warnings():
        # tf-keras-vis 0.8.7 imports `zoom` from a SciPy namespace that is going away.
        warnings.filterwarnings("ignore", message="Please import `zoom`", category=DeprecationWarning)
        from tf_keras_vis.gradcam import Gradcam
    return Gradcam


def _tensors(inputs: Any) -> Any:
    return keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
