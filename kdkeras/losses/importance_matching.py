"""Importance matching: the student's decision rests on the same features as the teacher's, for tabular models."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from kdkeras.losses.base import DistillationLoss
from kdkeras.ops import flatten_samples
from kdkeras.signals import Attribution, Signals, SignalSpec

_METHODS = ("gradient_times_input", "input_gradient")
_SMALLEST = 1e-6  # attributions whose sum is below it fade to 0, so that their gradient stays finite


def importance_matching(student: Any, teacher: Any) -> Any:
    """Return `½ Σᵢ |p_i − q_i|` of each sample, with the importances `p_i = |w_i| / Σⱼ |w_j|`.

    It is the share of the importance that lies on other features than the teacher's: 0 where the importances are equal,
    1 where no feature matters to both. Where nothing matters to a model, its importances are 0.

    Args:
        student: The student's attributions w of each feature, shape `(batch, features)`.
        teacher: The teacher's, same shape.

    Returns:
        Shape `(batch,)`, in [0, 1].

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import importance_matching
        >>> np.asarray(importance_matching(np.array([[1.0, 0.0, 3.0]]), np.array([[-2.0, 2.0, 4.0]]))).tolist()
        [0.25]
    """
    return ops.sum(ops.abs(_importance(student) - _importance(teacher)), axis=-1) / 2


def _importance(attributions: Any) -> Any:
    sizes = ops.abs(flatten_samples(attributions))
    total = ops.sum(sizes, axis=-1, keepdims=True)
    return sizes / ops.where(total > _SMALLEST, total, ops.full_like(total, _SMALLEST))


@keras.saving.register_keras_serializable(package="kdkeras")
class ImportanceMatching(DistillationLoss):
    """Each feature weighs as much in the student's decision for the teacher's top class as in the teacher's.

    Per sample `½ Σᵢ |p_i − q_i|` of the importances `|w_i| / Σⱼ |w_j|` in student and teacher, where w_i is what
    feature i contributes to the logit of the teacher's top class: gradient times input, or the gradient alone. The sign
    does not matter, nor how steep the models are. It is for tables; on images `ExplanationMatching` compares
    directions.

    With soft targets and labels it makes the objective `λ · (student + performance) + (1 − λ) · importance`, where the
    student's loss is on the labels and the performance loss on the teacher's outputs:

        compile(..., loss=labels_loss, task_weight=λ,
                distillation_loss=[SoftTargets(weight=λ), ImportanceMatching(weight=1 − λ)])

    Args:
        weight: Factor on this term in the total loss. Default 1.
        method: `"gradient_times_input"` (default), which gives a feature of value 0 no importance, so that features
            should be centred at what is usual; or `"input_gradient"`, which wants them on one scale.
        output: Name of the output that is explained, where the models have several; a pair where the names differ.
        name: Name in logs and progress bar. Default `"importance_matching"`.

    Raises:
        ValueError: `weight` is negative or `method` is not known; when connected, a model takes other inputs than one
            tensor of floats, or the two take different ones.

    Example:
        >>> import kdkeras
        >>> share = 0.7
        >>> losses = [kdkeras.losses.SoftTargets(weight=share), kdkeras.losses.ImportanceMatching(weight=1 - share)]
        >>> [loss.name for loss in losses]
        ['soft_targets', 'importance_matching']

    Reference:
        Baehrens et al.: How to Explain Individual Classification Decisions, 2010 (gradients). Shrikumar et al.: Not
        Just a Black Box, 2016, arXiv:1605.01713 (gradient times input). The distance is the total variation.
    """

    def __init__(
        self,
        weight: float = 1.0,
        *,
        method: Literal["gradient_times_input", "input_gradient"] = "gradient_times_input",
        output: str | tuple[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, output=output, name=name)
        if method not in _METHODS:
            raise ValueError(f"`ImportanceMatching` needs a method of {list(_METHODS)}. Received: {method!r}.")
        self.method = method
        self.student_attribution = Attribution(method, output=self.output_names[0])
        self.teacher_attribution = Attribution(method, output=self.output_names[1])

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check the class counts, and that both models take the same features."""
        super().connect(student, teacher)
        ours, theirs = student.attributions[self.name], teacher.attributions[self.name]
        if ours != theirs:
            raise ValueError(
                f"`ImportanceMatching` needs models that take the same features. Received: student '{student.model}' "
                f"{ours}, teacher '{teacher.model}' {theirs}. Select or fill the features in the data."
            )

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the loss of each sample, shape `(batch,)`."""
        return importance_matching(student.attributions[self.name], teacher.attributions[self.name])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "method": self.method}
