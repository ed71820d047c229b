"""Relational angles: triples of samples form the same angles in student and teacher (RKD, Park et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.losses._batch import batch_mean, positive, weights_of
from kdkeras.losses._relations import centred, distances_of, huber
from kdkeras.losses.relational_loss import RelationalLoss


def relational_angle(student: Any, teacher: Any, *, sample_weight: Any = None) -> Any:
    """Return `mean_ijk huber(cos ∠_s(i, j, k) − cos ∠_t(i, j, k))`, the angle at sample j between i and k.

    The mean is over all B³ triples; an angle of which a side has no length has cosine 0. Huber is smooth L1 at δ = 1.
    Takes memory for B³ numbers, whatever the width of the features.

    Args:
        student: Student features, shape `(batch, ...)`; all axes but the first are flattened.
        teacher: Teacher features, shape `(batch, ...)`, of any rank and width.
        sample_weight: Weight of each sample, shape `(batch,)`.

    Returns:
        A scalar.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import relational_angle
        >>> x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], "float32")
        >>> round(float(relational_angle(x, 5 * x + 1)), 6)
        0.0
    """
    weights = weights_of(student, sample_weight)
    errors = huber(_cosines(student, weights) - _cosines(teacher, weights))  # (b, b, b)
    errors = ops.sum(errors * weights[:, None] * weights, axis=(1, 2))
    return batch_mean(errors, weights) / positive(ops.square(ops.sum(weights)))


def _cosines(values: Any, weights: Any) -> Any:
    """Return the cosine at the first sample between the two others, shape `(batch, batch, batch)`."""
    flat = centred(values, weights)
    gram = ops.matmul(flat, ops.transpose(flat))  # (b, b)
    distances, apart = distances_of(flat)
    inverse = ops.where(apart, 1 / ops.where(apart, distances, ops.ones_like(distances)), ops.zeros_like(distances))
    # (xᵢ − xⱼ)·(xₖ − xⱼ), from the products of the samples: the differences would take (b, b, size)
    products = gram[None, :, :] - gram[:, :, None] - gram[:, None, :] + ops.diagonal(gram)[:, None, None]
    return products * inverse[:, :, None] * inverse[:, None, :]


@keras.saving.register_keras_serializable(package="kdkeras")
class RelationalAngle(RelationalLoss):
    """The angles that the samples of a batch form with each other should be those of the teacher.

    `mean_ijk huber(cos ∠_s(i, j, k) − cos ∠_t(i, j, k))` over all B³ triples, as in RepDistiller, with the angle at j
    between i and k. The paper takes the vector before the classifier: tap the pooled layer; of a map all positions are
    flattened. Time and memory grow with the cube of the batch: 256 samples take about 0.6 GB. Goes with
    `RelationalDistance`.

    Args:
        student_layer: Path of the student's layer, or a list of paths.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 50, with `RelationalDistance` at 25 the setting of the
            paper and of RepDistiller.
        name: Name in logs and progress bar. Default `"relational_angle"`.

    Raises:
        ValueError: `weight` is negative; when called, a batch of one.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.RelationalAngle("pool", "pool").weight
        50.0

    Reference:
        Park et al.: Relational Knowledge Distillation, CVPR 2019, arXiv:1904.05068, section 3.2.2.
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

    def compare_pair(self, place: int, student: Any, teacher: Any, sample_weight: Any = None) -> Any:
        """Return the loss of one pair of layers, a scalar."""
        return relational_angle(student, teacher, sample_weight=sample_weight)
