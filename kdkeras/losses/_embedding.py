"""Linear embeddings of layers, for losses that compare vectors of one length."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from kdkeras.losses.feature_loss import Pair
from kdkeras.ops import flatten_samples, l2_normalize


def checked_size(owner: str, name: str, value: int, *, minimum: int = 1) -> int:
    """Return a whole number, or raise.

    Args:
        owner: Whose setting it is, for the message.
        name: Name of the setting.
        value: Its value.
        minimum: Lowest value.

    Returns:
        The value.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is too low.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(
            f"`{owner}` needs a whole number as {name}. Received: {value!r} of type {type(value).__name__}."
        )
    if value < minimum:
        raise ValueError(f"`{owner}` needs {name} of at least {minimum}. Received: {value}.")
    return value


def embedding_heads(pair: Pair, size: int, *, train_teacher: bool) -> list[keras.layers.Dense]:
    """Return linear maps of a student layer and of a teacher layer to vectors of one length.

    Args:
        pair: The layers; all axes but the batch's are flattened.
        size: Length of the vectors.
        train_teacher: Whether the teacher's is trained too. One that is not is an orthogonal projection, which keeps
            all products between features that are no wider than `size`.

    Returns:
        The student's and the teacher's, built.

    Raises:
        ValueError: A size is not known.
    """
    if None in (*pair.student[1:], *pair.teacher[1:]):
        raise pair.error("layers of known size", "Pool them, or build the models with fixed input sizes.")
    ours = keras.layers.Dense(size, name="student_embedding", dtype="float32")
    theirs = keras.layers.Dense(
        size,
        use_bias=train_teacher,
        kernel_initializer="glorot_uniform" if train_teacher else "orthogonal",
        trainable=train_teacher,
        name="teacher_embedding",
        dtype="float32",
    )
    for head, shape in ((ours, pair.student), (theirs, pair.teacher)):
        head.build((None, math.prod(shape[1:])))
    return [ours, theirs]


def embedded(heads: list[keras.layers.Dense], student: Any, teacher: Any) -> tuple[Any, Any]:
    """Return the embeddings of a batch, of length 1.

    Args:
        heads: The two maps.
        student: Student features, shape `(batch, ...)`.
        teacher: Teacher features, shape `(batch, ...)`.

    Returns:
        Two tensors of shape `(batch, size)`.
    """
    pairs = zip(heads, (student, teacher), strict=True)
    ours, theirs = (l2_normalize(head(ops.cast(flatten_samples(values), "float32"))) for head, values in pairs)
    return ours, theirs
