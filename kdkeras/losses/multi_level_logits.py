"""Multi-level logit distillation (Jin et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.losses._batch import batch_mean, positive, weights_of
from kdkeras.losses._single_prediction import refuse_positions
from kdkeras.losses.base import DistillationLoss, check_exclusive_classes, checked_number
from kdkeras.ops import kl_divergence, log_soften
from kdkeras.ops import standardize as standardized
from kdkeras.signals import Signals, SignalSpec

_TEMPERATURES = (2.0, 3.0, 4.0, 5.0, 6.0)


def multi_level_logits(
    student: Any,
    teacher: Any,
    *,
    temperatures: Sequence[float] = _TEMPERATURES,
    standardize: bool = False,
    sample_weight: Any = None,
) -> Any:
    """Return `Σ_T [T² · mean_i KL(p_t,i ‖ p_s,i) + ‖P_s P_sᵀ − P_t P_tᵀ‖² / B + ‖P_sᵀ P_s − P_tᵀ P_t‖² / K]`.

    P is the table of all p = softmax(z / T) of a batch, of B samples and K classes, and ‖·‖² the sum of squares.

    Args:
        student: Student logits z_s, shape `(batch, classes)`.
        teacher: Teacher logits z_t, same shape.
        temperatures: Temperatures T > 0. Default 2, 3, 4, 5 and 6, as in the reference code.
        standardize: Whether logits are standardised (LSKD) in the divergence of each sample. Default `False`.
        sample_weight: Weights, shape `(batch,)`, or `None`.

    Returns:
        A scalar, at least 0.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import multi_level_logits
        >>> z = np.array([[1.0, 2.0, 4.0], [3.0, 1.0, 0.0]], "float32")
        >>> round(float(multi_level_logits(z, z + 5)), 4)
        0.0
    """
    student, teacher = ops.convert_to_tensor(student), ops.convert_to_tensor(teacher)
    weights = weights_of(teacher, sample_weight)
    # How often each sample counts in the sums over the batch: once where all weights are equal. By the sum of squares,
    # so that samples of weight 0 leave the batch as if they were not there.
    counts = weights * ops.sum(weights) / positive(ops.sum(ops.square(weights)))  # (b,)
    sides = (standardized(student), standardized(teacher)) if standardize else (student, teacher)
    total = 0.0
    for temperature in temperatures:
        ours, theirs = (log_soften(logits, temperature) for logits in sides)
        total += temperature**2 * batch_mean(kl_divergence(theirs, ours), weights)
        total += ops.mean(weights) * _gram_levels(student / temperature, teacher / temperature, counts)
    return total


def _gram_levels(student: Any, teacher: Any, counts: Any) -> Any:
    """Return the batch level and the class level: squared differences of `P Pᵀ` and of `Pᵀ P`."""
    roots = ops.expand_dims(ops.sqrt(counts), axis=-1)  # (b, 1): in both products each sample counts as it should
    ours, theirs = (roots * ops.exp(log_soften(logits)) for logits in (student, teacher))  # (b, k)
    by_sample = ops.matmul(ours, ops.transpose(ours)) - ops.matmul(theirs, ops.transpose(theirs))  # (b, b)
    by_class = ops.matmul(ops.transpose(ours), ours) - ops.matmul(ops.transpose(theirs), theirs)  # (k, k)
    of_batch = ops.sum(ops.square(by_sample)) / positive(ops.sum(counts))
    return of_batch + ops.sum(ops.square(by_class)) / ours.shape[-1]


@keras.saving.register_keras_serializable(package="kdkeras")
class MultiLevelLogits(DistillationLoss):
    """Multi-level logit distillation (MLKD): of each sample, between samples and between classes, at once.

    Per batch the sum over temperatures T of `T² · mean_i KL(p_t,i ‖ p_s,i)` (instance level),
    `‖P_s P_sᵀ − P_t P_tᵀ‖² / B` (batch level) and `‖P_sᵀ P_s − P_tᵀ P_t‖² / K` (class level), where P is the table of
    all p = softmax(z / T), of B samples and K classes. As in the paper the two last are sums over the batch: the class
    level grows with the square of the batch size, which is 64 there on CIFAR-100.

    The reference code multiplies most terms by the share of samples, or of classes, that the teacher is less sure of
    than of the median, which is about ½ whatever the data, and adds the same terms of a strongly augmented view; here
    there is one view and no such factor. Samples of unequal weights count in the sums over the batch as
    `wᵢ · Σw / Σw²`.

    Args:
        temperatures: Temperatures T > 0. Default 2, 3, 4, 5 and 6, as in the reference code.
        weight: Factor on this term in the total loss. Default 0.9, with task weight 0.1, as in the reference code.
        standardize: Whether each vector of logits is standardised (LSKD) at the instance level, as in the code of that
            paper, which has weight 9 then. Default `False`.
        output: Name of the output that is compared, where the models have several; a pair where the names differ.
        name: Name in logs and progress bar. Default `"multi_level_logits"`.

    Raises:
        TypeError: `temperatures` is no list of numbers, or `standardize` is not a boolean.
        ValueError: There is no temperature, or one is not above 0; when connected, the outputs are dense or not
            exclusive classes.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.MultiLevelLogits().temperatures
        (2.0, 3.0, 4.0, 5.0, 6.0)

    Reference:
        Jin, Wang, Lin: Multi-Level Logit Distillation, CVPR 2023.
        Sun et al.: Logit Standardization in Knowledge Distillation, 2024, arXiv:2403.01427.
    """

    batch_wise = True
    needs = ("sample_weight",)

    def __init__(
        self,
        temperatures: Sequence[float] = _TEMPERATURES,
        weight: float = 0.9,
        *,
        standardize: bool = False,
        output: str | tuple[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, output=output, name=name)
        if not isinstance(standardize, bool):
            raise TypeError(f"`MultiLevelLogits` needs standardize=True or False. Received: {standardize!r}.")
        if not isinstance(temperatures, (list, tuple)):
            raise TypeError(f"`MultiLevelLogits` needs a list of temperatures. Received: {temperatures!r}.")
        if not temperatures:
            raise ValueError("`MultiLevelLogits` needs at least one temperature. Received: an empty list.")
        self.temperatures = tuple(
            checked_number("MultiLevelLogits", "temperature", value, minimum=0.0, exclusive=True)
            for value in temperatures
        )
        self.standardize = standardize

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check that both models give one score per class and sample."""
        super().connect(student, teacher)
        check_exclusive_classes(self, teacher, student)
        refuse_positions(self, teacher, student)

    def call(self, student: Signals, teacher: Signals, labels: Any = None, sample_weight: Any = None) -> Any:
        """Return the loss of the batch, a scalar."""
        return multi_level_logits(
            student.logits,
            teacher.logits,
            temperatures=self.temperatures,
            standardize=self.standardize,
            sample_weight=sample_weight,
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "temperatures": list(self.temperatures), "standardize": self.standardize}
