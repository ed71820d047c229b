"""Soft targets over a group of classes: what a specialist teaches (Hinton et al. 2015, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kdkeras.losses.base import check_exclusive_classes
from kdkeras.losses.tempered_loss import TemperedLoss
from kdkeras.ops import kl_divergence, log_soften, mean_per_sample
from kdkeras.signals import Signals, SignalSpec


def group_logits(logits: Any, group: Sequence[int]) -> Any:
    """Return logits over a group of classes and, as the last one, all others: `logsumexp` of theirs.

    Args:
        logits: Logits, shape `(batch, ..., classes)`.
        group: Indices of the classes.

    Returns:
        Shape `(batch, ..., len(group) + 1)`; without the last one where the group holds all classes.

    Example:
        >>> import numpy as np
        >>> from kdkeras.schemes import group_logits
        >>> z = np.log(np.array([[1.0, 2.0, 3.0, 4.0]], "float32"))
        >>> np.exp(np.asarray(group_logits(z, [2]))).round(4)
        array([[3., 7.]], dtype=float32)
    """
    own = ops.take(logits, list(group), axis=-1)
    rest = sorted(set(range(logits.shape[-1])) - set(group))
    if not rest:
        return own
    others = ops.logsumexp(ops.take(logits, rest, axis=-1), axis=-1, keepdims=True)
    return ops.concatenate([own, others], axis=-1)


def group_targets(student: Any, teacher: Any, *, group: Sequence[int], temperature: Any = 1.0) -> Any:
    """Return `T² · KL(softmax(g(z_t) / T) ‖ softmax(g(z_s) / T))` of each sample, with g as `group_logits`.

    Args:
        student: Student logits z_s over all classes, shape `(batch, ..., classes)`.
        teacher: Teacher logits z_t over all classes; or a specialist's, over the group and the rest, taken as they are.
        group: Indices of the group's classes.
        temperature: Temperature T > 0. Default 1.

    Returns:
        Divergences in nats, shape `(batch,)`; the mean over positions where outputs are dense.

    Example:
        >>> import numpy as np
        >>> from kdkeras.schemes import group_targets
        >>> teacher = np.log(np.array([[0.8, 0.1, 0.1]], "float32"))
        >>> round(float(group_targets(np.zeros((1, 3), "float32"), teacher, group=[0])[0]), 4)  # KL(.8, .2 ‖ 1/3, 2/3)
        0.4596
    """
    return mean_per_sample(_divergence(*_parts(student, teacher, group), temperature))


def _parts(student: Any, teacher: Any, group: Sequence[int]) -> tuple[Any, Any]:
    whole = teacher.shape[-1] == student.shape[-1]
    return group_logits(student, group), group_logits(teacher, group) if whole else teacher


def _divergence(student: Any, teacher: Any, temperature: Any) -> Any:
    return temperature**2 * kl_divergence(log_soften(teacher, temperature), log_soften(student, temperature))


@keras.saving.register_keras_serializable(package="kdkeras")
class GroupTargets(TemperedLoss):
    """What a teacher knows of a group of classes, all others being one: its part, as a specialist teaches it.

    Per sample `T² · KL(softmax(g(z_t) / T) ‖ softmax(g(z_s) / T))`. The map g keeps the logits of the group's classes
    and merges all others into one, the last, whose logit is the `logsumexp` of theirs. A teacher that answers over all
    classes is mapped like the student; one that answers over the group and the rest (a specialist, or what
    `class_groups` cuts out of a teacher) is taken as it is. At T = 1 the student's last probability is the sum of the
    others', as in the paper; at other temperatures logits are merged first and softened after, so that a student that
    agrees with the whole teacher has loss 0 for each of its parts.

    Args:
        group: Indices of the group's classes among the student's, in the order of a specialist's outputs.
        temperature: Temperature T > 0. Default 4, as for `SoftTargets`.
        weight: Factor on this term in the total loss. Default 1: the paper adds the terms up.
        standardize: Whether each vector of logits over group and rest is standardised first. Default `False`.
        output: Name of the output that is compared, where the models have several; a pair where the names differ:
            `(None, "animals")` for the part `"animals"` of a teacher made `SideBySide`.
        name: Name in logs and progress bar. Default `"group_targets"`, with the name of the output of the teacher.

    Raises:
        TypeError: An index is no integer.
        ValueError: There is no index, one is negative or stands twice; when connected, one is out of range or the
            teacher has another number of classes.

    Example:
        >>> from kdkeras.schemes import GroupTargets
        >>> GroupTargets([0, 1, 2], temperature=2, name="animals").group
        [0, 1, 2]

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531, equation 5.
    """

    def __init__(
        self,
        group: Sequence[int],
        temperature: float = 4.0,
        weight: float = 1.0,
        *,
        standardize: bool = False,
        output: str | tuple[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        if name is None and isinstance(output, (list, tuple)) and len(output) == 2:
            name = f"group_targets_{output[1]}"  # several parts teach one output
        super().__init__(temperature, weight, standardize=standardize, output=output, name=name)
        self.group = checked_group(group, asked_by="GroupTargets")

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check the group against the student's classes, and the teacher's number of them."""
        check_exclusive_classes(self, student, teacher)
        classes = student.logits[-1]
        beyond = [index for index in self.group if index >= classes]
        if beyond:
            raise ValueError(
                f"`GroupTargets` needs class indices below {classes}, the number of classes of student "
                f"'{student.model}'. Received: {beyond}. Number the classes from 0."
            )
        parts = len(self.group) + (len(self.group) < classes)
        if parts < 2 or teacher.logits[:-1] != student.logits[:-1] or teacher.logits[-1] not in (classes, parts):
            raise ValueError(
                f"`GroupTargets` needs a teacher of all {classes} classes, or of the group's {len(self.group)} and one "
                f"for the rest. Received: teacher '{teacher.model}' {teacher.logits}, student '{student.model}' "
                f"{student.logits}. Use `kdkeras.teachers.ClassMap` to bring its classes in order."
            )

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the loss of each sample, shape `(batch,)`, or of each position where outputs are dense."""
        ours, theirs = _parts(student.logits, teacher.logits, self.group)
        return _divergence(*self.logits(student._replace(logits=ours), teacher._replace(logits=theirs)))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "group": list(self.group)}


def checked_group(group: Any, *, asked_by: str) -> list[int]:
    """Return a group of classes as a list of integers, or raise.

    Args:
        group: Indices of classes.
        asked_by: Who asks, for the message.

    Returns:
        The indices.

    Raises:
        TypeError: It is no list of integers.
        ValueError: It is empty, or an index is negative or stands twice.
    """
    if not isinstance(group, (list, tuple, range, np.ndarray)) or not all(
        isinstance(index, (int, np.integer)) and not isinstance(index, bool) for index in group
    ):
        raise TypeError(f"`{asked_by}` needs a list of class indices as group. Received: {group!r}. Write `[0, 1, 2]`.")
    indices = [int(index) for index in group]
    if not indices or min(indices) < 0 or len(set(indices)) < len(indices):
        raise ValueError(
            f"`{asked_by}` needs one class index or more in a group, each once, from 0 up. Received: {indices}."
        )
    return indices
