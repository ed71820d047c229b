"""Hints: an inner layer of the student imitates one of the teacher (FitNets, Romero et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.losses.feature_loss import FeatureLoss, Pair, pool_to
from kdkeras.ops import mean_per_sample
from kdkeras.signals import SignalSpec


def hints(student: Any, teacher: Any) -> Any:
    """Return the mean squared error between two feature tensors of each sample.

    Args:
        student: Student features, shape `(batch, ..., channels)`.
        teacher: Teacher features, same shape.

    Returns:
        Mean squared errors, shape `(batch,)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import hints
        >>> np.asarray(hints(np.zeros((1, 2, 2, 1)), np.full((1, 2, 2, 1), 3.0))).tolist()
        [9.0]
    """
    return mean_per_sample(ops.square(student - teacher))


@keras.saving.register_keras_serializable(package="kdkeras")
class Hints(FeatureLoss):
    """Mean squared error between an inner layer of the student and one of the teacher.

    Per sample `mean (r(F_s) − F_t)²`. The regressor r is the identity where the shapes agree, and a trained linear map
    of the channels (a 1×1 convolution) where the channel counts differ. Larger student maps are average-pooled to the
    teacher's size; of several pairs of layers the sum is taken. The paper's regressor ends in the teacher's
    non-linearity; this one is linear, because a tapped layer may stand before or after its activation. The paper trains
    in two stages; this term is added to one training, as RepDistiller and mdistiller do.

    Args:
        student_layer: Path of the student's guided layer, such as `"backbone/conv4"`, or a list of paths.
        teacher_layer: Path of the teacher's hint layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 1. RepDistiller and mdistiller use 100 with
            cross-entropy weight 1 on CIFAR-100.
        name: Name in logs and progress bar. Default `"hints"`.

    Raises:
        ValueError: `weight` is negative; when connected, the layers are missing or their ranks or sizes do not fit.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.Hints(student_layer="c2", teacher_layer="c5", weight=100).teacher_layers
        ('c5',)

    Reference:
        Romero et al.: FitNets: Hints for Thin Deep Nets, 2015, arXiv:1412.6550.
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 1.0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)
        self.projectors: list[keras.layers.Dense | None] = []
        self._sizes: list[tuple[int | None, ...]] = []

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check ranks and sizes, and create a projector where channel counts differ."""
        self.projectors, self._sizes = [], []
        super().connect(student, teacher)

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Check ranks and sizes of one pair, and create its projector where channel counts differ."""
        pair.check_equal_rank()
        pair.check_sizes()
        pair.check_channels()
        if any(ours and ours < theirs for ours, theirs in zip(pair.student[1:-1], pair.teacher[1:-1], strict=True)):
            raise pair.error("student maps of at least the teacher's size", "Choose other layers.")
        self._sizes.append(pair.teacher[1:-1])
        self.projectors.append(pair.projector() if pair.student[-1] != pair.teacher[-1] else None)

    def compare_pair(self, place: int, student: Any, teacher: Any) -> Any:
        """Return the mean over channels at each position, shape `(batch, ...)`."""
        student = pool_to(student, self._sizes[place])
        if self.projectors[place] is not None:
            student = self.projectors[place](student)
        return ops.mean(ops.square(student - teacher), axis=-1)
