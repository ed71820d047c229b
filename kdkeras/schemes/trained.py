"""What comes out of a scheme of several stages."""

from __future__ import annotations

from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Trained:
    """The models that a scheme has trained, and how.

    Attributes:
        models: The caller's own models, in the order in which they were trained.
        histories: What each `fit` logged, values by epoch, in that order.

    Example:
        >>> from kdkeras.schemes import Trained
        >>> from kdkeras.testing import tiny_cnn
        >>> Trained((tiny_cnn(name="assistant"), tiny_cnn(name="student")), ({}, {})).student.name
        'student'
    """

    models: tuple[keras.Model, ...]
    histories: tuple[dict[str, list[float]], ...]

    @property
    def student(self) -> keras.Model:
        """The model that was trained last."""
        return self.models[-1]
