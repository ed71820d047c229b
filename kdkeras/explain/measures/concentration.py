"""How few places an explanation names: sparseness and complexity."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdkeras.explain.explanation import Explanation
from kdkeras.explain.measures.attributions import attributions_of


def sparseness(explanation: Explanation | Any) -> np.ndarray:
    """Gini index of the sizes of the attributions: how much of all relevance lies in few places.

        G = 1 − 2 Σ_k v_(k) / ‖v‖₁ · (d − k + ½) / d,  v = |φ| sorted from small to large, k = 1 … d

    It says how short an explanation is, not whether it is true.

    Args:
        explanation: An `Explanation`, whose `maps` are taken, or attributions `(n, ...)`.

    Returns:
        Values from 0, all places equal, to 1 − 1/d, one place alone; float64 `(n,)`. NaN for attributions that are zero
        everywhere.

    Raises:
        ValueError: The attributions are empty or not finite.

    Example:
        >>> from kdkeras import explain
        >>> explain.sparseness([[0, 0, 0, 5], [-1, 1, 1, 1], [0, 0, 0, 0]])
        array([0.75, 0.  ,  nan])

    Reference:
        Chalasani et al., "Concise explanations of neural networks using adversarial training", 2020; Hurley and
        Rickard, "Comparing measures of sparsity", 2009.
    """
    shares = np.sort(_shares(explanation), axis=1)
    d = shares.shape[1]
    weights = (d - np.arange(1, d + 1) + 0.5) / d
    return 1 - 2 * (shares * weights).sum(axis=1)


def complexity(explanation: Explanation | Any) -> np.ndarray:
    """Entropy of the shares of the attributions: over how many places the relevance is spread.

        H = −Σ_i p_i log p_i,  p_i = |φ_i| / Σ_j |φ_j|

    It says how short an explanation is, not whether it is true.

    Args:
        explanation: An `Explanation`, whose `maps` are taken, or attributions `(n, ...)`.

    Returns:
        Values in nats, from 0, one place alone, to log d, all d places equal; float64 `(n,)`. NaN for attributions that
        are zero everywhere.

    Raises:
        ValueError: The attributions are empty or not finite.

    Example:
        >>> import numpy as np
        >>> from kdkeras import explain
        >>> np.exp(explain.complexity([[0, 0, 0, 5], [-1, 1, 1, 1]])).round(6)  # as many places
        array([1., 4.])

    Reference:
        Bhatt, Weller and Moura, "Evaluating and aggregating feature-based model explanations", 2020.
    """
    from scipy import special

    return special.entr(_shares(explanation)).sum(axis=1)


def _shares(explanation: Explanation | Any) -> np.ndarray:
    """Return |φ| / Σ|φ|, shape `(n, d)`; NaN where it is zero everywhere."""
    sizes = np.abs(attributions_of(explanation))
    sizes = sizes.reshape(len(sizes), -1)
    total = sizes.sum(axis=1, keepdims=True)
    return np.where(total > 0, sizes, np.nan) / np.where(total > 0, total, 1)
