"""The base of losses between the relations of samples."""

from __future__ import annotations

from typing import Any

from kdkeras.losses._batch import refuse_batch_of_one
from kdkeras.losses.feature_loss import FeatureLoss, Pair
from kdkeras.signals import Signals


class RelationalLoss(FeatureLoss):
    """A distillation loss between the relations that the samples of a batch have in the student and in the teacher.

    Relations have one size whatever the layers': features of any rank and width are compared, all positions of a sample
    flattened into one vector. Tap a pooled layer where positions should not count, and where sequences are padded:
    masks are not looked at. Logits are compared by the path of the last layer. A subclass implements `compare_pair`.

    Args:
        student_layer: Path of the student's layer, or a list of paths, of which the values are summed.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss.
        name: Name in logs and progress bar.

    Raises:
        TypeError: A path is not a string.
        ValueError: The lists are empty or of unequal length, or `weight` is negative; when called, a batch of one.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.RelationalDistance("pool", "pool").batch_wise
        True
    """

    batch_wise = True
    needs = ("sample_weight",)

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Accept any two layers: the relations of a batch have one size."""

    def call(self, student: Signals, teacher: Signals, labels: Any = None, sample_weight: Any = None) -> Any:
        """Return the sum over the pairs of layers, a scalar."""
        values = []
        for place, (ours, theirs) in enumerate(zip(self.student_layers, self.teacher_layers, strict=True)):
            refuse_batch_of_one(student.features[ours], asked_by=type(self).__name__)
            values.append(self.compare_pair(place, student.features[ours], teacher.features[theirs], sample_weight))
        return sum(values[1:], values[0])

    def compare_pair(self, place: int, student: Any, teacher: Any, sample_weight: Any = None) -> Any:
        """Return the un-weighted loss of one pair of layers.

        Args:
            place: Number of the pair.
            student: The student's features, shape `(batch, ...)`.
            teacher: The teacher's features, shape `(batch, ...)`.
            sample_weight: Weight of each sample, shape `(batch,)`, or `None`.

        Returns:
            A scalar, to which a sample of weight 0 adds nothing.
        """
        raise NotImplementedError(
            f"`{type(self).__name__}` must implement `compare_pair(place, student, teacher, sample_weight)`."
        )
