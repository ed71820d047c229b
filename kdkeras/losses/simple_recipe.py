"""A simple recipe: a linear projector, BatchNorm and the logarithm of a sum (SRD, Miles and Mikolajczyk 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.losses._batch import positive, refuse_batch_of_one, weights_of
from kdkeras.losses._positions import average_positions
from kdkeras.losses.base import checked_number
from kdkeras.losses.feature_loss import FeatureLoss, Pair
from kdkeras.signals import Signals

_EPSILON = 1e-4  # of the variance, as in the paper's code
_FLOOR = 1e-5  # of the sum whose logarithm is taken, as in the paper's code for transformers


def simple_recipe(student: Any, teacher: Any, *, alpha: float = 4.0, sample_weight: Any = None) -> Any:
    """Return `log mean_b Σ_c |BN(F_s) − BN(F_t)|^α`, where BN gives each channel mean 0 and variance 1 in the batch.

    Args:
        student: Student features F_s, already projected to the teacher's channels, shape `(batch, channels)`.
        teacher: Teacher features F_t, same shape.
        alpha: Exponent α ≥ 1. Default 4, the setting of the paper.
        sample_weight: Weights w, shape `(batch,)`, or `None`. Mean and variance in BN and the mean over the batch are
            weighted with it, and the value is multiplied by the mean weight.

    Returns:
        A scalar, at least log 1e-5.

    Raises:
        ValueError: The batch holds one sample only.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import simple_recipe
        >>> features = np.array([[1.0, 2.0], [3.0, -2.0]], "float32")
        >>> round(float(simple_recipe(5 * features + 1, features)), 2)  # BN removes scale and offset
        -11.51
    """
    refuse_batch_of_one(student, "simple_recipe")
    weights = weights_of(student, sample_weight)
    share = weights / positive(ops.sum(weights))
    error = ops.power(ops.abs(_batch_norm(student, share) - _batch_norm(teacher, share)), alpha)
    return ops.mean(weights) * ops.log(ops.sum(share[:, None] * _shown(error, share)) + _FLOOR)


def _batch_norm(values: Any, share: Any) -> Any:
    values = _shown(values, share)
    centred = values - ops.sum(share[:, None] * values, axis=0, keepdims=True)
    variance = ops.sum(share[:, None] * ops.square(centred), axis=0, keepdims=True)
    return centred * ops.rsqrt(variance + _EPSILON)


def _shown(values: Any, share: Any) -> Any:
    """Return values with 0 in the place of samples without weight: they may be anything, and 0 times that is not 0."""
    return ops.where(share[:, None] > 0, values, ops.zeros_like(values))


@keras.saving.register_keras_serializable(package="kdkeras")
class SimpleRecipe(FeatureLoss):
    """The student's features, projected, agree with the teacher's up to scale and offset of each channel (SRD).

    `log mean_b Σ_c |BN(F_s W + b) − BN(F_t)|^α` over the batch, where BN is BatchNorm with the statistics of the batch
    and without learned parameters. The logarithm keeps the gradient's size while the error falls; the exponent looks at
    the largest errors first. Maps and sequences are averaged over their positions first, masked ones too, as in the
    paper's code. The paper sums over the batch: that is larger by the logarithm of the batch size, with the same
    gradient. Of several pairs of layers the sum is taken.

    This is a loss between the samples of a batch: a sample of weight 0 has no part in it, nor in BN. Its value may be
    negative.

    Args:
        student_layer: Path of the student's layer, or a list of paths. The paper takes the last feature map.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 2, that of the paper's code.
        alpha: Exponent α ≥ 1. Default 4, the setting of the paper.
        name: Name in logs and progress bar. Default `"simple_recipe"`.

    Attributes:
        projectors: The linear map of each pair of layers, once connected.

    Raises:
        TypeError: A path is not a string.
        ValueError: `alpha` is below 1, or `weight` is negative; when connected, the layers are missing, or channel
            counts are open; in training, the batch holds one sample only.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.SimpleRecipe("pool", "pool", alpha=2).alpha
        2.0

    Reference:
        Miles, Mikolajczyk: Understanding the Role of the Projector in Knowledge Distillation, AAAI 2024,
        arXiv:2303.11098.
    """

    batch_wise = True
    needs = ("sample_weight",)

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 2.0,
        *,
        alpha: float = 4.0,
        name: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)
        self.alpha = checked_number("SimpleRecipe", "alpha", alpha, minimum=1.0)
        self.projectors: list[keras.layers.Dense] = []

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Create the projector of one pair."""
        if place == 0:
            self.projectors = []
        pair.check_channels()
        self.projectors.append(pair.projector(f"projector{place}"))

    def call(self, student: Signals, teacher: Signals, labels: Any = None, sample_weight: Any = None) -> Any:
        """Return the sum over the pairs of layers, a scalar."""
        layers = zip(self.student_layers, self.teacher_layers, self.projectors, strict=True)
        values = [
            simple_recipe(
                projector(average_positions(student.features[ours])),
                average_positions(teacher.features[theirs]),
                alpha=self.alpha,
                sample_weight=sample_weight,
            )
            for ours, theirs, projector in layers
        ]
        return sum(values[1:], values[0])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "alpha": self.alpha}
