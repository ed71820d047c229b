"""A soft regression tree with scikit-learn's interface."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from kdkeras.trees.estimator import SoftTreeEstimator
from kdkeras.trees.soft_regression_tree import SoftRegressionTree


class SoftDecisionTreeRegressor(RegressorMixin, SoftTreeEstimator):
    """A soft regression tree as a scikit-learn regressor: for pipelines, grid searches and cross-validation.

    It passes `sklearn.utils.estimator_checks.check_estimator`. The target is standardised for the training; the tree's
    own leaves and texts are in standard deviations from the mean. Features should have similar ranges: put a
    `StandardScaler` before it.

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
        tree_: The trained `kdkeras.SoftRegressionTree`, in float64.
        target_mean_: Mean of the training targets.
        target_scale_: Their standard deviation, or 1 where they are all the same.
        n_features_in_: Number of features.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> from kdkeras.trees import SoftDecisionTreeRegressor
        >>> x, y = load_diabetes(return_X_y=True)
        >>> model = make_pipeline(StandardScaler(), SoftDecisionTreeRegressor(depth=2, epochs=20, random_state=0))
        >>> bool(model.fit(x, y).score(x, y) > 0.4)
        True

    Reference:
        [Frosst & Hinton, 2017](https://arxiv.org/abs/1711.09784)
    """

    def fit(self, X: Any, y: Any) -> SoftDecisionTreeRegressor:  # noqa: N803
        """Train a new tree.

        Args:
            X: Features, shape (n, features).
            y: Target, shape (n,).

        Returns:
            The regressor itself.

        Raises:
            TypeError: A setting has a wrong type.
            ValueError: A setting is out of range, or the data do not fit.
        """
        X, y = validate_data(self, X, y, y_numeric=True)  # noqa: N806
        y = y.astype("float64")
        self.target_mean_, self.target_scale_ = float(y.mean()), float(y.std()) or 1.0
        self._train(SoftRegressionTree, 1, X, (y - self.target_mean_) / self.target_scale_)
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the predicted target of each sample, shape (n,).

        Args:
            X: Features, shape (n, features).
        """
        return self._ask(X)[:, 0] * self.target_scale_ + self.target_mean_
