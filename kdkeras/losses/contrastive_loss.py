"""The base of contrastive losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras._backend import number
from kdkeras.losses._batch import batch_mean
from kdkeras.losses._classes import target_classes
from kdkeras.losses._embedding import checked_size, embedded, embedding_heads
from kdkeras.losses._relations import relative_weights
from kdkeras.losses.base import checked_number
from kdkeras.losses.feature_loss import FeatureLoss, Pair
from kdkeras.signals import Signals, SignalSpec

_NEVER = -1e9  # score of a pair that does not count


class ContrastiveLoss(FeatureLoss):
    """A distillation loss that tells the teacher's embedding of a sample from those of others, and vice versa.

    Two trained linear maps bring the flattened features of student and teacher to vectors of one length and norm 1.

    Args:
        student_layer: Path of the student's layer, or a list of paths, of which the values are summed.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss.
        temperature: Temperature τ > 0 of the scores, which may be moved between steps.
        embedding: Length of the embeddings.
        by_class: Whether samples of one class are never told apart, where there are labels.
        name: Name in logs and progress bar.

    Raises:
        TypeError: A setting is of another type.
        ValueError: A setting is out of range; when connected, the size of a layer is not known; when called, labels
            that are no exclusive classes.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.Contrastive("pool", "pool").embedding
        128
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 0.8,
        *,
        temperature: float = 0.07,
        embedding: int = 128,
        by_class: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)
        self._temperature = self._setting("temperature", temperature, minimum=0.0, exclusive=True)
        self.embedding = checked_size(type(self).__name__, "embedding", embedding)
        if not isinstance(by_class, bool):
            raise TypeError(f"`{type(self).__name__}` needs by_class=True or False. Received: {by_class!r}.")
        self.by_class = by_class
        self.heads: list[list[keras.layers.Dense]] = []
        self._not_classes = ""
        self._same_classes = True

    @property
    def temperature(self) -> float:
        """Temperature τ; setting it takes effect on the next step."""
        return number(self._temperature)

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature.assign(checked_number(type(self).__name__, "temperature", value, minimum=0.0, exclusive=True))

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Create the embeddings, and see whether labels can be classes."""
        self.heads = []
        exclusive = student.head != "sigmoid" and len(student.logits) == 2 and student.logits[-1] != 1
        self._not_classes = "" if exclusive else f"student '{student.model}' {student.logits} ending in {student.head}"
        self._same_classes = student.logits == teacher.logits
        super().connect(student, teacher)

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Create the embeddings of one pair."""
        self.heads.append(embedding_heads(pair, self.embedding, train_teacher=True))

    def embed(self, place: int, student: Signals, teacher: Signals) -> tuple[Any, Any]:
        """Return the embeddings of one pair of layers.

        Args:
            place: Number of the pair.
            student: The student's signals.
            teacher: The teacher's signals.

        Returns:
            Two tensors of shape `(batch, embedding)`, each row of norm 1.
        """
        features = student.features[self.student_layers[place]], teacher.features[self.teacher_layers[place]]
        return embedded(self.heads[place], *features)

    def classes(self, labels: Any, student: Signals, teacher: Signals) -> Any:
        """Return the class of each sample, or `None` where classes do not count.

        Args:
            labels: The labels of the batch, or `None`.
            student: The student's signals.
            teacher: The teacher's signals.

        Returns:
            Integers, shape `(batch,)`; the teacher's top class for samples that are not labelled.

        Raises:
            ValueError: The labels are no exclusive classes.
        """
        if labels is None or not self.by_class:
            return None
        if self._not_classes:
            raise ValueError(
                f"`{type(self).__name__}` needs labels that are exclusive classes, to leave samples of one class "
                f"together. Received: labels for {self._not_classes}. Pass by_class=False."
            )
        # The labels are the student's; a teacher of other classes has none to say of samples without.
        logits = teacher.logits if self._same_classes else student.logits
        return target_classes(labels, logits, asked_by=type(self).__name__)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"temperature": self.temperature, "embedding": self.embedding, "by_class": self.by_class}
        return {**super().get_config(), **own}


def two_ways(
    student: Any, teacher: Any, *, temperature: Any, labels: Any, weights: Any, queued: tuple[Any, Any] | None = None
) -> Any:
    """Return how hard it is to find each sample's teacher vector by its student vector, and vice versa.

    Args:
        student: Student vectors of length 1, shape `(batch, size)`.
        teacher: Teacher vectors of length 1, same shape.
        temperature: Temperature of the scores.
        labels: Class of each sample, shape `(batch,)`; `None` where each is a class of its own.
        weights: Weight of each sample, shape `(batch,)`.
        queued: Teacher vectors of further samples, shape `(n, size)`, and how much each of them counts as wrong for a
            sample, shape `(batch, n)`.

    Returns:
        A scalar.
    """
    names = ops.arange(ops.shape(student)[0]) if labels is None else ops.convert_to_tensor(labels)
    share = ops.cast(names[:, None] != names[None, :], weights.dtype) * relative_weights(weights)
    scores = ops.matmul(student, ops.transpose(teacher)) / temperature  # (b, b)
    own = ops.diagonal(scores)
    value = _surprise(own, ops.transpose(scores), share)
    if queued is not None:
        further = ops.matmul(student, ops.transpose(queued[0])) / temperature
        scores, share = ops.concatenate([scores, further], axis=1), ops.concatenate([share, queued[1]], axis=1)
    return batch_mean(value + _surprise(own, scores, share), weights)


def _surprise(own: Any, others: Any, share: Any) -> Any:
    """Return `−log(exp(s₀) / (exp(s₀) + Σ_j a_j exp(s_j)))` of each sample, with a share a of each wrong pair."""
    counts = share > 0
    weighed = others + ops.log(ops.where(counts, share, ops.ones_like(share)))
    scores = ops.where(counts, weighed, ops.full_like(weighed, _NEVER))
    return ops.logsumexp(ops.concatenate([own[:, None], scores], axis=1), axis=1) - own
