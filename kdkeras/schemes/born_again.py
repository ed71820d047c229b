"""Born-again generations: students as large as their teacher, each the teacher of the next (Furlanello et al. 2018)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

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
from kdkeras.teachers import Ensemble


@dataclass(frozen=True)
class Generations(Trained):
    """Generations of students, and all of them as one.

    Attributes:
        models: The students, in the order in which they were trained.
        histories: What each `fit` logged.
        ensemble: A `kdkeras.teachers.Ensemble` of all students: to be evaluated, exported or made a teacher.
    """

    ensemble: Ensemble


def born_again(
    teacher: keras.Model,
    make_student: Callable[[int], keras.Model],
    generations: int,
    x: Any,
    y: Any = None,
    *,
    compile: Arguments,
    fit: Arguments | None = None,
    of: Literal["probabilities", "logits"] = "probabilities",
) -> Generations:
    """Train generations of students, the first on the teacher, each other one on the student before it.

    In the paper every student has the teacher's own architecture and starts from another random state; it need not
    here. The last step averages the students' predictions, without the teacher's, as the paper's ensembles do.

    Args:
        teacher: The trained teacher; it is never changed.
        make_student: Function from the generation's number, from 1, to a new model, named by it: `keras.Sequential(...,
            name=f"generation_{number}")`.
        generations: How many, at least 2.
        x: Inputs, or a dataset that can be read again, as `Distiller.fit` takes them.
        y: Labels, for array inputs.
        compile: Arguments of `Distiller.compile`. Of a dict, each stage gets copies of the optimizer, losses and
            metrics; a function of the stage's number, from 0, gives each stage its own.
        fit: Further arguments of `Distiller.fit`, likewise.
        of: What the ensemble averages: `"probabilities"` (default, as the paper averages predictions) or `"logits"`.

    Returns:
        `Generations`.

    Raises:
        TypeError: `make_student` is no function, or gives something else than a Keras model.
        ValueError: Fewer than two generations, or students that are the same, share weights or a name, or cannot be
            compared.

    Example:
        >>> import numpy as np
        >>> from kdkeras.schemes import born_again
        >>> from kdkeras.testing import tiny_cnn
        >>> trained = born_again(
        ...     tiny_cnn(name="teacher"), lambda number: tiny_cnn(name=f"generation_{number}"), 2,
        ...     np.ones((4, 8, 8, 1), "float32"), compile={"optimizer": "adam"}, fit={"verbose": 0},
        ... )
        >>> trained.student.name, tuple(trained.ensemble(np.ones((1, 8, 8, 1), "float32")).shape)
        ('generation_2', (1, 3))

    Reference:
        Furlanello et al.: Born-Again Neural Networks, ICML 2018, arXiv:1805.04770.
    """
    if not callable(make_student) or isinstance(make_student, keras.Model):
        raise TypeError(
            f"`born_again` needs a function from the generation's number to a new model. Received: "
            f"{type(make_student).__name__}. Write `lambda number: network(name=f'generation_{{number}}')`."
        )
    if not isinstance(generations, int) or generations < 2:
        raise ValueError(
            f"`born_again` needs two generations or more. Received: {generations!r}. For one, take `Distiller`."
        )
    check_readable_again(x, asked_by="born_again")
    refuse_one_teachers_inputs(x, asked_by="born_again")
    students = [make_student(number) for number in range(1, generations + 1)]
    check_apart([teacher, *students], asked_by="born_again")
    ensemble = Ensemble(students, of=of, name="generations")
    distillers = [
        Distiller(student=younger, teacher=older).compile(**arguments_of(compile, stage, name="compile"))
        for stage, (older, younger) in enumerate(itertools.pairwise([teacher, *students]))
    ]
    return Generations(tuple(students), fit_in_order(distillers, x, y, fit), ensemble)
