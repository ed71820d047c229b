"""Knowledge review: shallow teacher stages teach deep student stages (ReviewKD, Chen et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kdkeras.losses.feature_loss import FeatureLoss, Pair, Shape, pool_to
from kdkeras.ops import mean_per_sample
from kdkeras.signals import Signals, SignalSpec

_LEVELS = (4, 2, 1)  # sizes to which maps are pooled
_WIDEST = 512  # channels of the fused features, at most


def hierarchical_context(student: Any, teacher: Any) -> Any:
    """Return `Σ_l 2⁻ˡ · mean (P_l(F_s) − P_l(F_t))² / Σ_l 2⁻ˡ` of each sample (HCL).

    P_0 leaves a map as it is; the next ones average-pool it to 4×4, 2×2 and 1×1, as far as these are smaller than the
    map. Weights 1, ½, ¼, ⅛ go to those levels in turn and are divided by their sum, as in the paper's code.

    Args:
        student: Student features F_s, shape `(batch, height, width, channels)`, of known size.
        teacher: Teacher features F_t, same shape.

    Returns:
        Weighted mean squared errors, shape `(batch,)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import hierarchical_context
        >>> np.asarray(hierarchical_context(np.zeros((1, 8, 8, 1)), np.full((1, 8, 8, 1), 3.0))).tolist()
        [9.0]
    """
    student, teacher = ops.convert_to_tensor(student), ops.convert_to_tensor(teacher)
    levels = [(level, level) for level in _LEVELS if level < min(student.shape[1:3])]
    weights = [0.5**place for place in range(len(levels) + 1)]
    errors = [
        weight * mean_per_sample(ops.square(pool_to(student, size) - pool_to(teacher, size)))
        for weight, size in zip(weights, [student.shape[1:3], *levels], strict=True)
    ]
    return sum(errors[1:], errors[0]) / sum(weights)


@keras.saving.register_keras_serializable(package="kdkeras")
class ReviewKD(FeatureLoss):
    """Each stage of the teacher teaches the student's stage and all deeper ones, through fused features.

    From the deepest stage to the shallowest, the student's features are compressed to a common width and mixed with
    those carried from the deeper stage, by two learned attention maps (attention-based fusion, ABF):
    `x_i = a ⊙ c(F_si) + b ⊙ up(x_{i+1})`, where `(a, b) = sigmoid(conv1×1([c(F_si), up(x_{i+1})]))`. Then a 3×3
    convolution brings them to the teacher's channels, and `hierarchical_context` compares them with the teacher's
    stage; the value of a sample is the sum over the stages. The layout is that of the paper's code: convolutions with
    BatchNorm and without bias, at most 512 common channels, nearest-neighbour resizing to the teacher's size.

    The fusion is trained with the student and left behind with the loss. Its BatchNorm sees the batch as the student's
    own does: in training a sample's value depends on the others a little, and samples of weight 0 count in the
    statistics.

    Args:
        student_layer: Paths of the student's stages, from the shallowest to the deepest.
        teacher_layer: Paths of the teacher's stages, in the same order.
        weight: Factor on this term in the total loss. Default 1. The paper uses 0.6 to 8 on CIFAR-100, risen linearly
            from 0 over the first 20 epochs.
        name: Name in logs and progress bar. Default `"review_kd"`.

    Attributes:
        fusions: The fusion of each stage, once connected.

    Raises:
        TypeError: A path is not a string.
        ValueError: `weight` is negative; when connected, the layers are missing, are no maps, or their sizes are open.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.ReviewKD(["s1", "s2", "s3"], ["t1", "t2", "t3"], weight=5).name
        'review_kd'

    Reference:
        Chen, Liu, Zhao, Jia: Distilling Knowledge via Knowledge Review, CVPR 2021, arXiv:2104.09044.
    """

    needs = ("training",)

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 1.0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)
        self.fusions: list[_Fusion] = []

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check ranks and sizes, and create the fusion of each stage."""
        self.fusions = []
        self._width = min(_WIDEST, student.features[self.student_layers[-1]][-1] or 1)
        super().connect(student, teacher)

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Check ranks and sizes of one stage, and create its fusion."""
        pair.check_rank(4)
        if None in (*pair.student[1:], *pair.teacher[1:]):
            raise pair.error("maps of known size and channel count", "Build the models with fixed input sizes.")
        deepest = place == len(self.student_layers) - 1
        fusion = _Fusion(self._width, pair.teacher[-1], pair.teacher[1:3], carries=not deepest, name=f"fusion{place}")
        fusion.build(pair.student)
        self.fusions.append(fusion)

    def call(self, student: Signals, teacher: Signals, labels: Any = None, training: bool = False) -> Any:
        """Return the sum over the stages, shape `(batch,)`."""
        stages = zip(self.student_layers, self.teacher_layers, self.fusions, strict=True)
        carried, values = None, []
        for ours, theirs, fusion in reversed(list(stages)):
            fused, carried = fusion(student.features[ours], carried, training=training)
            values.append(hierarchical_context(fused, teacher.features[theirs]))
        return sum(values[1:], values[0])


class _Fusion(keras.layers.Layer):
    """One stage of ABF: compresses the student's features, mixes in the carried ones, and widens to the teacher's.

    Args:
        width: Channels of what is carried from stage to stage.
        channels: Channels of the teacher's stage.
        size: Height and width of the teacher's stage.
        carries: Whether there is a deeper stage.
        name: Name of the layer.
    """

    def __init__(self, width: int, channels: int, size: Shape, *, carries: bool, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        # `lecun_uniform` is the initialisation of the paper's code: PyTorch's `kaiming_uniform_(a=1)`.
        settings = {"use_bias": False, "kernel_initializer": "lecun_uniform", "dtype": "float32"}
        self.width, self.size = width, size
        self.compress = keras.layers.Dense(width, name="compress", **settings)
        self.compress_norm = _norm("compress_norm")
        self.attention = keras.layers.Dense(2, "sigmoid", name="attention", dtype="float32") if carries else None
        self.widen = keras.layers.Conv2D(channels, 3, padding="same", name="widen", **settings)
        self.widen_norm = _norm("widen_norm")

    def build(self, input_shape: Shape) -> None:
        """Create the variables for student features of this shape."""
        inner = (None, *self.size, self.width)
        self.compress.build(input_shape)
        self.compress_norm.build(inner)
        if self.attention is not None:
            self.attention.build((*inner[:-1], 2 * self.width))
        self.widen.build(inner)
        self.widen_norm.build((*inner[:-1], self.widen.filters))
        self.built = True

    def call(self, features: Any, carried: Any = None, training: bool = False) -> tuple[Any, Any]:
        """Return what is compared with the teacher, and what the next shallower stage is given."""
        mixed = self.compress_norm(self.compress(features), training=training)
        if self.attention is not None:
            carried = _resized(carried, mixed.shape[1:3])
            weights = self.attention(ops.concatenate([mixed, carried], axis=-1))  # (b, h, w, 2)
            mixed = weights[..., :1] * mixed + weights[..., 1:] * carried
        mixed = _resized(mixed, self.size)
        return self.widen_norm(self.widen(mixed), training=training), mixed


def _norm(name: str) -> keras.layers.BatchNormalization:
    """Return a BatchNorm with PyTorch's defaults, as the paper's code has it."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name, dtype="float32")


def _resized(values: Any, size: Sequence[int]) -> Any:
    """Return maps in another size, each position with the value of the nearest one, as PyTorch's `interpolate`."""
    for axis, (now, then) in enumerate(zip(values.shape[1:3], size, strict=True), start=1):
        if now != then:
            values = ops.take(values, np.arange(then) * now // then, axis=axis)
    return values
