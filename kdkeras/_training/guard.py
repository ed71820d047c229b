"""A step that must not happen is undone, and a teacher that must not change is watched."""

from __future__ import annotations

import contextlib
import logging
import zlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from kdkeras import _backend
from kdkeras._training.health import Health

_LOG = logging.getLogger("kdkeras")


def copies(variables: list[keras.Variable]) -> list[Any]:
    """Return the values of variables, inside or outside of a graph, safe from later assignments."""
    return [ops.copy(variable.value) for variable in variables]  # TensorFlow really copies when it writes


def undo_unless_sound(
    health: Health, trained: list[keras.Variable], variables: list[keras.Variable], before: list[Any]
) -> None:
    """Put variables back where the step that just ran was not finite, and count it (TensorFlow and PyTorch).

    Args:
        health: What the step noted of its terms.
        trained: Variables whose new values must be finite.
        variables: Variables that are put back.
        before: Their values before the step.
    """
    record, sound = health.judge(ops.convert_to_tensor(health.record), [ops.convert_to_tensor(v) for v in trained])
    health.record.assign(record)

    def undo() -> Any:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        return ops.zeros(())

    if _backend.name() == "torch":
        if not bool(sound):
            undo()
        return
    ops.cond(sound, lambda: ops.zeros(()), undo)


def count_only(health: Health) -> None:
    """Count a step that was not finite, where replicas cannot put their variables back one by one."""
    health.record.assign(health.judge(ops.convert_to_tensor(health.record), [])[0])


def sound_state(
    health: Health, variables: list[keras.Variable], trained: list[Any], new: list[Any], old: list[Any]
) -> tuple[Any, list[Any]]:
    """Return whether a step was sound, and its state: the new one, or else the old one (JAX).

    Args:
        health: Where the step noted its terms.
        variables: The variables behind the non-trainable part of the state.
        trained: New values that must be finite.
        new: Non-trainable values after the step, in the order of `variables`.
        old: The same before it.

    Returns:
        A boolean tensor, and the non-trainable values to go on with.
    """
    place = next(i for i, variable in enumerate(variables) if variable is health.record)
    record, sound = health.judge(new[place], trained)
    kept = [ops.where(sound, ours, theirs) for ours, theirs in zip(new, old, strict=True)]
    kept[place] = record
    return sound, kept


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
