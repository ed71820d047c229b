"""What models of other kinds rely on that learned from labels alone: the reference for a network's importances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from kdkeras import students

_MEASURES = {
    "lasso": ("LASSO", "share of the terms' spread"),
    "forest": ("forest", "share of the impurity's fall"),
    "gradient_boosting": ("boosting", "share of the impurity's fall"),
}


@dataclass(frozen=True, eq=False)
class ReferenceImportance:
    """How much a LASSO, a forest or boosting relies on each column, by its own measure.

    Attributes:
        model: `"LASSO"`, `"forest"` or `"boosting"`.
        names: Name of each column.
        importances: Shares that sum to 1, shape `(features,)`; 0 for a column that is not used at all.
        measure: What they are shares of.
        student: The fitted model, a `kdkeras.students.Student`.
    """

    model: str
    names: tuple[str, ...]
    importances: np.ndarray = field(repr=False)
    measure: str
    student: students.Student = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain Python values, ready for JSON."""
        return {
            "model": self.model,
            "measure": self.measure,
            "names": list(self.names),
            "importances": self.importances.tolist(),
        }


def reference_importance(
    x: Any,
    y: Any,
    kind: Literal["lasso", "forest", "gradient_boosting"] = "lasso",
    *,
    feature_names: Sequence[str] = (),
    seed: int = 0,
) -> ReferenceImportance:
    """Fit a model of another kind to the labels, and return which columns it relies on by its own measure.

    | kind | the model | its measure |
    |---|---|---|
    | `"lasso"` | linear, on the columns that a cross-validated LASSO keeps | spread (sd) of the column's term, or 0 |
    | `"forest"` | 100 trees | how much the column's splits lower the impurity: `feature_importances_` |
    | `"gradient_boosting"` | 100 rounds of trees with 8 leaves | the same |

    Columns that carry the same information share it in a forest, while LASSO keeps one of them; and impurity, which is
    measured on the training data, favours columns of many values. Where the three agree, a network that does not is
    worth a second look. Shuffling columns would measure all alike, but the log-likelihood of forests and boosting hangs
    on the few samples of which they are sure and wrong: on the breast-cancer data shuffling made it better.

    Args:
        x: Table to learn from, shape `(n, features)`.
        y: Labels `(n,)`: whole numbers are classes, others a regression.
        kind: As above.
        feature_names: Name of each column; by default `"feature 0"` and so on.
        seed: Seed of the model.

    Returns:
        The `ReferenceImportance`.

    Raises:
        ValueError: `kind`, the data or the names do not fit.

    Example:
        >>> import numpy as np
        >>> from kdkeras import explain
        >>> x = np.random.default_rng(0).normal(size=(200, 3))
        >>> explain.reference_importance(x, 3 * x[:, 0] - x[:, 1]).importances.round(1)
        array([0.8, 0.2, 0. ])

    Reference:
        Tibshirani: Regression Shrinkage and Selection via the Lasso, 1996. Breiman: Random Forests, 2001. Friedman:
        Greedy Function Approximation: A Gradient Boosting Machine, 2001.
    """
    if kind not in _MEASURES:
        raise ValueError(f"`kind` must be one of {', '.join(_MEASURES)}. Received: kind={kind!r}.")
    x = np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"A reference needs a table of shape (n, features). Received: x of shape {x.shape}.")
    names = tuple(feature_names) or tuple(f"feature {column}" for column in range(x.shape[1]))
    if len(names) != x.shape[1]:
        raise ValueError(f"`feature_names` must name all {x.shape[1]} columns of x. Received: {len(names)} names.")
    student = students.fit(x, y, kind, seed=seed)
    found = np.zeros(x.shape[1])
    if kind == "lasso":
        found = student.spread(x)
    else:
        found[student.columns] = student.estimator.feature_importances_
    model, measure = _MEASURES[kind]
    return ReferenceImportance(model, names, found / (found.sum() or 1), measure, student)
