"""A hard tree that imitates a soft one, and how well it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor


class HardTree(NamedTuple):
    """A surrogate of a soft decision tree.

    Attributes:
        model: scikit-learn's classifier on flattened samples (n, features), whose classes are those of the soft tree;
            its regressor for a regression tree.
        fidelity: Share of the samples that it was fitted to for which it names the soft tree's class; of a regression
            tree, R² = 1 − (mean squared difference) / (variance of the soft tree's predictions). It flatters.
        test_fidelity: The same on samples that it has not seen, or None where none were given.
        text: Both in words, which `str(hard)` returns, too.
    """

    model: DecisionTreeClassifier | DecisionTreeRegressor
    fidelity: float
    test_fidelity: float | None
    text: str

    def __str__(self) -> str:
        return self.text


def fit_hard_tree(
    x: np.ndarray,
    answers: np.ndarray,
    *,
    max_depth: int,
    seed: int = 0,
    x_test: np.ndarray | None = None,
    test_answers: np.ndarray | None = None,
) -> HardTree:
    """Fit an axis-aligned tree to the classes that a soft tree names.

    Args:
        x: Samples, shape (n, ...).
        answers: The soft tree's classes for them, shape (n,).
        max_depth: Greatest depth of the hard tree.
        seed: Of scikit-learn's choice among equally good splits.
        x_test: Samples that it does not see. Default: none.
        test_answers: The soft tree's classes for those.

    Returns:
        A `HardTree`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.surrogate import fit_hard_tree
        >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
        >>> print(fit_hard_tree(x, np.array([0, 0, 1, 1]), max_depth=1))
        Hard tree of depth 1 with 2 leaves: names the soft tree's class for 100.0% of the 4 samples it was fitted to.
    """
    from sklearn.tree import DecisionTreeClassifier

    model = DecisionTreeClassifier(max_depth=max_depth, random_state=seed)
    fidelity, test_fidelity = _fidelities(model, x, answers, x_test, test_answers)
    text = f"{_size(model)}: names the soft tree's class for {fidelity:.1%} of the {len(x)} samples it was fitted to"
    text += "." if x_test is None else f", and for {test_fidelity:.1%} of {len(x_test)} that it has not seen."
    return HardTree(model, fidelity, test_fidelity, text)


def fit_hard_regression_tree(
    x: np.ndarray,
    answers: np.ndarray,
    *,
    max_depth: int,
    seed: int = 0,
    x_test: np.ndarray | None = None,
    test_answers: np.ndarray | None = None,
) -> HardTree:
    """Fit an axis-aligned tree to the values that a soft regression tree predicts.

    Args:
        x: Samples, shape (n, ...).
        answers: The soft tree's predictions for them, shape (n, targets).
        max_depth: Greatest depth of the hard tree.
        seed: Of scikit-learn's choice among equally good splits.
        x_test: Samples that it does not see. Default: none.
        test_answers: The soft tree's predictions for those.

    Returns:
        A `HardTree`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.surrogate import fit_hard_regression_tree
        >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
        >>> print(fit_hard_regression_tree(x, np.array([[0.0], [0.0], [1.0], [1.0]]), max_depth=1))
        Hard tree of depth 1 with 2 leaves: R² 1.000 to the soft tree's predictions on the 4 samples it was fitted to.
    """
    from sklearn.tree import DecisionTreeRegressor

    model = DecisionTreeRegressor(max_depth=max_depth, random_state=seed)
    fidelity, test_fidelity = _fidelities(model, x, answers, x_test, test_answers)
    text = f"{_size(model)}: R² {fidelity:.3f} to the soft tree's predictions on the {len(x)} samples it was fitted to"
    text += "." if x_test is None else f", and {test_fidelity:.3f} on {len(x_test)} that it has not seen."
    return HardTree(model, fidelity, test_fidelity, text)


def _fidelities(
    model: DecisionTreeClassifier | DecisionTreeRegressor,
    x: np.ndarray,
    answers: np.ndarray,
    x_test: np.ndarray | None,
    test_answers: np.ndarray | None,
) -> tuple[float, float | None]:
    """Fit the model and return scikit-learn's score, accuracy or R², on both sets of samples."""
    x = x.reshape(len(x), -1)
    fidelity = float(model.fit(x, answers).score(x, answers))
    return fidelity, None if x_test is None else float(model.score(x_test.reshape(len(x_test), -1), test_answers))


def _size(model: DecisionTreeClassifier | DecisionTreeRegressor) -> str:
    leaves = model.get_n_leaves()
    return f"Hard tree of depth {model.get_depth()} with {leaves} {'leaf' if leaves == 1 else 'leaves'}"
