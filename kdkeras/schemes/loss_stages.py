"""Stages of a training: which losses count, from which epoch on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras

from kdkeras._distribution import strategy_scope
from kdkeras.distiller import Distiller


class LossStages(keras.callbacks.Callback):
    """Switches, between epochs of one `fit`, which losses of a distiller count.

    A stage gives weights by the names in the logs, `"task_loss"` for the task; what it does not name has weight 0. When
    a later stage begins the optimizer begins anew, too: momentum, moving averages, step count and learning rate are as
    at the start of `fit`, as if the stage were a training of its own. Which stage it is stands in the history under
    `stage`, from 1.

    Everything follows from the epoch alone, so that a training that `Resume` goes on with ends as an uninterrupted one.
    Put it before `Resume` in `callbacks`. Where the labels are not arrays, compile with the `task_weight` of the stage
    that needs them, and not with 0.

    Args:
        stages: Weights by name, by the epoch from which they hold, counted from 0. The first epoch must be among them.
        reset_optimizer: Whether the optimizer begins anew with each later stage. Default `True`.

    Raises:
        TypeError: What is trained is no `Distiller`, or a stage is no mapping.
        ValueError: There is no stage for epoch 0, a weight is negative or not finite, or a name is none of the losses'.

    Example:
        >>> import kdkeras, numpy as np
        >>> from kdkeras.schemes import LossStages
        >>> from kdkeras.testing import tiny_cnn
        >>> distiller = kdkeras.Distiller(student=tiny_cnn(), teacher=tiny_cnn(width=8)).compile(
        ...     "adam", distillation_loss=[kdkeras.losses.Hints("conv", "conv"), kdkeras.losses.SoftTargets()]
        ... )
        >>> history = distiller.fit(
        ...     np.ones((4, 8, 8, 1), "float32"), epochs=3, verbose=0,
        ...     callbacks=[LossStages({0: {"hints": 1.0}, 1: {"soft_targets": 0.9}})],
        ... )
        >>> history.history["stage"]
        [1, 2, 2]
    """

    def __init__(self, stages: Mapping[int, Mapping[str, float]], *, reset_optimizer: bool = True) -> None:
        super().__init__()
        if not isinstance(stages, Mapping) or 0 not in stages or min(stages) < 0:
            raise ValueError(
                f"`LossStages` needs weights by epoch, the first of them at 0. Received: {stages!r}. Write for example "
                "`{0: {'hints': 1.0}, 10: {'soft_targets': 0.9}}`."
            )
        for weights in stages.values():
            _check_weights(weights)
        self.stages = {epoch: dict(weights) for epoch, weights in sorted(stages.items())}
        self.reset_optimizer = reset_optimizer
        self._optimizer: dict[str, Any] = {}
        self._number: int | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check the names, and remember how the optimizer starts."""
        if not isinstance(self.model, Distiller):
            raise TypeError(f"`LossStages` needs a `Distiller`. Received: '{self.model.name}'.")
        names = ["task_loss", *(loss.name for loss in self.model.distillation_losses)]
        unknown = sorted({name for weights in self.stages.values() for name in weights} - set(names))
        if unknown:
            raise ValueError(f"`LossStages` needs names of losses, of {names}. Received: {unknown}. Use those names.")
        self._optimizer, self._number = self.model.optimizer.get_config(), None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the weights of the epoch's stage, and let the optimizer begin anew where the stage does."""
        begins = [begin for begin in self.stages if begin <= epoch]
        if self._number != len(begins):
            # On JAX, reading `self.model` brings the variables of a running epoch back to the model.
            model, weights = self.model, self.stages[begins[-1]]
            for loss in model.distillation_losses:
                loss.weight = weights.get(loss.name, 0.0)
            model.task_weight = weights.get("task_loss", 0.0)
        if epoch == begins[-1] and epoch > 0 and self.reset_optimizer:
            self._begin_anew(self.model)
        self._number = len(begins)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the number of the stage."""
        if logs is not None:
            logs["stage"] = self._number

    def _begin_anew(self, model: keras.Model) -> None:
        optimizer = model.optimizer
        if not optimizer.built:
            return
        with strategy_scope(model):
            fresh = type(optimizer).from_config(self._optimizer)
            fresh.build(model.trainable_variables)
        for variable, start in zip(optimizer.variables, fresh.variables, strict=True):
            variable.assign(start)


def _check_weights(weights: Any) -> None:
    if not isinstance(weights, Mapping):
        raise TypeError(f"`LossStages` needs a dict of weights by name as stage. Received: {weights!r}.")
    wrong = {name: value for name, value in weights.items() if not (math.isfinite(value) and value >= 0)}
    if wrong or not weights:
        raise ValueError(f"`LossStages` needs finite weights of at least 0, one or more. Received: {wrong or weights}.")
