"""DIST: the teacher's relations by Pearson correlation (Huang et al. 2022)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras._backend import number
from kdkeras.losses._batch import batch_mean, positive, refuse_batch_of_one, weights_of
from kdkeras.losses._single_prediction import refuse_positions
from kdkeras.losses.base import check_exclusive_classes, checked_number
from kdkeras.losses.tempered_loss import TemperedLoss
from kdkeras.ops import log_soften
from kdkeras.signals import Signals, SignalSpec

_SMALLEST = 1e-10  # variance, of values of at most 1, below which float32 shows rounding and no relation


def dist(
    student: Any,
    teacher: Any,
    *,
    beta: Any = 1.0,
    gamma: Any = 1.0,
    temperature: Any = 1.0,
    sample_weight: Any = None,
) -> Any:
    """Return `T² · (β · mean_i (1 − ρ(p_s,i·, p_t,i·)) + γ · mean_k (1 − ρ(p_s,·k, p_t,·k)))` of a batch.

    Here ρ is Pearson's correlation: over the classes of each sample i (inter-class), and over the samples of each class
    k (intra-class), weighed by `sample_weight`.

    Args:
        student: Student logits z_s, shape `(batch, classes)`; p_s is softmax(z_s / T).
        teacher: Teacher logits z_t, same shape.
        beta: Factor β on the inter-class part. Default 1, as in the reference code.
        gamma: Factor γ on the intra-class part. Default 1, as in the reference code.
        temperature: Temperature T > 0. Default 1, as in the reference code.
        sample_weight: Weights, shape `(batch,)`, or `None`.

    Returns:
        A scalar, from 0 to 2 T² (β + γ) for weights of 1.

    Raises:
        ValueError: The batch has one sample.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import dist
        >>> z = np.array([[1.0, 2.0, 4.0], [3.0, 1.0, 0.0]], "float32")
        >>> round(float(dist(z, z + 5)), 4)
        0.0
    """
    refuse_batch_of_one(teacher, "dist")
    return _relations(student, teacher, beta, gamma, temperature, sample_weight)


def _relations(student: Any, teacher: Any, beta: Any, gamma: Any, temperature: Any, sample_weight: Any) -> Any:
    log_s, log_t = log_soften(student, temperature), log_soften(teacher, temperature)
    weights = weights_of(teacher, sample_weight)
    inter = _unlikeness(ops.transpose(log_s), ops.transpose(log_t), ops.ones_like(log_t[0]))  # (b,)
    intra = _unlikeness(log_s, log_t, weights)  # (classes,)
    return temperature**2 * (beta * batch_mean(inter, weights) + gamma * ops.mean(weights) * ops.mean(intra))


def _unlikeness(log_s: Any, log_t: Any, weights: Any) -> Any:
    """Return `1 − ρ` of each column of two tables `(n, columns)`; 0 where the teacher's does not vary."""
    share = ops.expand_dims(weights / positive(ops.sum(weights)), axis=-1)  # (n, 1)
    deviations = [_deviations(log_values, share) for log_values in (log_s, log_t)]
    variance_s, variance_t = (ops.sum(share * ops.square(each), axis=0) for each in deviations)
    covariance = ops.sum(share * deviations[0] * deviations[1], axis=0)
    rho = covariance * ops.rsqrt(ops.maximum(variance_s, _SMALLEST)) * ops.rsqrt(ops.maximum(variance_t, _SMALLEST))
    return ops.where(variance_t > _SMALLEST, 1 - rho, ops.zeros_like(rho))


def _deviations(log_values: Any, share: Any) -> Any:
    """Return `x − mean x` down each column, of x = exp(log_values) in units of the column's largest value."""
    # A correlation knows no unit. In this one, classes of tiny probability count as the definition says; the squares of
    # their probabilities would be lost in float32.
    seen = share > 0
    nowhere = ops.min(log_values, axis=0, keepdims=True) - 1e4
    largest = ops.max(ops.where(seen, log_values, nowhere), axis=0, keepdims=True)
    values = ops.exp(ops.where(seen, log_values, nowhere) - ops.stop_gradient(largest))
    return values - ops.sum(share * values, axis=0, keepdims=True)


@keras.saving.register_keras_serializable(package="kdkeras")
class DIST(TemperedLoss):
    """DIST: the student keeps the teacher's relations between classes and between samples, not its exact values.

    Per batch `T² · (β · mean_i (1 − ρ(p_s,i·, p_t,i·)) + γ · mean_k (1 − ρ(p_s,·k, p_t,·k)))`, with p = softmax(z / T)
    and Pearson's correlation ρ over the classes of a sample (inter-class) and over the samples of a class
    (intra-class). A correlation asks for less than a divergence: of use where the teacher is much stronger.

    Sample weights weigh the mean over samples and the correlation over them. The reference code adds 1e-8 to the
    product of two norms, which switches off classes of tiny probability; this follows the definition. A class that the
    teacher gives the same probability everywhere has no relation to copy, and no part; in a last batch of one sample
    that is every class. With two classes the inter-class correlation is always ±1 and teaches nothing; the other part
    does.

    Args:
        beta: Factor β on the inter-class part. Default 1, as in the reference code; 2 in the paper on ImageNet.
        gamma: Factor γ on the intra-class part. Default 1, as in the reference code; 2 in the paper on ImageNet.
        temperature: Temperature T > 0, τ in the paper. Default 1, as on ImageNet; 4 on CIFAR-100.
        weight: Factor on this term in the total loss. Default 1, with task weight 1, as in the paper.
        standardize: Whether each vector of logits is standardised first (LSKD). Default `False`.
        output: Name of the output that is compared, where the models have several; a pair where the names differ.
        name: Name in logs and progress bar. Default `"dist"`.

    Raises:
        ValueError: A setting is out of range; when connected, the outputs are dense or not exclusive classes.

    Example:
        >>> import kdkeras
        >>> loss = kdkeras.losses.DIST(temperature=4)
        >>> loss.beta, loss.gamma
        (1.0, 1.0)

    Reference:
        Huang et al.: Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, arXiv:2205.10536.
    """

    batch_wise = True
    needs = ("sample_weight",)

    def __init__(
        self,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float = 1.0,
        weight: float = 1.0,
        *,
        standardize: bool = False,
        output: str | tuple[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(temperature, weight, standardize=standardize, output=output, name=name)
        self._beta = self._setting("beta", beta, minimum=0.0)
        self._gamma = self._setting("gamma", gamma, minimum=0.0)

    @property
    def beta(self) -> float:
        """Factor β on the inter-class part; setting it takes effect on the next step."""
        return number(self._beta)

    @beta.setter
    def beta(self, value: float) -> None:
        self._beta.assign(checked_number(type(self).__name__, "beta", value, minimum=0.0))

    @property
    def gamma(self) -> float:
        """Factor γ on the intra-class part; setting it takes effect on the next step."""
        return number(self._gamma)

    @gamma.setter
    def gamma(self, value: float) -> None:
        self._gamma.assign(checked_number(type(self).__name__, "gamma", value, minimum=0.0))

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check that both models give one score per class and sample."""
        super().connect(student, teacher)
        check_exclusive_classes(self, teacher, student)
        refuse_positions(self, teacher, student)

    def call(self, student: Signals, teacher: Signals, labels: Any = None, sample_weight: Any = None) -> Any:
        """Return the loss of the batch, a scalar."""
        ours, theirs, temperature = self.logits(student, teacher)
        beta, gamma = (ops.convert_to_tensor(setting) for setting in (self._beta, self._gamma))
        return _relations(ours, theirs, beta, gamma, temperature, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "beta": self.beta, "gamma": self.gamma}
