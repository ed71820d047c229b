"""FitNets in two stages, as published: hints first, knowledge distillation after (Romero et al. 2015)."""

from __future__ import annotations

from typing import Any

import keras

from kdkeras.distiller import Distiller
from kdkeras.losses import SoftTargets
from kdkeras.losses.feature_loss import FeatureLoss
from kdkeras.schemes._training import Arguments, announce, arguments_of, copied
from kdkeras.schemes.loss_stages import LossStages
from kdkeras.schemes.trained import Trained


def fitnets(
    student: keras.Model,
    teacher: keras.Model,
    x: Any,
    y: Any = None,
    *,
    hint: FeatureLoss,
    hint_epochs: int,
    kd_epochs: int,
    compile: Arguments,
    fit: Arguments | None = None,
) -> Trained:
    """Train a student on a hint of its teacher first, and then by knowledge distillation.

    Stage 1: only the hint counts, so that only the layers up to the guided one get a gradient. Stage 2: task and
    distillation losses count as `compile` says, the hint does not, and the optimizer begins anew. Both stages are one
    `fit` with the callback `LossStages`: one history, one `Resume`.

    What acts without a gradient reaches the other layers in stage 1, too: decoupled weight decay of the optimizer, the
    student's own regularisers, BatchNorm's statistics. `progressive(pairs=[(guided, hint)], ...)` trains and runs only
    the layers up to the guided one.

    Args:
        student: The model to train.
        teacher: The trained teacher; it is never changed.
        x: Inputs or a dataset, as `Distiller.fit` takes them.
        y: Labels, for array inputs.
        hint: What the guided layer learns in stage 1: `kdkeras.losses.Hints("guided", "hint")`, or another loss between
            layers. A copy of it is trained.
        hint_epochs: Epochs of stage 1.
        kd_epochs: Epochs of stage 2.
        compile: Arguments of `Distiller.compile` for stage 2, of which copies are used. The paper lets the weight of
            the soft targets fall from 4 to 1.
        fit: Further arguments of `Distiller.fit`, without `epochs`.

    Returns:
        `Trained`, with one history, of which `stage` says which epoch belonged to which stage.

    Raises:
        TypeError: `hint` is no loss between layers.
        ValueError: A stage has no epoch, or as `Distiller.compile`.

    Example:
        >>> import numpy as np, kdkeras
        >>> from kdkeras.schemes import fitnets
        >>> from kdkeras.testing import tiny_cnn
        >>> trained = fitnets(
        ...     tiny_cnn(), tiny_cnn(width=8), np.ones((4, 8, 8, 1), "float32"),
        ...     hint=kdkeras.losses.Hints("conv", "conv"), hint_epochs=1, kd_epochs=1,
        ...     compile={"optimizer": "adam"}, fit={"verbose": 0},
        ... )
        >>> trained.histories[0]["stage"]
        [1, 2]

    Reference:
        Romero et al.: FitNets: Hints for Thin Deep Nets, ICLR 2015, arXiv:1412.6550, section 2.
    """
    if not isinstance(hint, FeatureLoss):
        raise TypeError(
            f"`fitnets` needs a loss between layers as hint. Received: {hint!r}. Pass for example "
            "`kdkeras.losses.Hints('conv2', 'conv4')`."
        )
    for name, epochs in (("hint_epochs", hint_epochs), ("kd_epochs", kd_epochs)):
        if not isinstance(epochs, int) or epochs < 1:
            raise ValueError(f"`fitnets` needs {name} of 1 or more. Received: {epochs!r}.")
    arguments = arguments_of(compile, 0, name="compile")
    training = arguments_of(fit, 0, name="fit", reserved=("x", "y", "epochs", "initial_epoch"))
    given = arguments.pop("distillation_loss", None)
    later = given if isinstance(given, (list, tuple)) else [given or SoftTargets()]
    hint = copied(hint)
    distiller = Distiller(student=student, teacher=teacher)
    distiller.compile(**arguments, distillation_loss=[hint, *later])
    counting = {loss.name: loss.weight for loss in later}
    if arguments.get("loss") is not None:
        counting["task_loss"] = distiller.task_weight
    stages = LossStages({0: {hint.name: hint.weight}, hint_epochs: counting})
    callbacks = training.pop("callbacks", None) or []
    callbacks = [stages, *(callbacks if isinstance(callbacks, (list, tuple)) else [callbacks])]
    announce(
        f"Stage 1 of 2 until epoch {hint_epochs}: '{student.name}' learns '{hint.name}' of '{teacher.name}'; stage 2 "
        f"until epoch {hint_epochs + kd_epochs}: {', '.join(f'{name!r}' for name in counting)}",
        training.get("verbose", "auto"),
    )
    history = distiller.fit(x, y, **training, callbacks=callbacks, epochs=hint_epochs + kd_epochs)
    return Trained((student,), (dict(history.history),))
