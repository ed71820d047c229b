"""Neuron selectivity transfer: the student's neurons respond where the teacher's do (Huang and Wang 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.losses._maps import check_maps, pool_to_smaller
from kdkeras.losses.feature_loss import FeatureLoss, Pair
from kdkeras.ops import l2_normalize


def neuron_selectivity(student: Any, teacher: Any) -> Any:
    """Return `mean_ij k(tᵢ, tⱼ) + mean_ij k(sᵢ, sⱼ) − 2 mean_ij k(sᵢ, tⱼ)` of each sample, with `k(x, y) = (x·y)²`.

    Args:
        student: Student features, shape `(batch, positions..., channels)`; sᵢ is channel i over the positions, divided
            by its L2 norm.
        teacher: Teacher features. Channel counts may differ; the larger maps are average-pooled first.

    Returns:
        Squared maximum mean discrepancies, shape `(batch,)`, at least 0.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import neuron_selectivity
        >>> left = np.array([[[[1.0], [0.0]]]])
        >>> np.asarray(neuron_selectivity(left, left[:, :, ::-1])).tolist()
        [2.0]
    """
    student, teacher = pool_to_smaller(student, teacher)
    student, teacher = _selectivity(student), _selectivity(teacher)
    positions = student.shape[1]
    if positions is not None and positions <= max(student.shape[-1], teacher.shape[-1]):  # the cheaper of two ways
        # mean_ij (xᵢ·yⱼ)² is the inner product of the position by position matrices mean_i xᵢxᵢᵀ and mean_j yⱼyⱼᵀ, and
        # so the whole is the squared distance of the two.
        return ops.sum(ops.square(_moments(student) - _moments(teacher)), axis=(1, 2))
    return _kernel(teacher, teacher) + _kernel(student, student) - 2 * _kernel(student, teacher)


def _selectivity(features: Any) -> Any:
    *sizes, channels = features.shape[1:]
    shape = (ops.shape(features)[0], -1, channels) if None in sizes else (-1, math.prod(sizes), channels)
    return l2_normalize(ops.reshape(features, shape), axis=1)  # (b, p, c)


def _moments(channels: Any) -> Any:
    return ops.matmul(channels, ops.transpose(channels, (0, 2, 1))) / channels.shape[-1]  # (b, p, p)


def _kernel(one: Any, other: Any) -> Any:
    products = ops.matmul(ops.transpose(one, (0, 2, 1)), other)  # (b, c of one, c of other)
    return ops.mean(ops.square(products), axis=(1, 2))


@keras.saving.register_keras_serializable(package="kdkeras")
class NeuronSelectivity(FeatureLoss):
    """The distribution of the student's channels, as patterns over space, imitates that of the teacher's.

    Per sample the squared maximum mean discrepancy with the polynomial kernel `k(x, y) = (x·y)²` between the set of the
    student's channels and the set of the teacher's, each channel divided by its L2 norm over the positions. Neither the
    order, the number nor the scale of the channels matters, and nothing is trained. Larger maps are average-pooled to
    the smaller size; of several pairs of layers the sum is taken. The value is of the whole map: masked positions take
    part.

    The paper writes λ/2 before this term; RepDistiller and mdistiller, whose weight is the default, leave the ½ out.
    The kernel's degree 2 and constant 0 are the paper's.

    Args:
        student_layer: Path of the student's layer, such as `"backbone/conv4"`, or a list of paths; the paper takes the
            last convolution.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 50.
        name: Name in logs and progress bar. Default `"neuron_selectivity"`.

    Raises:
        ValueError: `weight` is negative; when connected, ranks or sizes do not fit or channel counts are not known.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.NeuronSelectivity("conv4", "conv4").weight
        50.0

    Reference:
        Huang, Wang: Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, 2017, arXiv:1707.01219.
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 50.0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Check ranks, sizes and channels of one pair."""
        check_maps(pair)
        pair.check_channels()

    def compare_pair(self, place: int, student: Any, teacher: Any) -> Any:
        """Return the loss of each sample, shape `(batch,)`."""
        return neuron_selectivity(student, teacher)
