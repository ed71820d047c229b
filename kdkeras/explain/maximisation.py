"""What excites a class most: an image made by gradient ascent, through tf-keras-vis."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kdkeras._plain_text import plain_text
from kdkeras.explain.subject import Subject
from kdkeras.inputs import check_count, input_specs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RATE = 1 / 255  # of the range per step, in the end; the library's 1 for pixels from 0 to 255


@dataclass(frozen=True, eq=False)
class ActivationMaximum:
    """Images that a model answers with as much of a logit as could be found.

    Attributes:
        model: Name of the model.
        target: Index of the logit that each image maximises, shape `(n,)`.
        images: The images, float32 `(n, height, width, channels)`, in the range that the model takes.
        logits: That logit of each image, shape `(n,)`.
        start: The same of the noise that the search began with.
        probabilities: Probability of the target for each image; the logit itself of a single linear output.
    """

    model: str
    target: np.ndarray
    images: np.ndarray = field(repr=False)
    logits: np.ndarray = field(repr=False)
    start: np.ndarray = field(repr=False)
    probabilities: np.ndarray = field(repr=False)

    @plain_text
    def plot(self, *, class_names: Sequence[str] = ()) -> Figure:
        """Draw the images side by side.

        Args:
            class_names: Name of each class; by default its index.

        Returns:
            A matplotlib `Figure`, not registered with pyplot.
        """
        from matplotlib.figure import Figure

        from kdkeras.explain.pictures import displayable

        columns = min(len(self.images), 5)
        rows = -(-len(self.images) // columns)
        figure = Figure(figsize=(1.7 * columns + 0.3, 2.05 * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes:
            axis.axis("off")
        for axis, picture, target, logit in zip(axes, displayable(self.images), self.target, self.logits, strict=False):
            axis.imshow(picture, cmap="gray")
            name = class_names[target] if len(class_names) else f"{target}"
            axis.set_title(f"{name}\nlogit {logit:.1f}", fontsize=9)
        figure.suptitle(f"What excites '{self.model}' most", fontsize=11)
        return figure


def activation_maximisation(
    model: keras.Model,
    target: int | Sequence[int],
    *,
    shape: tuple[int, int, int] | None = None,
    input_range: tuple[float, float] = (0.0, 1.0),
    steps: int = 200,
    total_variation: float = 1.0,
    norm: float = 0.3,
    seed: int = 0,
) -> ActivationMaximum:
    """Make an image that raises one logit as far as gradient ascent can: what the model looks for in a class.

    It is not an image of the class: nothing holds the search to images that exist. What can be seen is which strokes,
    textures and places the model counts. tf-keras-vis does the work, by RMSprop on the logit less penalties for
    roughness (total variation) and brightness (the mean absolute value), moving and turning the image a little at
    every step.

    Args:
        model: A Keras model with one input of images, that returns `(batch, units)`.
        target: Index of the unit, or several, one image each.
        shape: Height, width and channels of the image; by default what the model declares.
        input_range: Lowest and highest value that the model takes for a pixel. Default (0, 1).
        steps: Steps of the ascent. Default 200, as in tf-keras-vis.
        total_variation: Weight of the penalty for roughness. Default 1, as in tf-keras-vis, but of pixels that are
            scaled to [0, 1]: of pixels up to 255 it would drown the logits of a small model.
        norm: Weight of the penalty for brightness. Default 0.3, likewise.
        seed: Seed of the noise that it begins with, and of its moves.

    Returns:
        The `ActivationMaximum`.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: The model does not take one image of a known shape, or a target or setting is out of range.

    Example:
        >>> import keras
        >>> from kdkeras import explain
        >>> layers = [keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        >>> found = explain.activation_maximisation(model, [0, 2], steps=20)
        >>> found.images.shape, bool((found.logits > found.start).all())
        ((2, 8, 8, 1), True)

    Reference:
        Erhan, Bengio, Courville, Vincent: Visualizing Higher-Layer Features of a Deep Network, 2009. Simonyan, Vedaldi,
        Zisserman: Deep Inside Convolutional Networks, 2014, arXiv:1312.6034.
    """
    check_count("steps", steps)
    low, high = (float(limit) for limit in input_range)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"`input_range` must be two finite numbers, the lower first. Received: {input_range!r}.")
    if min(total_variation, norm) < 0:
        raise ValueError(f"Penalties must be at least 0. Received: total_variation={total_variation}, norm={norm}.")
    shape = _image_shape(model) if shape is None else tuple(shape)
    targets = np.atleast_1d(np.asarray(target))
    random = np.random.default_rng(seed)
    noise = random.uniform(low, high, (len(targets), *shape)).astype("float32")
    before = Subject(model, noise, targets)
    moves = _moves(min(shape[:2]), random)
    penalties = {"total_variation": total_variation, "norm": norm}
    images = _ascend(before, low, high, steps, moves, penalties, seed)
    after = Subject(model, images, targets, readers=before.readers)
    return ActivationMaximum(
        model.name, targets, images, after.scores(), before.scores(), after.scores(score="probability")
    )


def _image_shape(model: keras.Model) -> tuple[int, ...]:
    specs = input_specs(model) if isinstance(model, keras.Model) else None
    declared = [] if specs is None else keras.tree.flatten(specs)
    shape = tuple(declared[0].shape[1:]) if len(declared) == 1 else ()
    if len(shape) != 3 or None in shape:
        raise ValueError(
            "Activation maximisation needs a model with one input of images (height, width, channels). Received: "
            f"{shape or 'a model that declares no such input'}. Pass `shape`, or a model of the images alone."
        )
    return shape


def _ascend(
    subject: Subject, low: float, high: float, steps: int, moves: list[Any], penalties: dict[str, float], seed: int
) -> np.ndarray:
    """Return the images that tf-keras-vis finds from the subject's own."""
    import tensorflow as tf

    from kdkeras.signals import Extractor

    maximiser, regularizers = _library(**penalties)
    inputs = keras.Input(subject.array.shape[1:])
    logits = _Logits(Extractor(subject.model), low, high - low, subject.signals.logits.shape[1])(inputs)
    start = (subject.array - low) / (high - low)
    state = np.random.get_state()  # the library moves images by numpy's global generator
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The structure of `inputs` doesn't match", category=UserWarning)
        np.random.seed(seed)
        try:
            found = maximiser(keras.Model(inputs, logits))(
                functools.partial(_of_target, target=subject.target),
                seed_input=tf.constant(start),
                input_range=(0.0, 1.0),
                input_modifiers=[*moves, lambda images: tf.clip_by_value(images, 0, 1)],
                regularizers=regularizers,
                steps=steps,
                optimizer=tf.keras.optimizers.RMSprop(_RATE, 0.999),
            )
        finally:
            np.random.set_state(state)
    images = low + np.asarray(found, "float32") * (high - low)
    if not np.isfinite(images).all():
        raise ValueError(f"The search for model '{subject.model.name}' left the finite numbers. Check its weights.")
    return images


def _of_target(logits: Any, *, target: np.ndarray) -> Any:
    return keras.ops.take_along_axis(logits, target[:, None], axis=1)[:, 0]


class _Logits(keras.layers.Layer):
    """Pixels from 0 to 1 in, logits out."""

    def __init__(self, extractor: Any, low: float, scale: float, units: int) -> None:
        super().__init__(dtype="float32", autocast=False)
        self.extractor, self.low, self.scale, self.units = extractor, low, scale, units

    def call(self, pixels: Any) -> Any:
        return keras.ops.cast(self.extractor(self.low + self.scale * pixels, training=False).logits, "float32")

    def compute_output_spec(self, pixels: Any) -> Any:
        return keras.KerasTensor((pixels.shape[0], self.units))


def _moves(side: int, random: np.random.Generator) -> list[Any]:
    """Return the library's usual moves; no jitter for small images, which it carries out of the frame."""
    from kdkeras.explain.keras_vis import quiet_import

    with quiet_import():
        from tf_keras_vis.activation_maximization.input_modifiers import Jitter, Rotate2D
    turn = Rotate2D(degree=1)
    turn.random_generator = random
    return [Jitter(jitter=4), turn] if side >= 32 else [turn]


def _library(*, total_variation: float, norm: float) -> tuple[Any, list[Any]]:
    from kdkeras.explain.keras_vis import quiet_import

    with quiet_import():
        from tf_keras_vis.activation_maximization import ActivationMaximization
        from tf_keras_vis.activation_maximization.regularizers import Norm, TotalVariation2D
    return ActivationMaximization, [TotalVariation2D(weight=total_variation), Norm(weight=norm, p=1)]
