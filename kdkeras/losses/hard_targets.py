"""Hard targets: the teacher's top class as the label."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras.losses.base import DistillationLoss, check_exclusive_classes
from kdkeras.ops import log_soften, mean_per_sample
from kdkeras.signals import Signals, SignalSpec


def hard_targets(student: Any, teacher: Any) -> Any:
    """Return `−log softmax(z_s)[argmax z_t]` of each sample.

    Args:
        student: Student logits z_s, shape `(batch, ..., classes)`.
        teacher: Teacher logits z_t, same shape.

    Returns:
        Cross-entropies in nats, shape `(batch,)`; the mean over positions where outputs are dense.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import hard_targets
        >>> z = np.array([[0.0, 0.0]], "float32")
        >>> round(float(hard_targets(z, np.array([[1.0, 5.0]]))[0]), 4)
        0.6931
    """
    return mean_per_sample(_crossentropy(student, teacher))


def _crossentropy(student: Any, teacher: Any) -> Any:
    top = ops.argmax(teacher, axis=-1)
    log_probability = ops.take_along_axis(log_soften(student), ops.expand_dims(top, -1), axis=-1)
    return -ops.squeeze(log_probability, axis=-1)


@keras.saving.register_keras_serializable(package="kdkeras")
class HardTargets(DistillationLoss):
    """The teacher's top class as a label: pseudo-labelling, usable where no true label exists.

    Per sample `−log softmax(z_s)[argmax z_t]`, the hard-label distillation of DeiT without its distillation token.

    Args:
        weight: Factor on this term in the total loss. Default 0.5, as in DeiT: half task, half teacher.
        output: Name of the output that is compared, where the models have several; a pair where the names differ.
        name: Name in logs and progress bar. Default `"hard_targets"`.

    Raises:
        ValueError: `weight` is negative.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.HardTargets().weight
        0.5

    Reference:
        Touvron et al.: Training data-efficient image transformers & distillation through attention, 2021,
        arXiv:2012.12877, equation 3.
    """

    def __init__(
        self, weight: float = 0.5, *, output: str | tuple[str, str] | None = None, name: str | None = None
    ) -> None:
        super().__init__(weight, output=output, name=name)

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check that both models give one score per class."""
        super().connect(student, teacher)
        check_exclusive_classes(self, teacher, student)

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the loss of each sample, shape `(batch,)`, or of each position where outputs are dense."""
        return _crossentropy(student.logits, teacher.logits)
