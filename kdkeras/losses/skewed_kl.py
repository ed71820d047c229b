"""The skewed Kullback-Leibler divergences, as language models are distilled with them (DistiLLM, Ko et al. 2024)."""

from __future__ import annotations

from typing import Any

import keras

from kdkeras.losses._mixture import checked_share, kl_to_mixture
from kdkeras.losses.base import check_exclusive_classes
from kdkeras.losses.tempered_loss import TemperedLoss
from kdkeras.ops import log_soften, mean_per_sample
from kdkeras.signals import Signals, SignalSpec


def skewed_kl(student: Any, teacher: Any, *, skew: float = 0.1, reverse: bool = False, temperature: Any = 1.0) -> Any:
    """Return `T² · KL(p_t ‖ α p_t + (1 − α) p_s)` of each sample, or `T² · KL(p_s ‖ (1 − α) p_t + α p_s)`.

    Args:
        student: Student logits z_s, shape `(batch, ..., classes)`; p_s is softmax(z_s / T).
        teacher: Teacher logits z_t, same shape.
        skew: Share α of the first distribution in the mixture, in (0, 1). Default 0.1, as in the paper.
        reverse: Whether the student's divergence is taken, the second of the two. Default `False`.
        temperature: Temperature T > 0. Default 1, as in language models.

    Returns:
        Divergences in nats, shape `(batch,)`, at most T² · −log α; the mean over positions where outputs are dense.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import skewed_kl
        >>> z = np.array([[40.0, -40.0]], "float32")
        >>> round(float(skewed_kl(z, -z)[0]), 4)
        2.3026
    """
    return mean_per_sample(_divergence(student, teacher, skew, reverse, temperature))


def _divergence(student: Any, teacher: Any, skew: float, reverse: bool, temperature: Any) -> Any:
    log_s, log_t = log_soften(student, temperature), log_soften(teacher, temperature)
    first, second = (log_s, log_t) if reverse else (log_t, log_s)
    return temperature**2 * kl_to_mixture(first, second, skew)


@keras.saving.register_keras_serializable(package="kdkeras")
class SkewedKL(TemperedLoss):
    """The divergence of the teacher from a mixture of both, which never grows without bounds; or its reverse.

    Per sample `T² · KL(p_t ‖ α p_t + (1 − α) p_s)` with p = softmax(z / T). As α goes to 0 this is `SoftTargets`, but
    where the student gives nothing to a class of the teacher's it ends at −log α, with a bounded gradient. Reversed it
    is `T² · KL(p_s ‖ (1 − α) p_t + α p_s)`, and goes to `ReverseKL`.

    Args:
        skew: Share α of the first distribution in the mixture, in (0, 1). Default 0.1, as in the paper.
        temperature: Temperature T > 0. Default 1, as in the paper.
        weight: Factor on this term in the total loss. Default 1.
        reverse: Whether the reverse divergence is taken (SRKL). Default `False` (SKL).
        standardize: Whether each vector of logits is standardised first (LSKD). Default `False`.
        output: Name of the output that is compared, where the models have several; a pair where the names differ.
        name: Name in logs and progress bar. Default `"skewed_kl"`.

    Raises:
        TypeError: `reverse` is not a boolean.
        ValueError: `skew` is not between 0 and 1, `temperature` is not above 0, or `weight` is negative; when
            connected, the outputs are not exclusive classes.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.SkewedKL(reverse=True).skew
        0.1

    Reference:
        Ko et al.: DistiLLM: Towards Streamlined Distillation for Large Language Models, ICML 2024, arXiv:2402.03898.
    """

    def __init__(
        self,
        skew: float = 0.1,
        temperature: float = 1.0,
        weight: float = 1.0,
        *,
        reverse: bool = False,
        standardize: bool = False,
        output: str | tuple[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(temperature, weight, standardize=standardize, output=output, name=name)
        if not isinstance(reverse, bool):
            raise TypeError(f"`SkewedKL` needs reverse=True or False. Received: {reverse!r}.")
        self.skew = checked_share(type(self).__name__, "skew", skew)
        self.reverse = reverse

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check that both models give one score per class."""
        super().connect(student, teacher)
        check_exclusive_classes(self, teacher, student)

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the loss of each sample, shape `(batch,)`, or of each position where outputs are dense."""
        ours, theirs, temperature = self.logits(student, teacher)
        return _divergence(ours, theirs, self.skew, self.reverse, temperature)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "skew": self.skew, "reverse": self.reverse}
