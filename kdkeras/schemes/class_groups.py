"""A teacher split by classes: each sub-model knows a group of them, and all others as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from kdkeras.inputs import input_specs
from kdkeras.schemes._training import as_name
from kdkeras.schemes.group_targets import GroupTargets, checked_group
from kdkeras.schemes.parts import Parts
from kdkeras.signals import Extractor
from kdkeras.teachers import ClassMap


def class_groups(
    teacher: keras.Model,
    groups: Mapping[str, Sequence[int]],
    *,
    temperature: float = 4.0,
    weight: float = 1.0,
) -> Parts:
    """Split a classifier into sub-models of a group of classes each, with a last class for all others.

    A part tells its own classes apart and leaves the others to other parts, as the specialists of Hinton et al. do; the
    student, which has all classes, learns from each part by `GroupTargets`. The terms read all parts from one pass of
    the teacher. Where the parts are trained further, or are specialists of other origin, merge them by

        `teacher = SideBySide([animals, vehicles])`
        `losses = [GroupTargets([0, 1], output=(None, "animals")), GroupTargets([2, 3], output=(None, "vehicles"))]`

    Args:
        teacher: A classifier of exclusive classes, whose inputs are known. It is not changed.
        groups: Class indices by the part's name. Every class stands in one group or more.
        temperature: Temperature of each term. Default 4.
        weight: Weight of each term. Default 1.

    Returns:
        `Parts`: a `kdkeras.teachers.ClassMap` and a `GroupTargets`, named by the part, for each group.

    Raises:
        TypeError: `groups` is no dict of lists of integers.
        ValueError: There are fewer than two groups, classes that stand in none, indices out of range, or the teacher is
            no classifier of exclusive classes.

    Example:
        >>> from kdkeras.schemes import class_groups
        >>> from kdkeras.testing import tiny_cnn
        >>> parts = class_groups(tiny_cnn(units=5, name="t"), {"animals": [0, 1, 2], "vehicles": [3, 4]})
        >>> [(model.name, model.classes) for model in parts.models]
        [('t_animals', [0, 1, 2, [3, 4]]), ('t_vehicles', [3, 4, [0, 1, 2]])]

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531, section 5.
    """
    if not isinstance(groups, Mapping):
        raise TypeError(
            f"`class_groups` needs class indices by name. Received: {type(groups).__name__}. Write for example "
            "`{'animals': [0, 1], 'vehicles': [2, 3]}`."
        )
    checked = {name: checked_group(group, asked_by="class_groups") for name, group in groups.items()}
    classes = _classes_of(teacher)
    given = {index for group in checked.values() for index in group}
    if len(checked) < 2 or given != set(range(classes)):
        raise ValueError(
            f"`class_groups` needs two groups or more that hold the classes 0…{classes - 1} of teacher "
            f"'{teacher.name}'. Received: {len(checked)} groups, without {sorted(set(range(classes)) - given)}, beyond "
            f"{sorted(given - set(range(classes)))}. Put each class into a group."
        )
    models, losses = [], []
    for name, group in checked.items():
        rest = sorted(set(range(classes)) - set(group))
        merged = [rest[0] if len(rest) == 1 else rest] if rest else []
        models.append(ClassMap(teacher, [*group, *merged], name=f"{teacher.name}_{as_name(name)}"))
        losses.append(GroupTargets(group, temperature, weight, name=as_name(name)))
    return Parts(tuple(models), tuple(losses), teacher)


def _classes_of(teacher: keras.Model) -> int:
    """Return the number of a teacher's exclusive classes."""
    reader = Extractor(teacher)
    inputs = input_specs(teacher)
    if inputs is None:
        raise ValueError(
            f"`class_groups` needs a teacher whose inputs are known. Received: '{teacher.name}', which only data can "
            "tell. Give it an `Input`."
        )
    spec = reader.spec(inputs)
    if spec.head == "sigmoid" or spec.logits[-1] in (None, 1):
        raise ValueError(
            f"`class_groups` needs a classifier of exclusive classes. Received: teacher '{teacher.name}' {spec.logits} "
            f"ending in {spec.head}. For independent classes choose outputs with `kdkeras.teachers.ClassMap`."
        )
    return spec.logits[-1]
