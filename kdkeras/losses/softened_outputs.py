"""Any Keras loss between softened outputs: the Keras tutorial's distillation loss."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras.losses.base import check_exclusive_classes
from kdkeras.losses.tempered_loss import TemperedLoss
from kdkeras.ops import log_soften
from kdkeras.signals import Signals, SignalSpec


@keras.saving.register_keras_serializable(package="kdkeras")
class SoftenedOutputs(TemperedLoss):
    """A Keras loss between softened probabilities: `T² · L(softmax(z_t / T), softmax(z_s / T))`.

    This is what the Keras tutorial's `distillation_loss_fn` means; `Distiller.compile` builds it from that argument.
    Prefer `SoftTargets` for the KL divergence: it computes the same in log space.

    Args:
        loss_fn: A `keras.losses.Loss` on probabilities.
        temperature: Temperature T > 0. Default 3, as in the tutorial.
        weight: Factor on this term in the total loss. Default 1.
        standardize: Whether each vector of logits is standardised first (LSKD). Default `False`.
        output: Name of the output that is compared, where the models have several; a pair where the names differ.
        name: Name in logs and progress bar. Default `"softened_outputs"`.

    Raises:
        TypeError: `loss_fn` is not a `keras.losses.Loss`.
        ValueError: `temperature` is not above 0, `weight` is negative, or the loss takes logits; when connected, the
            outputs are not exclusive classes.

    Example:
        >>> import keras, kdkeras
        >>> kdkeras.losses.SoftenedOutputs(keras.losses.MeanSquaredError(), temperature=2).temperature
        2.0

    Reference:
        Borup: Knowledge Distillation, keras.io/examples/vision/knowledge_distillation.
    """

    def __init__(
        self,
        loss_fn: keras.losses.Loss,
        temperature: float = 3.0,
        weight: float = 1.0,
        *,
        standardize: bool = False,
        output: str | tuple[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(temperature, weight, standardize=standardize, output=output, name=name)
        if not isinstance(loss_fn, keras.losses.Loss):
            raise TypeError(
                f"`SoftenedOutputs` needs a `keras.losses.Loss`. Received: {loss_fn!r}. "
                "Pass an instance, such as `keras.losses.KLDivergence()`."
            )
        if getattr(loss_fn, "from_logits", False):
            raise ValueError(
                "`SoftenedOutputs` gives its loss probabilities. Received: a loss with from_logits=True. Pass "
                "from_logits=False, the default."
            )
        self.loss_fn = loss_fn

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check that both models give one score per class."""
        super().connect(student, teacher)
        check_exclusive_classes(self, teacher, student)

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the loss of each sample, shape `(batch,)`, or of each position where outputs are dense."""
        ours, theirs, temperature = self.logits(student, teacher)
        teacher_softened = ops.exp(log_soften(theirs, temperature))
        student_softened = ops.exp(log_soften(ours, temperature))
        return temperature**2 * self.loss_fn.call(teacher_softened, student_softened)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        loss_fn = keras.saving.serialize_keras_object(self.loss_fn)
        return {**super().get_config(), "loss_fn": loss_fn}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SoftenedOutputs:
        """Rebuild the loss from `get_config`."""
        return cls(**{**config, "loss_fn": keras.saving.deserialize_keras_object(config["loss_fn"])})
