"""Similarity preserving: the same pairs of samples excite student and teacher alike (Tung and Mori 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.losses._batch import pair_mean, positive, weights_of
from kdkeras.losses._relations import present, relative_weights
from kdkeras.losses.relational_loss import RelationalLoss


def similarity_preserving(student: Any, teacher: Any, *, sample_weight: Any = None) -> Any:
    """Return `‖G_s − G_t‖_F² / B²`, where the rows of G are those of `F Fᵀ`, each divided by its L2 norm.

    Args:
        student: Student features F_s, shape `(batch, ...)`; all axes but the first are flattened.
        teacher: Teacher features F_t, shape `(batch, ...)`, of any rank and width.
        sample_weight: Weight of each sample, shape `(batch,)`. A sample of weight 0 has no part in the rows either.

    Returns:
        A scalar.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import similarity_preserving
        >>> float(similarity_preserving(np.eye(2, 3), np.eye(2, 5)))
        0.0
    """
    weights = weights_of(student, sample_weight)
    return pair_mean(ops.square(_similarities(student, weights) - _similarities(teacher, weights)), weights)


def _similarities(values: Any, weights: Any) -> Any:
    """Return the row-normalised similarities G, shape `(batch, batch)`."""
    flat = present(values, weights)  # (b, size)
    # G does not change with the scale of F, and so has no gradient by it: squares of squares stay finite.
    scale = ops.sqrt(positive(ops.mean(ops.sum(ops.square(flat), axis=-1))))
    flat = flat / ops.stop_gradient(scale)
    gram = ops.matmul(flat, ops.transpose(flat))  # (b, b)
    squares = ops.sum(ops.square(gram) * relative_weights(weights), axis=-1, keepdims=True)
    return gram * ops.rsqrt(ops.maximum(squares, 1e-12))


@keras.saving.register_keras_serializable(package="kdkeras")
class SimilarityPreserving(RelationalLoss):
    """The samples of a batch that resemble each other in the teacher should do so in the student.

    `‖G_s − G_t‖_F² / B²`, where G is the matrix `F Fᵀ` of a batch of B flattened features, each row divided by its L2
    norm. It does not change with the scale of the features, nor with a rotation of them. Layers of any sizes can be
    compared, and nothing has to be trained.

    Args:
        student_layer: Path of the student's layer, or a list of paths. The paper takes the last convolution.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 3000, the paper's, with cross-entropy weight 1.
        name: Name in logs and progress bar. Default `"similarity_preserving"`.

    Raises:
        ValueError: `weight` is negative; when called, a batch of one.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.SimilarityPreserving("conv3", "stage4/conv").weight
        3000.0

    Reference:
        Tung, Mori: Similarity-Preserving Knowledge Distillation, ICCV 2019, arXiv:1907.09682.
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 3000.0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)

    def compare_pair(self, place: int, student: Any, teacher: Any, sample_weight: Any = None) -> Any:
        """Return the loss of one pair of layers, a scalar."""
        return similarity_preserving(student, teacher, sample_weight=sample_weight)
