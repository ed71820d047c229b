"""What every attribution method has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np

from kdkeras.explain.subject import Subject

_ENGINES = ("native", "tf_keras_vis")


class Method(ABC):
    """A way to explain a logit of each sample by numbers over its input.

    Attributes:
        name: As `kdkeras.explain.attribute` takes it.
        title: Its usual name, for pictures.
        of_layer: Whether it looks at a layer's output.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    of_layer: ClassVar[bool] = False

    @abstractmethod
    def maps(self, subject: Subject, layer: str | None) -> np.ndarray:
        """Return the raw maps.

        Args:
            subject: What is explained.
            layer: Path of the layer, for methods that look at one.

        Returns:
            float32, shape `(n, ...)`: positions of the layer, or of the input; images lose their channels.
        """


class WithEngine(Method):
    """A method that tf-keras-vis has as well.

    Args:
        engine: `"native"` (default): ours, for every model. `"tf_keras_vis"`: by that library, eagerly, batch by batch.

    Raises:
        ValueError: The engine is not known.
    """

    def __init__(self, engine: Literal["native", "tf_keras_vis"] = "native") -> None:
        if engine not in _ENGINES:
            raise ValueError(f"`{type(self).__name__}` needs an engine of {list(_ENGINES)}. Received: {engine!r}.")
        self.engine = engine

    def by_library(self, subject: Subject, layer: str | None = None) -> np.ndarray:
        """Return what tf-keras-vis makes of a subject, neither normalised nor resized.

        Args:
            subject: What is explained.
            layer: Path of the layer, for methods that look at one.

        Returns:
            float32, shape `(n, ...)`.
        """
        from kdkeras.explain.keras_vis import KerasVis  # imports TensorFlow's picture of the model

        library = KerasVis(subject.model, layer, subject.rows(0, 1), self.name, subject.place or 0)
        starts = range(0, len(subject), subject.batch_size)
        batches = [slice(start, start + subject.batch_size) for start in starts]
        return np.concatenate([library(subject.rows(b.start, b.stop), subject.target[b]) for b in batches])
