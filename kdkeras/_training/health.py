"""A record of the steps and the terms that were not finite."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras import _backend

_IN_A_ROW, _TOTAL, _IMPOSSIBLE, _FLAGS = range(4)  # places in the record; the flags are its rest


class Health(keras.layers.Layer):
    """Which terms were not finite, and how many steps were left out.

    All of it stands in one variable, because each variable that a step writes costs it time.

    Args:
        names: Names of the terms, in the order in which `note` gets their values.

    Attributes:
        names: Of each flag, what is wrong where it is not 0.
        record: Steps left out since the last sound one; since the start; labels out of range since the start; flags of
            the latest step; flags of the latest step that was left out. A flag is the number of replicas where the term
            was not finite, and for labels how many cannot be.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__(name="health", dtype="float32", autocast=False)
        self.names = ["labels", *names, "gradient"]
        self.record = self.add_weight(
            shape=(_FLAGS + 2 * len(self.names),),
            initializer="zeros",
            trainable=False,
            aggregation="mean",  # of replicas, each of which writes its flags times their number
            name="record",
        )
        self.built = True

    def note(self, impossible: Any, values: list[Any]) -> None:
        """Write down, inside a step, which values are not finite.

        Args:
            impossible: Number of labels out of range.
            values: Value of each term.
        """
        before = ops.convert_to_tensor(self.record)
        broken = ops.logical_not(ops.isfinite(ops.stack(values)))
        labels = ops.reshape(ops.cast(impossible, "float32"), (1,))
        flags = ops.concatenate([labels, ops.cast(broken, "float32"), ops.zeros((1,))]) * float(_backend.replicas())
        labels = before[_IMPOSSIBLE:_FLAGS] + flags[:1]
        self.record.assign(ops.concatenate([before[:_IMPOSSIBLE], labels, flags, before[_FLAGS + len(self.names) :]]))

    def judge(self, record: Any, gradients: list[Any], statistics: list[Any]) -> tuple[Any, Any]:
        """Return the record after a step, and whether the step may stay.

        Args:
            record: What `note` has written.
            gradients: Gradients, the sum of whose squares must be finite: from then on no optimizer's variables are.
            statistics: New values that must be finite.

        Returns:
            The new record, and a boolean.
        """
        flags, latest = ops.split(record[_FLAGS:], 2)
        terms = ops.equal(ops.sum(flags), 0)
        finite = ops.convert_to_tensor(True)
        if gradients:
            finite = ops.isfinite(ops.sum(ops.square(_in_one_piece(gradients))))
        if statistics:
            finite = ops.logical_and(finite, ops.all(ops.isfinite(_in_one_piece(statistics))))
        sound = ops.logical_and(terms, finite)
        left_out = ops.reshape(ops.cast(ops.logical_not(sound), "float32"), (1,))
        gradient = ops.cast(ops.logical_and(terms, ops.logical_not(finite)), "float32")
        flags = ops.concatenate([flags[:-1], ops.reshape(gradient, (1,))])
        in_a_row = (record[_IN_A_ROW:_TOTAL] + left_out) * left_out
        total = record[_TOTAL:_IMPOSSIBLE] + left_out
        latest = ops.where(sound, latest, flags)
        return ops.concatenate([in_a_row, total, record[_IMPOSSIBLE:_FLAGS], flags, latest]), sound

    def forget(self) -> None:
        """Set all counters to 0."""
        self.record.assign(ops.zeros(self.record.shape))

    @property
    def in_a_row(self) -> int:
        """Steps left out since the last sound one."""
        return int(ops.convert_to_numpy(self.record)[_IN_A_ROW])

    @property
    def total(self) -> int:
        """Steps left out since the start."""
        return int(ops.convert_to_numpy(self.record)[_TOTAL])

    @property
    def impossible(self) -> int:
        """Labels out of range since the start."""
        return int(ops.convert_to_numpy(self.record)[_IMPOSSIBLE])

    def reason(self) -> str:
        """Return what was not finite in the latest step that was left out, for a message."""
        latest = ops.convert_to_numpy(self.record)[_FLAGS + len(self.names) :]
        names = [name for name, flag in zip(self.names, latest, strict=True) if flag]
        if names in ([], ["gradient"]):
            return "the gradient was not finite"
        return "labels were out of range" if names[0] == "labels" else f"the loss term '{names[0]}' was not finite"


def _in_one_piece(tensors: list[Any]) -> Any:
    """Return all values as one vector: to look at each tensor costs more than to copy them all."""
    return ops.concatenate([ops.reshape(ops.cast(values, "float32"), (-1,)) for values in tensors])
