"""FSP: how features change from one layer to the next (Yim et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras
from keras import ops

from kdkeras.losses._maps import pool_to_smaller
from kdkeras.losses._positions import flatten_positions
from kdkeras.losses.feature_loss import FeatureLoss, Pair
from kdkeras.ops import mean_per_sample
from kdkeras.signals import Signals, SignalSpec


def fsp(student_a: Any, student_b: Any, teacher_a: Any, teacher_b: Any) -> Any:
    """Return `mean (G_s − G_t)²` of each sample, where `G = mean_hw F_a F_bᵀ`.

    Args:
        student_a: Student features of an earlier layer, shape `(batch, positions..., channels_a)`.
        student_b: Student features of a later layer, shape `(batch, positions..., channels_b)`; where one of the two
            maps is larger, it is average-pooled to the size of the other.
        teacher_a: Teacher features, of as many channels as `student_a`, in any size.
        teacher_b: Teacher features, of as many channels as `student_b`, in any size.

    Returns:
        Mean squared differences of the two matrices, shape `(batch,)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import fsp
        >>> ones = np.ones((1, 2, 2, 3), "float32")
        >>> np.asarray(fsp(ones, ones, ones, 3 * ones)).tolist()
        [4.0]
    """
    return mean_per_sample(ops.square(_flow(student_a, student_b) - _flow(teacher_a, teacher_b)))


def _flow(first: Any, second: Any) -> Any:
    """Return G, shape `(batch, channels_a, channels_b)`."""
    first, second = pool_to_smaller(ops.convert_to_tensor(first), ops.convert_to_tensor(second))
    first, second = flatten_positions(first), flatten_positions(second)  # (b, h*w, c)
    return ops.einsum("bpm,bpn->bmn", first, second) / ops.cast(ops.shape(first)[1], first.dtype)


@keras.saving.register_keras_serializable(package="kdkeras")
class FSP(FeatureLoss):
    """Flow of solution procedure: the student's features change between two layers as the teacher's do.

    Per sample `mean (G_s − G_t)²`, where `G = mean_hw F_a F_bᵀ` holds the inner product of each channel of one layer
    with each of another. Of three or more layers, the sum over each and the next. A matrix has the size of the channel
    counts alone, so the models' maps may differ in size, but the student needs the teacher's channel counts, as in the
    paper. It means over all positions, masked ones too.

    The paper sums the squares; the mean and the average pooling are RepDistiller's, while torchdistill max-pools. Both
    the paper and RepDistiller train this term alone first, and the task after it: fit with `task_weight=0`, then
    compile anew. Here it may as well be a term of one training.

    Args:
        student_layers: Paths of two or more student layers, from the input to the output.
        teacher_layers: Paths of as many teacher layers, each with the channel count of the student's.
        weight: Factor on this term in the total loss. Default 1: in a stage of its own, the published use, only the
            learning rate matters. The 50 in RepDistiller's command has no effect in its code.
        name: Name in logs and progress bar. Default `"fsp"`.

    Raises:
        ValueError: There are fewer than two layers, or not as many of each model; `weight` is negative; when connected,
            the layers are missing, or channel counts differ, or sizes do not fit.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.FSP(["c1", "c3"], ["c2", "c8"], weight=50).student_layers
        ('c1', 'c3')

    Reference:
        Yim, Joo, Bae, Kim: A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer
        Learning, CVPR 2017.
    """

    def __init__(
        self,
        student_layers: Sequence[str],
        teacher_layers: Sequence[str],
        weight: float = 1.0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(student_layers, teacher_layers, weight, name=name)
        if len(self.student_layers) < 2:
            raise ValueError(
                f"`FSP` needs two layers or more of each model. Received: {student_layers!r} and {teacher_layers!r}. "
                "Name an earlier and a later one."
            )

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check channel counts between the models, and sizes within each."""
        super().connect(student, teacher)
        for spec, paths in ((student, self.student_layers), (teacher, self.teacher_layers)):
            for first, second in pairwise(paths):
                _check_sizes(spec, first, second)

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Check ranks and channel counts of one pair."""
        pair.check_equal_rank()
        pair.check_rank(3, 4, 5)
        pair.check_channels()
        if pair.student[-1] != pair.teacher[-1]:
            raise pair.error(
                "as many channels in the student's layer as in the teacher's, for it compares channel with channel",
                "Choose layers of equal width, or `Hints`, which projects.",
            )

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the sum over each layer and the next, shape `(batch,)`."""
        ours = [student.features[path] for path in self.student_layers]
        theirs = [teacher.features[path] for path in self.teacher_layers]
        values = [fsp(*a, *b) for a, b in zip(pairwise(ours), pairwise(theirs), strict=True)]
        return sum(values[1:], values[0])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = super().get_config()
        del config["student_layer"], config["teacher_layer"]
        return {**config, "student_layers": list(self.student_layers), "teacher_layers": list(self.teacher_layers)}


def _check_sizes(spec: SignalSpec, first: str, second: str) -> None:
    """Raise unless one of two maps of a model can be pooled to the size of the other."""
    shapes = (spec.features[first], spec.features[second])
    sizes = [shape[1:-1] for shape in shapes]
    if len(shapes[0]) != len(shapes[1]) or (sizes[0] != sizes[1] and None in (*sizes[0], *sizes[1])):
        raise ValueError(
            f"`FSP` needs two layers of one model with equally many axes, and sizes that are equal or known. Received: "
            f"model '{spec.model}' with '{first}' {shapes[0]} and '{second}' {shapes[1]}. Choose other layers."
        )
