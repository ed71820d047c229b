"""Soft targets of the teacher's most probable classes alone, for large vocabularies."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from kdkeras.losses._part_of_classes import log_odds, log_within
from kdkeras.losses.base import check_exclusive_classes
from kdkeras.losses.tempered_loss import TemperedLoss
from kdkeras.ops import binary_kl_divergence, kl_divergence, mean_per_sample
from kdkeras.signals import Signals, SignalSpec

Rest = Literal["bin", "ignore"]


def top_k_soft_targets(student: Any, teacher: Any, *, k: int, temperature: Any = 1.0, rest: Rest = "bin") -> Any:
    """Return `T² · KL(p_t ‖ p_s)` of each sample, over the teacher's k largest logits and one bin for all the rest.

    With p = softmax(z / T) and A the k classes: `Σ_{i∈A} p_t,i log(p_t,i / p_s,i) + r_t log(r_t / r_s)`, r = 1 − Σ_A p.
    With `rest="ignore"` there is no bin, and both distributions are brought to sum 1 over A.

    Args:
        student: Student logits z_s, shape `(batch, ..., classes)`.
        teacher: Teacher logits z_t, same shape.
        k: Number of classes, at least 1. Classes that tie with the k-th all count.
        temperature: Temperature T > 0. Default 1, as in language models.
        rest: `"bin"` (default) or `"ignore"`.

    Returns:
        Divergences in nats, shape `(batch,)`; the mean over positions where outputs are dense.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import soft_targets, top_k_soft_targets
        >>> student, teacher = np.random.default_rng(0).normal(size=(2, 1, 50))
        >>> full = soft_targets(student, teacher, temperature=1.0)
        >>> bool(top_k_soft_targets(student, teacher, k=5)[0] < full[0])
        True
    """
    return mean_per_sample(_divergence(student, teacher, k, temperature, rest))


def _divergence(student: Any, teacher: Any, k: int, temperature: Any, rest: Rest) -> Any:
    student, teacher = student / temperature, teacher / temperature
    largest, _ = ops.top_k(teacher, k)
    part = ops.greater_equal(teacher, largest[..., -1:])  # (..., classes)
    within = kl_divergence(log_within(teacher, part), log_within(student, part))
    if rest == "ignore":
        return temperature**2 * within
    odds_t, odds_s = log_odds(teacher, part), log_odds(student, part)
    # The chain rule of the divergence: which side of the bin, and then which class.
    return temperature**2 * (binary_kl_divergence(odds_t, odds_s) + ops.sigmoid(odds_t) * within)


@keras.saving.register_keras_serializable(package="kdkeras")
class TopKSoftTargets(TemperedLoss):
    """The teacher's k most probable classes as soft targets, and all the others as one: for large vocabularies.

    Per sample `T² · (Σ_{i∈A} p_t,i log(p_t,i / p_s,i) + r_t log(r_t / r_s))`, with p = softmax(z / T), A the teacher's
    k largest logits and r = 1 − Σ_A p. The tail of the teacher, mostly noise, then teaches its total mass only; with
    k the number of classes this is `SoftTargets`.

    `rest="ignore"` leaves the rest out and brings both distributions to sum 1 over A, as Tan et al. do with the
    teacher's. How much the student gives to all other classes then counts nothing. The paper of Anshumann et al. shows
    what that costs in calibration.

    Args:
        k: Number of classes, at least 1. Classes that tie with the k-th all count. No default: it depends on the number
            of classes; Tan et al. take 8 of a vocabulary.
        temperature: Temperature T > 0. Default 1, as in language models.
        weight: Factor on this term in the total loss. Default 1.
        rest: `"bin"` (default), or `"ignore"`.
        standardize: Whether each vector of logits is standardised first (LSKD). Default `False`.
        output: Name of the output that is compared, where the models have several; a pair where the names differ.
        name: Name in logs and progress bar. Default `"top_k_soft_targets"`.

    Raises:
        TypeError: `k` is no whole number.
        ValueError: A setting is out of range; when connected, the outputs are not exclusive classes, or fewer than k.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.TopKSoftTargets(8).k
        8

    Reference:
        Tan et al.: Multilingual Neural Machine Translation with Knowledge Distillation, ICLR 2019, arXiv:1902.10461.
        Anshumann et al.: Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs, ACL 2025,
        arXiv:2503.16870.
    """

    def __init__(
        self,
        k: int,
        temperature: float = 1.0,
        weight: float = 1.0,
        *,
        rest: Rest = "bin",
        standardize: bool = False,
        output: str | tuple[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(temperature, weight, standardize=standardize, output=output, name=name)
        if not isinstance(k, int) or isinstance(k, bool):
            raise TypeError(f"`TopKSoftTargets` needs a whole number as k. Received: {k!r} of type {type(k).__name__}.")
        if k < 1:
            raise ValueError(f"`TopKSoftTargets` needs a k of at least 1. Received: {k}.")
        if rest not in ("bin", "ignore"):
            raise ValueError(f"`TopKSoftTargets` needs rest='bin' or 'ignore'. Received: {rest!r}.")
        self.k = k
        self.rest = rest

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check that both models give one score per class, of at least k classes."""
        super().connect(student, teacher)
        check_exclusive_classes(self, teacher, student)
        if teacher.logits[-1] is not None and teacher.logits[-1] < self.k:
            raise ValueError(
                f"`TopKSoftTargets` needs at least k classes. Received: k={self.k}, teacher '{teacher.model}' "
                f"{teacher.logits}. Take a smaller k."
            )

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the loss of each sample, shape `(batch,)`, or of each position where outputs are dense."""
        ours, theirs, temperature = self.logits(student, teacher)
        return _divergence(ours, theirs, self.k, temperature, self.rest)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "k": self.k, "rest": self.rest}
