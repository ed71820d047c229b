"""Variational information distillation: the student keeps what it needs to predict the teacher (Ahn et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.losses._maps import pool_to_smaller
from kdkeras.losses.base import checked_number
from kdkeras.losses.feature_loss import FeatureLoss, Pair
from kdkeras.ops import mean_per_sample
from kdkeras.signals import SignalSpec

_EPSILON = 1e-5  # smallest variance


def variational_information(student_mean: Any, teacher: Any, *, variance: Any) -> Any:
    """Return `mean ½ [(t − μ)² / σ² + log σ²]` of each sample: what t costs under a normal distribution.

    The negative log-likelihood but for its constant `½ log 2π`, so it may be negative. At μ = t it is `½ mean log σ²`.

    Args:
        student_mean: What the student's features predict, μ, shape `(batch, ..., channels)`.
        teacher: Teacher features t, same shape.
        variance: Variance σ² > 0, a number or of shape `(channels,)`.

    Returns:
        Costs in nats per value, shape `(batch,)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import variational_information
        >>> np.asarray(variational_information(np.zeros((1, 2)), np.array([[1.0, 3.0]]), variance=1.0)).tolist()
        [2.5]
    """
    return mean_per_sample(_cost(student_mean, teacher, variance))


def _cost(mean: Any, teacher: Any, variance: Any) -> Any:
    variance = ops.cast(variance, keras.backend.standardize_dtype(teacher.dtype))
    return 0.5 * (ops.square(teacher - mean) / variance + ops.log(variance))


class Regressor(keras.layers.Layer):
    """Three 1×1 convolutions that predict the teacher's features, and how far off they are in each channel.

    Args:
        channels: The teacher's channel count.
        variance: Variance at the start.
        name: Name of the layer.
    """

    def __init__(self, channels: int, variance: float, *, name: str = "regressor") -> None:
        super().__init__(name=name, dtype="float32")
        self.supports_masking = True
        self.initial = math.log(math.expm1(variance - _EPSILON))  # softplus, undone
        self.convolutions = [
            keras.layers.Dense(channels, activation, use_bias=False, dtype="float32")
            for activation in ("relu", "relu", None)
        ]

    def build(self, input_shape: Any) -> None:
        """Create the variables for features of a shape."""
        for convolution in self.convolutions:
            convolution.build(input_shape)
            input_shape = (*input_shape[:-1], convolution.units)
        self.spread = self.add_weight(
            shape=input_shape[-1:], initializer=keras.initializers.Constant(self.initial), name="spread"
        )
        self.built = True

    def call(self, features: Any) -> Any:
        """Return the prediction, shape `(batch, ..., channels)`."""
        for convolution in self.convolutions:
            features = convolution(features)
        return features

    def variance(self) -> Any:
        """Return the variance of each channel, `softplus(a) + 1e-5`, shape `(channels,)`."""
        return ops.softplus(ops.convert_to_tensor(self.spread)) + _EPSILON


@keras.saving.register_keras_serializable(package="kdkeras")
class VariationalInformation(FeatureLoss):
    """The student's features are to tell as much as they can about the teacher's: a bound on mutual information.

    Per sample `mean ½ [(t − μ(s))² / σ² + log σ²]`, the negative log-likelihood of the teacher's features under a
    normal distribution whose mean a regressor (three 1×1 convolutions with ReLU between, as wide as the teacher's
    layer) predicts from the student's, and whose variance `σ_c² = softplus(a_c) + 1e-5` is learned for each channel c:
    channels that the student cannot tell count less. Both are trained with the student, a_c too. Larger maps are
    average-pooled to the smaller size; of several pairs of layers the sum is taken.

    The least value is not 0: it falls towards `½ log 1e-5 = −5.76` as the prediction becomes exact. Compare values of
    the same teacher layer only.

    Regressor, start of the variance and weight are RepDistiller's. In mdistiller the a_c are never trained.

    Args:
        student_layer: Path of the student's layer, such as `"backbone/conv4"`, or a list of paths; the paper takes the
            end of each stage.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 1, as in RepDistiller.
        initial_variance: Variance of each channel at the start. Default 5, as in RepDistiller.
        name: Name in logs and progress bar. Default `"variational_information"`.

    Attributes:
        regressors: The regressor of each pair; its `variance()` tells what was learned.

    Raises:
        TypeError: `initial_variance` is not a number.
        ValueError: `weight` is negative or `initial_variance` not above 1e-5; when connected, ranks, sizes or channel
            counts do not fit.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.VariationalInformation("conv2", "conv4").initial_variance
        5.0

    Reference:
        Ahn et al.: Variational Information Distillation for Knowledge Transfer, CVPR 2019, arXiv:1904.05835.
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 1.0,
        *,
        initial_variance: float = 5.0,
        name: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)
        self.initial_variance = checked_number(
            "VariationalInformation", "initial_variance", initial_variance, minimum=_EPSILON, exclusive=True
        )
        self.regressors: list[Regressor] = []

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check ranks and sizes, and create the regressors."""
        self.regressors = []
        super().connect(student, teacher)

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Check ranks and sizes of one pair, and create its regressor."""
        pair.check_equal_rank()
        pair.check_sizes()
        pair.check_channels()
        regressor = Regressor(pair.teacher[-1], self.initial_variance)
        regressor.build(pair.student)
        self.regressors.append(regressor)

    def compare_pair(self, place: int, student: Any, teacher: Any) -> Any:
        """Return the mean over channels at each position, shape `(batch, ...)`."""
        student, teacher = pool_to_smaller(student, teacher)
        regressor = self.regressors[place]
        return ops.mean(_cost(regressor(student), teacher, regressor.variance()), axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "initial_variance": self.initial_variance}
