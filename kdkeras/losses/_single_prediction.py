"""Losses that need one prediction per sample."""

from __future__ import annotations

from kdkeras.losses.base import DistillationLoss
from kdkeras.signals import SignalSpec


def refuse_positions(loss: DistillationLoss, *specs: SignalSpec) -> None:
    """Raise if a model's outputs are dense: a prediction for each position of a sample.

    Args:
        loss: The loss that compares the samples of a batch.
        *specs: The models.

    Raises:
        ValueError: A model's logits have positions.
    """
    for spec in specs:
        if len(spec.logits) != 2:
            raise ValueError(
                f"`{type(loss).__name__}` compares samples, so it needs one prediction for each. Received: model "
                f"'{spec.model}' {spec.logits}. Use `SoftTargets` for dense outputs."
            )
