"""Class attention transfer: the student's class activation maps imitate the teacher's (CAT-KD, Guo et al. 2023)."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from kdkeras.losses.base import DistillationLoss
from kdkeras.losses.feature_loss import Pair, pool_to
from kdkeras.ops import l2_normalize
from kdkeras.signals import Attribution, Signals, SignalSpec


def class_attention(student_maps: Any, teacher_maps: Any, *, size: int = 2, normalize: bool = True) -> Any:
    """Return the mean squared error between pooled, normalised class activation maps of each sample.

    `1/(K r²) · Σ_c ‖φ(M_sc)/‖φ(M_sc)‖ − φ(M_tc)/‖φ(M_tc)‖‖²`, with K classes, and φ average pooling to r positions
    along each axis.

    Args:
        student_maps: The student's maps M_s, shape `(batch, positions..., classes)`.
        teacher_maps: The teacher's maps M_t, with as many axes and classes; sizes may differ.
        size: r, at least 1. Default 2, as in the paper. An axis with fewer positions in one of the models is pooled to
            those.
        normalize: Whether each pooled map is divided by its L2 norm. Default `True`, as in the paper.

    Returns:
        Shape `(batch,)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import class_attention
        >>> left = np.array([[[[1.0], [0.0]]]])  # one class, to be seen in the left pixel
        >>> np.asarray(class_attention(left, left[:, :, ::-1])).tolist()
        [1.0]
    """
    positions = zip(student_maps.shape[1:-1], teacher_maps.shape[1:-1], strict=True)
    reached = [min(size, ours, theirs) for ours, theirs in positions]
    # Keras' own pooling to a size takes tensors only, on TensorFlow.
    ours, theirs = (pool_to(ops.convert_to_tensor(maps), reached) for maps in (student_maps, teacher_maps))
    axes = tuple(range(1, len(ours.shape) - 1))
    if normalize:
        ours, theirs = l2_normalize(ours, axis=axes), l2_normalize(theirs, axis=axes)
    return ops.sum(ops.square(ours - theirs), axis=(*axes, -1)) / math.prod(ours.shape[1:])


@keras.saving.register_keras_serializable(package="kdkeras")
class ClassAttention(DistillationLoss):
    """For every class, the student finds it in the same part of the image as the teacher.

    Per sample the mean squared error between the two models' class activation maps `M_c = Σ_k w_kc A_k`, which are
    average-pooled to a few positions and divided by their L2 norms. A is the output of the layer that global average
    pooling takes, w the kernel of the `Dense` layer after it, through which the gradient flows too; the bias has no
    place. Where a 1×1 convolution to the classes comes before the pooling, as the authors build their models, name the
    convolution: its output is the maps. Models that end otherwise are refused.

    Args:
        student_layer: Path of the student's layer that the global average pooling takes.
        teacher_layer: Path of the teacher's.
        weight: Factor on this term in the total loss, β. Default 15, with cross-entropy weight 1 the authors' setting
            for VGG13 → MobileNetV2 on CIFAR-100; theirs go from 10 to 600 with normalised maps, from 0.5 to 15 without.
            They advise to set it so that the weighted loss lies between 1 and 50 after the first epoch.
        size: Positions along each axis that the maps are pooled to, r. Default 2, as in the paper; 4 for ShuffleNets.
        normalize: Whether each pooled map is divided by its L2 norm. Default `True`, as the paper has it; the authors'
            settings for pairs of one family have `False`, so that the size of the logits is learned too.
        output: Name of the output that is explained, where the models have several; a pair where the names differ.
        name: Name in logs and progress bar. Default `"class_attention"`.

    Raises:
        TypeError: `size` is not a whole number, or `normalize` not a boolean.
        ValueError: `weight` is negative or `size` below 1; when connected, a layer does not exist, a model does not end
            in pooling and one `Dense` layer, or ranks do not fit.

    Example:
        >>> import kdkeras
        >>> str(kdkeras.losses.ClassAttention("conv2", "backbone/conv5").teacher_attribution)
        'class_maps:backbone/conv5'

    Reference:
        Guo et al.: Class Attention Transfer Based Knowledge Distillation, 2023, arXiv:2304.12777, equation 5.
    """

    def __init__(
        self,
        student_layer: str,
        teacher_layer: str,
        weight: float = 15.0,
        *,
        size: int = 2,
        normalize: bool = True,
        output: str | tuple[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, output=output, name=name)
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"`ClassAttention` needs a whole number as size. Received: {size!r}.")
        if size < 1:
            raise ValueError(f"`ClassAttention` needs a size of at least 1. Received: {size}.")
        if not isinstance(normalize, bool):
            raise TypeError(f"`ClassAttention` needs normalize=True or False. Received: {normalize!r}.")
        self.student_layer, self.teacher_layer = student_layer, teacher_layer
        self.size, self.normalize = size, normalize
        self.student_attribution = Attribution("class_maps", student_layer, self.output_names[0])
        self.teacher_attribution = Attribution("class_maps", teacher_layer, self.output_names[1])

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check class counts, ranks and sizes."""
        super().connect(student, teacher)
        ours, theirs = student.attributions[self.name], teacher.attributions[self.name]
        pair = Pair("ClassAttention", self.student_layer, ours, self.teacher_layer, theirs)
        pair.check_equal_rank()
        if None in (*ours[1:], *theirs[1:]):
            raise pair.error("known sizes", "Build the models with fixed input sizes.")

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the loss of each sample, shape `(batch,)`."""
        maps = (signals.attributions[self.name] for signals in (student, teacher))
        return class_attention(*maps, size=self.size, normalize=self.normalize)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"student_layer": self.student_layer, "teacher_layer": self.teacher_layer}
        return {**super().get_config(), **own, "size": self.size, "normalize": self.normalize}
