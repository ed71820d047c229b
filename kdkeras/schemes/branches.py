"""A teacher split by branches: each sub-model is the teacher up to one of its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras

from kdkeras.losses import DistillationLoss, Hints
from kdkeras.schemes._graph import Graph
from kdkeras.schemes._training import as_name
from kdkeras.schemes.parts import Parts


def branches(
    teacher: keras.Model,
    layers: Mapping[str, str],
    *,
    match: Callable[[str, str], DistillationLoss] = Hints,
) -> Parts:
    """Split a model into sub-models that end at one of its layers each, and let each teach a layer of the student.

    The terms read all branches from one pass of the teacher.

    Args:
        teacher: A Functional or Sequential model. It is not changed.
        layers: Names of the student's layers, each with the teacher's layer that it learns from.
        match: Function from the two names to the term of a part. Default `kdkeras.losses.Hints`.

    Returns:
        `Parts`: the teacher up to each layer, and a term for each, named by the student's layer.

    Raises:
        TypeError: `layers` is no dict.
        ValueError: It is empty, or the teacher is not Functional or Sequential or has no such layer.

    Example:
        >>> from kdkeras.schemes import branches
        >>> from kdkeras.testing import tiny_stages
        >>> parts = branches(tiny_stages(name="t"), {"left": "relu1", "right": "relu2"})
        >>> [model.name for model in parts.models], [loss.name for loss in parts.losses]
        (['t_up_to_relu1', 't_up_to_relu2'], ['left', 'right'])
    """
    if not isinstance(layers, Mapping) or not layers:
        raise TypeError(
            f"`branches` needs teacher's layers by student's layer. Received: {layers!r}. Write for example "
            "`{'left': 'branch_a', 'right': 'branch_b'}`."
        )
    graph = Graph(teacher, asked_by="branches")
    models = [graph.up_to(theirs) for theirs in layers.values()]
    losses = [_named(match(ours, theirs), ours) for ours, theirs in layers.items()]
    return Parts(tuple(models), tuple(losses), teacher)


def _named(loss: DistillationLoss, name: str) -> DistillationLoss:
    """Return a loss under another name: those of one class would have the same."""
    return type(loss).from_config({**loss.get_config(), "name": as_name(name)})
