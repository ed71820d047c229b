"""Class activation maps: explanations by what a layer finds where."""

from __future__ import annotations

from typing import ClassVar

import keras
import numpy as np

from kdkeras.explain.method import WithEngine
from kdkeras.explain.subject import Subject
from kdkeras.signals import Attribution


class _ByLayerGradient(WithEngine):
    """A map made of a layer's output A and the logit's gradient by it; both engines' maps are equal to rounding."""

    of_layer: ClassVar[bool] = True

    def maps(self, subject: Subject, layer: str | None) -> np.ndarray:
        """Return the maps at the layer's positions, at least 0."""
        if self.engine == "tf_keras_vis":
            return self.by_library(subject, layer)
        return subject.attributions(Attribution(self.name, layer))()


class GradCAM(_ByLayerGradient):
    """`ReLU(Σ_k α_k A_k)`, with α_k the mean over the positions of `∂z/∂A_k`.

    Args:
        engine: `"native"` (default) or `"tf_keras_vis"`.

    Raises:
        ValueError: The engine is not known.

    Example:
        >>> from kdkeras import explain
        >>> explain.GradCAM(engine="tf_keras_vis").engine
        'tf_keras_vis'

    Reference:
        Selvaraju et al.: Grad-CAM: Visual explanations from deep networks via gradient-based localization, 2017,
        arXiv:1610.02391.
    """

    name: ClassVar[str] = "grad_cam"
    title: ClassVar[str] = "Grad-CAM"


class GradCAMPlusPlus(_ByLayerGradient):
    """Grad-CAM with more weight on the positions where a channel speaks for the class; see `kdkeras.ops`.

    Args:
        engine: `"native"` (default) or `"tf_keras_vis"`.

    Raises:
        ValueError: The engine is not known.

    Example:
        >>> from kdkeras import explain
        >>> explain.GradCAMPlusPlus().title
        'Grad-CAM++'

    Reference:
        Chattopadhyay et al.: Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks, 2018,
        arXiv:1710.11063.
    """

    name: ClassVar[str] = "grad_cam_plus_plus"
    title: ClassVar[str] = "Grad-CAM++"


class LayerCAM(_ByLayerGradient):
    """`ReLU(Σ_k ReLU(∂z/∂A_k) · A_k)`: each position by its own gradient, so that early layers can be explained too.

    Args:
        engine: `"native"` (default) or `"tf_keras_vis"`.

    Raises:
        ValueError: The engine is not known.

    Example:
        >>> from kdkeras import explain
        >>> explain.LayerCAM().title
        'LayerCAM'

    Reference:
        Jiang et al.: LayerCAM: Exploring Hierarchical Class Activation Maps for Localization, 2021.
    """

    name: ClassVar[str] = "layer_cam"
    title: ClassVar[str] = "LayerCAM"


class ScoreCAM(WithEngine):
    """`ReLU(Σ_k p_k A_k)`, with p_k the class's probability when the image is seen through channel k alone.

    Channel k is enlarged to the image (bilinear, by pixel centres), brought to [0, 1], and multiplied with the image.
    No gradient is taken; it costs one forward pass per channel. As the authors' code and tf-keras-vis have it, p_k is
    the probability itself, and not its rise over a black image. The library enlarges maps by their corners: its weights
    are equal to ours where the layer is as large as the image.

    Args:
        engine: `"native"` (default), or `"tf_keras_vis"`, for models with one input and several classes.

    Raises:
        ValueError: The engine is not known.

    Example:
        >>> from kdkeras import explain
        >>> explain.ScoreCAM().title
        'Score-CAM'

    Reference:
        Wang et al.: Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks, 2020,
        arXiv:1910.01279.
    """

    name: ClassVar[str] = "score_cam"
    title: ClassVar[str] = "Score-CAM"
    of_layer: ClassVar[bool] = True

    def maps(self, subject: Subject, layer: str | None) -> np.ndarray:
        """Return the maps at the layer's positions, at least 0."""
        features, images = subject.tapped(layer).features[layer], subject.array
        if features.ndim != 4 or images.ndim != 4:
            raise ValueError(
                "`ScoreCAM` needs images and a layer of shape (batch, height, width, channels). Received: inputs "
                f"{images.shape} and layer '{layer}' {features.shape}. Take another layer, or 'grad_cam'."
            )
        if self.engine == "tf_keras_vis":
            return self.by_library(subject, layer)
        masks = np.asarray(
            keras.ops.image.resize(features, images.shape[1:3], interpolation="bilinear", data_format="channels_last")
        )
        low, high = (limit(masks, axis=(1, 2), keepdims=True) for limit in (np.min, np.max))
        masks = (masks - low) / np.where(high > low, high - low, 1)
        weights = np.stack(
            [subject.scores(images * masks[..., [k]], "probability") for k in range(masks.shape[-1])], axis=-1
        )
        return np.maximum(np.einsum("nhwk,nk->nhw", features, weights), 0).astype("float32")
