"""Relational distances: pairs of samples lie as far apart in the student as in the teacher (RKD, Park et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.losses._batch import pair_mean, positive, weights_of
from kdkeras.losses._relations import centred, distances_of, huber
from kdkeras.losses.relational_loss import RelationalLoss


def relational_distance(student: Any, teacher: Any, *, sample_weight: Any = None) -> Any:
    """Return `mean_ij huber(ψ_s(i, j) − ψ_t(i, j))`, where `ψ(i, j) = ‖xᵢ − xⱼ‖ / μ`.

    μ is the mean distance of the pairs that are apart, so that the scale of the features does not count. The mean is
    over all B² pairs, and huber is smooth L1 at δ = 1.

    Args:
        student: Student features, shape `(batch, ...)`; all axes but the first are flattened.
        teacher: Teacher features, shape `(batch, ...)`, of any rank and width.
        sample_weight: Weight of each sample, shape `(batch,)`. A sample of weight 0 has no part in μ either.

    Returns:
        A scalar.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import relational_distance
        >>> x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], "float32")
        >>> round(float(relational_distance(x, 5 * x + 1)), 6)
        0.0
    """
    weights = weights_of(student, sample_weight)
    difference = _relative_distances(student, weights) - _relative_distances(teacher, weights)
    return pair_mean(huber(difference), weights)


def _relative_distances(values: Any, weights: Any) -> Any:
    """Return the distances over their mean ψ, shape `(batch, batch)`."""
    distances, apart = distances_of(centred(values, weights))
    pairs = weights[:, None] * weights[None, :] * ops.cast(apart, distances.dtype)
    mean = ops.sum(pairs * distances) / positive(ops.sum(pairs))
    return distances / positive(mean)


@keras.saving.register_keras_serializable(package="kdkeras")
class RelationalDistance(RelationalLoss):
    """The distances between the samples of a batch, relative to their mean, should be those of the teacher.

    `mean_ij huber(‖sᵢ − sⱼ‖ / μ_s − ‖tᵢ − tⱼ‖ / μ_t)` over all B² pairs, as in RepDistiller. The paper takes the vector
    before the classifier: tap the pooled layer; of a map all positions are flattened. Identical samples have no
    gradient by each other. Goes with `RelationalAngle`.

    Args:
        student_layer: Path of the student's layer, or a list of paths.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 25, with `RelationalAngle` at 50 the setting of the paper
            and of RepDistiller.
        name: Name in logs and progress bar. Default `"relational_distance"`.

    Raises:
        ValueError: `weight` is negative; when called, a batch of one.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.RelationalDistance("pool", "pool").weight
        25.0

    Reference:
        Park et al.: Relational Knowledge Distillation, CVPR 2019, arXiv:1904.05068, section 3.2.1.
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 25.0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)

    def compare_pair(self, place: int, student: Any, teacher: Any, sample_weight: Any = None) -> Any:
        """Return the loss of one pair of layers, a scalar."""
        return relational_distance(student, teacher, sample_weight=sample_weight)
