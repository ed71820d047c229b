"""The generalised Jensen-Shannon divergence, as language models are distilled with it (GKD, Agarwal et al. 2024)."""

from __future__ import annotations

from typing import Any

import keras

from kdkeras.losses._mixture import checked_share, kl_to_mixture
from kdkeras.losses.base import check_exclusive_classes
from kdkeras.losses.tempered_loss import TemperedLoss
from kdkeras.ops import log_soften, mean_per_sample
from kdkeras.signals import Signals, SignalSpec


def jensen_shannon(student: Any, teacher: Any, *, mixture: float = 0.5, temperature: Any = 1.0) -> Any:
    """Return `T² · (β · KL(p_t ‖ m) + (1 − β) · KL(p_s ‖ m))` of each sample, with `m = β p_t + (1 − β) p_s`.

    Args:
        student: Student logits z_s, shape `(batch, ..., classes)`; p_s is softmax(z_s / T).
        teacher: Teacher logits z_t, same shape.
        mixture: Share β of the teacher in the mixture m, in (0, 1). Default 0.5, the symmetric divergence.
        temperature: Temperature T > 0. Default 1, as in language models.

    Returns:
        Divergences in nats, shape `(batch,)`, at most T² · log 2; the mean over positions where outputs are dense.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import jensen_shannon
        >>> z = np.array([[40.0, -40.0]], "float32")
        >>> round(float(jensen_shannon(z, -z)[0]), 4)
        0.6931
    """
    return mean_per_sample(_divergence(student, teacher, mixture, temperature))


def _divergence(student: Any, teacher: Any, mixture: float, temperature: Any) -> Any:
    log_s, log_t = log_soften(student, temperature), log_soften(teacher, temperature)
    of_teacher, of_student = kl_to_mixture(log_t, log_s, mixture), kl_to_mixture(log_s, log_t, 1 - mixture)
    return temperature**2 * (mixture * of_teacher + (1 - mixture) * of_student)


@keras.saving.register_keras_serializable(package="kdkeras")
class JensenShannon(TemperedLoss):
    """The generalised Jensen-Shannon divergence between student and teacher: bounded, between KL and its reverse.

    Per sample `T² · (β · KL(p_t ‖ m) + (1 − β) · KL(p_s ‖ m))`, with `m = β p_t + (1 − β) p_s` and p = softmax(z / T).
    Divided by β it comes to the divergence of `SoftTargets` as β goes to 0; divided by 1 − β to that of `ReverseKL` as
    β goes to 1. At most log 2 for each sample, so that no sample outweighs the others.

    Args:
        mixture: Share β of the teacher in the mixture, in (0, 1). Default 0.5; the paper tries 0.1, 0.5 and 0.9, and
            finds the best one to depend on the task.
        temperature: Temperature T > 0. Default 1, as in the paper.
        weight: Factor on this term in the total loss. Default 1.
        standardize: Whether each vector of logits is standardised first (LSKD). Default `False`.
        output: Name of the output that is compared, where the models have several; a pair where the names differ.
        name: Name in logs and progress bar. Default `"jensen_shannon"`.

    Raises:
        ValueError: `mixture` is not between 0 and 1, `temperature` is not above 0, or `weight` is negative; when
            connected, the outputs are not exclusive classes.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.JensenShannon(mixture=0.1).mixture
        0.1

    Reference:
        Agarwal et al.: On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes, ICLR 2024,
        arXiv:2306.13649, equation 1.
    """

    def __init__(
        self,
        mixture: float = 0.5,
        temperature: float = 1.0,
        weight: float = 1.0,
        *,
        standardize: bool = False,
        output: str | tuple[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(temperature, weight, standardize=standardize, output=output, name=name)
        self.mixture = checked_share(type(self).__name__, "mixture", mixture)

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check that both models give one score per class."""
        super().connect(student, teacher)
        check_exclusive_classes(self, teacher, student)

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the loss of each sample, shape `(batch,)`, or of each position where outputs are dense."""
        ours, theirs, temperature = self.logits(student, teacher)
        return _divergence(ours, theirs, self.mixture, temperature)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "mixture": self.mixture}
