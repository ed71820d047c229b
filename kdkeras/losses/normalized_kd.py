"""Normalised knowledge distillation (Yang et al. 2023)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras._backend import number
from kdkeras.losses._classes import target_classes
from kdkeras.losses._part_of_classes import is_class, log_within, pick
from kdkeras.losses.base import check_exclusive_classes, checked_number
from kdkeras.losses.tempered_loss import TemperedLoss
from kdkeras.ops import log_soften, mean_per_sample
from kdkeras.signals import Signals, SignalSpec


def normalized_kd(student: Any, teacher: Any, *, labels: Any, gamma: Any = 1.5, temperature: Any = 1.0) -> Any:
    """Return `−p_t,y · log p_s,y − γ · T² · Σ_{k≠y} p̂_t,k · log p̂_s,k` of each sample.

    Here y is the target class, p = softmax(z) has no temperature, and p̂ is the distribution over the other classes
    alone, of softmax(z / T).

    Args:
        student: Student logits z_s, shape `(batch, ..., classes)`.
        teacher: Teacher logits z_t, same shape.
        labels: Target classes y, shape `(batch, ...)`, or one-hot; −1 stands for the teacher's top class.
        gamma: Factor γ on the part of the other classes. Default 1.5, as in the paper on ImageNet.
        temperature: Temperature T > 0, λ in the paper. Default 1, as in the paper on ImageNet.

    Returns:
        Cross-entropies in nats, shape `(batch,)`; the mean over positions where outputs are dense.

    Raises:
        ValueError: `labels` is `None`.

    Example:
        Four equal classes: ¼ · log 4 + 1.5 · log 3.

        >>> import numpy as np
        >>> from kdkeras.losses import normalized_kd
        >>> z = np.zeros((1, 4), "float32")
        >>> round(float(normalized_kd(z, z, labels=np.array([2]))[0]), 4)
        1.9945
    """
    target = target_classes(labels, teacher, asked_by="normalized_kd")
    return mean_per_sample(_crossentropy(student, teacher, target, gamma, temperature))


def _crossentropy(student: Any, teacher: Any, target: Any, gamma: Any, temperature: Any) -> Any:
    is_target = is_class(target, teacher)  # (..., classes)
    others = ops.logical_not(is_target)
    of_target = ops.exp(pick(log_soften(teacher), is_target)) * pick(log_soften(student), is_target)
    rest_t, rest_s = log_within(teacher / temperature, others), log_within(student / temperature, others)
    of_others = ops.sum(ops.exp(rest_t) * rest_s, axis=-1)
    return -of_target - gamma * temperature**2 * of_others


@keras.saving.register_keras_serializable(package="kdkeras")
class NormalizedKD(TemperedLoss):
    """Normalised knowledge distillation (NKD): the teacher's certainty as a weight on the label, and its other classes.

    Per sample `−p_t,y · log p_s,y − γ · T² · Σ_{k≠y} p̂_t,k · log p̂_s,k`: the task's cross-entropy weighed by how sure
    the teacher is of the target class y, and a cross-entropy between the distributions over the other classes alone.
    Both are cross-entropies, as in the paper: the least value is not 0, and the first part does not end where the
    student equals the teacher. The target class is that of the label; the teacher's top class where a sample has none
    (−1). Of soft labels the largest entry counts, as in the reference code.

    Args:
        gamma: Factor γ on the part of the other classes. Default 1.5, with T = 1 the paper's setting on ImageNet; its
            code uses 3.5 with T = 3 on CIFAR-100.
        temperature: Temperature T > 0 of the other classes, λ in the paper. Default 1.
        weight: Factor on this term in the total loss. Default 1, with task weight 1, as in its code.
        standardize: Whether each vector of logits is standardised first (LSKD). Default `False`.
        output: Name of the output that is compared, where the models have several; a pair where the names differ.
        name: Name in logs and progress bar. Default `"normalized_kd"`.

    Raises:
        ValueError: A setting is out of range; when connected, the outputs are not exclusive classes; when called,
            there are no labels.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.NormalizedKD().gamma
        1.5

    Reference:
        Yang et al.: From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss
        and Customized Soft Labels, ICCV 2023, arXiv:2303.13005.
    """

    def __init__(
        self,
        gamma: float = 1.5,
        temperature: float = 1.0,
        weight: float = 1.0,
        *,
        standardize: bool = False,
        output: str | tuple[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(temperature, weight, standardize=standardize, output=output, name=name)
        self._gamma = self._setting("gamma", gamma, minimum=0.0)

    @property
    def gamma(self) -> float:
        """Factor γ on the part of the other classes; setting it takes effect on the next step."""
        return number(self._gamma)

    @gamma.setter
    def gamma(self, value: float) -> None:
        self._gamma.assign(checked_number(type(self).__name__, "gamma", value, minimum=0.0))

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check that both models give one score per class."""
        super().connect(student, teacher)
        check_exclusive_classes(self, teacher, student)

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the loss of each sample, shape `(batch,)`, or of each position where outputs are dense."""
        ours, theirs, temperature = self.logits(student, teacher)
        target = target_classes(labels, theirs, asked_by=type(self).__name__)
        return _crossentropy(ours, theirs, target, ops.convert_to_tensor(self._gamma), temperature)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "gamma": self.gamma}
