"""Labels in every spelling, as the class of each sample."""

from __future__ import annotations

from typing import Any

from keras import ops


def target_classes(labels: Any, teacher: Any, *, asked_by: str) -> Any:
    """Return the index of each sample's class; the teacher's top class where a sample is not labelled.

    Args:
        labels: Classes, shape `(batch, ...)` or `(batch, ..., 1)`, −1 where not labelled; or one-hot or soft labels of
            the shape of `teacher`, whose largest entry counts, a row of −1 where not labelled.
        teacher: Teacher logits, shape `(batch, ..., classes)`.
        asked_by: Who asks, for the message.

    Returns:
        Integers, shape `(batch, ...)`.

    Raises:
        ValueError: There are no labels at all.
    """
    if labels is None:
        raise ValueError(f"`{asked_by}` needs labels. Received: none. Pass y, with -1 for samples that have none.")
    labels = ops.convert_to_tensor(labels)
    top = ops.cast(ops.argmax(teacher, axis=-1), "int32")
    if len(labels.shape) == len(teacher.shape):
        if labels.shape[-1] == 1:
            labels = ops.squeeze(labels, axis=-1)
        else:
            unlabelled = ops.all(ops.equal(labels, -1), axis=-1)
            return ops.where(unlabelled, top, ops.cast(ops.argmax(labels, axis=-1), "int32"))
    labels = ops.cast(labels, "int32")
    return ops.where(ops.logical_or(labels < 0, labels >= teacher.shape[-1]), top, labels)
