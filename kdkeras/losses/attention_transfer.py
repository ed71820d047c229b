"""Attention transfer: the student looks where the teacher looks (Zagoruyko and Komodakis 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.losses._maps import check_maps, pool_to_smaller
from kdkeras.losses.base import checked_number
from kdkeras.losses.feature_loss import FeatureLoss, Pair
from kdkeras.ops import flatten_samples, l2_normalize

_SMALLEST = 1e-6  # maps below it fade to 0, so that their gradient stays finite


def attention_transfer(student: Any, teacher: Any, *, power: float = 2.0) -> Any:
    """Return `mean (A(F_s) − A(F_t))²` of each sample, with `A(F) = flatten(mean_c |F|^p) / ‖·‖`.

    Args:
        student: Student features F_s, shape `(batch, positions..., channels)`.
        teacher: Teacher features F_t. Channel counts may differ; the larger maps are average-pooled first.
        power: Power p, at least 1. Default 2, as in the paper.

    Returns:
        Mean squared differences over positions, shape `(batch,)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import attention_transfer
        >>> one = np.array([[[[1.0], [0.0]]]])  # looks at the left pixel
        >>> np.asarray(attention_transfer(one, one[:, :, ::-1])).tolist()
        [1.0]
    """
    student, teacher = pool_to_smaller(student, teacher)
    return ops.mean(ops.square(_attention(student, power) - _attention(teacher, power)), axis=-1)


def _attention(features: Any, power: float) -> Any:
    magnitudes = ops.abs(features)
    # A does not depend on the scale: without it, a power of small numbers does not vanish, and one of large ones is
    # finite. For the same reason it needs no gradient.
    scale = ops.max(magnitudes, axis=tuple(range(1, len(features.shape))), keepdims=True)
    scale = ops.stop_gradient(ops.maximum(scale, _SMALLEST))
    attention = ops.mean(ops.power(magnitudes / scale, power), axis=-1)  # (b, positions...)
    return l2_normalize(flatten_samples(attention))


@keras.saving.register_keras_serializable(package="kdkeras")
class AttentionTransfer(FeatureLoss):
    """The student's attention maps, which tell where its features are large, imitate the teacher's.

    Per sample `mean (A(F_s) − A(F_t))²`, where `A(F)` is the mean over channels of `|F|^p`, flattened and divided by
    its L2 norm. The channel counts may differ, the scale of the features does not matter, and nothing is trained.
    Larger maps are average-pooled to the smaller size; of several pairs of layers the sum is taken. The value is of the
    whole map: masked positions take part.

    The mean over positions follows the authors' code, RepDistiller and mdistiller; the paper's equation 2 has the norm
    of the difference. The features are pooled, not the maps, as RepDistiller does; the paper has maps of equal size.

    Args:
        student_layer: Path of the student's layer, such as `"backbone/conv4"`, or a list of paths; the paper takes the
            end of each stage.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 1000, the paper's β, with cross-entropy weight 1.
        power: Power p, at least 1; a larger one looks at the strongest features only. Default 2, as in the paper.
        name: Name in logs and progress bar. Default `"attention_transfer"`.

    Raises:
        TypeError: `power` is not a number.
        ValueError: `weight` is negative or `power` below 1; when connected, ranks or sizes do not fit.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.AttentionTransfer(["stage1", "stage2"], ["stage1", "stage2"]).weight
        1000.0

    Reference:
        Zagoruyko, Komodakis: Paying More Attention to Attention, ICLR 2017, arXiv:1612.03928, equation 2.
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 1000.0,
        *,
        power: float = 2.0,
        name: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)
        self.power = checked_number("AttentionTransfer", "power", power, minimum=1.0)

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Check ranks and sizes of one pair."""
        check_maps(pair)

    def compare_pair(self, place: int, student: Any, teacher: Any) -> Any:
        """Return the loss of each sample, shape `(batch,)`."""
        return attention_transfer(student, teacher, power=self.power)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "power": self.power}
