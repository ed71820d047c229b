"""Soft targets (Hinton et al. 2015)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras.losses.tempered_loss import TemperedLoss
from kdkeras.ops import binary_kl_divergence, kl_divergence, log_soften, mean_per_sample
from kdkeras.signals import Signals, SignalSpec


def soft_targets(student: Any, teacher: Any, *, temperature: Any = 4.0) -> Any:
    """Return `T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))` of each sample.

    The factor T² keeps the gradient's size when T changes (Hinton et al. 2015, section 2).

    Args:
        student: Student logits z_s, shape `(batch, ..., classes)`.
        teacher: Teacher logits z_t, same shape.
        temperature: Temperature T > 0. Default 4, the setting of RepDistiller and mdistiller.

    Returns:
        Divergences in nats, shape `(batch,)`; the mean over positions where outputs are dense.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import soft_targets
        >>> z = np.array([[1.0, 2.0, 3.0]], "float32")
        >>> np.asarray(soft_targets(z, z + 5)).round(6).tolist()
        [0.0]
    """
    return mean_per_sample(_divergence(student, teacher, temperature))


def _divergence(student: Any, teacher: Any, temperature: Any) -> Any:
    return temperature**2 * kl_divergence(log_soften(teacher, temperature), log_soften(student, temperature))


def binary_soft_targets(student: Any, teacher: Any, *, temperature: Any = 4.0) -> Any:
    """Return `T² · Σ_k KL(σ(z_tk / T) ‖ σ(z_sk / T))` of each sample, for independent (sigmoid) outputs.

    Args:
        student: Student logits z_s, shape `(batch, ..., units)`.
        teacher: Teacher logits z_t, same shape.
        temperature: Temperature T > 0. Default 4, as for `soft_targets`.

    Returns:
        Divergences in nats, shape `(batch,)`; the mean over positions where outputs are dense.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import binary_soft_targets
        >>> z = np.array([[1.0], [-2.0]], "float32")
        >>> np.asarray(binary_soft_targets(z, z)).tolist()
        [0.0, 0.0]
    """
    return mean_per_sample(_binary_divergence(student, teacher, temperature))


def _binary_divergence(student: Any, teacher: Any, temperature: Any) -> Any:
    divergence = binary_kl_divergence(teacher / temperature, student / temperature)
    return temperature**2 * ops.sum(divergence, axis=-1)


@keras.saving.register_keras_serializable(package="kdkeras")
class SoftTargets(TemperedLoss):
    """The teacher's softened class probabilities as targets: knowledge distillation as first published.

    Per sample `T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))`, computed from log-softmax, so that gradients survive
    logits of any size. Where the teacher ends in a sigmoid, each unit is a distribution of its own and the sum of the
    binary divergences is taken instead. The paper's cross-entropy differs from this by the teacher's entropy, which has
    no gradient.

    Args:
        temperature: Temperature T > 0. Default 4, with weight 0.9 the setting of RepDistiller and mdistiller.
        weight: Factor on this term in the total loss. Default 0.9.
        standardize: Whether each vector of logits is standardised first (LSKD). Default `False`. Its paper uses
            temperature 2 and weight 9 with task weight 0.1.
        output: Name of the output that is compared, where the models have several; a pair where the names differ.
        name: Name in logs and progress bar. Default `"soft_targets"`.

    Raises:
        ValueError: `temperature` is not above 0, or `weight` is negative.

    Example:
        >>> import kdkeras
        >>> loss = kdkeras.losses.SoftTargets(temperature=2, weight=1)
        >>> loss.temperature
        2.0

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531.
    """

    def __init__(
        self,
        temperature: float = 4.0,
        weight: float = 0.9,
        *,
        standardize: bool = False,
        output: str | tuple[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(temperature, weight, standardize=standardize, output=output, name=name)
        self._binary = False

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check the class counts and choose between softmax and sigmoid outputs."""
        super().connect(student, teacher)
        heads = {student.head, teacher.head} & {"softmax", "sigmoid"}
        if len(heads) == 2:
            raise ValueError(
                f"`SoftTargets` needs one kind of output. Received: student '{student.model}' ends in {student.head}, "
                f"teacher '{teacher.model}' in {teacher.head}. End both in the same activation."
            )
        self._binary = heads == {"sigmoid"}
        if not self._binary and teacher.logits[-1] == 1:
            raise ValueError(
                f"`SoftTargets` needs at least two classes, because the softmax of one logit is always 1. Received: "
                f"teacher '{teacher.model}' {teacher.logits}. End the model in `activation='sigmoid'` if it is binary; "
                "take `LogitMatching` if it is a regression."
            )

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the loss of each sample, shape `(batch,)`, or of each position where outputs are dense."""
        divergence = _binary_divergence if self._binary else _divergence
        return divergence(*self.logits(student, teacher))
