"""How students learn: from a teacher, or from labels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kdkeras import targets
from kdkeras.inputs import check_finite
from kdkeras.labels import class_logits
from kdkeras.ops import log_soften
from kdkeras.signals import predict_with_head
from kdkeras.students.kinds import KINDS
from kdkeras.students.student import Student, flattened


def distill(
    teacher: Any, x: Any, kind: str = "tree", *, size: int | None = None, head: str | None = None, seed: int = 0
) -> Student:
    """Teach a scikit-learn student what a teacher says of samples, which need no labels.

    | kind | what it is | learns from | `size` |
    |---|---|---|---|
    | `"tree"` | one decision tree | the probabilities, as numbers | leaves, 32 |
    | `"forest"` | a random forest | the same | trees, 100 |
    | `"gradient_boosting"` | boosted trees of 8 leaves | weighted labels | rounds, 100 |
    | `"linear"` | logistic or ridge regression | the same | features, all |
    | `"lasso"` | the same on the features that a cross-validated LASSO keeps | the same | none |
    | `"additive"` | a generalised additive model: splines of each feature | the same | features, all |

    Weighted labels: each sample stands once for each class, with the teacher's probability as its weight, so that the
    log-loss is the cross-entropy with the teacher. Trees predict the probabilities themselves by the squared error,
    which is the Gini impurity of soft labels.

    Samples are flattened, so images are taken too; what to expect of a tree of pixels is another matter.

    Args:
        teacher: A Keras model, or anything that `kdkeras.targets.logits` asks: a scikit-learn estimator, an ONNX
            session, a PyTorch module, a function. One linear unit is a number, for a regression.
        x: Samples to learn from, shape `(n, ...)`, scaled as in the teacher's training: its training data, or any
            others of the same kind.
        kind: As above.
        size: As above; by default the number beside it. Linear and additive students keep those features whose terms
            move the answer most, and are fitted again.
        head: What the answers of a function have gone through: `"softmax"` for probabilities, `"sigmoid"` for the
            probability of class 1, `"linear"` for logits. Keras models show it.
        seed: Of forests and boosting, and of a tree's choice among equal splits.

    Returns:
        The `Student`.

    Raises:
        TypeError: `teacher` gives no answers.
        ValueError: `kind`, `size`, `head` or the samples do not fit; or the teacher's classes are not exclusive.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import students
        >>> teacher = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
        >>> x = np.random.default_rng(0).normal(size=(200, 3))
        >>> student = students.distill(teacher, x, "linear")
        >>> bool((student.predict(x) == teacher.predict(x, verbose=0).argmax(axis=1)).mean() > 0.95)
        True

    Reference:
        Craven, Shavlik: Extracting Tree-Structured Representations of Trained Networks, 1996. Hinton, Vinyals, Dean:
        Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531. Hastie, Tibshirani: Generalized Additive
        Models, 1986.
    """
    return from_logits(x, *teacher_logits(teacher, x, head), kind, size, seed)


def fit(x: Any, y: Any, kind: str = "tree", *, size: int | None = None, seed: int = 0) -> Student:
    """Fit the same student to labels: what a teacher must be measured against.

    Args:
        x: Samples, shape `(n, ...)`.
        y: Whole numbers `(n,)` are classes from 0, other numbers `(n,)` a regression; rows `(n, classes)` that sum to 1
            are soft labels.
        kind: As for `distill`.
        size: As for `distill`.
        seed: As for `distill`.

    Returns:
        The `Student`.

    Raises:
        ValueError: `kind`, `size`, x or y do not fit.

    Example:
        >>> import numpy as np
        >>> from kdkeras import students
        >>> x = np.arange(6.0).reshape(6, 1)
        >>> print(students.fit(x, np.array([0, 0, 0, 1, 1, 1])).export_text(["length"], ["short", "long"]))
        if length <= 2.5:
            class short, probability 1.00
        else:
            class long, probability 1.00
    """
    y = np.asarray(y)
    check_finite(y, "y")
    if y.ndim == 2 and y.shape[1] > 1:
        if y.min() < 0 or not np.allclose(y.sum(axis=1), 1, atol=1e-3):
            raise ValueError("Soft labels must be rows of at least 0 that sum to 1. Received: others.")
        return _student(x, y.astype("float64"), kind, size, seed, "softmax")
    if y.ndim != 1:
        raise ValueError(f"y must be of shape (n,) or (n, classes). Received: shape {y.shape}.")
    if y.dtype.kind == "f":
        return _student(x, y.astype("float64"), kind, size, seed, "linear")
    if y.min() < 0 or y.max() < 1:
        raise ValueError(f"Labels must be whole numbers from 0, of two classes. Received: {y.min()}…{y.max()}.")
    return _student(x, np.eye(int(y.max()) + 1)[y.astype("int64")], kind, size, seed, "softmax")


def from_logits(x: Any, logits: np.ndarray, head: str, kind: str, size: int | None, seed: int) -> Student:
    """Do as `distill`, from answers that are already there.

    Args:
        x: Samples, shape `(n, ...)`.
        logits: The teacher's, `(n, units)`.
        head: What they belong to.
        kind: As for `distill`.
        size: As for `distill`.
        seed: As for `distill`.

    Returns:
        The `Student`.

    Raises:
        ValueError: `kind`, `size` or the samples do not fit.
    """
    if head == "linear" and logits.shape[1] == 1:
        return _student(x, logits[:, 0].astype("float64"), kind, size, seed, "linear")
    probabilities = np.exp(np.asarray(log_soften(class_logits(logits).astype("float64"))))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return _student(x, probabilities, kind, size, seed, "sigmoid" if logits.shape[1] == 1 else "softmax")


def teacher_logits(teacher: Any, x: Any, head: str | None = None) -> tuple[np.ndarray, str]:
    """Return a teacher's logits, and the head that they belong to.

    Args:
        teacher: As for `distill`.
        x: Samples.
        head: As for `distill`.

    Returns:
        float32 `(n, units)`, and `"softmax"`, `"sigmoid"` or `"linear"`.

    Raises:
        TypeError: `teacher` gives no answers.
        ValueError: The answers are not one row per sample, or the classes not exclusive.
    """
    if isinstance(teacher, Student):
        return teacher.logits(x), teacher.head
    if isinstance(teacher, keras.Model) and head is None:
        signals, found = predict_with_head(teacher, x)
        logits = signals.logits
    else:
        logits, found = targets.logits(teacher, x, head=head), head
    check_finite(logits, "the teacher's answers")
    if logits.ndim != 2 or (found == "sigmoid" and logits.shape[1] > 1):
        raise ValueError(
            "Students need a teacher with one number or one set of exclusive classes per sample. Received: answers of "
            f"shape {logits.shape} from {found or 'linear'} units. Take one class at a time."
        )
    return logits, found or "linear"


def _student(x: Any, y: np.ndarray, kind: str, size: int | None, seed: int, head: str) -> Student:
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}. Received: kind={kind!r}.")
    smallest = 2 if kind == "tree" else 1
    if size is not None and size < smallest:
        raise ValueError(f"`size` of a student '{kind}' must be at least {smallest}. Received: size={size}.")
    if size is not None and kind == "lasso":
        raise ValueError(f"A student 'lasso' chooses its size itself. Received: size={size}. Take 'linear' to set one.")
    table = flattened(x)
    check_finite(table, "x")
    if len(table) != len(y):
        raise ValueError(f"x and y need the same number of samples. Received: {len(table)} and {len(y)}.")
    estimator, columns = KINDS[kind](table, y, size, seed)
    return Student(kind, estimator, columns, table.shape[1], head)
