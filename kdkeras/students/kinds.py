"""The kinds of students: how each is fitted to probabilities or to numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_NEGLIGIBLE = 1e-4  # probability below which a class takes no part in a sample
_LEAVES = 8  # of a boosted tree: between 4 and 8 is advised in Hastie et al., Elements of Statistical Learning, 10.11

Fitted = tuple[Any, np.ndarray]  # a scikit-learn estimator, and the columns that it takes


def fit_tree(x: np.ndarray, targets: np.ndarray, size: int | None, seed: int) -> Fitted:
    """Fit one tree of at most `size` leaves (32): a regression tree on all probabilities at once.

    The squared error of probabilities falls by as much as the Gini impurity of soft labels, so that this is CART for
    them, and each leaf holds the mean of the teacher's probabilities.
    """
    from sklearn.tree import DecisionTreeRegressor

    columns = varying(x)
    tree = DecisionTreeRegressor(max_leaf_nodes=size or 32, random_state=seed)
    return tree.fit(x[:, columns], _flat(targets)), columns


def fit_forest(x: np.ndarray, targets: np.ndarray, size: int | None, seed: int) -> Fitted:
    """Fit `size` (100) such trees, grown to the end, each on a bootstrap sample and √d columns per split."""
    from sklearn.ensemble import RandomForestRegressor

    columns = varying(x)
    forest = RandomForestRegressor(size or 100, max_features="sqrt", random_state=seed)
    return forest.fit(x[:, columns], _flat(targets)), columns


def fit_gradient_boosting(x: np.ndarray, targets: np.ndarray, size: int | None, seed: int) -> Fitted:
    """Fit `size` (100) rounds of boosting with trees of 8 leaves and √d columns per split, on weighted labels."""
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    columns = varying(x)
    settings = {
        "n_estimators": size or 100,
        "max_leaf_nodes": _LEAVES,
        "max_depth": None,
        "max_features": "sqrt",
        "random_state": seed,
    }
    if targets.ndim == 1:
        return GradientBoostingRegressor(**settings).fit(x[:, columns], targets), columns
    rows, labels, weights = weighted_labels(targets)
    boosted = GradientBoostingClassifier(**settings)
    return boosted.fit(x[np.ix_(rows, columns)], labels, sample_weight=weights), columns


def fit_linear(x: np.ndarray, targets: np.ndarray, size: int | None, seed: int) -> Fitted:
    """Fit a logistic regression on weighted labels, or a ridge regression, of standardised columns; `size` of them."""
    return _fit_additive(x, targets, size, splines=False)


def fit_additive(x: np.ndarray, targets: np.ndarray, size: int | None, seed: int) -> Fitted:
    """Fit a generalised additive model: the same on cubic splines with five knots of each column, `size` of them."""
    return _fit_additive(x, targets, size, splines=True)


def fit_lasso(x: np.ndarray, targets: np.ndarray, size: int | None, seed: int) -> Fitted:
    """Fit the same as "linear" on those columns that a LASSO keeps whose penalty five-fold cross-validation chose.

    Of probabilities it is the LASSO of all classes together, which keeps or drops a column for all of them.
    """
    from sklearn.linear_model import LassoCV, MultiTaskLassoCV
    from sklearn.preprocessing import StandardScaler

    columns = varying(x)
    lasso = LassoCV if targets.ndim == 1 else MultiTaskLassoCV
    # Penalties down to 1 % of the one that drops all: below it the fit is slow, and keeps nearly everything.
    chosen = lasso(eps=1e-2, max_iter=20_000).fit(StandardScaler().fit_transform(x[:, columns]), targets)
    kept = np.flatnonzero(np.abs(np.atleast_2d(chosen.coef_)).max(axis=0))
    columns = columns[kept] if len(kept) else columns[:1]
    return _fitted_sum(x[:, columns], targets, splines=False), columns


KINDS: dict[str, Callable[[np.ndarray, np.ndarray, int | None, int], Fitted]] = {
    "tree": fit_tree,
    "forest": fit_forest,
    "gradient_boosting": fit_gradient_boosting,
    "linear": fit_linear,
    "lasso": fit_lasso,
    "additive": fit_additive,
}
SUMS = ("linear", "lasso", "additive")  # kinds whose answer is a sum of one term per feature


def varying(x: np.ndarray) -> np.ndarray:
    """Return the indices of the columns that are not constant.

    Args:
        x: Shape `(n, features)`.

    Returns:
        Indices; the first column alone where all are constant.
    """
    found = np.flatnonzero(np.ptp(x, axis=0) > 0)
    return found if len(found) else np.array([0])


def weighted_labels(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return soft labels as hard ones: each sample once per class, weighed by the class's probability.

    With a log-loss this is the cross-entropy of soft labels exactly: Σ_c p_c · (−log q_c). Probabilities below 10⁻⁴
    are left out, except that every class keeps the sample where it is likeliest, so that students know all classes.

    Args:
        probabilities: Shape `(n, classes)`.

    Returns:
        Index of the sample, class and weight of each weighted label.

    Example:
        >>> import numpy as np
        >>> from kdkeras.students.kinds import weighted_labels
        >>> weighted_labels(np.array([[0.75, 0.25], [0.0, 1.0]]))
        (array([0, 0, 1]), array([0, 1, 1]), array([0.75, 0.25, 1.  ]))
    """
    kept = probabilities > _NEGLIGIBLE
    kept[probabilities.argmax(axis=0), np.arange(probabilities.shape[1])] = True
    rows, labels = np.nonzero(kept)
    return rows, labels, probabilities[rows, labels]


def spread(estimator: Any, x: np.ndarray) -> np.ndarray:
    """Return how far each column moves an additive model: the standard deviation of its term, mean over the classes.

    Args:
        estimator: A pipeline of this module, "linear" or "additive".
        x: The columns that it takes, `(n, columns)`.

    Returns:
        Shape `(columns,)`, in logits or in the unit of the numbers.
    """
    basis = estimator[:-1].transform(x)
    coefficients = np.atleast_2d(estimator[-1].coef_)  # (classes or 1, columns * functions)
    shape = len(basis), x.shape[1], -1
    terms = np.einsum("ndb,kdb->ndk", basis.reshape(shape), coefficients.reshape(len(coefficients), x.shape[1], -1))
    return terms.std(axis=0).mean(axis=1)


def _fit_additive(x: np.ndarray, targets: np.ndarray, size: int | None, *, splines: bool) -> Fitted:
    columns = varying(x)
    estimator = _fitted_sum(x[:, columns], targets, splines=splines)
    if size is not None and size < len(columns):
        best = np.argsort(-spread(estimator, x[:, columns]), kind="stable")[:size]
        columns = columns[np.sort(best)]
        estimator = _fitted_sum(x[:, columns], targets, splines=splines)
    return estimator, columns


def _fitted_sum(x: np.ndarray, targets: np.ndarray, *, splines: bool) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import SplineTransformer, StandardScaler

    first = SplineTransformer(n_knots=5, extrapolation="linear", include_bias=False) if splines else StandardScaler()
    if targets.ndim == 1:
        return make_pipeline(first, Ridge(0.1 if splines else 1.0)).fit(x, targets)
    rows, labels, weights = weighted_labels(targets)
    # Splines lie in [0, 1] and need larger weights: C = 10 was better than 1 on validation data, and than boosting
    # without interactions. Scikit-learn's own C = 1 serves standardised columns.
    last = LogisticRegression(C=10.0 if splines else 1.0, max_iter=5000)
    return make_pipeline(first, last).fit(x[rows], labels, logisticregression__sample_weight=weights)


def _flat(targets: np.ndarray) -> np.ndarray:
    return targets if targets.ndim == 1 or targets.shape[1] > 1 else targets[:, 0]
