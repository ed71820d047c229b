"""What losses between feature maps share: one size for both models."""

from __future__ import annotations

from typing import Any

from kdkeras.losses.feature_loss import Pair, pool_to


def check_maps(pair: Pair) -> None:
    """Raise unless both layers have positions, and sizes that can be pooled to one.

    Args:
        pair: The layers.

    Raises:
        ValueError: Ranks differ, there are no positions, or sizes are not known.
    """
    pair.check_rank(3, 4, 5)
    pair.check_equal_rank()
    pair.check_sizes()


def check_pools_to_teacher(pair: Pair) -> None:
    """Raise unless the student's layer can be pooled to the teacher's size, and channel counts are known.

    Args:
        pair: The layers.

    Raises:
        ValueError: Ranks differ, sizes or channel counts are not known, or the student's maps are the smaller ones.
    """
    pair.check_equal_rank()
    pair.check_sizes()
    pair.check_channels()
    if any(ours and ours < theirs for ours, theirs in zip(pair.student[1:-1], pair.teacher[1:-1], strict=True)):
        raise pair.error("student maps of at least the teacher's size", "Choose other layers.")


def pool_to_smaller(student: Any, teacher: Any) -> tuple[Any, Any]:
    """Average-pool the larger maps to the size of the smaller ones, axis by axis.

    Args:
        student: Student features, shape `(batch, positions..., channels)`.
        teacher: Teacher features, any sizes and channel count.

    Returns:
        Both, with equal positions.
    """
    sizes = list(zip(student.shape[1:-1], teacher.shape[1:-1], strict=True))
    if any(None in pair for pair in sizes):  # equal, as was seen when the loss was connected
        return student, teacher
    size = tuple(map(min, sizes))
    return pool_to(student, size), pool_to(teacher, size)
