"""What each size of a student costs in fidelity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kdkeras.students.fidelity import Fidelity, between
from kdkeras.students.learning import fit, from_logits, teacher_logits
from kdkeras.students.student import Student

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = {
    "tree": (4, 8, 16, 32, 64, 128),
    "forest": (3, 10, 30, 100),
    "gradient_boosting": (3, 10, 30, 100),
    "linear": (2, 4, 8, 16, None),
    "additive": (2, 4, 8, 16, None),
}


@dataclass(frozen=True)
class SizePoint:
    """One model of a curve.

    Attributes:
        name: Kind of the student, or the name that a model was given.
        learned_from: `"teacher"`, `"labels"`, or `""` of a model that was given.
        size: The size that was asked for; `None` for all features, or of a model that was given.
        nodes: Splits and leaves; `None` without trees of scikit-learn.
        parameters: Numbers that it keeps.
        fidelity: Its `Fidelity`.
    """

    name: str
    learned_from: str
    size: int | None
    nodes: int | None
    parameters: int
    fidelity: Fidelity


@dataclass(frozen=True)
class SizeCurve:
    """Students of several kinds and sizes on the same samples; prints as a table.

    Attributes:
        points: One per model, in the order of kinds and sizes.
    """

    points: tuple[SizePoint, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain Python values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        from tabulate import tabulate

        headers = ("student", "learned from", "size", "nodes", "parameters", "agreement", "KL", "R²", "accuracy")
        rows = [
            (
                each.name.replace("_", " "),
                each.learned_from,
                "" if each.size is None else str(each.size),
                "" if each.nodes is None else f"{each.nodes:,}",
                f"{each.parameters:,}",
                *(_figure(getattr(each.fidelity, name)) for name in ("agreement", "kl", "r2", "accuracy")),
            )
            for each in self.points
        ]
        return tabulate(rows, headers, disable_numparse=True, colalign=("left", "left", *["right"] * 7))

    def plot(self) -> Figure:
        """Draw fidelity against the number of parameters, and accuracy where labels were given.

        Returns:
            A matplotlib `Figure`, not registered with pyplot.
        """
        from kdkeras.students.curve_pictures import size_curves

        return size_curves(self)


def size_curve(
    teacher: Any,
    x: Any,
    x_test: Any,
    y_test: Any = None,
    *,
    sizes: Mapping[str, Sequence[int | None]] | None = None,
    y: Any = None,
    beside: Mapping[str, Student | keras.Model] | None = None,
    head: str | None = None,
    seed: int = 0,
) -> SizeCurve:
    """Distil students of several kinds and sizes, and measure each on held-out samples.

    Args:
        teacher: As `distill` takes it.
        x: Samples to learn from, shape `(n, ...)`.
        x_test: Samples to measure by, which were not learned from.
        y_test: Their labels, for the accuracy.
        sizes: Sizes by kind. By default some of every kind.
        y: Labels of x: then the same students learn from them too. What distillation brings is the difference.
        beside: Models to set beside them, by name, such as a `SoftDecisionTree` or the teacher itself.
        head: As for `distill`.
        seed: As for `distill`.

    Returns:
        The `SizeCurve`.

    Raises:
        TypeError: The teacher, or a model beside, is nothing that can be asked.
        ValueError: A kind, a size, the samples or the labels do not fit.

    Example:
        >>> import numpy as np
        >>> from kdkeras import students
        >>> x = np.random.default_rng(0).normal(size=(200, 2))
        >>> def teacher(x):
        ...     p = 1 / (1 + np.exp(-3 * x[:, :1]))
        ...     return np.concatenate([1 - p, p], axis=1)
        >>> curve = students.size_curve(teacher, x[:100], x[100:], sizes={"tree": (2, 8)}, head="softmax")
        >>> [(point.size, point.nodes, point.fidelity.agreement > 0.9) for point in curve.points]
        [(2, 3, True), (8, 15, True)]
    """
    said, end = teacher_logits(teacher, x_test, head)
    taught = teacher_logits(teacher, x, head)  # asked once
    points = []
    for kind, some in (SIZES if sizes is None else sizes).items():
        for source in ("teacher",) if y is None else ("teacher", "labels"):
            for size in some:
                if source == "labels":
                    student = fit(x, y, kind, size=size, seed=seed)
                else:
                    student = from_logits(x, *taught, kind, size, seed)
                found = between(said, student.logits(x_test), y_test, end)
                points.append(SizePoint(kind, source, size, student.nodes, student.parameters, found))
    for name, model in ({} if beside is None else beside).items():
        found = between(said, teacher_logits(model, x_test)[0], y_test, end)
        size = (model.nodes, model.parameters) if isinstance(model, Student) else (None, model.count_params())
        points.append(SizePoint(name, "", None, *size, found))
    return SizeCurve(tuple(points))


def _figure(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.4f}"
