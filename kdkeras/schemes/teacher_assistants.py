"""Teacher assistants: knowledge handed down a chain of models of falling size (Mirzadeh et al. 2020)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras

from kdkeras.distiller import Distiller
from kdkeras.schemes._training import (
    Arguments,
    arguments_of,
    check_apart,
    check_readable_again,
    fit_in_order,
    refuse_one_teachers_inputs,
)
from kdkeras.schemes.trained import Trained


def teacher_assistants(
    teacher: keras.Model,
    assistants: Sequence[keras.Model],
    student: keras.Model,
    x: Any,
    y: Any = None,
    *,
    compile: Arguments,
    fit: Arguments | None = None,
) -> Trained:
    """Distil the teacher into the first assistant, that one into the next, and the last one into the student.

    A teacher that is much larger than its student teaches worse than a smaller one: an assistant of a size in between
    bridges the gap. Each step of the chain is a `Distiller` of its own; the paper trains them all with the same
    settings. All are connected and compiled before the first one trains, so that nothing fails late.

    With a `Resume` for each stage, `fit=lambda stage: {"callbacks": [Resume(f"state/{stage}")]}`, the same command goes
    on after a crash with the stage that it was in.

    Args:
        teacher: The trained teacher; it is never changed.
        assistants: One or more models to train, in the order of the chain: the one that learns from the teacher first.
        student: The model to train last.
        x: Inputs, or a dataset that can be read again, as `Distiller.fit` takes them.
        y: Labels, for array inputs.
        compile: Arguments of `Distiller.compile`. Of a dict, each stage gets copies of the optimizer, losses and
            metrics; a function of the stage's number, from 0, gives each stage its own.
        fit: Further arguments of `Distiller.fit`, likewise.

    Returns:
        `Trained`, with assistants and student as `models`.

    Raises:
        TypeError: One is no Keras model.
        ValueError: There is no assistant, models share weights, or two neighbours cannot be compared.

    Example:
        >>> import numpy as np
        >>> from kdkeras.schemes import teacher_assistants
        >>> from kdkeras.testing import tiny_cnn
        >>> trained = teacher_assistants(
        ...     tiny_cnn(width=8, name="teacher"), [tiny_cnn(width=4, name="assistant")],
        ...     tiny_cnn(width=2, name="student"), np.ones((4, 8, 8, 1), "float32"),
        ...     compile={"optimizer": "adam"}, fit={"verbose": 0},
        ... )
        >>> [model.name for model in trained.models]
        ['assistant', 'student']

    Reference:
        Mirzadeh et al.: Improved Knowledge Distillation via Teacher Assistant, AAAI 2020, arXiv:1902.03393.
    """
    if not isinstance(assistants, (list, tuple)) or not assistants:
        raise ValueError(
            f"`teacher_assistants` needs one assistant or more, in a list. Received: {assistants!r}. Without any, take "
            "`Distiller`."
        )
    chain = [teacher, *assistants, student]
    check_apart(chain, asked_by="teacher_assistants")
    check_readable_again(x, asked_by="teacher_assistants")
    refuse_one_teachers_inputs(x, asked_by="teacher_assistants")
    distillers = [
        Distiller(student=smaller, teacher=larger).compile(**arguments_of(compile, stage, name="compile"))
        for stage, (larger, smaller) in enumerate(itertools.pairwise(chain))
    ]
    return Trained(tuple(chain[1:]), fit_in_order(distillers, x, y, fit))
