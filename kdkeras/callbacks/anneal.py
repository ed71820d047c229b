"""Moving a setting while the model trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


class Anneal(keras.callbacks.Callback):
    """Moves a setting during `fit`, under a compiled step: the weight or temperature of a loss, the task weight.

    The value is a function of the epoch alone (with `per="batch"`, of its fraction too), so that it is right after
    an interrupted training was resumed. It stands in the logs and in the history under its name.

    Args:
        target: The object: a loss, a distiller, an optimizer.
        setting: Name of its setting. It must be one that a compiled step reads from a variable: `weight` and
            `temperature` of the losses, `task_weight` of a distiller, `learning_rate` of an optimizer.
        schedule: Function from the epoch, counted from 0, to the value: `linear`, `cosine`, `warm_up`, `stages`, or
            any other.
        per: `"epoch"` sets the value when an epoch begins, `"batch"` before each batch, from `epoch + batch / batches`.
            Default `"epoch"`. On JAX, `"batch"` brings the whole state of the training out of the compiled step before
            each batch where the value changes.
        name: Name in the logs. Default: that of the setting, after that of the target if this is a loss.

    Raises:
        TypeError: `setting` does not exist, cannot be set, is no number, or is a plain attribute, which a compiled step
            reads once only.
        ValueError: `per` is something else, or the number of batches is not known when `per="batch"` needs it.

    Example:
        >>> import keras, kdkeras, numpy as np
        >>> from kdkeras.callbacks import Anneal, linear
        >>> def network():
        ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> loss = kdkeras.losses.SoftTargets()
        >>> distiller = kdkeras.Distiller(student=network(), teacher=network())
        >>> history = distiller.compile(distillation_loss=loss).fit(
        ...     np.ones((8, 4)), epochs=3, verbose=0, callbacks=[Anneal(loss, "weight", linear(1, 0, epochs=2))]
        ... )
        >>> history.history["soft_targets_weight"]
        [1.0, 0.5, 0.0]
    """

    def __init__(
        self,
        target: Any,
        setting: str,
        schedule: Callable[[float], float],
        *,
        per: str = "epoch",
        name: str | None = None,
    ) -> None:
        super().__init__()
        if per not in ("epoch", "batch"):
            raise ValueError(f'`Anneal` needs `per` "epoch" or "batch". Received: {per!r}.')
        if not callable(schedule):
            raise TypeError(
                "`Anneal` needs a function from the epoch to a value as schedule. Received: "
                f"{type(schedule).__name__}. Write for example `linear(8, 1, epochs=10)`."
            )
        _check_setting(target, setting)
        prefix = f"{target.name}_" if isinstance(target, keras.layers.Layer) else ""
        prefix = "" if isinstance(target, keras.Model) else prefix
        self.target, self.setting, self.schedule, self.per = target, setting, schedule, per
        self.name = name or f"{prefix}{setting}"
        self._value: float | None = None
        self._epoch = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check that the batches of an epoch are counted, where that is needed."""
        self._value = None
        if self.per == "batch" and not (self.params or {}).get("steps"):
            raise ValueError(
                '`Anneal` with `per="batch"` needs to know the number of batches of an epoch. Received: data of '
                'unknown length. Give `steps_per_epoch` to `fit`, or choose `per="epoch"`.'
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the value of the epoch."""
        self._epoch = epoch
        self._value = None  # whatever happened in between, the schedule's value holds from here
        self._set(epoch)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the value of the batch, if it has its own."""
        if self.per == "batch":
            self._set(self._epoch + batch / self.params["steps"])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the value that the epoch ended with."""
        if logs is not None:
            logs[self.name] = self._value

    def _set(self, epoch: float) -> None:
        value = float(self.schedule(epoch))
        if value == self._value:
            return
        # On JAX, the variables of a running epoch are inside the step: reading `self.model` brings them back to the
        # model, and the next step takes them from there.
        _ = self.model
        setattr(self.target, self.setting, value)
        self._value = value


def _check_setting(target: Any, setting: str) -> None:
    """Raise unless a compiled step can see `setting` move."""
    kind = type(target).__name__
    found = getattr(type(target), setting, None)
    if not isinstance(found, property) or found.fset is None:
        raise TypeError(
            f"`Anneal` needs a setting that is backed by a variable and can be set. Received: '{setting}' of "
            f"`{kind}`. A loss has `weight`, a distiller `task_weight`, an optimizer `learning_rate`."
        )
    value = getattr(target, setting)
    try:
        float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`Anneal` needs a setting that is a number. Received: '{setting}' of `{kind}`, a {type(value).__name__}."
        ) from error
