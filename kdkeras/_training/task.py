"""The student's own task: labels made ready for the task loss and the metrics.

Three things that a Keras loss does not do by itself: a label of −1 means 'not labelled', a label that cannot be is
found out before it does harm, and one weight per sample also weighs the positions of dense outputs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from kdkeras.signals import Signals, SignalSpec

_KINDS = {
    "categoricalcrossentropy": "one-hot",
    "categoricalfocalcrossentropy": "one-hot",
    "sparsecategoricalcrossentropy": "sparse",
    "binarycrossentropy": "binary",
    "binaryfocalcrossentropy": "binary",
}


class Prepared(NamedTuple):
    """What the task loss and the metrics take.

    Attributes:
        labels: Labels without any −1, nested as the predictions.
        predictions: The student's predictions, with a Keras mask that leaves out what is not labelled.
        sample_weight: Sample weights that fit every output, or `None`.
        loss_weight: The same for the task loss, where a sample of weight 0 must not even count as one that is shown.
        labelled: Of each output which samples or positions have a label; `None` where that is not asked.
        impossible: Number of labels out of range.
    """

    labels: Any
    predictions: Any
    sample_weight: Any
    loss_weight: Any
    labelled: list[Any]
    impossible: Any


@dataclass(frozen=True)
class Task:
    """Which outputs are classified, and by what kind of labels.

    Attributes:
        names: Name of each output, in the order of `keras.tree.flatten`; empty where there is only one.
        kinds: Of each output `"sparse"`, `"one-hot"`, `"binary"`, or `None` where labels are left as they are.
        units: Of each output the number of units.
        ignored: Of each output the `ignore_class` of its loss, a second way to say 'not labelled'.
        means: Whether the loss of each output is a mean over samples and positions, as Keras' losses are by default.
    """

    names: tuple[str, ...] = ()
    kinds: tuple[str | None, ...] = (None,)
    units: tuple[int | None, ...] = (None,)
    means: tuple[bool, ...] = (True,)
    ignored: tuple[int | None, ...] = (None,)

    def prepare(self, labels: Any, student: Signals, sample_weight: Any) -> Prepared:
        """Return labels, predictions and weights for the task loss.

        Args:
            labels: Labels as they were given to `fit`.
            student: The student's signals.
            sample_weight: Sample weights as they were given to `fit`, or `None`.

        Returns:
            What is `Prepared`.
        """
        predictions = keras.tree.flatten(student.predictions)
        ours = self._spread(labels)
        weights = [None] * len(predictions) if sample_weight is None else self._spread(sample_weight, shared=True)
        impossible = ops.zeros((), "int32")
        known: list[Any] = [None] * len(predictions)
        if ours is None or weights is None:  # Keras has its own ways with partial labels, and its own words for errors
            return Prepared(labels, student.predictions, sample_weight, sample_weight, known, impossible)
        loss_weights = list(weights)
        for place, kind in enumerate(self.kinds):
            signals = student.output(place) if self.names else student
            mask = signals.masks.get("")
            if kind is not None:
                ours[place], labelled, wrong = _clean(ours[place], predictions[place], kind, self.ignored[place])
                impossible += wrong
                known[place] = labelled
                mask = labelled if mask is None else ops.logical_and(labelled, mask)
            if mask is not None:
                predictions[place] = _mask_lender()([predictions[place], mask])
            if weights[place] is not None:
                weights[place] = per_position(weights[place], len(predictions[place].shape) - 1)
                # A copy of full shape: on PyTorch, Keras multiplies the mask into the very weights that it is given.
                shape = ops.ones_like(weights[place] if mask is None else mask, "float32")
                weights[place] = ops.cast(weights[place], "float32") * shape
                loss_weights[place] = weights[place]
                if mask is not None and self.means[place]:
                    # Keras divides by the share of all that is shown: put the share of what has a weight in its place.
                    shown = ops.mean(ops.cast(mask, "float32"))
                    loss_weights[place] = weights[place] * shown / share_shown(mask, weights[place])
        if not self.names:
            return Prepared(ours[0], predictions[0], weights[0], loss_weights[0], known, impossible)
        ours, predictions, weights, loss_weights = (
            keras.tree.pack_sequence_as(student.predictions, each)
            for each in (ours, predictions, weights, loss_weights)
        )
        if sample_weight is None:
            weights = loss_weights = None
        return Prepared(ours, predictions, weights, loss_weights, known, impossible)

    def with_independent_units(self, spec: SignalSpec) -> SignalSpec:
        """Return the student's spec with sigmoids where its task says so, though the model itself ends in logits.

        Args:
            spec: The student's `SignalSpec`.

        Returns:
            The `SignalSpec` for the distillation losses: a binary cross-entropy from logits means independent units.
        """
        if not self.names:
            return _independent(spec) if self.kinds[0] == "binary" else spec
        kinds = dict(zip(self.names, self.kinds, strict=True))
        outputs = {
            name: _independent(output) if kinds[name] == "binary" else output for name, output in spec.outputs.items()
        }
        return replace(spec, outputs=outputs)

    def check_labels(self, labels: Any) -> None:
        """Raise if arrays of labels cannot be.

        Args:
            labels: All labels, as arrays.

        Raises:
            ValueError: A label is out of range.
        """
        of_output = zip(self._spread(labels) or (), self.kinds, self.units, self.ignored, strict=False)
        for array, kind, units, ignored in of_output:
            if kind is None or not np.size(array):
                continue
            array = np.asarray(array)
            if array.dtype.kind in "iub":
                array = array.astype("int64")  # or the bounds would wrap around
            top = units - 1 if kind == "sparse" and units else 1
            if kind == "binary" and array.ndim > 1 and ((array == -1).any(-1) != (array == -1).all(-1)).any():
                raise ValueError(
                    "A label of -1 must fill a whole row where an output has several units. Received: rows with some "
                    "entries of -1. Leave those samples out of the task with rows of -1 only."
                )
            wrong = ((array < 0) | (array > top)) & (array != -1)
            if ignored is not None:
                wrong &= array != ignored
            if kind == "sparse":
                wrong |= array != np.floor(array)
            if wrong.any():
                classes = f"whole numbers in 0…{top}" if kind == "sparse" else "in [0, 1]"
                raise ValueError(
                    f"Labels of this task must be {classes}, or -1 for 'not labelled'. Received: {int(wrong.sum())} "
                    f"others of {wrong.size}, such as {array[wrong].flat[0]}. Number the classes from 0."
                )

    def of_output(self, nest: Any, place: int | None) -> Any:
        """Return one output's labels or sample weights.

        Args:
            nest: Labels or weights of all outputs, or one tensor for all.
            place: Place of the output, or `None` where there is one only.

        Returns:
            A tensor, or `None` where it cannot be told.
        """
        if nest is None or not keras.tree.is_nested(nest):
            return nest
        spread = self._spread(nest)
        if spread is None or (place is None and self.names):
            return None
        return spread[place or 0]

    def _spread(self, nest: Any, *, shared: bool = False) -> list[Any] | None:
        """Return one entry per output, or `None` where the nest does not tell which is whose."""
        if not self.names:
            return keras.tree.flatten(nest) if len(keras.tree.flatten(nest)) == 1 else None
        if isinstance(nest, dict) and set(nest) == set(self.names):
            return [nest[name] for name in self.names]
        if shared and not keras.tree.is_nested(nest):
            return [nest] * len(self.names)
        flat = keras.tree.flatten(nest)
        return flat if len(flat) == len(self.names) and not isinstance(nest, dict) else None


def task_of(loss: Any, spec: SignalSpec) -> Task:
    """Return what is known of a task before any data is seen.

    Args:
        loss: The task loss, or a nest of them by output.
        spec: The student's `SignalSpec`.

    Returns:
        The `Task`.
    """
    names = tuple(spec.outputs)
    outputs = list(spec.outputs.values()) or [spec]
    units = tuple(output.logits[-1] for output in outputs)
    losses = losses_by_output(loss, names)
    means = tuple(getattr(one, "reduction", "mean") in ("mean", "sum_over_batch_size") for one in losses)
    ignored = tuple(getattr(one, "ignore_class", None) for one in losses)
    # Classes on another axis than the last are the user's own business.
    last = [getattr(one, "axis", -1) in (-1, len(out.logits) - 1) for one, out in zip(losses, outputs, strict=True)]
    kinds = tuple(_KINDS.get(loss_name(one)) if own else None for one, own in zip(losses, last, strict=True))
    return Task(names, kinds, units, means, ignored)


def losses_by_output(loss: Any, names: tuple[str, ...]) -> list[Any]:
    """Return the task loss of each output.

    Args:
        loss: One loss for all outputs, a list in their order, or a dict by name.
        names: Names of several outputs; empty where there is only one.

    Returns:
        One loss per output, `None` where there is none or it cannot be told.
    """
    if not names:
        flat = keras.tree.flatten(loss)
        return flat if len(flat) == 1 else [None]
    if not keras.tree.is_nested(loss):
        return [loss] * len(names)
    if isinstance(loss, dict):
        return [loss.get(name) for name in names]
    return list(loss) if len(loss) == len(names) else [None] * len(names)


def loss_name(loss: Any) -> str:
    """Return a loss's name in lower case without underscores: `"sparsecategoricalcrossentropy"`.

    Args:
        loss: A Keras loss: a name, a function, an instance, or `None`.

    Returns:
        The name; empty where there is none.
    """
    if not isinstance(loss, keras.losses.Loss):
        return _plain(loss if isinstance(loss, str) else getattr(loss, "__name__", ""))
    names = [_plain(kind.__name__) for kind in type(loss).__mro__]  # a subclass of a Keras loss is of its kind
    return next((name for name in names if name in _KINDS), names[0])


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def share_shown(shown: Any, weights: Any = None) -> Any:
    """Return which share of all that has a weight is shown.

    Args:
        shown: Boolean mask, shape `(batch, ...)`.
        weights: Weights that can be broadcast to it, or `None`.

    Returns:
        A number above 0, for it divides; 1 where nothing is shown.
    """
    shown = ops.cast(shown, "float32")
    counts = ops.ones_like(shown) if weights is None else ops.ones_like(shown) * ops.cast(weights != 0, "float32")
    share = ops.sum(shown * counts) / ops.maximum(ops.sum(counts), 1.0)
    return ops.where(share > 0, share, ops.ones_like(share))


def per_position(weights: Any, rank: int) -> Any:
    """Return weights of rank 1 with axes added at the end, so that they weigh values of `rank` axes sample by sample.

    Args:
        weights: Weights, shape `(batch,)` or more, or `None`.
        rank: Number of axes of the values.

    Returns:
        Shape `(batch, 1, ...)`; weights that have positions of their own stay as they are.
    """
    if weights is None or len(weights.shape) != 1 or rank < 2:
        return weights
    return ops.reshape(weights, (-1, *[1] * (rank - 1)))


def _independent(spec: SignalSpec) -> SignalSpec:
    return spec if spec.head == "softmax" else replace(spec, head="sigmoid")


def _clean(labels: Any, predictions: Any, kind: str, ignored: int | None) -> tuple[Any, Any, Any]:
    """Return labels without −1, whether each can be learned from, and how many cannot be."""
    labels = ops.convert_to_tensor(labels)
    if keras.backend.standardize_dtype(labels.dtype) in ("int8", "uint8", "int16", "uint16", "bool"):
        labels = ops.cast(labels, "int32")  # or the bounds would wrap around
    rank = len(predictions.shape)
    if kind == "sparse":
        if len(labels.shape) == rank:
            labels = ops.squeeze(labels, axis=-1)
        unlabelled = ops.equal(labels, -1)
        if ignored is not None:
            unlabelled = ops.logical_or(unlabelled, ops.equal(labels, ignored))
        wrong = ops.logical_or(ops.less(labels, 0), ops.greater_equal(labels, predictions.shape[-1]))
        wrong = ops.logical_and(wrong, ops.logical_not(unlabelled))
        labels = ops.where(ops.logical_or(unlabelled, wrong), ops.zeros_like(labels), labels)
    else:
        if len(labels.shape) < rank:
            labels = ops.expand_dims(labels, axis=-1)
        unlabelled = ops.all(ops.equal(labels, -1), axis=-1)
        out = ops.any(ops.logical_or(ops.less(labels, 0), ops.greater(labels, 1)), axis=-1)
        wrong = ops.logical_and(out, ops.logical_not(unlabelled))
        labels = ops.where(ops.expand_dims(unlabelled, -1), ops.zeros_like(labels), labels)
    # Such a step is undone where steps can be; where they cannot, nothing must be learned from a label that cannot be.
    return labels, ops.logical_not(ops.logical_or(unlabelled, wrong)), ops.sum(ops.cast(wrong, "int32"))


@functools.cache
def _mask_lender() -> keras.layers.Layer:
    return _WithMask()


class _WithMask(keras.layers.Layer):
    """Lends a tensor a Keras mask, which losses and metrics then leave out: `layer([values, mask])`."""

    def __init__(self) -> None:
        super().__init__(name="with_mask", autocast=False, dtype="float32")
        self.supports_masking = True
        self.built = True

    def call(self, inputs: list[Any]) -> Any:
        return inputs[0][...]  # another tensor, for the mask is kept on it

    def compute_mask(self, inputs: list[Any], previous_mask: Any = None) -> Any:
        return inputs[1]
