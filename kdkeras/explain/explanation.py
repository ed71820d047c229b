"""The record of one model's attributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kdkeras.explain.method import Method

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Explanation:
    """Which parts of each input speak for, or against, one logit of a model.

    Attributes:
        method: Name of the method, such as `"grad_cam"`.
        model: Name of the model.
        layer: Path of the layer whose output was used; `None` for methods that look at the input.
        target: Index of the unit that each map explains, shape `(n,)`.
        raw: Maps as the method gives them, at the layer's resolution and scale, shape `(n, ...)`. To be used where
            numbers matter.
        maps: Maps resized to the input (bilinear, by pixel centres), each divided by its largest absolute value, so
            that its values lie in [−1, 1], or in [0, 1] for methods without a sign; a map of zeros stays zeros. Shape
            `(n, height, width)` for images, that of the inputs otherwise. To be looked at and compared.
        inputs: What was explained, shape `(n, ...)`.
        predictions: What the model returned for it, shape `(n, units)`.
        how: The method with its settings.
    """

    method: str
    model: str
    layer: str | None
    target: np.ndarray
    raw: np.ndarray = field(repr=False)
    maps: np.ndarray = field(repr=False)
    inputs: np.ndarray = field(repr=False)
    predictions: np.ndarray = field(repr=False)
    how: Method = field(repr=False)

    @property
    def title(self) -> str:
        """The method's usual name, such as "Grad-CAM"."""
        return self.how.title

    @property
    def zero(self) -> np.ndarray:
        """Which maps are zero everywhere, boolean `(n,)`: nothing speaks for the target."""
        return ~self.maps.any(axis=tuple(range(1, self.maps.ndim)))

    @property
    def has_sign(self) -> bool:
        """Whether values speak for the target where they are positive, and against it where they are negative."""
        return bool((self.maps < 0).any())

    def plot(self, n: int = 6, *, class_names: Sequence[str] = ()) -> Figure:
        """Draw the first samples: images under their maps, sequences and tables as one row of coloured cells each.

        Args:
            n: Number of samples, fewer where there are fewer. 6 images fit a page's width.
            class_names: Name of each class; by default its index.

        Returns:
            A matplotlib `Figure`, not registered with pyplot.

        Raises:
            ValueError: `n` is below 1.

        Example:
            >>> import keras, numpy as np
            >>> from kdkeras import explain
            >>> layers = [keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
            >>> model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
            >>> len(explain.attribute(model, np.ones((2, 8, 8, 1))).plot().axes)  # 2 images, 2 maps, a colour bar
            5
        """
        from kdkeras.explain.pictures import cells, overlay_grid

        if self.maps.ndim != 3 or self.inputs.ndim not in (3, 4):
            return cells(self, n, class_names=class_names)
        return overlay_grid([("", self)], n, class_names=class_names)
