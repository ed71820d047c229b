"""The base of every distillation loss."""

from __future__ import annotations

import math
import re
import weakref
from typing import Any

import keras

from kdkeras.signals import Signals, SignalSpec


class DistillationLoss(keras.layers.Layer):
    """One term of what a student copies from its teacher.

    A subclass states what it needs (`student_layers`, `teacher_layers`), checks shapes once in `connect`, and returns
    one value per sample from `call`. It is a layer, so that projectors and other variables inside it are trained,
    saved and placed like the student's own. Its weight is a variable: a schedule can move it under a compiled step.

    Args:
        weight: Factor on this term in the total loss, at least 0. Default 1.
        name: Name in logs and progress bar; the class name in snake case by default.

    Attributes:
        student_layers: Paths of the student layers that `call` finds in `student.features`.
        teacher_layers: Paths of the teacher layers that `call` finds in `teacher.features`.

    Raises:
        ValueError: `weight` is negative or not finite.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.losses import DistillationLoss
        >>> class LogitError(DistillationLoss):
        ...     def call(self, student, teacher, labels=None):
        ...         return keras.ops.mean((student.logits - teacher.logits) ** 2, axis=-1)
        >>> LogitError(weight=0.5).name
        'logit_error'
    """

    def __init__(self, weight: float = 1.0, *, name: str | None = None) -> None:
        # float32 whatever the global policy: a sum over classes or pixels loses its small terms in half precision.
        super().__init__(name=name or _snake_case(type(self).__name__), dtype="float32")
        self.supports_masking = True
        self._weight = self._setting("weight", weight, minimum=0.0)
        self._owner: weakref.ref[keras.Model] | None = None
        self.student_layers: tuple[str, ...] = ()
        self.teacher_layers: tuple[str, ...] = ()

    @property
    def weight(self) -> float:
        """Factor on this term in the total loss."""
        return float(self._weight)

    @weight.setter
    def weight(self, value: float) -> None:
        self._weight.assign(_checked(type(self).__name__, "weight", value, minimum=0.0))

    @property
    def weight_variable(self) -> keras.Variable:
        """The variable behind `weight`, as the train step reads it."""
        return self._weight

    def join(self, owner: keras.Model, student: SignalSpec, teacher: SignalSpec) -> None:
        """Connect the loss to the models of a distiller, once: its variables belong to them from then on.

        Args:
            owner: The distiller.
            student: Shapes and head of the student.
            teacher: Shapes and head of the teacher.

        Raises:
            ValueError: The two cannot be compared, or the loss belongs to other models already.
        """
        if self._owner is None:
            self.connect(student, teacher)
            self._owner = weakref.ref(owner)  # weak, or Keras would track the distiller as a part of its loss
            self.built = True
        elif self._owner() is not owner:
            raise ValueError(
                f"Loss '{self.name}' belongs to another distiller already, with what it has learned there. Make a new "
                f"`{type(self).__name__}` for student '{student.model}'."
            )

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check that this loss can compare two models, and create its variables.

        Called once, before the first step. The default compares the shapes of the logits.

        Args:
            student: Shapes and head of the student.
            teacher: Shapes and head of the teacher.

        Raises:
            ValueError: The two cannot be compared.
        """
        if student.logits != teacher.logits:
            raise ValueError(
                f"`{type(self).__name__}` needs outputs of equal shape. Received: student '{student.model}' "
                f"{student.logits}, teacher '{teacher.model}' {teacher.logits}. Give both models the same classes."
            )

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the un-weighted loss of each sample.

        Args:
            student: The student's signals.
            teacher: The teacher's signals, without gradient.
            labels: The labels of the batch, as they were given to `fit`; `None` where there are none.

        Returns:
            Shape `(batch,)`.
        """
        raise NotImplementedError(f"`{type(self).__name__}` must implement `call(student, teacher, labels=None)`.")

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """A loss has one value per sample: a mask of its inputs ends here."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"weight": self.weight, "name": self.name}

    def _setting(self, name: str, value: float, *, minimum: float, exclusive: bool = False) -> keras.Variable:
        """Return a checked scalar setting as a non-trainable variable."""
        value = _checked(type(self).__name__, name, value, minimum=minimum, exclusive=exclusive)
        return self.add_weight(shape=(), initializer=keras.initializers.Constant(value), trainable=False, name=name)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _checked(owner: str, name: str, value: float, *, minimum: float, exclusive: bool = False) -> float:
    bound = f"above {minimum:g}" if exclusive else f"at least {minimum:g}"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"`{owner}` needs a number as {name}. Received: {value!r} of type {type(value).__name__}.")
    if not math.isfinite(value) or value < minimum or (exclusive and value == minimum):
        raise ValueError(f"`{owner}` needs a finite {name} {bound}. Received: {value}.")
    return float(value)


def check_exclusive_classes(loss: DistillationLoss, *specs: SignalSpec) -> None:
    """Raise if a model does not score two or more exclusive classes.

    Args:
        loss: The loss that needs them.
        *specs: The models.

    Raises:
        ValueError: A model ends in a sigmoid, or has one unit.
    """
    for spec in specs:
        if spec.head == "sigmoid" or spec.logits[-1] == 1:
            raise ValueError(
                f"`{type(loss).__name__}` needs exclusive classes, two or more. Received: model '{spec.model}' "
                f"{spec.logits} ending in {spec.head}. Use `SoftTargets` for sigmoid outputs."
            )
