"""How well a student stands in for its teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kdkeras.labels import class_labels, class_logits
from kdkeras.ops import kl_divergence, log_soften
from kdkeras.students.learning import teacher_logits


@dataclass(frozen=True)
class Fidelity:
    """How close a student's answers are to its teacher's.

    Attributes:
        agreement: Share of samples on which both name the same class; `None` of numbers.
        kl: Mean `KL(teacher ‖ student)` in nats; `None` of numbers.
        r2: R² of the student's probabilities, or numbers, against the teacher's: 1 where they are the same, 0 where the
            teacher's mean does as well; the classes are weighed by their variance. NaN where the teacher always says
            the same.
        accuracy: Share of samples whose label the student names; `None` of numbers, or without labels.
        samples: Number of samples.
    """

    agreement: float | None
    kl: float | None
    r2: float
    accuracy: float | None
    samples: int

    def __str__(self) -> str:
        if self.agreement is None:
            return f"R² {self.r2:.3f} on {self.samples} samples"
        return f"agreement {self.agreement:.1%}, KL {self.kl:.3f} nats, R² {self.r2:.3f} on {self.samples} samples"


def fidelity(teacher: Any, student: Any, x: Any, y: Any = None, *, head: str | None = None) -> Fidelity:
    """Measure how close a student's answers are to its teacher's; on samples that it has not seen.

    Args:
        teacher: As `kdkeras.students.distill` takes it.
        student: A `Student`, or a Keras model such as a `SoftDecisionTree`.
        x: Samples, shape `(n, ...)`.
        y: Class labels `(n,)` or one-hot, if there are any.
        head: As for `distill`, of a teacher that is a function.

    Returns:
        The `Fidelity`.

    Raises:
        ValueError: The answers of the two differ in shape, or something does not fit.

    Example:
        >>> import numpy as np
        >>> from kdkeras import students
        >>> x = np.arange(6.0).reshape(6, 1)
        >>> student = students.fit(x, np.array([0, 0, 0, 1, 1, 1]))
        >>> students.fidelity(student, student, x).r2
        1.0
    """
    said, end = teacher_logits(teacher, x, head)
    return between(said, teacher_logits(student, x)[0], y, end)


def between(teacher: np.ndarray, student: np.ndarray, y: Any, head: str) -> Fidelity:
    """Do as `fidelity`, of logits that are already there.

    Args:
        teacher: The teacher's logits, `(n, units)`.
        student: The student's, of the same classes.
        y: Labels or `None`.
        head: The teacher's.

    Returns:
        The `Fidelity`.

    Raises:
        ValueError: The answers differ in shape.
    """
    if head == "linear" and teacher.shape[1] == 1:
        _check(teacher, student)
        return Fidelity(None, None, _r_squared(teacher, student), None, len(teacher))
    labels = None if y is None else class_labels(np.asarray(y), teacher.shape, head)
    teacher, student = class_logits(teacher), class_logits(student)
    _check(teacher, student)
    log_p, log_q = (np.asarray(log_soften(z.astype("float64"))) for z in (teacher, student))
    named = student.argmax(axis=1)
    return Fidelity(
        agreement=float((named == teacher.argmax(axis=1)).mean()),
        kl=float(np.asarray(kl_divergence(log_p, log_q)).mean()),
        r2=_r_squared(np.exp(log_p), np.exp(log_q)),
        accuracy=None if labels is None else float((named == labels).mean()),
        samples=len(teacher),
    )


def _check(teacher: np.ndarray, student: np.ndarray) -> None:
    if teacher.shape != student.shape:
        raise ValueError(f"Teacher and student need the same classes. Received: {teacher.shape} and {student.shape}.")


def _r_squared(truth: np.ndarray, guess: np.ndarray) -> float:
    """1 − Σ(p − q)² / Σ(p − p̄)² over all samples and classes."""
    rest = ((truth - truth.mean(axis=0)) ** 2).sum()
    return float(1 - ((truth - guess) ** 2).sum() / rest) if rest > 0 else float("nan")
