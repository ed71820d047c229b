"""A step that must not happen is undone, and a teacher that must not change is watched."""

from __future__ import annotations

import contextlib
import logging
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from kdkeras import _backend
from kdkeras._training.health import Health

_LOG = logging.getLogger("kdkeras")


class Gate:
    """Lets a step that is not sound change nothing (TensorFlow and PyTorch).

    While the gate is entered, the optimizer's `apply` stands in a branch that such a step does not take: weights and
    the optimizer's variables, most of a step's state, are never copied. What a step writes besides is copied and put
    back: BatchNorm's statistics, metrics, the state of random numbers and of losses.

    Args:
        optimizer: The optimizer of the step.
        health: What the step notes of its terms.
        statistics: Variables whose new values must be finite, beside the gradients.
        written: Variables that are put back.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        health: Health,
        statistics: list[keras.Variable],
        written: list[keras.Variable],
    ) -> None:
        self._optimizer, self._health, self._statistics, self._written = optimizer, health, statistics, written
        self._before: list[Any] = []
        self._sound: Any = None

    def __enter__(self) -> Gate:
        # `ops.copy`, and not the variable itself: TensorFlow really copies when it writes.
        self._before = [ops.copy(variable.value) for variable in self._written]
        apply = self._optimizer.apply

        def apply_if_sound(gradients: Any, variables: Any = None) -> None:
            self._judge(gradients)
            _if(self._sound, lambda: apply(gradients, variables))

        object.__setattr__(self._optimizer, "apply", apply_if_sound)  # Keras' own way would track it
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        object.__delattr__(self._optimizer, "apply")
        if kind is not None:
            return
        if self._sound is None:  # nothing is trained
            self._judge([])
        _if(ops.logical_not(self._sound), self._put_back)

    def _judge(self, gradients: Any) -> None:
        statistics = [ops.convert_to_tensor(variable) for variable in self._statistics]
        gradients = judged(self._optimizer, gradients)
        record, self._sound = self._health.judge(ops.convert_to_tensor(self._health.record), gradients, statistics)
        self._health.record.assign(record)

    def _put_back(self) -> None:
        for variable, value in zip(self._written, self._before, strict=True):
            variable.assign(value)


def _if(condition: Any, branch: Callable[[], Any]) -> None:
    """Run a branch, or not."""
    if _backend.name() == "torch":
        if bool(condition):
            branch()
        return

    def run() -> Any:
        branch()
        return ops.zeros(())

    ops.cond(condition, run, lambda: ops.zeros(()))


def judged(optimizer: keras.optimizers.Optimizer, gradients: Any) -> list[Any]:
    """Return the gradients that must be finite: none where the optimizer looks at them itself, to find its scale.

    Args:
        optimizer: The optimizer that will be given them.
        gradients: Gradients, or `None` of weights that have none.

    Returns:
        Tensors.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return []
    return [_backend.values(gradient) for gradient in gradients if gradient is not None]


def count_only(health: Health, variables: list[keras.Variable]) -> None:
    """Count a step that was not finite, where replicas cannot leave it out one by one.

    Args:
        health: What the step noted of its terms.
        variables: Variables whose new values must be finite.
    """
    values = [ops.convert_to_tensor(variable) for variable in variables]
    health.record.assign(health.judge(ops.convert_to_tensor(health.record), [], values)[0])


def kept(sound: Any, new: list[Any], old: list[Any]) -> list[Any]:
    """Return the values after a step, or those before it if it was not sound (JAX).

    Args:
        sound: A boolean tensor.
        new: Values after the step.
        old: The same before it.

    Returns:
        Tensors.
    """
    return [ours if ours is theirs else ops.where(sound, ours, theirs) for ours, theirs in zip(new, old, strict=True)]


def fingerprint(model: keras.Model | None) -> int:
    """Return a checksum of a model's weights.

    Args:
        model: A Keras model, or `None`.

    Returns:
        A CRC-32.

    Example:
        >>> from kdkeras._training.guard import fingerprint
        >>> from kdkeras.testing import tiny_cnn
        >>> model = tiny_cnn()
        >>> fingerprint(model) == fingerprint(model)
        True
    """
    checksum = 0
    for variable in model.weights if model is not None else ():
        checksum = zlib.crc32(np.ascontiguousarray(ops.convert_to_numpy(variable)).view(np.uint8).ravel(), checksum)
    return checksum


def is_finite(variable: keras.Variable) -> bool:
    """Return whether all values of a variable are finite.

    Args:
        variable: Any variable.

    Returns:
        True, or for numbers that are not finite False.

    Example:
        >>> import keras
        >>> from kdkeras._training.guard import is_finite
        >>> is_finite(keras.Variable([1.0, float("inf")]))
        False
    """
    if not keras.backend.is_float_dtype(variable.dtype):
        return True
    return bool(np.isfinite(np.asarray(ops.convert_to_numpy(variable), dtype="float64")).all())


class Watch(keras.callbacks.Callback):
    """Stops training after too many steps in a row that were not finite, and tells when the teacher was changed.

    Args:
        health: What the steps note.
        teacher: The teacher, or `None`.
        limit: Number of skipped steps in a row that stops training; `None` for no limit.
    """

    def __init__(self, health: Health, teacher: keras.Model | None, limit: int | None) -> None:
        super().__init__()
        self._health = health
        self._teacher = teacher
        self._limit = limit
        self._fingerprint: int | None = None
        self._batches = self._told = self._before = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Set the counters to 0, and look at the teacher."""
        self._health.forget()
        if self._teacher is None or self._teacher.built:
            self._fingerprint = fingerprint(self._teacher)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the counters now and then: a skipped step does no harm meanwhile."""
        self._batches += 1
        if self._fingerprint is None:  # a teacher that the first step has built
            self._fingerprint = fingerprint(self._teacher)
        if self._limit is not None and self._batches % self._limit == 0:
            if _backend.name() == "jax":
                self.model.jax_state_sync()
            check_health(self._health, self._limit)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remember how far the optimizer is."""
        self._before = self._iterations()

    def _iterations(self) -> int:
        return int(ops.convert_to_numpy(self.model.optimizer.iterations))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the counters, and say how many steps were skipped."""
        check_health(self._health, self._limit)
        total = self._health.total
        if logs is not None and total > self._told and self._iterations() == self._before:
            logs["loss"] = float("nan")  # no step is left to be the mean of, and 0 would be the best one ever
        if total > self._told:
            _LOG.warning(
                "%d steps of epoch %d were skipped, because %s.", total - self._told, epoch + 1, self._health.reason()
            )
            self._told = total

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Compare the teacher with what it was."""
        if fingerprint(self._teacher) != self._fingerprint:
            raise RuntimeError(
                f"Teacher '{self._teacher.name}' was changed while the student was trained. Something else than the "
                "distiller assigns its weights: look for callbacks and layers that both models share."
            )


def check_health(health: Health, limit: int | None) -> None:
    """Raise if steps must not go on like this.

    Args:
        health: What the steps noted.
        limit: Number of skipped steps in a row that is too many, or `None`.

    Raises:
        ValueError: There were labels out of range.
        FloatingPointError: Too many steps in a row were skipped.
    """
    if impossible := health.impossible:
        raise ValueError(
            "Labels must lie in the range of the student's outputs, or be -1 for 'not labelled' (a whole row of -1 "
            f"where an output has several units). Received: {impossible} labels out of range. Nothing was learned "
            "from them; number the classes from 0."
        )
    if limit is not None and health.in_a_row >= limit:
        raise FloatingPointError(
            f"{health.in_a_row} steps in a row were skipped, because {health.reason()}. Look at the inputs, lower the "
            "learning rate, or clip the gradient (`clipnorm=1`)."
        )


@contextlib.contextmanager
def watching(watch: Watch, arguments: dict[str, Any], model: keras.Model) -> Iterator[None]:
    """Add a watch to the callbacks of one `fit`.

    Args:
        watch: The watch.
        arguments: Arguments of `fit`; a list of callbacks in it is replaced, a `CallbackList` lent the watch.
        model: The model that is trained.
    """
    callbacks = arguments.get("callbacks")
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        several = isinstance(callbacks, (list, tuple))
        # First: what it finds, the others must not take for a result.
        arguments["callbacks"] = [watch, *(callbacks if several else [callbacks] if callbacks else [])]
        yield
        return
    watch.set_model(model)
    callbacks.callbacks.insert(0, watch)
    try:
        yield
    finally:
        callbacks.callbacks.remove(watch)
