"""A scikit-learn model that stands in for a teacher."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from kdkeras.comparable import Comparable
from kdkeras.signals import Signals
from kdkeras.students.kinds import SUMS, spread

_SMALLEST = 1e-7  # probability that stands in for 0 where a logarithm is taken; as in Keras' own losses


@dataclass(frozen=True, eq=False)
class Student(Comparable):
    """A scikit-learn model that has learned from a teacher, or from labels.

    Attributes:
        kind: One of `kdkeras.students.KINDS`.
        estimator: The fitted scikit-learn model. Of trees and forests it is a regressor of all probabilities.
        columns: Which features it takes, of flattened samples: those that vary, or the ones that were chosen.
        features: Number of features of a flattened sample.
        head: What `logits` belong to: `"softmax"`, `"sigmoid"` for two classes in one number, `"linear"` for numbers.
    """

    kind: str
    estimator: Any = field(repr=False)
    columns: np.ndarray = field(repr=False)
    features: int
    head: Literal["softmax", "sigmoid", "linear"]

    def predict(self, x: Any) -> np.ndarray:
        """Return the classes, or the numbers.

        Args:
            x: Samples, shape `(n, ...)`.

        Returns:
            int64 class indices `(n,)`, or floats `(n,)`.

        Raises:
            ValueError: The samples have another number of features.
        """
        if self.head == "linear":
            return self.estimator.predict(self._table(x))
        return self.predict_proba(x).argmax(axis=1)

    def predict_proba(self, x: Any) -> np.ndarray:
        """Return the probability of each class.

        Args:
            x: Samples, shape `(n, ...)`.

        Returns:
            Shape `(n, classes)`; rows sum to 1.

        Raises:
            ValueError: The student predicts numbers, or the samples have another number of features.
        """
        if self.head == "linear":
            raise ValueError("A student of numbers has no probabilities. Received: one of a regression. Use `predict`.")
        if self.kind in ("tree", "forest"):
            return self.estimator.predict(self._table(x))
        return self.estimator.predict_proba(self._table(x))

    def logits(self, x: Any) -> np.ndarray:
        """Return what the teacher's logits are: log-probabilities, the log-odds of class 1, or the numbers.

        Args:
            x: Samples, shape `(n, ...)`.

        Returns:
            float32, shape `(n, units)`. Probabilities below 10⁻⁷ count as that.

        Raises:
            ValueError: The samples have another number of features.
        """
        if self.head == "linear":
            return self.predict(x).reshape(-1, 1).astype("float32")
        logs = np.log(np.maximum(self.predict_proba(x), _SMALLEST))
        return (logs if self.head == "softmax" else logs[:, 1:] - logs[:, :1]).astype("float32")

    def answers(self, x: Any, *, batch_size: int) -> Signals:
        """Return its logits, for `kdkeras.evaluate.compare`; scikit-learn takes all samples at once.

        Args:
            x: Samples, shape `(n, ...)`.
            batch_size: Not used.

        Returns:
            `Signals` whose predictions are the logits.

        Raises:
            ValueError: The samples have another number of features.
        """
        logits = self.logits(x)
        return Signals(logits, logits, {})

    @property
    def nodes(self) -> int | None:
        """Number of splits and leaves of all trees; `None` of a student without trees."""
        return None if self.kind in SUMS else sum(tree.node_count for tree in self._trees())

    @property
    def parameters(self) -> int:
        """How many numbers it keeps: coefficients; or column and threshold of each split, and the leaves' values."""
        if self.kind in SUMS:
            return int(np.size(self.estimator[-1].coef_) + np.size(self.estimator[-1].intercept_))
        trees = self._trees()
        return int(sum(2 * (tree.node_count - tree.n_leaves) + tree.n_leaves * tree.n_outputs for tree in trees))

    @property
    def file_bytes(self) -> int:
        """Size of the pickled scikit-learn model in bytes."""
        return len(pickle.dumps(self.estimator))

    def export_text(self, feature_names: Sequence[str] = (), class_names: Sequence[str] = (), *, n: int = 12) -> str:
        """Return what there is to read.

        Args:
            feature_names: Name of each feature of a flattened sample; by default `"feature 0"` and so on.
            class_names: Name of each class; by default its index.
            n: Number of terms of an additive model to list.

        Returns:
            A tree as indented rules; of a linear or additive model its terms by how far they move the answer; of
            forests and boosting, which nobody reads, their size.

        Raises:
            ValueError: There are more or fewer feature names than features.
        """
        names = list(feature_names) or [f"feature {index}" for index in range(self.features)]
        if len(names) != self.features:
            raise ValueError(f"`feature_names` must name all {self.features} features. Received: {len(names)} names.")
        from kdkeras.students import reading

        kept = [names[column] for column in self.columns]
        if self.kind == "tree":
            return reading.tree_text(self.estimator, kept, class_names, classes=self.head != "linear")
        if self.kind in SUMS:
            return reading.sum_text(self, kept, class_names, n)
        return f"{len(self._trees())} trees with {self.nodes:,} nodes"

    def spread(self, x: Any) -> np.ndarray:
        """Return how far each feature moves a linear or additive student: the standard deviation of its term.

        Args:
            x: Samples, shape `(n, ...)`.

        Returns:
            Shape `(features,)`, in logits (the mean over the classes) or the unit of the numbers; 0 for features that
            it does not take.

        Raises:
            ValueError: The student is of another kind, or the samples have another number of features.
        """
        if self.kind not in SUMS:
            raise ValueError(
                f"`spread` is of sums of terms: {', '.join(SUMS)}. Received: a student of kind '{self.kind}'. "
                "Use `explain.feature_importance`."
            )
        found = np.zeros(self.features)
        found[self.columns] = spread(self.estimator, self._table(x))
        return found

    def __str__(self) -> str:
        nodes = "" if self.nodes is None else f"{self.nodes:,} nodes, "
        return f"{self.kind.replace('_', ' ')}: {nodes}{self.parameters:,} parameters, {len(self.columns)} features"

    def _table(self, x: Any) -> np.ndarray:
        flat = flattened(x)
        if flat.shape[1] != self.features:
            raise ValueError(f"The student takes {self.features} features. Received: samples with {flat.shape[1]}.")
        return flat[:, self.columns]

    def _trees(self) -> list[Any]:
        if self.kind == "tree":
            return [self.estimator.tree_]
        return [each.tree_ for each in np.ravel(self.estimator.estimators_)]


def flattened(x: Any) -> np.ndarray:
    """Return samples as a table.

    Args:
        x: Shape `(n, ...)`.

    Returns:
        float64 `(n, features)`.

    Raises:
        ValueError: There are no samples, or they are single numbers.
    """
    x = np.asarray(x, dtype="float64")
    if x.ndim < 2 or not len(x):
        raise ValueError(f"Students need samples of shape (n, ...). Received: shape {x.shape}.")
    return x.reshape(len(x), -1)
