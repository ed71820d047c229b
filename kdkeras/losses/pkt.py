"""Probabilistic knowledge transfer: who is near whom, as probabilities (PKT, Passalis and Tefas 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.losses._batch import pair_mean, positive, weights_of
from kdkeras.losses._relations import present, relative_weights
from kdkeras.losses.relational_loss import RelationalLoss
from kdkeras.ops import l2_normalize

_EPSILON = 1e-7  # of the authors' code: two opposite samples have probability 0


def pkt(student: Any, teacher: Any, *, sample_weight: Any = None) -> Any:
    """Return `mean_ij p_t(j|i) log((p_t(j|i) + ε) / (p_s(j|i) + ε))`.

    `p(j|i) = k(i, j) / Σ_j k(i, j)` with the kernel `k(i, j) = (cos(xᵢ, xⱼ) + 1) / 2`, and ε = 1e-7.

    Args:
        student: Student features, shape `(batch, ...)`; all axes but the first are flattened.
        teacher: Teacher features, shape `(batch, ...)`, of any rank and width.
        sample_weight: Weight of each sample, shape `(batch,)`. A sample of weight 0 has no part in the sums either.

    Returns:
        A scalar.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import pkt
        >>> float(pkt(np.eye(2, 3), np.eye(2, 5)))
        0.0
    """
    weights = weights_of(student, sample_weight)
    p, q = (_conditional(values, weights) for values in (teacher, student))
    return pair_mean(p * (ops.log(p + _EPSILON) - ops.log(q + _EPSILON)), weights)


def _conditional(values: Any, weights: Any) -> Any:
    """Return the conditional probabilities p(j|i), shape `(batch, batch)`."""
    unit = l2_normalize(present(values, weights))
    kernel = ops.maximum((ops.matmul(unit, ops.transpose(unit)) + 1) / 2, 0.0)  # (b, b)
    return kernel / positive(ops.sum(kernel * relative_weights(weights), axis=-1, keepdims=True))


@keras.saving.register_keras_serializable(package="kdkeras")
class PKT(RelationalLoss):
    """The probability that one sample of a batch picks another as its neighbour should be that of the teacher.

    `mean_ij p_t(j|i) log((p_t(j|i) + ε) / (p_s(j|i) + ε))` over all B² pairs, where `p(j|i)` is proportional to
    `(cos(xᵢ, xⱼ) + 1) / 2` and ε = 1e-7. It does not change with the size of each sample's features. As in the authors'
    code and RepDistiller the sums include the sample itself; in the paper they do not.

    Args:
        student_layer: Path of the student's layer, or a list of paths. The paper takes the vector before the
            classifier.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 30000, the setting of RepDistiller with cross-entropy
            weight 1: a mean over B² probabilities is small.
        name: Name in logs and progress bar. Default `"pkt"`.

    Raises:
        ValueError: `weight` is negative; when called, a batch of one.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.PKT("pool", "pool").weight
        30000.0

    Reference:
        Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer, ECCV 2018,
        arXiv:1803.10837.
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 30000.0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)

    def compare_pair(self, place: int, student: Any, teacher: Any, sample_weight: Any = None) -> Any:
        """Return the loss of one pair of layers, a scalar."""
        return pkt(student, teacher, sample_weight=sample_weight)
