"""What the two scikit-learn estimators share: their settings, and a tree that is made and trained from them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from kdkeras.trees.soft_decision_tree import SoftDecisionTree


class SoftTreeEstimator(BaseEstimator):
    """The settings of a soft tree and of its training, as scikit-learn keeps them."""

    def __init__(
        self,
        depth: int = 6,
        *,
        penalty: float = 0.1,
        noise: float = 0.1,
        objective: str = "mixture",
        beta: float | str = 1.0,
        max_features: int | float | str | None = None,
        epochs: int = 80,
        batch_size: int = 32,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.depth = depth
        self.penalty = penalty
        self.noise = noise
        self.objective = objective
        self.beta = beta
        self.max_features = max_features
        self.epochs = epochs
        self.batch_size = batch_size
        self.random_state = random_state

    @property
    def feature_importances_(self) -> np.ndarray:
        """Share of each feature in the decisions, shape (n_features,), summing to 1."""
        check_is_fitted(self)
        return self.tree_.feature_importances_

    def _train(self, kind: type[SoftDecisionTree], size: int, x: np.ndarray, y: np.ndarray) -> None:
        """Make a tree of a kind, with leaves of a size, and train it."""
        if self.random_state is not None:
            keras.utils.set_random_seed(check_random_state(self.random_state).randint(2**31))
        settings = {name: getattr(self, name) for name in ("penalty", "noise", "objective", "beta", "max_features")}
        # In double precision, a sample's prediction does not depend on the batch that it comes with.
        self.tree_ = kind(self.depth, size, **settings, dtype="float64")
        self.tree_.fit(x, y, epochs=self.epochs, batch_size=self.batch_size, verbose=0)

    def _ask(self, X: Any) -> np.ndarray:  # noqa: N803  (scikit-learn's name)
        check_is_fitted(self)
        return self.tree_.predict(validate_data(self, X, reset=False), verbose=0)
