"""Explanations by the gradient of the logit with respect to the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from kdkeras.explain.baselines import baseline_of
from kdkeras.explain.embedded import in_floats
from kdkeras.explain.method import Method, WithEngine
from kdkeras.explain.subject import Subject
from kdkeras.signals import Attribution


class Saliency(WithEngine):
    """`|∂z/∂x|`: where a small change moves the logit most.

    Of images, the largest over the channels; of words, the length of the gradient by the word's embedding.

    Args:
        engine: `"native"` (default) or `"tf_keras_vis"`.

    Raises:
        ValueError: The engine is not known.

    Example:
        >>> from kdkeras import explain
        >>> explain.Saliency().title
        'Saliency'

    Reference:
        Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks, 2014, arXiv:1312.6034.
    """

    name: ClassVar[str] = "saliency"
    title: ClassVar[str] = "Saliency"

    def maps(self, subject: Subject, layer: str | None) -> np.ndarray:
        """Return the maps, at least 0."""
        floats = in_floats(subject).subject
        gradient = self.by_library(floats) if self.engine == "tf_keras_vis" else _gradient_of(floats)()
        return _size(np.abs(gradient), subject)


class SmoothGrad(Method):
    """The mean of `|∂z/∂x|` over noisy copies of the input.

    Of images, the largest over the channels; of words, the length over the dimensions of their embedding.

    Args:
        samples: Number of noisy copies. Default 25: the paper sees little gain beyond 50.
        noise: Standard deviation of the Gaussian noise, as a share of each sample's range of values. Default 0.15,
            within the paper's 0.1 to 0.2.
        seed: Seed of the noise.

    Raises:
        ValueError: `samples` is below 1, or `noise` not above 0.

    Example:
        >>> from kdkeras import explain
        >>> explain.SmoothGrad(samples=50).samples
        50

    Reference:
        Smilkov et al.: SmoothGrad: removing noise by adding noise, 2017, arXiv:1706.03825.
    """

    name: ClassVar[str] = "smooth_grad"
    title: ClassVar[str] = "SmoothGrad"

    def __init__(self, samples: int = 25, noise: float = 0.15, *, seed: int = 0) -> None:
        if samples < 1:
            raise ValueError(f"`SmoothGrad` needs samples of at least 1. Received: {samples}.")
        if not noise > 0:
            raise ValueError(f"`SmoothGrad` needs a noise above 0. Received: {noise}.")
        self.samples, self.noise, self.seed = samples, noise, seed

    def maps(self, subject: Subject, layer: str | None) -> np.ndarray:
        """Return the maps, at least 0."""
        floats = in_floats(subject).subject
        gradient = _gradient_of(floats)
        random, x = np.random.default_rng(self.seed), floats.array
        axes = tuple(range(1, x.ndim))
        scale = self.noise * (x.max(axis=axes, keepdims=True) - x.min(axis=axes, keepdims=True))
        total = np.zeros(x.shape, "float64")
        for _ in range(self.samples):
            total += np.abs(gradient((x + scale * random.standard_normal(x.shape)).astype(x.dtype)))
        return _size((total / self.samples).astype("float32"), subject)


class GradientTimesInput(Method):
    """`x · ∂z/∂x`: what each value adds to a logit that is linear in them.

    Of images, summed over the channels; of words, over the dimensions of their embedding.

    Example:
        >>> from kdkeras import explain
        >>> explain.GradientTimesInput().title
        'Gradient × input'

    Reference:
        Shrikumar, Greenside, Kundaje: Learning Important Features Through Propagating Activation Differences, 2017,
        arXiv:1704.02685.
    """

    name: ClassVar[str] = "gradient_times_input"
    title: ClassVar[str] = "Gradient × input"

    def maps(self, subject: Subject, layer: str | None) -> np.ndarray:
        """Return the maps, with sign."""
        floats = in_floats(subject).subject
        return _sum(floats.attributions(Attribution("gradient_times_input", input=floats.place))(), subject)


class IntegratedGradients(Method):
    """`(x − x₀) · ∫ ∂z/∂x (x₀ + t (x − x₀)) dt`: what each value adds, on the straight way from a baseline.

    Together, the values are z(x) − z(x₀): nothing of the logit is lost. The integral is a Gauss-Legendre sum, exact
    for polynomials of degree 2 · steps − 1 along the way. Of images, values are summed over the channels; of words, the
    way leads through the space of their embedding, from that of the baseline's words, and they are summed over it.

    Args:
        steps: Number of points on the way. Default 32: the paper has 20 to 300.
        baseline: The input x₀ that says nothing: a number, an array that broadcasts to the samples, or `"blur"`. By
            default 0 for inputs with positions, such as black images, and the mean of the given samples for tables.

    Raises:
        ValueError: `steps` is below 1; or the baseline does not fit the samples.

    Example:
        >>> from kdkeras import explain
        >>> explain.IntegratedGradients(steps=64).steps
        64

    Reference:
        Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks, 2017, arXiv:1703.01365.
    """

    name: ClassVar[str] = "integrated_gradients"
    title: ClassVar[str] = "Integrated gradients"

    def __init__(self, steps: int = 32, baseline: Any = None) -> None:
        if steps < 1:
            raise ValueError(f"`IntegratedGradients` needs steps of at least 1. Received: {steps}.")
        self.steps, self.baseline = steps, baseline

    def maps(self, subject: Subject, layer: str | None) -> np.ndarray:
        """Return the maps, with sign."""
        floats = in_floats(subject)
        gradient, x = _gradient_of(floats.subject), floats.subject.array
        start = floats.of(baseline_of(subject.array, self.baseline))
        places, weights = np.polynomial.legendre.leggauss(self.steps)  # on [−1, 1]
        total = np.zeros(x.shape, "float64")
        for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
            total += weight * gradient((start + place * (x - start)).astype(x.dtype))
        return _sum(((x - start) * total).astype("float32"), subject)


def _gradient_of(floats: Subject) -> Callable[..., np.ndarray]:
    return floats.attributions(Attribution("input_gradient", input=floats.place))


def _size(values: np.ndarray, subject: Subject) -> np.ndarray:
    """Return one number at least 0 per pixel, feature or word."""
    if values.ndim > subject.array.ndim:
        return np.linalg.norm(values, axis=-1)
    return values.max(axis=-1) if values.ndim == 4 else values


def _sum(values: np.ndarray, subject: Subject) -> np.ndarray:
    """Return one number with a sign per pixel, feature or word."""
    return values.sum(axis=-1) if values.ndim == 4 or values.ndim > subject.array.ndim else values
