"""Decoupled knowledge distillation (Zhao et al. 2022)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras._backend import number
from kdkeras.losses._classes import target_classes
from kdkeras.losses._part_of_classes import is_class, log_odds, log_within
from kdkeras.losses.base import check_exclusive_classes, checked_number
from kdkeras.losses.tempered_loss import TemperedLoss
from kdkeras.ops import binary_kl_divergence, kl_divergence, mean_per_sample
from kdkeras.signals import Signals, SignalSpec


def decoupled_kd(
    student: Any, teacher: Any, *, labels: Any, alpha: Any = 1.0, beta: Any = 8.0, temperature: Any = 4.0
) -> Any:
    """Return `T² · (α · KL(b_t ‖ b_s) + β · KL(p̂_t ‖ p̂_s))` of each sample.

    Here b = (p_y, 1 − p_y) is the target class y against all others, and p̂ the distribution over the others alone,
    both of softmax(z / T). With β = 1 − p_t,y in the place of a constant it would be `soft_targets`.

    Args:
        student: Student logits z_s, shape `(batch, ..., classes)`.
        teacher: Teacher logits z_t, same shape.
        labels: Target classes y, shape `(batch, ...)`, or one-hot; −1 stands for the teacher's top class.
        alpha: Factor α on the target-class part. Default 1, as in the paper.
        beta: Factor β on the part of the other classes. Default 8, as in mdistiller.
        temperature: Temperature T > 0. Default 4, as in the paper on CIFAR-100.

    Returns:
        Divergences in nats, shape `(batch,)`; the mean over positions where outputs are dense.

    Raises:
        ValueError: `labels` is `None`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import decoupled_kd
        >>> z = np.array([[1.0, 2.0, 3.0]], "float32")
        >>> np.asarray(decoupled_kd(z, z + 5, labels=np.array([2]))).round(5).tolist()
        [0.0]
    """
    target = target_classes(labels, teacher, asked_by="decoupled_kd")
    return mean_per_sample(_divergence(student, teacher, target, alpha, beta, temperature))


def _divergence(student: Any, teacher: Any, target: Any, alpha: Any, beta: Any, temperature: Any) -> Any:
    student, teacher = student / temperature, teacher / temperature
    is_target = is_class(target, teacher)  # (..., classes)
    others = ops.logical_not(is_target)
    of_target = binary_kl_divergence(log_odds(teacher, is_target), log_odds(student, is_target))
    of_others = kl_divergence(log_within(teacher, others), log_within(student, others))
    return temperature**2 * (alpha * of_target + beta * of_others)


@keras.saving.register_keras_serializable(package="kdkeras")
class DecoupledKD(TemperedLoss):
    """Decoupled knowledge distillation (DKD): how sure the teacher is, and how it ranks the wrong classes, apart.

    Per sample `T² · (α · KL(b_t ‖ b_s) + β · KL(p̂_t ‖ p̂_s))`, with b the target class against all others and p̂ the
    distribution over the others alone. In `SoftTargets` the second part has the factor 1 − p_t, so that it is lost
    where the teacher is sure. The target class is that of the label, as in the paper; the teacher's top class where a
    sample has no label (−1), as PaddleSlim does throughout. Of soft labels the largest entry counts.

    The reference code lets the weight rise from 0 over 20 epochs:
    `kdkeras.callbacks.Anneal(loss, "weight", warm_up(1, epochs=20))`.

    Args:
        alpha: Factor α on the target-class part. Default 1.
        beta: Factor β on the part of the other classes. Default 8, with α = 1 and T = 4 the setting of mdistiller; on
            CIFAR-100 2, 6 or 8 by the pair of models, on ImageNet 0.5 or 2 with T = 1.
        temperature: Temperature T > 0. Default 4.
        weight: Factor on this term in the total loss. Default 1, with task weight 1, as in mdistiller.
        standardize: Whether each vector of logits is standardised first (LSKD). Default `False`.
        output: Name of the output that is compared, where the models have several; a pair where the names differ.
        name: Name in logs and progress bar. Default `"decoupled_kd"`.

    Raises:
        ValueError: A setting is out of range; when connected, the outputs are not exclusive classes; when called,
            there are no labels.

    Example:
        >>> import kdkeras
        >>> loss = kdkeras.losses.DecoupledKD(beta=2)
        >>> loss.alpha, loss.beta, loss.temperature
        (1.0, 2.0, 4.0)

    Reference:
        Zhao et al.: Decoupled Knowledge Distillation, CVPR 2022, arXiv:2203.08679.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        weight: float = 1.0,
        *,
        standardize: bool = False,
        output: str | tuple[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(temperature, weight, standardize=standardize, output=output, name=name)
        self._alpha = self._setting("alpha", alpha, minimum=0.0)
        self._beta = self._setting("beta", beta, minimum=0.0)

    @property
    def alpha(self) -> float:
        """Factor α on the target-class part; setting it takes effect on the next step."""
        return number(self._alpha)

    @alpha.setter
    def alpha(self, value: float) -> None:
        self._alpha.assign(checked_number(type(self).__name__, "alpha", value, minimum=0.0))

    @property
    def beta(self) -> float:
        """Factor β on the part of the other classes; setting it takes effect on the next step."""
        return number(self._beta)

    @beta.setter
    def beta(self, value: float) -> None:
        self._beta.assign(checked_number(type(self).__name__, "beta", value, minimum=0.0))

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check that both models give one score per class."""
        super().connect(student, teacher)
        check_exclusive_classes(self, teacher, student)

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the loss of each sample, shape `(batch,)`, or of each position where outputs are dense."""
        ours, theirs, temperature = self.logits(student, teacher)
        target = target_classes(labels, theirs, asked_by=type(self).__name__)
        alpha, beta = (ops.convert_to_tensor(setting) for setting in (self._alpha, self._beta))
        return _divergence(ours, theirs, target, alpha, beta, temperature)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta}
