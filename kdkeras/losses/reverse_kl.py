"""The reverse Kullback-Leibler divergence, as language models are distilled with it (MiniLLM, Gu et al. 2024)."""

from __future__ import annotations

from typing import Any

import keras

from kdkeras.losses.base import check_exclusive_classes
from kdkeras.losses.tempered_loss import TemperedLoss
from kdkeras.ops import kl_divergence, log_soften, mean_per_sample
from kdkeras.signals import Signals, SignalSpec


def reverse_kl(student: Any, teacher: Any, *, temperature: Any = 1.0) -> Any:
    """Return `T² · KL(softmax(z_s / T) ‖ softmax(z_t / T))` of each sample.

    Args:
        student: Student logits z_s, shape `(batch, ..., classes)`.
        teacher: Teacher logits z_t, same shape.
        temperature: Temperature T > 0. Default 1, as in language models.

    Returns:
        Divergences in nats, shape `(batch,)`; the mean over positions where outputs are dense.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import reverse_kl, soft_targets
        >>> student, teacher = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
        >>> round(float(reverse_kl(student, teacher)[0]), 4)
        0.5108
        >>> round(float(soft_targets(student, teacher, temperature=1.0)[0]), 4)
        0.3681
    """
    return mean_per_sample(_divergence(student, teacher, temperature))


def _divergence(student: Any, teacher: Any, temperature: Any) -> Any:
    return temperature**2 * kl_divergence(log_soften(student, temperature), log_soften(teacher, temperature))


@keras.saving.register_keras_serializable(package="kdkeras")
class ReverseKL(TemperedLoss):
    """The divergence of the student from the teacher, in place of the teacher from the student.

    Per sample `T² · KL(softmax(z_s / T) ‖ softmax(z_t / T))`. `SoftTargets` makes a student that is too small cover
    everything that the teacher gives a probability; this makes it keep to what the teacher finds probable, and leave
    out the rest: of use where a student generates. The paper's generations are the student's own, with a policy
    gradient; this is its divergence alone, at each position of the data that `fit` is given.

    Args:
        temperature: Temperature T > 0. Default 1, as in the paper.
        weight: Factor on this term in the total loss. Default 1.
        standardize: Whether each vector of logits is standardised first (LSKD). Default `False`.
        output: Name of the output that is compared, where the models have several; a pair where the names differ.
        name: Name in logs and progress bar. Default `"reverse_kl"`.

    Raises:
        ValueError: `temperature` is not above 0, or `weight` is negative; when connected, the outputs are not exclusive
            classes.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.ReverseKL().temperature
        1.0

    Reference:
        Gu et al.: MiniLLM: Knowledge Distillation of Large Language Models, ICLR 2024, arXiv:2306.08543.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        weight: float = 1.0,
        *,
        standardize: bool = False,
        output: str | tuple[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(temperature, weight, standardize=standardize, output=output, name=name)

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check that both models give one score per class."""
        super().connect(student, teacher)
        check_exclusive_classes(self, teacher, student)

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the loss of each sample, shape `(batch,)`, or of each position where outputs are dense."""
        return _divergence(*self.logits(student, teacher))
