"""What every attribution method has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from kdkeras.explain.subject import Subject


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


def without_channels(values: np.ndarray) -> np.ndarray:
    """Return the sum over the channels of images; of anything else, the values themselves.

    Args:
        values: Shape of the inputs.

    Returns:
        Shape `(n, height, width)` for images, that of the inputs otherwise.
    """
    return values.sum(axis=-1) if values.ndim == 4 else values
