"""Progressive layer-wise training: one layer after the other, each on what the teacher has there."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras

from kdkeras.distiller import Distiller
from kdkeras.losses import DistillationLoss, Hints
from kdkeras.schemes._freezing import frozen
from kdkeras.schemes._graph import Graph
from kdkeras.schemes._training import Arguments, arguments_of, check_readable_again, fit_in_order
from kdkeras.schemes.trained import Trained

# What only the last stage has: the others end in a feature map.
_OF_THE_LAST = ("loss", "loss_weights", "metrics", "weighted_metrics", "distillation_loss", "task_weight")


def progressive(
    student: keras.Model,
    teacher: keras.Model,
    pairs: Sequence[tuple[str, str]],
    x: Any,
    y: Any = None,
    *,
    compile: Arguments,
    fit: Arguments | None = None,
    match: Callable[[str, str], DistillationLoss] = Hints,
) -> Trained:
    """Train a student up to one layer after the other, each on the teacher's layer of its pair, and then as a whole.

    Stage k trains the layers up to the k-th named one; what the stages before have trained is frozen. Only these layers
    are run, so that nothing behind them changes, not even by weight decay or BatchNorm's statistics. The last stage
    trains the whole student as `compile` says. Flags of the layers are put back after each stage, also if it fails.

    Args:
        student: The Functional or Sequential model to train.
        teacher: The trained teacher; it is never changed.
        pairs: Names of a student's and a teacher's layer each, from the input upwards.
        x: Inputs, or a dataset that can be read again, as `Distiller.fit` takes them.
        y: Labels, for array inputs.
        compile: Arguments of `Distiller.compile` for the last stage; the others take all but losses and metrics from
            it. Of a dict, each stage gets copies of the optimizer, losses and metrics; a function of the stage's
            number, from 0, gives each stage its own.
        fit: Further arguments of `Distiller.fit`, likewise.
        match: Function from the two names to the loss of a stage. Default `kdkeras.losses.Hints`.

    Returns:
        `Trained`, with the student as the only model, and a history for each pair and the last stage.

    Raises:
        TypeError: `match` gives no `DistillationLoss`.
        ValueError: There is no pair, the student is not Functional or Sequential, a layer does not exist or lies inside
            another model, pairs are not in order, or two layers cannot be compared.

    Example:
        >>> import numpy as np
        >>> from kdkeras.schemes import progressive
        >>> from kdkeras.testing import tiny_stages
        >>> trained = progressive(
        ...     tiny_stages(), tiny_stages(width=8), [("relu1", "relu1"), ("relu2", "relu2")],
        ...     np.ones((4, 8, 8, 1), "float32"), compile={"optimizer": "adam"}, fit={"verbose": 0},
        ... )
        >>> [sorted(history) for history in trained.histories]
        [['hints', 'loss'], ['hints', 'loss'], ['loss', 'soft_targets']]

    Reference:
        Wang, Zhao, Li, Tan: Progressive Blockwise Knowledge Distillation for Neural Network Acceleration, IJCAI 2018,
        which keeps the teacher's other blocks around the one that is trained. The greedy order with a last training of
        all layers is that of Hinton, Osindero, Teh: A fast learning algorithm for deep belief nets, 2006.
    """
    if not isinstance(pairs, (list, tuple)) or not pairs or not all(len(pair) == 2 for pair in pairs):
        raise ValueError(
            f"`progressive` needs pairs of layers, student's and teacher's, in a list. Received: {pairs!r}. "
            "Write for example `[('conv1', 'conv2'), ('conv2', 'conv4')]`."
        )
    check_readable_again(x, asked_by="progressive")
    parts = _parts(student, [ours for ours, _ in pairs])
    distillers = []
    for stage, (part, (ours, theirs)) in enumerate(zip(parts, pairs, strict=True)):
        arguments = arguments_of(compile, stage, name="compile")
        shared = {name: value for name, value in arguments.items() if name not in _OF_THE_LAST}
        distiller = Distiller(student=part, teacher=teacher)
        distillers.append(distiller.compile(**shared, distillation_loss=match(ours, theirs)))
    last = Distiller(student=student, teacher=teacher)
    distillers.append(last.compile(**arguments_of(compile, len(parts), name="compile")))

    def done_is_frozen(stage: int) -> contextlib.AbstractContextManager[None]:
        return frozen(parts[stage - 1].layers if 0 < stage < len(parts) else [])

    return Trained((student,), fit_in_order(distillers, x, y, fit, during=done_is_frozen))


def _parts(student: keras.Model, layers: Sequence[str]) -> list[keras.Model]:
    """Return the student up to each layer, as models that share its layers."""
    graph = Graph(student, asked_by="progressive")
    parts = [graph.up_to(layer) for layer in layers]
    for (before, earlier), (after, later) in itertools.pairwise(zip(layers, parts, strict=True)):
        if not {id(layer) for layer in earlier.layers} < {id(layer) for layer in later.layers}:
            raise ValueError(
                f"`progressive` needs pairs from the input upwards, each built on the one before. Received: '{after}' "
                f"after '{before}'. Put them in the order of the student's layers."
            )
    return parts
