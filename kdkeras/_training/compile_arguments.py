"""What `Distiller.compile` accepts, translated and checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kdkeras import _backend
from kdkeras._training.task import loss_name, losses_by_output
from kdkeras.losses import DistillationLoss, SoftenedOutputs, SoftTargets
from kdkeras.signals import SignalSpec

_TUTORIAL_ALPHA = 0.1  # the defaults of the Keras tutorial's `compile`
_TUTORIAL_TEMPERATURE = 3.0


def as_losses(losses: DistillationLoss | Sequence[DistillationLoss] | None) -> list[DistillationLoss]:
    """Return distillation losses as a checked list; `SoftTargets()` where none is given.

    Args:
        losses: One loss, several, or `None`.

    Returns:
        The losses.

    Raises:
        TypeError: One is not a `DistillationLoss`.
        ValueError: Two have the same name.
    """
    if losses is None:
        return [SoftTargets()]
    losses = list(losses) if isinstance(losses, (list, tuple)) else [losses]
    for loss in losses:
        if not isinstance(loss, DistillationLoss):
            raise TypeError(
                f"`compile` needs `kdkeras.losses.DistillationLoss` instances as distillation_loss. Received: "
                f"{type(loss).__name__}. Wrap a Keras loss in `kdkeras.losses.SoftenedOutputs(loss)`."
            )
    names = ["task_loss", *(loss.name for loss in losses)]
    if len(set(names)) < len(names):
        raise ValueError(f"Loss terms need different names. Received: {names}. Pass `name=` to tell them apart.")
    return losses


def refuse_compiled_gradients(losses: Sequence[DistillationLoss], jit_compile: Any) -> None:
    """Raise if gradients inside the step would have to go through `torch.compile`, which makes no second derivative.

    Args:
        losses: The distillation losses.
        jit_compile: As `compile` was given it.

    Raises:
        ValueError: They would, on PyTorch.
    """
    names = [loss.name for loss in losses if loss.student_attribution and loss.student_attribution.by_gradient]
    if names and jit_compile is True and _backend.name() == "torch":
        raise ValueError(
            f"The losses {names} differentiate the student's gradients, which PyTorch cannot do with what it compiles. "
            "Received: jit_compile=True. Leave it out."
        )


def from_tutorial(
    student_loss_fn: Any, distillation_loss_fn: Any, alpha: float | None, temperature: float | None
) -> tuple[Any, DistillationLoss, float]:
    """Translate the Keras tutorial's arguments: `alpha · task + (1 − alpha) · T² · distillation_loss_fn`.

    Args:
        student_loss_fn: The task loss.
        distillation_loss_fn: A Keras loss between softened probabilities; `None` means the KL divergence.
        alpha: Weight of the task loss. Default 0.1, as in the tutorial.
        temperature: Temperature T. Default 3, as in the tutorial.

    Returns:
        Task loss, distillation loss and task weight.

    Raises:
        ValueError: `alpha` is outside [0, 1].
    """
    alpha = _TUTORIAL_ALPHA if alpha is None else alpha
    temperature = _TUTORIAL_TEMPERATURE if temperature is None else temperature
    if not 0 <= alpha <= 1:
        raise ValueError(f"`compile` needs alpha in [0, 1]. Received: {alpha}. Use `task_weight` for other weights.")
    if distillation_loss_fn is None or type(distillation_loss_fn) is keras.losses.KLDivergence:
        # Equal to the tutorial's, and free of its clipped logarithm.
        return student_loss_fn, SoftTargets(temperature, 1 - alpha, name="distillation_loss"), alpha
    loss = SoftenedOutputs(distillation_loss_fn, temperature, 1 - alpha, name="distillation_loss")
    return student_loss_fn, loss, alpha


def check_task_loss(loss: Any, spec: SignalSpec) -> None:
    """Raise if the task loss of an output would apply the softmax twice, or never.

    Args:
        loss: A Keras loss (a name, a function, an instance), a list or dict of them by output, or `None`.
        spec: The student's `SignalSpec`.

    Raises:
        ValueError: A cross-entropy expects logits of a model that returns probabilities, or the reverse.
    """
    specs = list(spec.outputs.values()) or [spec]
    for one, output in zip(losses_by_output(loss, tuple(spec.outputs)), specs, strict=True):
        _check_head(one, output)


def _check_head(loss: Any, spec: SignalSpec) -> None:
    if not loss_name(loss).endswith("crossentropy"):
        return
    from_logits = getattr(loss, "from_logits", False)
    if from_logits and spec.head in ("softmax", "sigmoid"):
        raise ValueError(
            f"The task loss expects logits, but student '{spec.model}' ends in {spec.head}, which would be applied "
            "twice. Pass from_logits=False, or end the student linearly."
        )
    if not from_logits and spec.head == "linear":
        raise ValueError(
            f"The task loss expects probabilities, but student '{spec.model}' ends linearly. Pass from_logits=True "
            "(`keras.losses.SparseCategoricalCrossentropy(from_logits=True)`), or end the student in a softmax."
        )


def with_loss_scale(optimizer: keras.optimizers.Optimizer, student: keras.Model) -> keras.optimizers.Optimizer:
    """Scale the loss where the student computes in float16, as Keras does for a model of that policy.

    Args:
        optimizer: The optimizer.
        student: The student.

    Returns:
        The optimizer, inside a `LossScaleOptimizer` where one is needed.
    """
    half = any(layer.compute_dtype == "float16" for layer in student._flatten_layers())
    if half and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
