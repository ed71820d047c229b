"""Drawing maps over images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkeras._plain_text import plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kdkeras.explain.explanation import Explanation

_COLOURS = "inferno"  # perceptually uniform: equal steps of relevance look equal
_WITH_SIGN = "RdBu_r"  # red speaks for the target, blue against it: also told apart by the colour-blind
_OPACITY = 0.9  # of the largest relevance
_DIMMED = 0.6  # brightness of the image under a map, so that its white is not taken for relevance
_DIFFERS = "#b2182b"


@plain_text
def overlay_grid(
    rows: Sequence[tuple[str, Explanation]],
    n: int,
    *,
    class_names: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Figure:
    """Draw a row of images, and below it one row of overlaid maps for each explanation of them.

    Args:
        rows: Title and `Explanation` of each row of maps; all of the same images and targets.
        n: Number of images to draw, from the first.
        class_names: Name of each class; by default its index.
        notes: A remark on each image, written below its last map.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ValueError: `n` is below 1.
    """
    from matplotlib.figure import Figure

    if n < 1:
        raise ValueError(f"`n` must be at least 1. Received: n={n}.")
    first = rows[0][1]
    has_sign = any(explanation.has_sign for _, explanation in rows)  # one scale of colours for all
    titles = {explanation.title for _, explanation in rows}
    columns = min(n, len(first.inputs))
    figure = Figure(figsize=(1.35 * columns + 2.3, 1.7 * (len(rows) + 1) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows) + 1, columns, squeeze=False)
    what = "output" if _is_single(first) else "class above each image"
    figure.suptitle(f"{first.title if len(titles) == 1 else 'Explanations'} of the {what}", fontsize=11)
    pictures = displayable(first.inputs[:columns])
    _label(axes[0, 0], "Image")
    for column, picture in enumerate(pictures):
        _draw(axes[0, column], picture)
        axes[0, column].set_title("" if _is_single(first) else _target_name(first, column, class_names), fontsize=10)
    for row, (title, explanation) in enumerate(rows, start=1):
        model = "" if explanation.model.lower() == title.lower() else shortened(explanation.model)
        lines = [title, model, shortened(explanation.layer or "")]
        _label(axes[row, 0], "\n".join(line for line in lines if line))
        for column, picture in enumerate(pictures):
            _draw_map(axes[row, column], picture, explanation, column, class_names, has_sign=has_sign)
    for column, note in enumerate(notes[:columns]):
        axes[-1, column].annotate(
            note,
            (0.5, 0),
            xytext=(0, -18),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=9,
        )
    _colour_bar(figure, axes, has_sign=has_sign)
    return figure


def method_grid(explanations: Sequence[Explanation], n: int = 6, *, class_names: Sequence[str] = ()) -> Figure:
    """Draw several explanations of the same images, one row each.

    Args:
        explanations: Of the same images and targets, by any methods.
        n: Number of images, fewer where there are fewer. 6 fit a page's width.
        class_names: Name of each class; by default its index.

    Returns:
        A matplotlib `Figure`, not registered with pyplot.

    Raises:
        ValueError: There is nothing to draw, or the explanations are not of the same images and targets.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> layers = [keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        >>> found = [explain.attribute(model, np.ones((2, 8, 8, 1)), 0, method) for method in ("grad_cam", "saliency")]
        >>> len(explain.method_grid(found).axes)  # 2 images, 2 rows of 2 maps, a colour bar
        7
    """
    if not explanations:
        raise ValueError("`method_grid` needs at least one explanation. Received: none.")
    first = explanations[0]
    for each in explanations:
        if each.maps.ndim != 3 or each.inputs.ndim not in (3, 4):
            raise ValueError(f"`method_grid` draws explanations of images. Received: inputs {each.inputs.shape}.")
        if not (np.array_equal(each.inputs, first.inputs) and np.array_equal(each.target, first.target)):
            raise ValueError(
                f"`method_grid` needs explanations of the same images and targets. Received: '{each.method}' of others "
                f"than '{first.method}'. Pass the same x and target to `attribute`."
            )
    return overlay_grid([(each.title, each) for each in explanations], n, class_names=class_names)


@plain_text
def cells(explanation: Explanation, n: int, *, class_names: Sequence[str] = ()) -> Figure:
    """Draw a row of coloured cells for each sample, one per feature or position.

    Args:
        explanation: Of tables or sequences.
        n: Number of samples to draw, from the first.
        class_names: Name of each class; by default its index.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ValueError: `n` is below 1.
    """
    from matplotlib.figure import Figure

    if n < 1:
        raise ValueError(f"`n` must be at least 1. Received: n={n}.")
    rows = min(n, len(explanation.maps))
    values = explanation.maps[:rows].reshape(rows, len(explanation.maps[0]), -1).sum(axis=-1)  # channels of a position
    values = values / max(np.abs(values).max(), 1e-12)
    figure = Figure(figsize=(min(12, 3 + 0.3 * values.shape[1]), 1.2 + 0.35 * rows), layout="constrained")
    axes = figure.subplots(1, 1, squeeze=False)
    drawn = axes[0, 0].imshow(
        values,
        cmap=_WITH_SIGN if explanation.has_sign else _COLOURS,
        vmin=-1 if explanation.has_sign else 0,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
    )
    names = [
        f"{_target_name(explanation, row, class_names)}, says {_prediction_name(explanation, row, class_names)}"
        for row in range(rows)
    ]
    axes[0, 0].set_yticks(range(rows), names, fontsize=9)
    axes[0, 0].set_xlabel("feature" if explanation.inputs.ndim == 2 else "position", fontsize=9)
    axes[0, 0].set_title(f"{explanation.title} of model '{explanation.model}'", fontsize=11)
    _bar(figure, drawn, axes, has_sign=explanation.has_sign)
    return figure


def displayable(images: np.ndarray) -> np.ndarray:
    """Return images as RGB in [0, 1], all by the same scale.

    Images that already lie in [0, 1] or [0, 255] keep their brightness; others are stretched from the smallest to the
    largest value of the batch. Anything but three channels is shown as the grey mean of its channels.

    Args:
        images: Shape `(n, height, width)` or `(n, height, width, channels)`.

    Returns:
        Shape `(n, height, width, 3)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.explain.pictures import displayable
        >>> displayable(np.array([[[-1.0, 1.0]]]))[0, 0].tolist()
        [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    """
    images = images.astype("float64")
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 255:
        low, high = 0, 1 if high <= 1 else 255
    images = (images - low) / ((high - low) or 1)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.shape[-1] == 3:
        return images
    return np.repeat(images.mean(axis=-1, keepdims=True), 3, axis=-1)


def overlaid(
    image: np.ndarray, relevance: np.ndarray, *, opacity: float = _OPACITY, has_sign: bool = False
) -> np.ndarray:
    """Return one image with a map over it, in the colours of `overlay_grid`.

    Args:
        image: RGB in [0, 1], as `displayable` gives it, shape `(height, width, 3)`.
        relevance: In [−1, 1], shape `(height, width)`.
        opacity: Of the largest relevance, in [0, 1]; that of others falls with the root. 0 shows the image as it is.
        has_sign: Whether negative relevance speaks against the target.

    Returns:
        RGB in [0, 1], shape `(height, width, 3)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.explain.pictures import overlaid
        >>> overlaid(np.ones((2, 2, 3)), np.zeros((2, 2)), opacity=0).mean()
        np.float64(1.0)
    """
    import matplotlib as mpl

    colours = mpl.colormaps[_WITH_SIGN if has_sign else _COLOURS]
    scaled = (relevance + 1) / 2 if has_sign else relevance
    alpha = opacity * np.sqrt(np.abs(relevance))[..., np.newaxis]
    grey = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
    share = min(1.0, opacity / _OPACITY)  # of the dimmed grey, under a faint map the image keeps its own colours
    under = (1 - share) * image + share * _DIMMED * grey
    return (1 - alpha) * under + alpha * colours(scaled)[..., :3]


def colour_scale(*, has_sign: bool) -> list[str]:
    """Return nine colours from the least to the largest relevance, for a legend.

    Args:
        has_sign: As `overlaid` takes it.

    Returns:
        Hexadecimal colours.

    Example:
        >>> from kdkeras.explain.pictures import colour_scale
        >>> colour_scale(has_sign=False)[0]
        '#000004'
    """
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    return [to_hex(mpl.colormaps[_WITH_SIGN if has_sign else _COLOURS](step / 8)) for step in range(9)]


def _draw(axis: Axes, picture: np.ndarray) -> None:
    axis.imshow(picture, interpolation="nearest", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(linewidth=0.5, color="0.7")


def _draw_map(
    axis: Axes,
    picture: np.ndarray,
    explanation: Explanation,
    column: int,
    class_names: Sequence[str],
    *,
    has_sign: bool,
) -> None:
    grey = np.repeat(picture.mean(axis=-1, keepdims=True), 3, axis=-1)  # colour is left to the map
    _draw(axis, _DIMMED * grey)
    relevance = explanation.maps[column]
    # The image shows through where there is no relevance; the root keeps faint relevance visible.
    opacity = _OPACITY * np.sqrt(np.abs(relevance))
    colours = {"cmap": _WITH_SIGN, "vmin": -1} if has_sign else {"cmap": _COLOURS, "vmin": 0}
    axis.imshow(relevance, **colours, alpha=opacity, vmax=1, interpolation="bilinear")
    if explanation.zero[column]:
        axis.text(0.5, 0.5, "all zero", transform=axis.transAxes, ha="center", va="center", fontsize=9, color="white")
    said = _prediction_name(explanation, column, class_names)
    agrees = _is_single(explanation) or said == _target_name(explanation, column, class_names)
    axis.set_xlabel(f"says {said}", fontsize=9, color="black" if agrees else _DIFFERS)


def _label(axis: Axes, text: str) -> None:
    axis.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=9, labelpad=8)


def _colour_bar(figure: Figure, axes: np.ndarray, *, has_sign: bool) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    # Beside all rows, so that the columns stay in line, but as high as the rows of maps.
    share = (len(axes) - 1) / len(axes)
    drawn = ScalarMappable(Normalize(-1 if has_sign else 0, 1), _WITH_SIGN if has_sign else _COLOURS)
    _bar(figure, drawn, axes, has_sign=has_sign, shrink=0.95 * share, anchor=(0, 0.05), aspect=24 * share, pad=0.015)


def _bar(figure: Figure, drawn: Any, axes: np.ndarray, *, has_sign: bool, **place: Any) -> None:
    bar = figure.colorbar(drawn, ax=axes, **place)
    bar.set_label("against … for, / its maximum" if has_sign else "relevance / its maximum", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set(linewidth=0.5, edgecolor="0.7")


def _target_name(explanation: Explanation, column: int, class_names: Sequence[str]) -> str:
    return _class_name(int(explanation.target[column]), class_names)


def _prediction_name(explanation: Explanation, column: int, class_names: Sequence[str]) -> str:
    """The class that the model predicts, or the number that it predicts where it has a single output."""
    prediction = explanation.predictions[column]
    return f"{prediction[0]:.2f}" if _is_single(explanation) else _class_name(int(prediction.argmax()), class_names)


def _is_single(explanation: Explanation) -> bool:
    """Whether the model has one output: a number, not classes."""
    return explanation.predictions.shape[1] == 1


def _class_name(index: int, class_names: Sequence[str]) -> str:
    return class_names[index] if len(class_names) else str(index)


def shortened(name: str, length: int = 18) -> str:
    """Keep the end of a long path, which tells more than its beginning."""
    return name if len(name) <= length else "…" + name[1 - length :]
