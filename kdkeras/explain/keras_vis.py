"""Class activation maps by tf-keras-vis, for models that it cannot take by itself.

tf-keras-vis needs a Functional model whose outputs are logits. `KerasVis` puts one around any model: a single layer
that runs the model once and returns its logits and the feature map of the chosen layer, both from the same forward
pass, so that the gradient flows from the one to the other.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kdkeras.signals import Extractor, Signals


class KerasVis:
    """Raw maps of one layer of one model, neither normalised nor resized.

    Args:
        model: A Keras model that is built, with channels-last images among its inputs.
        layer: Path of the layer.
        sample: Inputs of one sample, nested as the model takes them.
        method: `"grad_cam"`, `"grad_cam_plus_plus"` or `"layer_cam"`.

    Raises:
        ValueError: The layer does not exist, is not called, or has no map of at least 2 positions.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.explain.keras_vis import KerasVis
        >>> layers = [keras.layers.Conv2D(2, 3, name="conv"), keras.layers.Flatten(), keras.layers.Dense(3)]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        >>> x = np.ones((4, 8, 8, 1), "float32")
        >>> KerasVis(model, "conv", x[:1], "grad_cam")(x, np.zeros(4, int)).shape
        (4, 6, 6)
    """

    def __init__(self, model: keras.Model, layer: str, sample: Any, method: str) -> None:
        self._model, self._layer, self._method = model, layer, method
        extractor = Extractor(model, [layer])
        signals = extractor(_tensors(sample))
        self._check(signals)
        flat = keras.tree.flatten(sample)
        symbolic = [keras.Input(array.shape[1:], dtype=array.dtype) for array in flat]
        logits, features = _Tap(extractor, sample, signals)(symbolic)
        self._logits_model = keras.Model(symbolic, [logits])
        self._features_model = keras.Model(symbolic, features)  # tells tf-keras-vis which tensor to look at

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
        explainer = _classes()[self._method](self._logits_model)
        relu = {"gradient_modifier": lambda gradient: tf.nn.relu(self._float32(gradient))}
        plain = {"gradient_modifier": self._float32}
        with np.errstate(over="ignore", invalid="ignore"):  # maps that are not finite are refused below
            maps = explainer(
                functools.partial(_score, target=target),
                [tf.convert_to_tensor(array) for array in keras.tree.flatten(inputs)],
                penultimate_layer=self._features_model,
                seek_penultimate_conv_layer=False,
                expand_cam=False,  # its zoom is corner-aligned, and fails on bfloat16 and on several inputs
                normalize_cam=False,
                **(relu if self._method == "layer_cam" else plain),
            )
        maps = np.asarray(maps, dtype="float32")
        if not np.isfinite(maps).all():
            bad = int((~np.isfinite(maps)).any(axis=(1, 2)).sum())
            raise ValueError(
                f"'{self._method}' of layer '{self._layer}' of model '{self._model.name}' is not finite for {bad} of "
                f"{len(maps)} samples: the model overflows on them. Check its weights, and the scale of the images."
            )
        return maps

    def _float32(self, gradient: Any) -> Any:
        """Average the gradients of half-precision models in float32; refuse a missing gradient."""
        if gradient is None:
            raise ValueError(
                f"The logits of model '{self._model.name}' have no gradient with respect to layer '{self._layer}': it "
                "does not lie between an input of floats and the output. Choose another `layer`, or let the model take "
                "float images."
            )
        return tf.cast(gradient, "float32")

    def _check(self, signals: Signals) -> None:
        features = signals.features[self._layer]
        if not keras.ops.is_tensor(features) or len(features.shape) != 4:
            shapes = keras.tree.map_structure(lambda tensor: tuple(tensor.shape), features)
            raise ValueError(
                "tf-keras-vis needs a layer whose output is (batch, height, width, channels). Received: layer "
                f"'{self._layer}' of model '{self._model.name}', whose output is {shapes}. Leave `layer` out to have "
                "one chosen, or take the native engine."
            )


def _score(logits: Any, *, target: np.ndarray) -> Any:
    """Return the target's logit, less its own value: Grad-CAM++ takes its exponential, which must not overflow."""
    chosen = tf.gather(logits, target, batch_dims=1)
    return chosen - tf.stop_gradient(chosen)


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


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Let tf-keras-vis 0.8.7 import `zoom` from a SciPy namespace that is going away, and an old module of its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Please import `zoom`", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="`tf_keras_vis.* deprecated", category=DeprecationWarning)
        yield


@functools.cache
def _classes() -> dict[str, Any]:
    with quiet_import():
        from tf_keras_vis.gradcam import Gradcam
        from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
        from tf_keras_vis.layercam import Layercam
    return {"grad_cam": Gradcam, "grad_cam_plus_plus": GradcamPlusPlus, "layer_cam": Layercam}


def _tensors(inputs: Any) -> Any:
    return keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
