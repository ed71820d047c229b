"""Activation boundaries: the student's neurons fire where the teacher's do (Heo et al., AAAI 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.losses._connector import ConnectedLoss, Connector
from kdkeras.losses._maps import check_pools_to_teacher, pool_to_smaller
from kdkeras.losses.base import checked_number
from kdkeras.losses.feature_loss import Pair
from kdkeras.ops import mean_per_sample
from kdkeras.signals import SignalSpec


def activation_boundaries(student: Any, teacher: Any, *, margin: float = 1.0) -> Any:
    """Return `mean [(s + m)² 1(s > −m, t ≤ 0) + (s − m)² 1(s ≤ m, t > 0)]` of each sample.

    Args:
        student: Student features s before their activation, shape `(batch, ..., channels)`.
        teacher: Teacher features t before their activation, same shape.
        margin: Margin m, at least 0. Default 1, as in the paper.

    Returns:
        Mean squared distances to the right side of the boundary, shape `(batch,)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import activation_boundaries
        >>> t = np.array([[0.1, -7.0]])  # the first neuron fires, the second does not
        >>> np.asarray(activation_boundaries(np.array([[1.0, -1.0]]), t)).tolist()
        [0.0]
        >>> np.asarray(activation_boundaries(np.array([[-1.0, -1.0]]), t)).tolist()
        [2.0]
    """
    return mean_per_sample(_distances(student, teacher, margin))


def _distances(student: Any, teacher: Any, margin: float) -> Any:
    return ops.square(ops.relu(ops.where(teacher > 0, margin - student, margin + student)))


@keras.saving.register_keras_serializable(package="kdkeras")
class ActivationBoundaries(ConnectedLoss):
    """Each neuron of the student is to fire where the teacher's fires, and only there; how strongly does not matter.

    Per sample `mean [(s + m)² 1(s > −m, t ≤ 0) + (s − m)² 1(s ≤ m, t > 0)]`: a hinge loss on the student's features
    with the sign of the teacher's as the label. Both layers are to be tapped before their activation, such as the
    BatchNorm before a ReLU. Where the channel counts differ, a trained linear map of the channels (a 1×1 convolution)
    with BatchNorm stands before the student's features. Larger student maps are average-pooled to the teacher's size;
    of several pairs of layers the sum is taken. The value is 0 only where every student feature lies beyond the margin,
    on the teacher's side: at student = teacher it is not.

    The paper sums over neurons; the authors' code divides that by 1000 and halves it from each stage to the one before.
    The mean taken here does not depend on the layer's size; where each stage halves the maps and doubles the channels,
    it gives the stages the same share as the code does. The code's scale is a weight of 0.001 (for CIFAR 0.003) times
    the number of values in the last layer. The paper uses this term alone, to initialise the student, and then trains
    on cross-entropy or soft targets: compile with `task_weight=0` first.

    The connector's BatchNorm takes the statistics of the batch in training, without samples of weight 0, and those that
    it gathered in `evaluate`: so in training the values of one sample depend on the others.

    Args:
        student_layer: Path of the student's layer before its activation, such as `"norm4"`, or a list of paths.
        teacher_layer: Path of the teacher's layer before its activation, or as many in a list.
        weight: Factor on this term in the total loss. Default 1.
        margin: Margin m, at least 0. Default 1, as in the paper.
        name: Name in logs and progress bar. Default `"activation_boundaries"`.

    Raises:
        TypeError: `margin` is not a number.
        ValueError: `weight` or `margin` is negative; when connected, ranks or sizes do not fit.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.ActivationBoundaries("norm2", "norm2").margin
        1.0

    Reference:
        Heo et al.: Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons, AAAI 2019,
        arXiv:1811.03233.
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 1.0,
        *,
        margin: float = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)
        self.margin = checked_number("ActivationBoundaries", "margin", margin, minimum=0.0)

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check ranks and sizes, and create a connector where channel counts differ."""
        self.connectors = []
        super().connect(student, teacher)

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Check ranks and sizes of one pair, and create its connector where channel counts differ."""
        check_pools_to_teacher(pair)
        self.connectors.append(Connector.between(pair) if pair.student[-1] != pair.teacher[-1] else None)

    def compare_pair(self, place: int, student: Any, teacher: Any) -> Any:
        """Return the mean over channels at each position, shape `(batch, ...)`."""
        return ops.mean(_distances(*pool_to_smaller(student, teacher), self.margin), axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "margin": self.margin}
