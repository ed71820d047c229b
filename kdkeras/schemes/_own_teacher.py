"""A distiller whose student has several outputs that learn the same labels, and one another."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras.distiller import Distiller
from kdkeras.schemes._training import copied


class OwnTeacher(Distiller):
    """Trains a model of several outputs on one label per sample, and on what the outputs show one another.

    Its distillation losses are `Within` the student; `teacher` is there only because a `Distiller` asks one, and says
    nothing.

    Args:
        student: A model with a dict of outputs.
        name: Name of the model.
    """

    def __init__(self, student: keras.Model, *, name: str) -> None:
        super().__init__(student=student, teacher=_Nobody(), name=name)

    def per_output(self, value: Any, *, names: list[str]) -> Any:
        """Return a loss or metrics for each output.

        Args:
            value: One for all, or already a dict by output.
            names: Names of the outputs.

        Returns:
            A dict by output, each with objects of its own; `None` for `None`.
        """
        if value is None or (isinstance(value, dict) and set(value) == set(names)):
            return value
        return {name: copied(value) for name in names}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the total loss, with the labels for every output."""
        return super().compute_loss(x, self._shared(y), y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Update the metrics of every output."""
        return super().compute_metrics(x, self._shared(y), y_pred, sample_weight)

    def _shared(self, y: Any) -> Any:
        return y if y is None or keras.tree.is_nested(y) else dict.fromkeys(self.output_names, y)


class _Nobody(keras.Model):
    """A teacher without weights or anything to say."""

    def __init__(self) -> None:
        super().__init__(name="nobody", dtype="float32", autocast=False)
        self.end = keras.layers.Softmax(dtype="float32")  # a known end, or a distiller would probe for one
        self.built = True

    def call(self, inputs: Any) -> Any:
        return self.end(ops.zeros((ops.shape(keras.tree.flatten(inputs)[0])[0], 2)))
