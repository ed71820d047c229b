"""The weighted terms of a distiller's loss, and a running mean of each for the progress bar."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from kdkeras.losses import DistillationLoss
from kdkeras.signals import Signals


class Terms(keras.layers.Layer):
    """Task weight, distillation losses and their trackers.

    A layer of its own, so that `Distiller.compile` can replace the terms of a model that is already built.
    """

    def __init__(self) -> None:
        super().__init__(name="terms", dtype="float32", autocast=False)
        self.task_weight = self.add_weight(shape=(), initializer="ones", trainable=False, name="task_weight")
        self.distillation_losses: list[DistillationLoss] = []
        self.task_tracker: list[keras.metrics.Mean] = []  # one, or none without a task loss
        self.trackers: list[keras.metrics.Mean] = []
        self.mean = _Mean(name="mean")
        self.built = True

    def replace(self, losses: list[DistillationLoss], task_weight: float, *, has_task: bool) -> None:
        """Take new losses and a new task weight."""
        self.task_weight.assign(task_weight)
        # In place: Keras' tracking then drops the variables and metrics of the losses that go.
        self.distillation_losses.clear()
        self.distillation_losses.extend(losses)
        self.trackers.clear()
        self.trackers.extend(keras.metrics.Mean(name=loss.name) for loss in losses)
        self.task_tracker.clear()
        self.task_tracker.extend([keras.metrics.Mean(name="task_loss")] if has_task else [])

    def weigh_task(self, task: Any, size: Any) -> Any:
        """Return the weighted task loss, and track it un-weighted."""
        self.task_tracker[0].update_state(_unscaled(task), sample_weight=size)
        return self.task_weight * task

    def weigh(self, student: Signals, teacher: Signals, labels: Any, sample_weight: Any, size: Any) -> Any:
        """Return the weighted sum of the distillation losses, and track each un-weighted."""
        total = keras.ops.zeros(())
        if sample_weight is not None and len(sample_weight.shape) > 1 and sample_weight.shape[1:] != (1,):
            raise ValueError(
                f"Distillation losses take one weight per sample, shape (batch,). Received: {sample_weight.shape}. "
                "Weigh positions in the task loss with a loss of your own."
            )
        for loss, tracker in zip(self.distillation_losses, self.trackers, strict=True):
            values = loss(student, teacher, labels=labels)  # (batch,)
            if len(values.shape) != 1:
                raise ValueError(
                    f"Loss '{loss.name}' must return one value per sample, shape (batch,). Received: {values.shape}. "
                    "Take the mean over its other axes."
                )
            value = self.mean(values, values, sample_weight)
            tracker.update_state(_unscaled(value), sample_weight=size)
            total = total + loss.weight_variable * value
        return total


class _Mean(keras.losses.Loss):
    """Keras' own weighted batch mean, with its loss scaling under a `tf.distribute` strategy."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred


def _unscaled(loss: Any) -> Any:
    """Undo Keras' division of a loss by the number of replicas, for the figure that is shown."""
    return loss * tf.distribute.get_strategy().num_replicas_in_sync
