"""A teacher that answers over the student's classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kdkeras.signals import SignalSpec
from kdkeras.teachers.base import TeacherModel


@keras.saving.register_keras_serializable(package="kdkeras")
class ClassMap(TeacherModel):
    """A teacher's answers over another set of classes: chosen, reordered, merged.

    Class k of the student is class c_k of the teacher, or a group G_k of its classes, of which the probabilities add
    up. With the teacher's logits z,

        z'_k = z_{c_k}  or  z'_k = logsumexp_{c ∈ G_k} z_c,

    so that softmax(z')_k = Σ_{c ∈ G_k} p_c / Σ_j Σ_{c ∈ G_j} p_c: what is left out is dropped, and the rest is
    renormalised. No probability is computed on the way. The model ends in a softmax if the teacher does, else in
    logits. Sigmoid units are chosen, each staying what it is; they cannot be merged, because the probability of "any
    of these" does not follow from those of the units.

    Layers of the teacher are tapped by path: `"teacher_name/conv4"`. A `ClassMap` may wrap an `Ensemble` and be a
    member of one, which brings teachers with different class sets together.

    Args:
        model: The teacher.
        classes: For each class of the student, the teacher's class index, or a list of indices to merge.
        name: Name of the model. Default: the teacher's with `"_mapped"`.

    Attributes:
        model: The teacher.
        classes: For each class of the student, a class index or a list of them.

    Raises:
        TypeError: `model` is no Keras model, or an index is no integer.
        ValueError: An index is out of range or stands twice, a group is empty, groups for a teacher that ends in
            sigmoids, or fewer than two exclusive classes.

    Example:
        A teacher of four classes for a student that knows "one of the first two" and "the last":

        >>> import keras, numpy as np
        >>> from kdkeras.teachers import ClassMap
        >>> teacher = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4, "softmax")])
        >>> np.asarray(ClassMap(teacher, [[0, 1], 3])(np.zeros((1, 2)))).round(4)
        array([[0.6667, 0.3333]], dtype=float32)
    """

    def __init__(self, model: keras.Model, classes: Sequence[int | Sequence[int]], name: str | None = None) -> None:
        if not isinstance(model, keras.Model):
            raise TypeError(f"`ClassMap` needs a Keras model. Received: {model!r} of type {type(model).__name__}.")
        groups = [list(entry) if isinstance(entry, (list, tuple, np.ndarray)) else [entry] for entry in classes]
        _check_groups(groups)
        super().__init__([model], name=name or f"{model.name}_mapped")
        self.model = model
        self.classes = [int(group[0]) if len(group) == 1 else [int(index) for index in group] for group in groups]
        if self.inputs is not None:
            self._connect(self.input)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the teacher's answer over the student's classes.

        Args:
            inputs: What the teacher takes.
            training: Handed on to an `Ensemble`, which may draw a member; other teachers run in inference mode always.

        Returns:
            Probabilities where the teacher returns them, else logits, shape `(batch, ..., classes)`, float32.
        """
        return self._end(self._mapped(self._read(0, inputs, training)), head=self._head)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            "classes": [list(entry) if isinstance(entry, list) else entry for entry in self.classes],
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ClassMap:
        """Rebuild the map from `get_config`."""
        return cls(**{**config, "model": keras.saving.deserialize_keras_object(config["model"])})

    def _mapped(self, logits: Any) -> Any:
        groups = [list(entry) if isinstance(entry, list) else [entry] for entry in self.classes]
        width = max(len(group) for group in groups)
        if width == 1:
            return ops.take(logits, [group[0] for group in groups], axis=-1)
        # Shorter groups repeat their first class, with no share in the sum.
        index = [group + group[:1] * (width - len(group)) for group in groups]
        share = [[0.0] * len(group) + [-np.inf] * (width - len(group)) for group in groups]
        members = ops.take(logits, index, axis=-1)  # (batch, ..., classes, width)
        return ops.logsumexp(members + ops.convert_to_tensor(share, "float32"), axis=-1)

    def _settle(self, specs: Sequence[SignalSpec]) -> str:
        (spec,) = specs
        head = spec.head or "linear"
        beyond = [index for index in keras.tree.flatten(self.classes) if index >= spec.logits[-1]]
        if beyond:
            raise ValueError(
                f"`ClassMap` needs class indices below {spec.logits[-1]}, the number of classes of model "
                f"'{spec.model}'. Received: {beyond}."
            )
        merged = [list(entry) for entry in self.classes if isinstance(entry, list)]
        if head == "sigmoid" and merged:
            raise ValueError(
                f"`ClassMap` cannot merge units of model '{spec.model}', which ends in a sigmoid: the probability of "
                f"'any of these' does not follow from theirs. Received: groups {merged}. Choose single units."
            )
        if head == "softmax" and len(self.classes) < 2:
            raise ValueError(
                f"`ClassMap` needs two classes or more for model '{spec.model}', which ends in a softmax. Received: "
                f"classes={list(self.classes)}."
            )
        return head


def _check_groups(groups: list[list[Any]]) -> None:
    wrong = [i for group in groups for i in group if isinstance(i, bool) or not isinstance(i, (int, np.integer))]
    if wrong:
        raise TypeError(f"`ClassMap` needs integers as class indices. Received: {wrong}.")
    empty = [place for place, group in enumerate(groups) if not group]
    if empty or not groups:
        raise ValueError(
            f"`ClassMap` needs at least one class of the teacher for each class of the student. Received: none for "
            f"classes {empty} of {len(groups)}. A teacher has no answer there: leave these classes out of both."
        )
    indices = [int(index) for group in groups for index in group]
    negative = sorted({index for index in indices if index < 0})
    twice = sorted({index for index in indices if indices.count(index) > 1})
    if negative or twice:
        raise ValueError(
            f"`ClassMap` needs each class of the teacher at most once, from 0 up. Received: {twice} more than once, "
            f"{negative} below 0."
        )
