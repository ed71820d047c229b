"""The weighted terms of a distiller's loss, and a running mean of each."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras import _backend
from kdkeras._training.health import Health
from kdkeras._training.task import Task, per_position, share_shown
from kdkeras.losses import DistillationLoss
from kdkeras.losses.base import checked_number
from kdkeras.signals import Batch, Explain, Signals


class Terms(keras.layers.Layer):
    """Task weight, distillation losses and their trackers.

    A layer of its own, so that `Distiller.compile` can replace the terms of a model that is already built.
    """

    def __init__(self) -> None:
        super().__init__(name="terms", dtype="float32", autocast=False)
        self.weight = self.add_weight(shape=(), initializer="ones", trainable=False, name="task_weight")
        self.distillation_losses: list[DistillationLoss] = []
        self.task_tracker: list[keras.metrics.Mean] = []  # one, or none without a task loss
        self.trackers: list[keras.metrics.Mean] = []
        self.health: list[Health] = []  # one, once there are terms
        self.mean = _Mean(name="mean")
        self.needs_labels = False
        self.built = True

    def replace(self, losses: list[DistillationLoss], task_weight: float, *, has_task: bool) -> None:
        """Take new losses and a new task weight."""
        # In place: Keras' tracking then drops the variables and metrics of the losses that go.
        self.distillation_losses.clear()
        self.distillation_losses.extend(losses)
        self.trackers.clear()
        self.trackers.extend(keras.metrics.Mean(name=loss.name) for loss in losses)
        self.task_tracker.clear()
        self.task_tracker.extend([keras.metrics.Mean(name="task_loss")] if has_task else [])
        self.health.clear()
        self.health.append(Health(["task_loss", "regularisation", *(loss.name for loss in losses)]))
        self.task_weight = task_weight

    @property
    def task_weight(self) -> float:
        """Factor on the task loss."""
        return _backend.number(self.weight)

    @task_weight.setter
    def task_weight(self, value: float) -> None:
        value = checked_number("Distiller", "task_weight", value, minimum=0.0)
        self.weight.assign(value)
        self.needs_labels = bool(self.task_tracker) and value > 0

    def explain(self, teacher: Signals | None = None, *, training: bool) -> dict[str, Explain]:
        """Return what each loss wants explained in this step.

        Args:
            teacher: The teacher's signals, where they are known already.
            training: Whether it is a step of training.

        Returns:
            By the name of the loss.
        """
        return {loss.name: loss.explain(teacher, training=training) for loss in self.distillation_losses}

    def weigh_task(self, task: Any, size: Any) -> Any:
        """Return the weighted task loss, and track it un-weighted."""
        self.task_tracker[0].update_state(_unscaled(task), sample_weight=size)
        return self.weight * task

    def weigh(
        self, student: Signals, batch: Batch, labels: Any, sample_weight: Any, task: Task, *, training: bool
    ) -> list[Any]:
        """Return the weighted value of each distillation loss, and track it un-weighted."""
        first = keras.tree.flatten(batch.inputs)[0]
        size = ops.shape(first)[0]
        weighted = []
        for loss, tracker in zip(self.distillation_losses, self.trackers, strict=True):
            place = loss.student_place
            weights = _of_loss(loss, sample_weight, task)
            context = {"sample_weight": _per_sample(weights), "index": batch.index, "training": training}
            if loss.batch_wise and first.shape[0] == 1:  # the last batch of an epoch may be one sample: it has no pair
                values = ops.zeros(())
            else:
                values = loss.compare(student, batch.teacher, labels=task.of_output(labels, place), **context)
            if loss.batch_wise:  # sample weights are in it already
                values = ops.reshape(values, (1,))
                value = self.mean(values, values)
            else:
                _check_per_sample(loss, values)
                value = self.mean(values, values, self._weights(loss, values, student, weights))
            tracker.update_state(_unscaled(value), sample_weight=size)
            weighted.append(loss.weight_variable * value)
        return weighted

    def _weights(self, loss: DistillationLoss, values: Any, student: Signals, weights: Any) -> Any:
        """Return what each value weighs: the sample's weight, and nothing where it is masked."""
        rank = len(values.shape)
        if weights is not None:
            weights = ops.cast(weights, "float32")
            if len(weights.shape) > 1 and not _same_positions(weights, values):
                weights = _per_sample(weights)
            weights = per_position(weights, rank)
        own = student if loss.student_place is None else student.output(loss.student_place)
        mask = loss.mask(own)
        if mask is None or not _same_positions(mask, values):
            return weights
        # As Keras: the mean is over what is shown, so what is shown weighs more.
        shown = ops.cast(mask, "float32") / share_shown(mask, weights)
        return shown if weights is None else weights * shown


def _of_loss(loss: DistillationLoss, sample_weight: Any, task: Task) -> Any:
    """Return the sample weights of the output that a loss compares."""
    weights = task.of_output(sample_weight, loss.student_place)
    if weights is None and sample_weight is not None:
        raise ValueError(
            f"Loss '{loss.name}' cannot tell whose sample weights hold, for there are some per output. Pass one "
            "weight per sample, or `output=` where the loss has it."
        )
    return weights


def _per_sample(weights: Any) -> Any:
    """Return one weight per sample: the mean where there is one per position."""
    if weights is None:
        return None
    weights = ops.cast(weights, "float32")
    return ops.mean(weights, axis=tuple(range(1, len(weights.shape)))) if len(weights.shape) > 1 else weights


def _check_per_sample(loss: DistillationLoss, values: Any) -> None:
    if not len(values.shape):
        raise ValueError(
            f"Loss '{loss.name}' must return one value per sample, shape (batch,). Received: a single value. "
            "Do not take the mean over the batch, or set `batch_wise = True` on a loss between samples."
        )


def _same_positions(one: Any, other: Any) -> bool:
    """Whether two shapes agree or can be broadcast, but for axes that are not known."""
    return len(one.shape) == len(other.shape) and all(
        a == b or a is None or b is None or i == 0 or a == 1
        for i, (a, b) in enumerate(zip(one.shape, other.shape, strict=True))
    )


class _Mean(keras.losses.Loss):
    """Keras' own weighted batch mean, with its loss scaling under a `tf.distribute` strategy."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred


def _unscaled(loss: Any) -> Any:
    """Undo Keras' division of a loss by the number of replicas, for the figure that is shown."""
    return loss * _backend.replicas()
