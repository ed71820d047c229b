"""Maps by tf-keras-vis, for models that it cannot take by itself.

tf-keras-vis needs a Functional model whose outputs are logits. `KerasVis` puts one around any model: a single layer
that runs the model once and returns its logits and, where a layer is looked at, its feature map, both from the same
forward pass, so that the gradient flows from the one to the other.
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
    """Raw maps of one model, neither normalised nor resized.

    Args:
        model: A Keras model that is built, with channels-last images among its inputs where a layer is looked at.
        layer: Path of the layer; `None` for `"saliency"`, the gradient by the input.
        sample: Inputs of one sample, nested as the model takes them.
        method: `"grad_cam"`, `"grad_cam_plus_plus"`, `"layer_cam"`, `"score_cam"` or `"saliency"`.
        place: Place of the explained input, as `keras.tree.flatten` has them.

    Raises:
        ValueError: The layer does not exist, is not called, or has no map of at least 2 positions; or Score-CAM is
            asked for and the model has several inputs, or one unit.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.explain.keras_vis import KerasVis
        >>> layers = [keras.layers.Conv2D(2, 3, name="conv"), keras.layers.Flatten(), keras.layers.Dense(3)]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        >>> x = np.ones((4, 8, 8, 1), "float32")
        >>> KerasVis(model, "conv", x[:1], "grad_cam")(x, np.zeros(4, int)).shape
        (4, 6, 6)
        >>> KerasVis(model, None, x[:1], "saliency")(x, np.zeros(4, int)).shape
        (4, 8, 8, 1)
    """

    def __init__(self, model: keras.Model, layer: str | None, sample: Any, method: str, place: int = 0) -> None:
        self._model, self._layer, self._method, self._place = model, layer, method, place
        extractor = Extractor(model, [] if layer is None else [layer])
        signals = extractor(_tensors(sample))
        flat = keras.tree.flatten(sample)
        self._check(signals, flat, extractor.head)
        symbolic = [keras.Input(array.shape[1:], dtype=array.dtype) for array in flat]
        logits, *features = _Tap(extractor, sample, signals)(symbolic)
        self._logits_model = keras.Model(symbolic, [logits])
        # Score-CAM predicts with a progress bar for every batch.
        self._logits_model.predict = functools.partial(self._logits_model.predict, verbose=0)
        self._features_model = keras.Model(symbolic, features[0]) if features else None  # which tensor to look at

    def __call__(self, inputs: Any, target: np.ndarray) -> np.ndarray:
        """Return the maps of one batch.

        Args:
            inputs: Arrays, nested as the model takes them.
            target: Index of the logit to explain, shape `(n,)`.

        Returns:
            float32, shape `(n, height, width)` of the layer's output, or for `"saliency"` that of the input.

        Raises:
            ValueError: The logit does not depend on the layer, or a map is not finite.
        """
        explainer = _classes()[self._method](self._logits_model)
        tensors = [tf.convert_to_tensor(array) for array in keras.tree.flatten(inputs)]
        score = functools.partial(_chosen if self._method == "score_cam" else _slope_only, target=target)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
            maps = explainer(score, tensors, **self._settings())
        maps = np.asarray(maps[self._place] if isinstance(maps, list) else maps, dtype="float32")
        bad = ~np.isfinite(maps.reshape(len(maps), -1)).all(axis=1)
        if bad.any():
            raise ValueError(
                f"'{self._method}' of {self._where} of model '{self._model.name}' is not finite for {int(bad.sum())} "
                f"of {len(maps)} samples: the model overflows on them. Check its weights, and the scale of the images."
            )
        return maps

    def _settings(self) -> dict[str, Any]:
        """Return what the library is told, so that it leaves its maps as they are."""
        if self._method == "saliency":
            return {"normalize_map": False, "keepdims": True, "gradient_modifier": None}
        # Its zoom is corner-aligned, and fails on bfloat16 and on several inputs.
        of_layer = {"seek_penultimate_conv_layer": False, "expand_cam": False, "normalize_cam": False}
        of_layer["penultimate_layer"] = self._features_model
        if self._method == "score_cam":
            return of_layer
        relu = self._method == "layer_cam"
        return of_layer | {
            "gradient_modifier": lambda g: tf.nn.relu(self._float32(g)) if relu else self._float32(g),
        }

    @property
    def _where(self) -> str:
        return "the input" if self._layer is None else f"layer '{self._layer}'"

    def _float32(self, gradient: Any) -> Any:
        """Average the gradients of half-precision models in float32; refuse a missing gradient."""
        if gradient is None:
            raise ValueError(
                f"The logits of model '{self._model.name}' have no gradient with respect to {self._where}: it does not "
                "lie between an input of floats and the output. Choose another `layer`, or let the model take float "
                "images."
            )
        return tf.cast(gradient, "float32")

    def _check(self, signals: Signals, inputs: list[np.ndarray], head: str | None) -> None:
        if self._layer is None:
            return
        features = signals.features[self._layer]
        if not keras.ops.is_tensor(features) or len(features.shape) != 4:
            shapes = keras.tree.map_structure(lambda tensor: tuple(tensor.shape), features)
            raise ValueError(
                "tf-keras-vis needs a layer whose output is (batch, height, width, channels). Received: layer "
                f"'{self._layer}' of model '{self._model.name}', whose output is {shapes}. Leave `layer` out to have "
                "one chosen, or take the native engine."
            )
        units = signals.logits.shape[-1]
        if self._method == "score_cam" and (len(inputs) > 1 or units == 1 or head == "sigmoid"):
            raise ValueError(
                "tf-keras-vis has Score-CAM for one input and a softmax over several classes. Received: model "
                f"'{self._model.name}' with {len(inputs)} inputs, {units} units and the head {head!r}. Take the native "
                "engine."
            )


def _chosen(logits: Any, *, target: np.ndarray) -> Any:
    """Return the target's logit; of Score-CAM, which applies a softmax before, its probability."""
    return tf.gather(logits, target, batch_dims=1)


def _slope_only(logits: Any, *, target: np.ndarray) -> Any:
    """Return the target's logit, less its own value: Grad-CAM++ takes its exponential, which must not overflow."""
    chosen = _chosen(logits, target=target)
    return chosen - tf.stop_gradient(chosen)


class _Tap(keras.layers.Layer):
    """Runs a model once: flat inputs in, logits and, where there is one, the feature map out."""

    def __init__(self, extractor: Extractor, sample: Any, signals: Signals) -> None:
        super().__init__(dtype="float32", autocast=False)
        self.extractor = extractor
        self._nested = functools.partial(keras.tree.pack_sequence_as, sample)  # Keras would sort a dict attribute
        self._signals = signals

    def call(self, inputs: list[Any]) -> list[Any]:
        return _outputs(self.extractor(self._nested(inputs)))

    def compute_output_spec(self, inputs: list[Any]) -> list[Any]:
        # Shapes and dtypes as on the sample: no need to trace the model.
        return [
            keras.KerasTensor((None, *tensor.shape[1:]), dtype=keras.backend.standardize_dtype(tensor.dtype))
            for tensor in _outputs(self._signals)
        ]


def _outputs(signals: Signals) -> list[Any]:
    return [signals.logits, *signals.features.values()]


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
        from tf_keras_vis.saliency import Saliency
        from tf_keras_vis.scorecam import Scorecam
    return {
        "grad_cam": Gradcam,
        "grad_cam_plus_plus": GradcamPlusPlus,
        "layer_cam": Layercam,
        "score_cam": Scorecam,
        "saliency": Saliency,
    }


def _tensors(inputs: Any) -> Any:
    return keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
