"""What losses on attention share: the relations between the positions of a sequence, and the layers to tap for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from kdkeras.losses._batch import positive
from kdkeras.losses.feature_loss import FeatureLoss, Pair
from kdkeras.ops import kl_divergence, scaled_dot_products
from kdkeras.signals import Signals, SignalSpec

# Keras takes the mask off what goes into an attention layer; the last of its sub-layers has it again.
_MASKED = "attention_output"
_PARTS = ("query", "key", "value")
_NEVER = -1e9  # the score of what must not be attended to


def attended(scores: Any, mask: Any = None, causal: bool = False) -> Any:
    """Return which position may attend to which.

    Args:
        scores: Shape `(batch, heads, length, length)`.
        mask: Boolean, shape `(batch, length)`, false where there is padding; or `None`.
        causal: Whether a position sees itself and what stands before it only.

    Returns:
        Boolean, to be broadcast to the shape of `scores`.
    """
    allowed = ops.ones_like(scores[:1, :1], dtype="bool")  # (1, 1, t, s)
    if causal:
        places = ops.arange(ops.shape(scores)[-1])
        allowed = ops.logical_and(allowed, places[:, None] >= places[None, :])
    if mask is not None:
        allowed = ops.logical_and(allowed, ops.cast(mask, "bool")[:, None, None, :])
    return allowed


def squared_error(student: Any, teacher: Any, allowed: Any) -> Any:
    """Return the mean squared difference of scores, over heads and over what is attended to.

    Args:
        student: Scores, shape `(batch, heads, length, length)`.
        teacher: Scores, same shape.
        allowed: What may be attended to, as from `attended`.

    Returns:
        Shape `(batch, length)`.
    """
    error = ops.where(allowed, ops.square(student - teacher), ops.zeros_like(student))
    counts = ops.sum(ops.cast(allowed, error.dtype), axis=-1)  # (b, 1, t)
    return ops.mean(ops.sum(error, axis=-1) / positive(counts), axis=1)


def divergence(student: Any, teacher: Any, allowed: Any) -> Any:
    """Return `KL(softmax(teacher) ‖ softmax(student))`, the mean over heads.

    Args:
        student: Scores, shape `(batch, heads, length, length)`.
        teacher: Scores, same shape.
        allowed: What may be attended to, as from `attended`.

    Returns:
        Shape `(batch, length)`.
    """
    log_q, log_p = (ops.log_softmax(ops.where(allowed, scores, _NEVER), axis=-1) for scores in (student, teacher))
    return ops.mean(kl_divergence(log_p, log_q), axis=1)


def mean_shown(values: Any, mask: Any = None) -> Any:
    """Return the mean over the positions that are no padding.

    Args:
        values: Shape `(batch, length)`.
        mask: Boolean, same shape, or `None`.

    Returns:
        Shape `(batch,)`.
    """
    if mask is None:
        return ops.mean(values, axis=-1)
    shown = ops.cast(mask, values.dtype)
    return ops.sum(values * shown, axis=-1) / positive(ops.sum(shown, axis=-1))


class AttentionLoss(FeatureLoss):
    """A distillation loss on queries, keys and values of self-attention layers.

    `MultiHeadAttention` does not hand out its scores, and in a fused kernel they never exist; so its sub-layers are
    tapped, and the scores computed from what these return.

    Args:
        student_layer: Path of the student's attention layer, or a list of paths.
        teacher_layer: Path of the teacher's attention layer, or as many in a list.
        weight: Factor on this term in the total loss.
        pairs: What is compared: pairs of `"query"`, `"key"` and `"value"`.
        relation_heads: Number of relation heads; `None` for the models' own heads.
        causal: Whether a position attends to itself and what stands before it only.
        name: Name in logs and progress bar.

    Raises:
        TypeError: A path is not a string, `relation_heads` is no whole number, or `causal` is no boolean.
        ValueError: `relation_heads` is below 1, or `weight` is negative.
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float,
        *,
        pairs: Sequence[tuple[str, str]],
        relation_heads: int | None,
        causal: bool,
        name: str | None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)
        kind = type(self).__name__
        if not isinstance(causal, bool):
            raise TypeError(f"`{kind}` needs causal=True or False. Received: {causal!r}.")
        if relation_heads is not None and (not isinstance(relation_heads, int) or isinstance(relation_heads, bool)):
            raise TypeError(f"`{kind}` needs a whole number of relation heads, or None. Received: {relation_heads!r}.")
        if relation_heads is not None and relation_heads < 1:
            raise ValueError(f"`{kind}` needs one relation head or more. Received: {relation_heads}.")
        self.relation_heads, self.causal = relation_heads, causal
        self._pairs = tuple(pairs)
        self._attention = tuple(zip(self.student_layers, self.teacher_layers, strict=True))
        self._parts = tuple(part for part in _PARTS if any(part in pair for pair in pairs))
        self.student_layers, self.teacher_layers = (
            tuple(f"{path}/{part}" for path in paths for part in (_MASKED, *self._parts))
            for paths in (self.student_layers, self.teacher_layers)
        )

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check what the tapped sub-layers return, and that each attention is one of a sequence to itself."""
        for ours, theirs in self._attention:
            for spec, path in ((student, ours), (teacher, theirs)):
                self._check_model(spec, path)
            for part, _ in self._pairs:
                mine, yours = f"{ours}/{part}", f"{theirs}/{part}"
                self._check_pair(
                    Pair(type(self).__name__, mine, student.features[mine], yours, teacher.features[yours])
                )

    def _check_model(self, spec: SignalSpec, path: str) -> None:
        shapes = {part: spec.features[f"{path}/{part}"] for part in self._parts}
        need, advice = None, "Tap layers such as `keras.layers.MultiHeadAttention`."
        if {len(shape) for shape in shapes.values()} - ({4} if self.relation_heads is None else {3, 4}):
            need = "queries, keys and values of shape (batch, length, heads, size), or `relation_heads` to split them"
        elif len({shape[1] for shape in shapes.values()}) > 1:
            need, advice = "self-attention, where queries and keys are of one sequence", "Choose another layer."
        elif any(math.prod(shapes[part][2:]) % (self.relation_heads or 1) for part, _ in self._pairs):
            need = f"a width of all heads together that {self.relation_heads} relation heads share evenly"
            advice = "Pass a divisor."
        if need is not None:
            raise ValueError(
                f"`{type(self).__name__}` needs {need}. Received: '{path}' of model '{spec.model}' with {shapes}. "
                f"{advice}"
            )

    def _check_pair(self, pair: Pair) -> None:
        lengths = (pair.student[1], pair.teacher[1])
        if None not in lengths and lengths[0] != lengths[1]:
            raise pair.error("sequences of equal length", "Give both models the same positions.")
        if self.relation_heads is None and pair.student[2] != pair.teacher[2]:
            raise pair.error("equally many heads", "Pass `relation_heads` to split all heads anew.")

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the sum over the pairs of layers at each position, shape `(batch, length)`."""
        values = [self._compare(student, teacher, *paths, *pair) for paths in self._attention for pair in self._pairs]
        return sum(values[1:], values[0])

    def _compare(self, student: Signals, teacher: Signals, ours: str, theirs: str, one: str, other: str) -> Any:
        masks = (student.masks.get(f"{ours}/{_MASKED}"), teacher.masks.get(f"{theirs}/{_MASKED}"))
        known = [mask for mask in masks if mask is not None]
        mask = ops.logical_and(*known) if len(known) == 2 else next(iter(known), None)
        scores = (
            scaled_dot_products(
                signals.features[f"{path}/{one}"], signals.features[f"{path}/{other}"], self.relation_heads
            )
            for signals, path in ((student, ours), (teacher, theirs))
        )
        return self.compare_scores(*scores, mask)

    def compare_scores(self, student: Any, teacher: Any, mask: Any) -> Any:
        """Return the un-weighted loss of the relations of one pair of layers.

        Args:
            student: The student's scores, shape `(batch, heads, length, length)`.
            teacher: The teacher's, same shape.
            mask: Boolean, shape `(batch, length)`, false where there is padding; or `None`.

        Returns:
            Shape `(batch, length)`.
        """
        raise NotImplementedError(f"`{type(self).__name__}` must implement `compare_scores(student, teacher, mask)`.")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "relation_heads": self.relation_heads, "causal": self.causal}
