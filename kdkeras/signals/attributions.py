"""What a model looks at: explanations of one logit of each sample, made of `keras.ops`, so that losses can use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
from keras import ops

from kdkeras.ops import grad_cam, grad_cam_plus_plus, layer_cam

_BY_LAYER_GRADIENT = {"grad_cam": grad_cam, "grad_cam_plus_plus": grad_cam_plus_plus, "layer_cam": layer_cam}
_OF_LAYERS = (*_BY_LAYER_GRADIENT, "cam", "class_maps")
_OF_INPUTS = ("input_gradient", "gradient_times_input")


class AttributionError(ValueError):
    """A model cannot be explained in the way that was asked for; the message says why."""


@dataclass(frozen=True)
class Attribution:
    """A way to explain a logit z_c of a model, of one class c per sample.

    | method | definition | shape |
    |---|---|---|
    | `"grad_cam"` | ReLU(Σ_k mean over positions (∂z_c/∂A_k) · A_k), A the layer's output | `(batch, positions...)` |
    | `"grad_cam_plus_plus"`, `"layer_cam"` | as in `kdkeras.ops` | the same |
    | `"cam"` | Σ_k w_kc A_k, w the kernel of the classifier on top | `(batch, positions...)` |
    | `"class_maps"` | the same of every class | `(batch, positions..., classes)` |
    | `"input_gradient"` | ∂z_c/∂x | that of x |
    | `"gradient_times_input"` | x · ∂z_c/∂x | that of x |

    The two that need no gradient are for models that end in global average pooling and one `Dense` layer, or in a 1×1
    convolution and global average pooling: then the layer is the convolution itself.

    Args:
        method: One of the above.
        layer: Path of the layer, for all but the last two.
        output: Name of the output that is explained, where the model has several.
        input: For the last two, where the model takes several inputs: which one, its place in `keras.tree.flatten`.

    Raises:
        ValueError: The method is not known, or the layer or the input is missing or of no use.

    Example:
        >>> from kdkeras.signals import Attribution
        >>> str(Attribution("grad_cam", "block5/conv"))
        'grad_cam:block5/conv'
    """

    method: str
    layer: str | None = None
    output: str | None = None
    input: int | None = None

    def __post_init__(self) -> None:
        if self.method not in _OF_LAYERS + _OF_INPUTS:
            raise ValueError(
                f"An attribution needs a method of {list(_OF_LAYERS + _OF_INPUTS)}. Received: {self.method!r}."
            )
        if self.of_layer != isinstance(self.layer, str):
            need = "the path of a layer" if self.of_layer else "no layer, for it is about the inputs"
            raise ValueError(f"The attribution '{self.method}' needs {need}. Received: layer={self.layer!r}.")
        if self.of_layer and self.input is not None:
            raise ValueError(f"The attribution '{self.method}' is of a layer, of no input. Received: {self.input!r}.")

    def __str__(self) -> str:
        layer = f":{self.layer}" if self.of_layer else ""
        place = "" if self.input is None else f"#{self.input}"
        return self.method + layer + place + (f"@{self.output}" if self.output else "")

    @property
    def of_layer(self) -> bool:
        """Whether it is about a layer's output, and not about the inputs."""
        return self.method in _OF_LAYERS

    @property
    def has_channels(self) -> bool:
        """Whether its last axis is channels or classes, and not a position."""
        return self.method not in (*_BY_LAYER_GRADIENT, "cam")

    @property
    def by_gradient(self) -> bool:
        """Whether it takes a gradient."""
        return self.method not in ("cam", "class_maps")

    def place(self, names: list[str], model: str) -> int:
        """Return the place of the output that is explained.

        Args:
            names: Names of a model's outputs.
            model: The model's name, for the message.

        Returns:
            Its index.

        Raises:
            AttributionError: There are several, and `output` is none of their names.
        """
        if len(names) == 1:
            return 0
        if self.output not in names:
            raise AttributionError(
                f"'{self}' needs one of the outputs {names} of model '{model}'. Received: output={self.output!r}. "
                "Pass its name."
            )
        return names.index(self.output)


class Explain(NamedTuple):
    """What is to be explained in one forward pass.

    Attributes:
        classes: The class of each sample, shape `(batch,)`; `None` for the one that the model itself finds most likely.
        due: Whether to compute it at all, or to return zeros: a boolean, or a boolean tensor.
    """

    classes: Any = None
    due: Any = True


def attribute(
    attribution: Attribution,
    source: Any,
    logits: Any,
    gradient: Callable[[Any], Any],
    classifier: keras.layers.Layer | None,
    explain: Explain,
    *,
    model: str,
) -> Any:
    """Return an attribution of a batch.

    Args:
        attribution: Which one.
        source: Output of its layer, shape `(batch, positions..., channels)`, or the inputs.
        logits: The model's logits, shape `(batch, classes)`.
        gradient: Returns the gradient of `Σ weights · logits` by the source, or `None` where there is none.
        classifier: The `Dense` layer that the logits come from, where there is one.
        explain: At which classes, and whether at all.
        model: The model's name, for messages.

    Returns:
        Of the shape that `Attribution` says, in float32 where the model has less.

    Raises:
        AttributionError: The model, or the layer, has nothing of the kind.
    """
    _check(attribution, source, logits, model)
    classes = ops.argmax(logits, axis=-1) if explain.classes is None else explain.classes
    chosen = ops.one_hot(classes, logits.shape[-1], dtype=logits.dtype)  # (b, classes)
    if not attribution.by_gradient:
        maps = _class_maps(attribution, source, logits, classifier, model)
        if attribution.method == "class_maps":
            return maps
        chosen = ops.reshape(_full_precision(chosen), (-1, *[1] * (len(maps.shape) - 2), logits.shape[-1]))
        return ops.sum(maps * chosen, axis=-1)

    def slope() -> Any:
        value = gradient(chosen)
        if value is None:
            raise AttributionError(
                f"'{attribution}' of model '{model}' needs logits that depend on it in a way that has a gradient. "
                "Received: logits that do not. Choose a layer between the inputs and the output."
            )
        return _full_precision(value)

    source = _full_precision(source)
    slopes = slope() if explain.due is True else ops.cond(explain.due, slope, lambda: ops.zeros_like(source))
    if attribution.of_layer:
        return _BY_LAYER_GRADIENT[attribution.method](source, slopes)
    return slopes if attribution.method == "input_gradient" else slopes * source


def _check(attribution: Attribution, source: Any, logits: Any, model: str) -> None:
    if len(logits.shape) != 2:
        raise AttributionError(
            f"'{attribution}' needs one score per class and sample, shape (batch, classes). Received: model '{model}' "
            f"{_shape(logits)}. Pool its outputs, or explain a model of the part that you want."
        )
    if attribution.of_layer and len(source.shape) < 3:
        raise AttributionError(
            f"'{attribution}' needs a layer with positions and channels, such as (batch, height, width, channels). "
            f"Received: model '{model}' {_shape(source)}. Choose a layer before the pooling."
        )
    dtype = keras.backend.standardize_dtype(source.dtype)
    if attribution.by_gradient and not keras.backend.is_float_dtype(dtype):
        raise AttributionError(
            f"'{attribution}' needs floats, for nothing else has a gradient. Received: {dtype} in model '{model}'. "
            "Cast the inputs in the data, or explain a layer of floats."
        )


def _shape(tensor: Any) -> tuple[int | None, ...]:
    return (None, *tensor.shape[1:])


def _full_precision(values: Any) -> Any:
    half = keras.backend.standardize_dtype(values.dtype) in ("float16", "bfloat16")
    return ops.cast(values, "float32") if half else values


def _class_maps(
    attribution: Attribution, features: Any, logits: Any, classifier: keras.layers.Layer | None, model: str
) -> Any:
    """Return the class activation maps of all classes, shape `(batch, positions..., classes)`."""
    features = _full_precision(features)
    if classifier is not None and classifier.kernel.shape[0] == features.shape[-1]:
        return ops.matmul(features, ops.cast(ops.convert_to_tensor(classifier.kernel), features.dtype))
    if features.shape[-1] == logits.shape[-1]:
        return features  # of a 1×1 convolution to the classes
    raise AttributionError(needs_pooled_head(attribution, model))


def needs_pooled_head(attribution: Attribution, model: str) -> str:
    """Return the message for a model whose logits are not means of class maps.

    Args:
        attribution: The attribution that was asked for.
        model: The model's name.

    Returns:
        The message.
    """
    return (
        f"'{attribution}' needs logits that are global average pooling of that layer and one Dense layer, or a 1×1 "
        f"convolution to the classes and then global average pooling. Received: model '{model}', where they are not. "
        "Name the layer that the pooling takes, or use 'grad_cam'."
    )
