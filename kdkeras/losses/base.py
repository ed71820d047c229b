"""The base of every distillation loss."""

from __future__ import annotations

import math
import re
import weakref
from typing import Any

import keras
import numpy as np
from keras import ops

from kdkeras._backend import number
from kdkeras.signals import Attribution, Explain, Signals, SignalSpec


class DistillationLoss(keras.layers.Layer):
    """One term of what a student copies from its teacher.

    A subclass states what it needs (`student_layers`, `teacher_layers`), checks shapes once in `connect`, and returns
    from `call` one value per sample, or per position where outputs are dense: the distiller takes the mean, with sample
    weights and masks, as Keras does of its losses. A loss between the samples of a batch sets `batch_wise`, gets
    `sample_weight`, and returns a single value in which a sample of weight 0 has no part. It is a layer, so that
    projectors and other variables inside it are trained, saved and placed like the student's own. Its weight is a
    variable: a schedule can move it under a compiled step.

    Args:
        weight: Factor on this term in the total loss, at least 0. Default 1.
        output: Name of the output that is compared, where the models have several; a pair (student's, teacher's)
            where the names differ. A model with one output needs none.
        name: Name in logs and progress bar; the class name in snake case by default, with the output's name.

    Attributes:
        student_layers: Paths of the student layers that `call` finds in `student.features`.
        teacher_layers: Paths of the teacher layers that `call` finds in `teacher.features`.
        student_attribution: The explanation of the student, at the teacher's top class, that `call` finds as
            `student.attributions[self.name]`; `None` without one.
        teacher_attribution: The explanation of the teacher that `call` finds as `teacher.attributions[self.name]`.
        compares_outputs: Whether `call` reads logits or predictions, and so must know which output of several.
        needs_logits: Whether probabilities in the place of logits would be wrong, so that models are looked at closely.
        batch_wise: Whether `call` returns a single value for the batch.
        needs: What `call` takes beside the signals and the labels: of `"sample_weight"` (shape `(batch,)`, or `None`),
            `"index"` (of each sample among the training data, see `kdkeras.Indexed`) and `"training"` (a boolean).

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

    compares_outputs = True
    needs_logits = True
    batch_wise = False
    needs: tuple[str, ...] = ()

    def __init__(
        self, weight: float = 1.0, *, output: str | tuple[str, str] | None = None, name: str | None = None
    ) -> None:
        self.output_names = _pair(type(self).__name__, output)
        own = self.output_names[0]
        default = _snake_case(type(self).__name__) + (f"_{own}" if own else "")
        # float32 whatever the global policy: a sum over classes or pixels loses its small terms in half precision.
        super().__init__(name=name or default, dtype="float32")
        self.supports_masking = True
        self._weight = self._setting("weight", weight, minimum=0.0)
        self._owner: weakref.ref[keras.Model] | None = None
        self._places: tuple[int | None, int | None] = (None, None)
        self.student_layers: tuple[str, ...] = ()
        self.teacher_layers: tuple[str, ...] = ()
        self.student_attribution: Attribution | None = None
        self.teacher_attribution: Attribution | None = None

    @property
    def weight(self) -> float:
        """Factor on this term in the total loss."""
        return number(self._weight)

    @weight.setter
    def weight(self, value: float) -> None:
        self._weight.assign(checked_number(type(self).__name__, "weight", value, minimum=0.0))

    @property
    def weight_variable(self) -> keras.Variable:
        """The variable behind `weight`, as the train step reads it."""
        return self._weight

    @property
    def student_place(self) -> int | None:
        """Place of the student's output that is compared, among several."""
        return self._places[0]

    def join(self, owner: keras.Model, student: SignalSpec, teacher: SignalSpec) -> None:
        """Connect the loss to the models of a distiller, once: its variables belong to them from then on.

        Args:
            owner: The distiller.
            student: Shapes and head of the student.
            teacher: Shapes and head of the teacher.

        Raises:
            ValueError: The two cannot be compared, or the loss belongs to other models already.
        """
        gone = self._owner is None or self._owner() is None
        # A loss that has learnt something stays with whom it learnt it; another may meet another task or other models.
        if self._owner is None or (not self.trainable_variables and (gone or self._owner() is owner)):
            specs = [self._place(spec, name) for spec, name in zip((student, teacher), self.output_names, strict=True)]
            self.connect(specs[0][1], specs[1][1])
            self._places = (specs[0][0], specs[1][0])
            self._owner = weakref.ref(owner)  # weak, or Keras would track the distiller as a part of its loss
            self.built = True
        elif self._owner() is not owner:
            raise ValueError(
                f"Loss '{self.name}' belongs to another distiller already, with what it has learned there. Make a new "
                f"`{type(self).__name__}` for student '{student.model}'."
            )

    def _place(self, spec: SignalSpec, output: str | None) -> tuple[int | None, SignalSpec]:
        if output is None and not self.compares_outputs:
            return None, spec
        place = spec.place(output, asked_by=type(self).__name__)
        return place, spec if place is None else spec.outputs[output]

    def explain(self, teacher: Signals | None = None, *, training: bool) -> Explain:
        """Return what to explain in this step: of the student the teacher's top class, of the teacher its own.

        Args:
            teacher: All signals of the teacher, where they are known already.
            training: Whether it is a step of training.

        Returns:
            The classes, and whether this step takes an explanation at all.
        """
        place = self._places[1]
        if teacher is None or self.student_attribution is None:
            return Explain(due=self.is_due(training=training))
        logits = (teacher if place is None else teacher.output(place)).logits
        return Explain(ops.argmax(logits, axis=-1), self.is_due(training=training))

    def is_due(self, *, training: bool) -> Any:
        """Return whether this step takes an explanation; where it does not, `call` finds zeros.

        Args:
            training: Whether it is a step of training.

        Returns:
            A boolean, or a boolean tensor. By default `True`.
        """
        return True

    def compare(self, student: Signals, teacher: Signals, labels: Any = None, **context: Any) -> Any:
        """Return the values of `call` on the outputs that this loss compares, as the train step asks for them.

        Args:
            student: All signals of the student.
            teacher: All signals of the teacher.
            labels: The labels of the student's output.
            **context: What else is known of the batch; of this, `call` gets what it `needs`.

        Returns:
            Shape `(batch,)`, or `(batch, positions...)`; a scalar where the loss is `batch_wise`.
        """
        ours, theirs = (
            signals if place is None else signals.output(place)
            for signals, place in zip((student, teacher), self._places, strict=True)
        )
        return self(ours, theirs, labels=labels, **{name: context.get(name) for name in self.needs})

    def mask(self, student: Signals) -> Any:
        """Return the Keras mask of the positions that `call` has values for, or `None`.

        The default is the mask of the student's tapped layer, where there is one, and of its output otherwise.

        Args:
            student: The student's signals, of the one output that is compared.

        Returns:
            Boolean, shape `(batch, positions...)`, or `None`.
        """
        return student.masks.get(self.student_layers[0] if self.student_layers else "")

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
            Shape `(batch,)`, or `(batch, positions...)` where outputs are dense.
        """
        raise NotImplementedError(f"`{type(self).__name__}` must implement `call(student, teacher, labels=None)`.")

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """A loss has one value per sample: a mask of its inputs ends here."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        output = self.output_names[0] if self.output_names[0] == self.output_names[1] else self.output_names
        return {"weight": self.weight, "output": output, "name": self.name}

    def _setting(self, name: str, value: float, *, minimum: float, exclusive: bool = False) -> keras.Variable:
        """Return a checked scalar setting as a non-trainable variable, which a schedule can move."""
        value = checked_number(type(self).__name__, name, value, minimum=minimum, exclusive=exclusive)
        return self.add_weight(shape=(), initializer=keras.initializers.Constant(value), trainable=False, name=name)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _pair(owner: str, output: str | tuple[str, str] | None) -> tuple[str | None, str | None]:
    names = tuple(output) if isinstance(output, (list, tuple)) else (output, output)
    if len(names) != 2 or not all(name is None or isinstance(name, str) for name in names):
        raise TypeError(
            f"`{owner}` needs the name of an output, or a pair of names (student's, teacher's). Received: {output!r}."
        )
    return names


def checked_number(owner: str, name: str, value: float, *, minimum: float, exclusive: bool = False) -> float:
    """Return a setting as a float, or raise.

    Args:
        owner: Whose setting it is, for the message.
        name: Name of the setting.
        value: Its value.
        minimum: Lowest value.
        exclusive: Whether the minimum itself is out.

    Returns:
        The value.

    Raises:
        TypeError: It is no number.
        ValueError: It is not finite, or too low.
    """
    bound = f"above {minimum:g}" if exclusive else f"of at least {minimum:g}"
    if not isinstance(value, (int, float, np.number)) or isinstance(value, bool):
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
