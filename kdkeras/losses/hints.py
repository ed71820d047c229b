"""Hints: an inner layer of the student imitates one of the teacher (FitNets, Romero et al. 2015)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras.losses.base import DistillationLoss
from kdkeras.ops import mean_per_sample
from kdkeras.signals import Signals, SignalSpec


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
class Hints(DistillationLoss):
    """Mean squared error between an inner layer of the student and one of the teacher.

    Per sample `mean (r(F_s) − F_t)²`. The regressor r is the identity where the shapes agree, and a trained linear map
    of the channels (a 1×1 convolution) where the channel counts differ. Larger student maps are average-pooled to the
    teacher's size when the ratio is whole. The paper's regressor ends in the teacher's non-linearity; this one is
    linear, because a tapped layer may stand before or after its activation. The paper trains in two stages; this term
    is added to one training, as RepDistiller and mdistiller do.

    Args:
        student_layer: Path of the student's guided layer, such as `"backbone/conv4"`.
        teacher_layer: Path of the teacher's hint layer.
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

    compares_outputs = False
    needs_logits = False

    def __init__(self, student_layer: str, teacher_layer: str, weight: float = 1.0, *, name: str | None = None) -> None:
        super().__init__(weight, name=name)
        self.student_layer = student_layer
        self.teacher_layer = teacher_layer
        self.student_layers = (student_layer,)
        self.teacher_layers = (teacher_layer,)
        self.projector: keras.layers.Dense | None = None
        self._pool: tuple[int, ...] = ()

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check ranks and sizes, and create the projector where channel counts differ."""
        ours, theirs = student.features[self.student_layer], teacher.features[self.teacher_layer]
        received = f"Received: student '{self.student_layer}' {ours}, teacher '{self.teacher_layer}' {theirs}."
        if len(ours) != len(theirs):
            raise ValueError(f"`Hints` needs layers of equal rank. {received} Pool or flatten the larger one first.")
        self._pool = _pooling(ours[1:-1], theirs[1:-1], received)
        if None in (ours[-1], theirs[-1]):
            raise ValueError(f"`Hints` needs known channel counts. {received} Build the models with a fixed last axis.")
        if ours[-1] != theirs[-1]:
            self.projector = keras.layers.Dense(theirs[-1], name="projector", dtype="float32")
            self.projector.build(ours)

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the mean over channels at each position, shape `(batch, ...)`."""
        ours, theirs = student.features[self.student_layer], teacher.features[self.teacher_layer]
        if self._pool:
            # Strides are given, because Keras' default for them fails on JAX. (b, h, w, c) as the teacher's.
            ours = ops.average_pool(ours, self._pool, strides=self._pool, data_format="channels_last")
        if self.projector is not None:
            ours = self.projector(ours)
        return ops.mean(ops.square(ours - theirs), axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = {**super().get_config(), "student_layer": self.student_layer, "teacher_layer": self.teacher_layer}
        del config["output"]  # a loss on inner layers has no use for it
        return config


def _pooling(ours: tuple[int | None, ...], theirs: tuple[int | None, ...], received: str) -> tuple[int, ...]:
    """Return the pooling window that brings the student's sizes to the teacher's; empty where they agree."""
    if ours == theirs:
        return ()
    known = None not in ours and None not in theirs
    if not known or any(mine % other for mine, other in zip(ours, theirs, strict=True)):
        raise ValueError(
            f"`Hints` needs sizes that are equal or a whole multiple of the teacher's. {received} Choose other layers."
        )
    return tuple(mine // other for mine, other in zip(ours, theirs, strict=True))
