"""Checkpoints of the student alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from kdkeras._files import atomic_path


class StudentCheckpoint(keras.callbacks.ModelCheckpoint):
    """Saves the student of a distiller, and nothing of the teacher: `keras.callbacks.ModelCheckpoint` for distillation.

    `keras.callbacks.ModelCheckpoint` on a distiller saves the distiller: student, teacher, losses and optimizer. This
    one has the same arguments, watches the same logs, and saves `distiller.student`, as `distiller.student.save(path)`
    does. A file is replaced only when the new one is whole.

    Args:
        filepath: A `.keras` file, or a `.weights.h5` file with `save_weights_only=True`. May contain `{epoch}` and the
            names of logs, as in `"{epoch:02d}-{val_loss:.2f}.keras"`.
        *args: Further arguments of `keras.callbacks.ModelCheckpoint`.
        **kwargs: Further arguments of `keras.callbacks.ModelCheckpoint`: `monitor`, `save_best_only`, `mode` and so on.

    Raises:
        TypeError: The model that is trained has no student.

    Example:
        >>> import keras, kdkeras, numpy as np, pathlib, tempfile
        >>> from kdkeras.callbacks import StudentCheckpoint
        >>> def network(units):
        ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units), keras.layers.Dense(3)])
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "student.keras"
        >>> distiller = kdkeras.Distiller(student=network(2), teacher=network(8)).compile()
        >>> _ = distiller.fit(np.ones((8, 4)), verbose=0, callbacks=[StudentCheckpoint(path)])
        >>> keras.saving.load_model(path).count_params() == distiller.student.count_params()
        True
    """

    def set_model(self, model: keras.Model) -> None:
        """Take the distiller that is trained."""
        student = getattr(model, "student", None)
        if not isinstance(student, keras.Model):
            raise TypeError(
                f"`StudentCheckpoint` needs a `Distiller`. Received: '{model.name}', a {type(model).__name__} without "
                "a student. Use `keras.callbacks.ModelCheckpoint`."
            )
        super().set_model(_StudentOf(model))


class _StudentOf:
    """What `ModelCheckpoint` asks of its model, with the student as what is saved."""

    def __init__(self, distiller: keras.Model) -> None:
        self._distiller = distiller

    @property
    def metrics(self) -> list[keras.Metric]:
        """The distiller's metrics: `mode="auto"` looks up there whether more is better."""
        return self._distiller.metrics

    def jax_state_sync(self) -> None:
        """Bring the variables of a running epoch back to the model, on JAX."""
        if keras.backend.backend() == "jax":
            self._distiller.jax_state_sync()

    def save(self, filepath: str, overwrite: bool = True) -> None:
        """Save the student."""
        self._write(filepath, self._distiller.student.save)

    def save_weights(self, filepath: str, overwrite: bool = True) -> None:
        """Save the student's weights."""
        self._write(filepath, self._distiller.student.save_weights)

    def _write(self, filepath: str, write: Callable[[Path], Any]) -> None:
        with atomic_path(filepath) as temporary:
            # Keras wants ".weights.h5", and a temporary name keeps the last suffix only.
            beside = temporary.with_name(f"{temporary.name}{''.join(Path(filepath).suffixes[-2:])}")
            try:
                write(beside)
                beside.replace(temporary)
            finally:
                beside.unlink(missing_ok=True)
