"""A hard tree that imitates a soft one, and how well it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeClassifier


class HardTree(NamedTuple):
    """A surrogate of a soft decision tree.

    Attributes:
        model: scikit-learn's classifier on flattened samples (n, features); its classes are those of the soft tree.
        fidelity: Share of the samples that it was fitted to for which it names the soft tree's class. It flatters.
        test_fidelity: The same share of samples that it has not seen, or None where none were given.
        text: Both in words, which `str(hard)` returns, too.
    """

    model: DecisionTreeClassifier
    fidelity: float
    test_fidelity: float | None
    text: str

    def __str__(self) -> str:
        return self.text


def fit_hard_tree(
    x: np.ndarray,
    classes: np.ndarray,
    *,
    max_depth: int,
    seed: int = 0,
    x_test: np.ndarray | None = None,
    test_classes: np.ndarray | None = None,
) -> HardTree:
    """Fit an axis-aligned tree to the classes that a soft tree names.

    Args:
        x: Samples, shape (n, ...).
        classes: The soft tree's classes for them, shape (n,).
        max_depth: Greatest depth of the hard tree.
        seed: Of scikit-learn's choice among equally good splits.
        x_test: Samples that it does not see. Default: none.
        test_classes: The soft tree's classes for those.

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

    model = DecisionTreeClassifier(max_depth=max_depth, random_state=seed).fit(x.reshape(len(x), -1), classes)

    def share(samples: np.ndarray, named: np.ndarray) -> float:
        return float((model.predict(samples.reshape(len(samples), -1)) == named).mean())

    fidelity = share(x, classes)
    leaves = model.get_n_leaves()
    text = f"Hard tree of depth {model.get_depth()} with {leaves} {'leaf' if leaves == 1 else 'leaves'}: names the "
    text += f"soft tree's class for {fidelity:.1%} of the {len(x)} samples it was fitted to"
    if x_test is None:
        return HardTree(model, fidelity, None, text + ".")
    test_fidelity = share(x_test, test_classes)
    text += f", and for {test_fidelity:.1%} of {len(x_test)} that it has not seen."
    return HardTree(model, fidelity, test_fidelity, text)
