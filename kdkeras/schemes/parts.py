"""A teacher in parts, each of which teaches what it knows."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from kdkeras.losses import DistillationLoss


@dataclass(frozen=True)
class Parts:
    """Sub-models of a teacher, and what the student learns from each.

    One student learns from all of them by `Distiller(student=student, teacher=parts.teacher)` and
    `compile(..., distillation_loss=parts.losses)`.

    Attributes:
        models: The sub-models, with the teacher's own weights: to be looked at, evaluated, or replaced by specialists.
        losses: A term for each part.
        teacher: The model that gives all answers in one pass.
    """

    models: tuple[keras.Model, ...]
    losses: tuple[DistillationLoss, ...]
    teacher: keras.Model
