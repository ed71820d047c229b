"""Whether a student relies on the columns that its teacher relies on, and other models on the same labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kdkeras.explain.importance import FeatureImportance, feature_importance
from kdkeras.explain.reference_importance import ReferenceImportance
from kdkeras.students import Student

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class ImportanceComparison:
    """A student's feature importances beside its teacher's.

    Attributes:
        teacher: The teacher's `FeatureImportance`.
        student: The student's `FeatureImportance`, from the same shuffles.
        spearman: Rank correlation of the two, in [−1, 1]; NaN where one of them is constant.
        references: What other models rely on that learned from labels, as `reference_importance` returns it.
    """

    teacher: FeatureImportance
    student: FeatureImportance
    spearman: float
    references: tuple[ReferenceImportance, ...] = ()

    @property
    def rank_correlations(self) -> np.ndarray:
        """Spearman's rank correlation of each pair of models, shape `(k, k)`: teacher, student, then the references."""
        models = (self.teacher, self.student, *self.references)
        return np.array([[_spearman(a.importances, b.importances) for b in models] for a in models])

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain Python values, ready for JSON: NaN becomes `None`."""
        return {
            "spearman": None if np.isnan(self.spearman) else self.spearman,
            "teacher": self.teacher.to_dict(),
            "student": self.student.to_dict(),
            "references": [each.to_dict() for each in self.references],
            "rank_correlations": [[None if np.isnan(value) else value for value in row] for row in self._matrix()],
        }

    def _matrix(self) -> list[list[float]]:
        return self.rank_correlations.tolist()

    def __str__(self) -> str:
        from tabulate import tabulate

        ranks = _ranks(self.student.importances)
        rows = [
            (
                self.teacher.names[i],
                f"{self.teacher.importances[i]:.4f}",
                f"{self.student.importances[i]:.4f}",
                *(f"{each.importances[i]:.4f}" for each in self.references),
                place,
                ranks[i],
            )
            for place, i in enumerate(np.argsort(-self.teacher.importances, kind="stable"), start=1)
        ]
        others = [each.model for each in self.references]
        headers = ("feature", "teacher", "student", *others, "teacher's rank", "student's rank")
        table = tabulate(rows, headers, disable_numparse=True, colalign=("left", *("right",) * (4 + len(others))))
        shares = "; shares of the references" if others else ""
        text = (
            f"loss of {self.teacher.score} when a column is shuffled: teacher '{self.teacher.model}', student "
            f"'{self.student.model}'{shares}\n{table}\nSpearman rank correlation: {self.spearman:.3f}"
        )
        if not others:
            return text
        names = ["teacher", "student", *others]
        pairs = [(name, *(f"{value:.3f}" for value in row)) for name, row in zip(names, self._matrix(), strict=True)]
        aligned = ("left", *("right",) * len(names))
        return f"{text}; of all pairs\n{tabulate(pairs, ('', *names), disable_numparse=True, colalign=aligned)}"

    def plot(self, n: int = 12) -> Figure:
        """Draw both models' importances side by side, in the teacher's order.

        Args:
            n: Number of columns, fewer where there are fewer. 12 can be read at a glance.

        Returns:
            A matplotlib `Figure`, not registered with pyplot.

        Raises:
            ValueError: `n` is below 1.
        """
        from kdkeras.explain.importance_pictures import importance_bars

        title = f"Spearman rank correlation over all {len(self.teacher.names)} features: {self.spearman:.2f}"
        references = []
        for each in self.references:
            with_teacher = _spearman(self.teacher.importances, each.importances)
            references.append((f"ρ = {with_teacher:.2f},", each))
        if references:
            title += "; ρ is each reference's with the teacher"
        return importance_bars([("Teacher", self.teacher), ("Student", self.student), *references], n, title=title)


def compare_importance(
    teacher: keras.Model | Student,
    student: keras.Model | Student,
    x: Any,
    y: Any,
    *,
    feature_names: Sequence[str] = (),
    repeats: int = 30,
    seed: int = 0,
    references: Sequence[ReferenceImportance] = (),
) -> ImportanceComparison:
    """Compare which columns two models rely on, by permutation importance on the same shuffled tables.

    Args:
        teacher: A Keras model from `(batch, features)` to `(batch, units)`.
        student: Another, with the same inputs, or a student of `kdkeras.students`.
        x: Table, scaled as in training, shape `(n, features)`.
        y: Targets, as for `feature_importance`.
        feature_names: Name of each column; by default `"feature 0"` and so on.
        repeats: Number of shuffles of each column. 30, as in `feature_importance`.
        seed: Seed of the shuffles.
        references: What other models of the same columns rely on, by `reference_importance`.

    Returns:
        The `ImportanceComparison`.

    Raises:
        TypeError: A model is not a Keras model.
        ValueError: x, y or the names do not fit the models or one another.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> x = np.random.default_rng(0).normal(size=(50, 3))
        >>> round(explain.compare_importance(model, model, x, np.arange(50) % 2, repeats=2).spearman, 6)
        1.0
    """
    if any(len(each.names) != np.shape(x)[-1] for each in references):
        raise ValueError(
            f"`references` must be of the {np.shape(x)[-1]} columns of x. Received: "
            f"{[len(each.names) for each in references]} columns."
        )
    options = {"feature_names": feature_names, "repeats": repeats, "seed": seed}
    theirs = feature_importance(teacher, x, y, **options)
    ours = feature_importance(student, x, y, **options)
    spearman = _spearman(ours.importances, theirs.importances)
    return ImportanceComparison(theirs, ours, spearman, tuple(references))


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy import stats

    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(stats.spearmanr(a, b).statistic)


def _ranks(values: np.ndarray) -> np.ndarray:
    """1 for the largest value."""
    ranks = np.empty(len(values), dtype=int)
    ranks[np.argsort(-values, kind="stable")] = np.arange(1, len(values) + 1)
    return ranks
