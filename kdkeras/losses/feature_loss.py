"""The base of losses between inner layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.losses.base import DistillationLoss
from kdkeras.ops import mean_per_sample
from kdkeras.signals import Signals, SignalSpec

Shape = tuple[int | None, ...]


class FeatureLoss(DistillationLoss):
    """A distillation loss between one or several pairs of layers; the values of the pairs are summed.

    A subclass implements `compare_pair`, and where it has to check shapes or create variables `connect_pair`.

    Args:
        student_layer: Path of the student's layer, such as `"backbone/conv4"`, or a list of paths.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss.
        name: Name in logs and progress bar.

    Raises:
        TypeError: A path is not a string.
        ValueError: The lists are empty or of unequal length, or `weight` is negative.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.Hints(["c1", "c2"], ["c3", "c5"]).student_layers
        ('c1', 'c2')
    """

    compares_outputs = False
    needs_logits = False

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 1.0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, name=name)
        self.student_layer, self.teacher_layer = student_layer, teacher_layer
        self.student_layers, self.teacher_layers = _paths(type(self).__name__, student_layer, teacher_layer)

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check each pair of layers, and create what it needs."""
        for place, (ours, theirs) in enumerate(zip(self.student_layers, self.teacher_layers, strict=True)):
            self.connect_pair(
                place, Pair(type(self).__name__, ours, student.features[ours], theirs, teacher.features[theirs])
            )

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Check one pair of layers, and create what it needs.

        Args:
            place: Number of the pair.
            pair: Paths and shapes.

        Raises:
            ValueError: The two cannot be compared.
        """
        pair.check_equal_rank()

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the sum over the pairs of layers, shape `(batch,)`, or `(batch, ...)` where all have one size."""
        values = [
            self.compare_pair(place, student.features[ours], teacher.features[theirs])
            for place, (ours, theirs) in enumerate(zip(self.student_layers, self.teacher_layers, strict=True))
        ]
        sizes = {tuple(value.shape[1:]) for value in values}
        if len(values) > 1 and (len(sizes) > 1 or None in sizes.pop()):  # positions of different maps cannot be added
            values = [mean_per_sample(value) for value in values]
        return sum(values[1:], values[0])

    def compare_pair(self, place: int, student: Any, teacher: Any) -> Any:
        """Return the un-weighted loss of one pair of layers.

        Args:
            place: Number of the pair.
            student: The student's features, shape `(batch, ..., channels)`.
            teacher: The teacher's features.

        Returns:
            Shape `(batch,)` or `(batch, positions...)`.
        """
        raise NotImplementedError(f"`{type(self).__name__}` must implement `compare_pair(place, student, teacher)`.")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = {**super().get_config(), "student_layer": self.student_layer, "teacher_layer": self.teacher_layer}
        del config["output"]  # a loss on inner layers has no use for it
        return config


class Pair:
    """Two layers that are to be compared: what they are, and the errors that they give rise to.

    Args:
        loss: Name of the loss.
        student_layer: Path of the student's layer.
        student: Shape of its output.
        teacher_layer: Path of the teacher's layer.
        teacher: Shape of its output.
    """

    def __init__(self, loss: str, student_layer: str, student: Shape, teacher_layer: str, teacher: Shape) -> None:
        self.loss = loss
        self.student, self.teacher = student, teacher
        self.received = f"Received: student '{student_layer}' {student}, teacher '{teacher_layer}' {teacher}."

    def error(self, need: str, advice: str) -> ValueError:
        """Return the error that says what is needed, what was received, and what to do."""
        return ValueError(f"`{self.loss}` needs {need}. {self.received} {advice}")

    def check_equal_rank(self) -> None:
        """Raise unless both layers have the same number of axes."""
        if len(self.student) != len(self.teacher):
            raise self.error("layers of equal rank", "Pool or flatten the larger one first.")

    def check_rank(self, *ranks: int) -> None:
        """Raise unless both layers have one of these numbers of axes, the batch's among them."""
        if {len(self.student), len(self.teacher)} - set(ranks):
            raise self.error(f"layers with {' or '.join(map(str, ranks))} axes", "Choose other layers.")

    def check_channels(self) -> None:
        """Raise unless both channel counts are known."""
        if None in (self.student[-1], self.teacher[-1]):
            raise self.error("known channel counts", "Build the models with a fixed last axis.")

    def check_sizes(self) -> None:
        """Raise unless the sizes between batch and channels are equal, or known, so that the larger can be pooled."""
        ours, theirs = self.student[1:-1], self.teacher[1:-1]
        if ours != theirs and None in (*ours, *theirs):
            raise self.error("sizes that are equal or known", "Build the models with fixed input sizes.")

    def pooled_size(self) -> tuple[int | None, ...]:
        """Return the smaller of both sizes, axis by axis, after `check_sizes`."""
        sizes = zip(self.student[1:-1], self.teacher[1:-1], strict=True)
        return tuple(a if a == b else min(a, b) for a, b in sizes)

    def projector(self, name: str = "projector", *, use_bias: bool = True) -> keras.layers.Dense:
        """Return a built linear map of the channels (a 1×1 convolution), from the student's count to the teacher's."""
        self.check_channels()
        projector = keras.layers.Dense(self.teacher[-1], use_bias=use_bias, name=name, dtype="float32")
        projector.build(self.student)
        return projector


def pool_to(values: Any, size: Sequence[int | None]) -> Any:
    """Average-pool maps to a smaller size, in windows of nearly equal size where the ratio is not whole.

    Args:
        values: Shape `(batch, positions..., channels)`, one, two or three axes of positions.
        size: Size to reach, one number per axis of positions; where it is the present one nothing is done.

    Returns:
        Shape `(batch, *size, channels)`.
    """
    values = ops.convert_to_tensor(values)
    if all(then is None or now == then for now, then in zip(values.shape[1:-1], size, strict=True)):
        return values
    whole = all(now % then == 0 for now, then in zip(values.shape[1:-1], size, strict=True))
    if whole:  # strides are given, because Keras' default for them fails on JAX
        window = tuple(now // then for now, then in zip(values.shape[1:-1], size, strict=True))
        return ops.average_pool(values, window, strides=window, data_format="channels_last")
    return ops.adaptive_average_pool(values, tuple(size), data_format="channels_last")


def _paths(
    loss: str, student: str | Sequence[str], teacher: str | Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    both = [(each,) if isinstance(each, str) else tuple(each) for each in (student, teacher)]
    if not all(isinstance(path, str) for paths in both for path in paths):
        raise TypeError(f"`{loss}` needs layers by path. Received: {student!r} and {teacher!r}. Pass strings.")
    if len(both[0]) != len(both[1]) or not both[0]:
        raise ValueError(
            f"`{loss}` needs as many student layers as teacher layers. Received: {len(both[0])} and {len(both[1])}. "
            "Name them in pairs."
        )
    return both[0], both[1]
