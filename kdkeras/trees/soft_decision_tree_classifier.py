"""A soft decision tree with scikit-learn's interface."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from kdkeras.trees.estimator import SoftTreeEstimator
from kdkeras.trees.soft_decision_tree import SoftDecisionTree


class SoftDecisionTreeClassifier(ClassifierMixin, SoftTreeEstimator):
    """A soft decision tree as a scikit-learn classifier: for pipelines, grid searches and cross-validation.

    It passes `sklearn.utils.estimator_checks.check_estimator`. The trained tree is `tree_`, with all that can be read
    from it. Features should have similar ranges: put a `StandardScaler` before it.

    Args:
        depth: Levels of splits, 1…12.
        penalty: Weight of the balance penalty, as in `kdkeras.SoftDecisionTree`.
        noise: Standard deviation of the noise on the features in training.
        objective: `"mixture"` or `"path"`.
        beta: Inverse temperature of the splits, or `"learned"`.
        max_features: How many features each split sees. Default: all.
        epochs: Rounds of training. Default 80, as in `SoftDecisionTree.fit`.
        batch_size: Samples in a step. Default 32.
        random_state: Seed, as in scikit-learn. Unless it is None, `fit` sets the global seeds of Python, numpy and
            Keras from it.

    Attributes:
        tree_: The trained `kdkeras.SoftDecisionTree`, in float64.
        classes_: The labels, in the order of the tree's classes.
        n_features_in_: Number of features.

    Example:
        >>> from sklearn.datasets import load_wine
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> from kdkeras.trees import SoftDecisionTreeClassifier
        >>> x, y = load_wine(return_X_y=True)
        >>> model = make_pipeline(StandardScaler(), SoftDecisionTreeClassifier(depth=2, epochs=20, random_state=0))
        >>> bool(model.fit(x, y).score(x, y) > 0.95)
        True

    Reference:
        [Frosst & Hinton, 2017](https://arxiv.org/abs/1711.09784)
    """

    def fit(self, X: Any, y: Any) -> SoftDecisionTreeClassifier:  # noqa: N803
        """Train a new tree.

        Args:
            X: Features, shape (n, features).
            y: Labels of any type, shape (n,).

        Returns:
            The classifier itself.

        Raises:
            TypeError: A setting has a wrong type.
            ValueError: A setting is out of range, or the data do not fit or have one class only.
        """
        X, y = validate_data(self, X, y)  # noqa: N806
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("A classifier needs samples of at least 2 classes. Received: 1 class.")
        self._train(SoftDecisionTree, len(self.classes_), X, labels)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the class probabilities of the mixture, shape (n, classes).

        Args:
            X: Features, shape (n, features).
        """
        return self._ask(X)

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the likeliest label of each sample, shape (n,).

        Args:
            X: Features, shape (n, features).
        """
        best = self._ask(X).argmax(axis=1)  # first of all, this raises where nothing was fitted
        return self.classes_[best]
