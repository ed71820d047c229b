"""Correlation congruence: a kernel between the samples of a batch is that of the teacher (CC, Peng et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.losses._batch import pair_mean, weights_of
from kdkeras.losses._embedding import checked_size, embedded, embedding_heads
from kdkeras.losses._relations import present
from kdkeras.losses.base import checked_number
from kdkeras.losses.feature_loss import Pair
from kdkeras.losses.relational_loss import RelationalLoss
from kdkeras.ops import l2_normalize
from kdkeras.signals import SignalSpec


def correlation_congruence(
    student: Any, teacher: Any, *, gamma: float = 0.4, order: int = 2, sample_weight: Any = None
) -> Any:
    """Return `‖C_s − C_t‖_F² / B²`, where `C_ij ≈ exp(−γ ‖xᵢ − xⱼ‖²)` of features of length 1.

    The Gaussian kernel by its Taylor series, `exp(−2γ) Σ_{p=0..P} (2γ)^p / p! · (xᵢ·xⱼ)^p`.

    Args:
        student: Student features, shape `(batch, ...)`; all axes but the first are flattened.
        teacher: Teacher features, shape `(batch, ...)`, of any rank and width.
        gamma: Width γ > 0 of the kernel. Default 0.4, the paper's.
        order: Order P of the series. Default 2, the paper's.
        sample_weight: Weight of each sample, shape `(batch,)`.

    Returns:
        A scalar.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import correlation_congruence
        >>> float(correlation_congruence(np.eye(2, 3), np.eye(2, 5)))
        0.0
    """
    weights = weights_of(student, sample_weight)
    ours, theirs = (_kernel(values, weights, gamma, order) for values in (student, teacher))
    return pair_mean(ops.square(ours - theirs), weights)


def _kernel(values: Any, weights: Any, gamma: float, order: int) -> Any:
    """Return the correlations C, shape `(batch, batch)`."""
    unit = l2_normalize(present(values, weights))
    cosines = ops.matmul(unit, ops.transpose(unit))  # (b, b)
    series = ops.ones_like(cosines)
    for p in range(order, 0, -1):  # Horner's scheme
        series = 1 + 2 * gamma / p * cosines * series
    return math.exp(-2 * gamma) * series


@keras.saving.register_keras_serializable(package="kdkeras")
class CorrelationCongruence(RelationalLoss):
    """A Gaussian kernel between the samples of a batch should have the teacher's values in the student.

    `‖C_s − C_t‖_F² / B²` with `C_ij ≈ exp(−γ ‖xᵢ − xⱼ‖²)` by its Taylor series of order P, of linear embeddings of
    length 1. The student's embedding is trained with it. The teacher's is a fixed orthogonal projection: if both were
    trained, as in RepDistiller, both could end in one constant vector, where the loss is 0 and nothing was learnt.
    This is the paper's equation; RepDistiller has another one under this name, on the differences of neighbours in the
    batch.

    Args:
        student_layer: Path of the student's layer, or a list of paths. The paper takes the vector before the
            classifier.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 100, for the same equation in Knowledge-Distillation-Zoo.
            RepDistiller's 0.02 is for its own equation, whose values are some hundred times larger.
        gamma: Width γ > 0 of the kernel. Default 0.4, the paper's.
        order: Order P of the series, at least 1. Default 2, the paper's.
        embedding: Length of the embeddings; `None` compares the features themselves. Default 128, as in RepDistiller.
        name: Name in logs and progress bar. Default `"correlation_congruence"`.

    Raises:
        ValueError: A setting is out of range; when connected, the size of a layer is not known; when called, a batch
            of one.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.CorrelationCongruence("pool", "pool").order
        2

    Reference:
        Peng et al.: Correlation Congruence for Knowledge Distillation, ICCV 2019, arXiv:1904.01802.
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 100.0,
        *,
        gamma: float = 0.4,
        order: int = 2,
        embedding: int | None = 128,
        name: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)
        owner = type(self).__name__
        self.gamma = checked_number(owner, "gamma", gamma, minimum=0.0, exclusive=True)
        self.order = checked_size(owner, "order", order)
        self.embedding = None if embedding is None else checked_size(owner, "embedding", embedding)
        self.heads: list[list[keras.layers.Dense]] = []

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Create the embeddings."""
        self.heads = []
        super().connect(student, teacher)

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Create the embeddings of one pair."""
        if self.embedding is not None:
            self.heads.append(embedding_heads(pair, self.embedding, train_teacher=False))

    def compare_pair(self, place: int, student: Any, teacher: Any, sample_weight: Any = None) -> Any:
        """Return the loss of one pair of layers, a scalar."""
        if self.embedding is not None:
            student, teacher = embedded(self.heads[place], student, teacher)
        return correlation_congruence(student, teacher, gamma=self.gamma, order=self.order, sample_weight=sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "gamma": self.gamma, "order": self.order, "embedding": self.embedding}
