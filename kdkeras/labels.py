"""Whether labels make a task a classification, and the classes of what a model returned."""

from __future__ import annotations

import numpy as np

from kdkeras.inputs import check_finite


def class_labels(y: np.ndarray, shape: tuple[int, int], head: str | None) -> np.ndarray | None:
    """Return class indices, or `None` where the task is a regression.

    It is a classification where labels are one-hot rows; where several units meet one whole number per sample; and
    where one unit meets 0 and 1, as integers or behind a sigmoid.

    Args:
        y: Labels, shape `(n,)`, `(n, 1)` or `(n, units)`.
        shape: Shape of the model's outputs, `(n, units)`.
        head: The model's final activation, as `kdkeras.signals` names it.

    Returns:
        int64 class indices `(n,)`, or `None`.

    Raises:
        TypeError: Labels are not numbers.
        ValueError: Labels are not finite, out of range, several per sample (multi-label), or of another shape.

    Example:
        >>> import numpy as np
        >>> from kdkeras.labels import class_labels
        >>> class_labels(np.array([[0, 1], [1, 0]]), (2, 2), "softmax")
        array([1, 0])
        >>> class_labels(np.array([0.5, 2.0]), (2, 1), "linear") is None
        True
    """
    if y.dtype.kind not in "fiub":
        raise TypeError(f"y must be numbers. Received: dtype {y.dtype}. Give each class a number from 0.")
    check_finite(y, "y")
    samples, units = shape
    binary = bool(np.isin(y, (0, 1)).all())
    if units > 1 and y.shape == shape:
        if binary and (y.sum(axis=1) == 1).all():
            return y.argmax(axis=1)
        if binary and head != "linear":
            raise ValueError(
                f"Labels of several classes per sample (multi-label) cannot be scored. Received: y of shape {y.shape} "
                "with rows that do not sum to 1. Score one class at a time."
            )
        return None
    if y.shape not in ((samples,), (samples, 1)):
        raise ValueError(f"y must have shape ({samples},) or {shape}, to match x and the outputs. Received: {y.shape}.")
    y = y.reshape(-1)
    whole = y.dtype.kind in "iub"
    if units == 1 and not (binary and (whole or head == "sigmoid")):
        return None
    classes = max(units, 2)
    labels = y.astype("int64")
    if (labels != y).any() or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"Labels must be whole numbers in 0…{classes - 1}. Received: {y.min():g}…{y.max():g}.")
    return labels


def class_logits(logits: np.ndarray) -> np.ndarray:
    """Return one logit per class: of a single unit z the pair (0, z), whose softmax is (1 − σ(z), σ(z)).

    Args:
        logits: Shape `(n, units)`.

    Returns:
        Shape `(n, classes)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.labels import class_logits
        >>> class_logits(np.array([[2.0]]))
        array([[0., 2.]])
    """
    return np.concatenate([np.zeros_like(logits), logits], axis=1) if logits.shape[1] == 1 else logits


def refuse_hidden_sigmoid(predictions: np.ndarray, head: str | None, name: str) -> None:
    """Raise if one unit of an unknown final activation looks like a probability, whose logit is then not known.

    Args:
        predictions: What the model returned, shape `(n, units)`.
        head: The model's final activation, as `kdkeras.signals` names it.
        name: The model's name, for the message.

    Raises:
        ValueError: There is one unit, its activation is unknown, and all values lie in [0, 1].
    """
    if predictions.shape[1] == 1 and head is None and predictions.min() >= 0 and predictions.max() <= 1:
        raise ValueError(
            f"Model '{name}' seems to return probabilities, but its logits could not be found. End it in "
            "`keras.layers.Dense(1, activation='sigmoid')`, or let it return logits."
        )
