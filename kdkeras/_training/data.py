"""What `fit` is given: checked as far as it lies at hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kdkeras._training.task import Task
from kdkeras._training.teacher_signals import refuse_plain_inputs, student_inputs
from kdkeras.inputs import check_arrays, check_finite, check_same_inputs, is_array_like
from kdkeras.signals import Cached, Indexed, Paired

NAMED = (Paired, Cached, Indexed)  # inputs that are tuples: Keras would take them for x, y and sample weights


def check_data(
    x: Any,
    y: Any,
    sample_weight: Any,
    student: keras.Model,
    teacher: keras.Model | None,
    task: Task,
    *,
    needs_labels: bool,
    same_inputs: bool,
) -> None:
    """Raise if arrays cannot be what the models were made for; datasets pass, and are looked at step by step.

    Args:
        x: What `fit` was given as x.
        y: What it was given as y.
        sample_weight: What it was given as sample weights.
        student: The student.
        teacher: The teacher, or `None`.
        task: The student's task.
        needs_labels: Whether the task loss counts.
        same_inputs: Whether both models take x.

    Raises:
        ValueError: Arrays are empty, not finite, of the wrong shape or length, or raw uint8 images; labels are out of
            range or missing.
    """
    if x is None or not is_array_like(x):
        return
    (x, index), whole = split_index(x), x
    check_arrays(student, student_inputs(x))
    if teacher is None and not isinstance(x, Cached):
        refuse_plain_inputs()
    if teacher is not None and same_inputs and not isinstance(x, (Paired, Cached)):
        check_same_inputs(x, teacher, student_name=student.name)
    if isinstance(x, Paired):
        check_arrays(teacher, x.teacher, name="x.teacher")
    if isinstance(x, Cached):
        for answers in keras.tree.flatten((x.logits, dict(x.features))):
            check_finite(np.asarray(answers), "x.logits and x.features")
    if index is not None:
        _check_index(np.asarray(index))
    lengths = {len(array) for array in keras.tree.flatten(whole)}
    if len(lengths) > 1:
        raise ValueError(f"All parts of x need the same number of samples. Received: {sorted(lengths)}.")
    if y is None and needs_labels:
        raise ValueError("The task loss needs labels. Pass y, or task_weight=0 to learn from the teacher alone.")
    if y is None and sample_weight is not None:
        raise ValueError(
            "Keras drops sample weights where there are no labels. Received: sample_weight without y. Pass y of -1 for "
            "'not labelled'."
        )
    if y is not None and is_array_like(y):
        for labels in keras.tree.flatten(y):
            check_finite(np.asarray(labels), "y")
        task.check_labels(y)


def unpacked(batch: Any) -> tuple[Any, Any, Any]:
    """Return inputs, labels and weights of a batch.

    Args:
        batch: What the data gave. A bare `Paired`, `Cached` or `Indexed` is inputs, though it is a tuple.

    Returns:
        x, y and sample weights; `None` for what is not there.
    """
    if isinstance(batch, NAMED):
        return batch, None, None
    return keras.utils.unpack_x_y_sample_weight(batch)


def split_index(x: Any) -> tuple[Any, Any]:
    """Return x without the numbers of its samples, and these.

    Args:
        x: Plain inputs, `Paired`, `Cached` or `Indexed`.

    Returns:
        The inputs, and the index; `None` where there is none.
    """
    return tuple(x) if isinstance(x, Indexed) else (x, None)


def _check_index(index: np.ndarray) -> None:
    if index.dtype.kind not in "iu" or index.ndim != 1 or (index < 0).any():
        raise ValueError(
            "`kdkeras.Indexed` needs whole numbers from 0, one per sample. Received: index of shape "
            f"{index.shape}, dtype {index.dtype}. Pass `np.arange(len(x))`."
        )


def first_batch(iterator: Any) -> Any:
    """Return the first batch of what Keras iterates over in `fit`.

    Args:
        iterator: A Keras epoch iterator.

    Returns:
        The batch: a tuple of inputs, labels and weights.
    """
    for _, _, batches in iterator:
        return batches[0] if isinstance(batches, (list, tuple)) else next(batches)
    raise ValueError("The data hold no batch. Pass at least one sample.")


_KINDS = {"Paired": Paired, "Cached": Cached}  # never Indexed: what a model is connected to has no numbers


def unnamed(x: Any) -> Any:
    """Return `Paired` and `Cached` as plain tuples, which Keras can write.

    Args:
        x: Symbolic x of the data.

    Returns:
        A tuple, or x itself.
    """
    return tuple(x) if type(x).__name__ in _KINDS else x


def named(kind: str, x: Any) -> Any:
    """Undo `unnamed`.

    Args:
        kind: Name of the type that x had.
        x: What `unnamed` returned.

    Returns:
        Symbolic x of the data.
    """
    return _KINDS[kind](*x) if kind in _KINDS else x
