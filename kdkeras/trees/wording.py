"""How shares, weighted sums and leaves are worded, the same in every text that is made of a tree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def percent(share: float) -> str:
    """Return a share as text.

    Example:
        >>> from kdkeras.trees.wording import percent
        >>> percent(0.124), percent(0.001)
        ('12%', '<1%')
    """
    return f"{share:.0%}" if share >= 0.01 else "<1%"


def heaviest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of the values of greatest magnitude, the greatest first; of equals, the first.

    Args:
        values: One value per feature, in any shape.
        count: How many positions, at least 1.

    Returns:
        Positions in the flattened values.

    Raises:
        ValueError: `count` is below 1.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.wording import heaviest
        >>> heaviest(np.array([0.5, -2.0, 1.0]), 2)
        array([1, 2])
    """
    if count < 1:
        raise ValueError(f"`max_features` must be at least 1. Received: {count}.")
    return np.argsort(-np.abs(values.ravel()), kind="stable")[:count]


def weighted_sum(weights: np.ndarray, names: Sequence[str], count: int, constant: float | None = None) -> str:
    """Return the heaviest terms of a weighted sum as text, with an ellipsis for those left out.

    Args:
        weights: One weight per feature, in any shape.
        names: One name per flattened feature.
        count: How many features to show, at least 1.
        constant: What is added in the end. Default: nothing.

    Returns:
        Text on one line.

    Raises:
        ValueError: `count` is below 1.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.wording import weighted_sum
        >>> weighted_sum(np.array([0.5, -2.0, 1.0]), ["age", "dose", "size"], 2, 0.25)
        '-2.00*dose + 1.00*size + ... + 0.25'
    """
    weights = weights.ravel()
    top = heaviest(weights, count)
    terms = [f"{_signed(weights[i])}*{names[i]}" for i in top]
    terms += ["+ ..."] if len(top) < len(weights) else []
    terms += [] if constant is None else [_signed(constant)]
    text = " ".join(terms)
    return "-" + text[2:] if text.startswith("-") else text[2:]  # no space, or no plus, before the first term


def leaf_range(first: int, last: int) -> str:
    """Return the name of a leaf, or of several that are shown as one.

    Example:
        >>> from kdkeras.trees.wording import leaf_range
        >>> leaf_range(3, 3), leaf_range(4, 7)
        ('leaf 3', 'leaves 4-7')
    """
    return f"leaf {first}" if first == last else f"leaves {first}-{last}"


def likeliest(values: np.ndarray, task: str) -> tuple[int, float]:
    """Return the likeliest class of a leaf and its probability, or (−1, NaN) for means.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.wording import likeliest
        >>> likeliest(np.array([0.25, 0.75]), "classification"), likeliest(np.array([3.0]), "regression")
        ((1, 0.75), (-1, nan))
    """
    if task == "regression":
        return -1, float("nan")
    best = int(values.argmax())
    return best, float(values[best])


def short_lines(values: np.ndarray, names: Sequence[str], task: str) -> list[str]:
    """Return what a leaf says on few short lines.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.wording import short_lines
        >>> short_lines(np.array([0.2, 0.8]), ["no", "yes"], "classification")
        ['yes', 'p 0.80']
        >>> short_lines(np.array([0.5]), ["0"], "regression")
        ['mean 0.5']
    """
    best, probability = likeliest(values, task)
    return [describe(values, names, task)] if best < 0 else [names[best], f"p {probability:.2f}"]


def describe(values: np.ndarray, names: Sequence[str], task: str) -> str:
    """Return what a leaf says in words.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.wording import describe
        >>> describe(np.array([0.2, 0.8]), ["no", "yes"], "classification")
        'class yes, probability 0.80'
        >>> describe(np.array([0.5]), ["0"], "regression"), describe(np.array([1.0, 2]), ["a", "b"], "regression")
        ('mean 0.5', 'means a = 1, b = 2')
    """
    best, probability = likeliest(values, task)
    if best >= 0:
        return f"class {names[best]}, probability {probability:.2f}"
    if len(values) == 1:
        return f"mean {values[0]:.3g}"
    return "means " + ", ".join(f"{name} = {value:.3g}" for name, value in zip(names, values, strict=True))


def _signed(weight: float) -> str:
    return f"{'-' if weight < 0 else '+'} {abs(weight):.2f}"
