"""Which sample a mark is about, and what it then weighs in training."""

from __future__ import annotations

import hashlib
import math
import os
from typing import Any

import numpy as np

from kdkeras.feedback.store import FeedbackStore


def sample_id(sample: Any) -> str:
    """Return a name of a sample that depends on its values alone, not on its place in the data.

    SHA-256 of its shape and of its values as float32: the same numbers in another dtype have the same name.

    Args:
        sample: One sample, without the batch axis, as the model takes it.

    Returns:
        64 hexadecimal digits.

    Raises:
        TypeError: The sample is not numbers.

    Example:
        >>> import numpy as np
        >>> from kdkeras.feedback import sample_id
        >>> sample_id(np.zeros((2, 2))) == sample_id(np.zeros((2, 2), "uint8"))
        True
        >>> sample_id(np.zeros((2, 2))) == sample_id(np.zeros(4))
        False
    """
    array = np.asarray(sample)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"A sample must be numbers. Received: dtype {array.dtype}.")
    values = np.ascontiguousarray(array, "<f4") + np.float32(0)  # + 0: -0 is 0
    return hashlib.sha256(f"{array.shape}".encode() + values.tobytes()).hexdigest()


def explanation_weights(
    marks: FeedbackStore | str | os.PathLike[str],
    x: Any,
    *,
    wrong: float = 3.0,
    teacher_wrong: float = 0.0,
    method: str | None = None,
) -> np.ndarray:
    """Return what each sample shall weigh in a loss of explanations, after what people said of it.

    A sample weighs `wrong` where the latest mark on the student's explanation says that it is wrong: there the student
    has most to learn. It weighs `teacher_wrong` where the latest mark on the *teacher's* says so: a reason that is
    wrong should not be copied, whatever the student's. All others weigh 1; "unclear" changes nothing, and takes back
    what was said before. Samples are found by their values (`sample_id`), so that the order of x does not matter.

    Args:
        marks: A `FeedbackStore`, or the path of its file.
        x: Samples `(n, ...)`, as the models take them.
        wrong: Weight where the student's explanation was marked wrong, at least 0. Default 3: a choice, not a finding.
        teacher_wrong: Weight where the teacher's was, at least 0. Default 0: it is not copied.
        method: Count marks of this method only, such as `"grad_cam"`. Default: of all.

    Returns:
        float32, shape `(n,)`, for `losses.ExplanationMatching(sample_weights=)`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A weight is negative or not finite, or the file is no store.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from kdkeras import feedback
        >>> store = feedback.FeedbackStore(pathlib.Path(tempfile.mkdtemp()) / "feedback.db")
        >>> x = np.arange(12.0).reshape(3, 4)
        >>> _ = store.add(feedback.Mark(feedback.sample_id(x[1]), "student", "grad_cam", 0, "wrong"))
        >>> feedback.explanation_weights(store, x)
        array([1., 3., 1.], dtype=float32)
    """
    for name, value in (("wrong", wrong), ("teacher_wrong", teacher_wrong)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"`{name}` must be a number of at least 0. Received: {name}={value}.")
    store = marks if isinstance(marks, FeedbackStore) else FeedbackStore(marks)
    latest: dict[tuple[str, str], str] = {}
    for mark in store.marks():  # in the order in which they were stored
        if method in (None, mark.method):
            latest[mark.sample, mark.model] = mark.verdict
    factors = {"student": wrong, "teacher": teacher_wrong}  # the teacher's last, so that it has the last word
    weights = {
        sample: factor
        for model, factor in factors.items()
        for (sample, judged), verdict in latest.items()
        if judged == model and verdict == "wrong"
    }
    return np.array([weights.get(sample_id(sample), 1.0) for sample in np.asarray(x)], dtype="float32")
