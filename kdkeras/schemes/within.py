"""A distillation loss between two outputs, or two layers, of the same model."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras.losses import DistillationLoss
from kdkeras.signals import Signals, SignalSpec


@keras.saving.register_keras_serializable(package="kdkeras")
class Within(DistillationLoss):
    """Any distillation loss, with the student's own signals in the place of the teacher's.

    The teaching side is cut off from the gradient. What stands for the student in the loss learns from what stands for
    the teacher: of `SoftTargets(output=("shallow", "deep"))`, the output `shallow`. Weight and other settings are those
    of the loss inside.

    Args:
        loss: The loss between two outputs or layers.
        name: Name in logs and progress bar. Default: the loss's own.

    Attributes:
        loss: The loss between two outputs or layers.

    Raises:
        TypeError: `loss` is no `DistillationLoss`.
        ValueError: `loss` compares explanations.

    Example:
        >>> import kdkeras
        >>> from kdkeras.schemes import Within
        >>> loss = Within(kdkeras.losses.Hints("conv2", "conv5", weight=0.5))
        >>> loss.student_layers, loss.teacher_layers, loss.weight
        (('conv2', 'conv5'), (), 0.5)
    """

    def __init__(self, loss: DistillationLoss, *, name: str | None = None) -> None:
        if not isinstance(loss, DistillationLoss):
            raise TypeError(f"`Within` needs a `DistillationLoss`. Received: {loss!r} of type {type(loss).__name__}.")
        if loss.student_attribution is not None or loss.teacher_attribution is not None:
            raise ValueError(
                f"`Within` compares outputs or layers of one model. Received: '{loss.name}', which compares "
                "explanations. Take it between two models, in a `Distiller`."
            )
        super().__init__(name=name or loss.name)
        self.loss = loss
        self.output_names = loss.output_names
        self.student_layers = (*loss.student_layers, *loss.teacher_layers)
        self.compares_outputs, self.needs_logits = loss.compares_outputs, loss.needs_logits
        self.batch_wise, self.needs = loss.batch_wise, loss.needs

    @property
    def weight(self) -> float:
        """Factor on this term in the total loss: that of the loss inside."""
        return self.loss.weight

    @weight.setter
    def weight(self, value: float) -> None:
        self.loss.weight = value

    @property
    def weight_variable(self) -> keras.Variable:
        """The variable behind `weight`, as the train step reads it."""
        return self.loss.weight_variable

    def join(self, owner: keras.Model, student: SignalSpec, teacher: SignalSpec) -> None:
        """Connect the loss to the student alone."""
        super().join(owner, student, student)

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check both sides, and create what the loss inside needs."""
        self.loss.connect(student, teacher)
        self.loss.built = True

    def compare(self, student: Signals, teacher: Signals, labels: Any = None, **context: Any) -> Any:
        """Return the values of `call` on the student's signals alone."""
        own = keras.tree.map_structure(ops.stop_gradient, student)
        return super().compare(student, own, labels, **context)

    def call(self, student: Signals, teacher: Signals, labels: Any = None, **context: Any) -> Any:
        """Return the values of the loss inside."""
        return self.loss(student, teacher, labels=labels, **context)

    def mask(self, student: Signals) -> Any:
        """Return the mask of the loss inside."""
        return self.loss.mask(student)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"loss": keras.saving.serialize_keras_object(self.loss), "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Within:
        """Rebuild the loss from `get_config`."""
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})
