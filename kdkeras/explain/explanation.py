"""The record of one model's attributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLES = {"grad_cam": "Grad-CAM"}


@dataclass(frozen=True, eq=False)
class Explanation:
    """Which parts of each image raise one logit of a model.

    Attributes:
        method: Name of the method, such as `"grad_cam"`.
        model: Name of the model.
        layer: Path of the layer whose feature map was used.
        target: Index of the unit that each map explains, shape `(n,)`.
        raw: Maps as the method gives them, at the layer's resolution and scale, shape `(n, h, w)`, non-negative. To
            be used where numbers matter.
        maps: Maps resized to the images (bilinear, by pixel centres), each divided by its maximum, so that its values
            lie in [0, 1]; a map of zeros stays zeros. Shape `(n, height, width)`. To be looked at and compared.
        images: The images explained, shape `(n, height, width, channels)`.
        predictions: What the model returned for them, shape `(n, units)`.
    """

    method: str
    model: str
    layer: str
    target: np.ndarray
    raw: np.ndarray = field(repr=False)
    maps: np.ndarray = field(repr=False)
    images: np.ndarray = field(repr=False)
    predictions: np.ndarray = field(repr=False)

    @property
    def zero(self) -> np.ndarray:
        """Which maps are zero everywhere, boolean `(n,)`: nothing in the layer speaks for the target."""
        return ~self.maps.any(axis=(1, 2))

    @property
    def title(self) -> str:
        """The method's usual name, such as "Grad-CAM"."""
        return _TITLES[self.method]

    def plot(self, n: int = 6, *, class_names: Sequence[str] = ()) -> Figure:
        """Draw the first images, and below each the same image under its map.

        Args:
            n: Number of images, fewer where there are fewer. 6 fit a page's width.
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
        from kdkeras.explain.pictures import overlay_grid

        return overlay_grid([("", self)], n, class_names=class_names)
