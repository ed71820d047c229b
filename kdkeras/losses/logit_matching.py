"""Logit matching: the squared error to the teacher's logits, or to its regression outputs (Ba and Caruana 2014)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras.losses.base import DistillationLoss
from kdkeras.ops import mean_per_sample
from kdkeras.signals import Signals


def logit_matching(student: Any, teacher: Any) -> Any:
    """Return `mean_k (z_sk − z_tk)²` of each sample.

    Args:
        student: Student logits or regression outputs z_s, shape `(batch, ..., units)`.
        teacher: Teacher logits or regression outputs z_t, same shape.

    Returns:
        Mean squared errors, shape `(batch,)`; the mean over positions where outputs are dense.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import logit_matching
        >>> np.asarray(logit_matching(np.zeros((1, 2)), np.array([[1.0, 3.0]]))).tolist()
        [5.0]
    """
    return mean_per_sample(ops.square(student - teacher))


@keras.saving.register_keras_serializable(package="kdkeras")
class LogitMatching(DistillationLoss):
    """Mean squared error between the student's logits and the teacher's, or between their regression outputs.

    Per sample `mean_k (z_sk − z_tk)²`. The loss of the first mimic networks, and the limit of `SoftTargets` at high
    temperature for centred logits; for a regression, where the outputs are the logits, the natural one. The paper sums
    over units with a factor ½; the mean keeps the weight's meaning when the number of units changes.

    Args:
        weight: Factor on this term in the total loss. Default 1.
        output: Name of the output that is compared, where the models have several; a pair where the names differ.
        name: Name in logs and progress bar. Default `"logit_matching"`.

    Raises:
        ValueError: `weight` is negative.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.LogitMatching(weight=0.5).name
        'logit_matching'

    Reference:
        Ba, Caruana: Do Deep Nets Really Need to be Deep?, NIPS 2014, arXiv:1312.6184, equation 1.
    """

    needs_logits = False

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the loss of each sample, shape `(batch,)`, or of each position where outputs are dense."""
        return ops.mean(ops.square(student.logits - teacher.logits), axis=-1)
