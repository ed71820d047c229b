"""How often models agree, and are right, over the samples of the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Overview:
    """Figures over the first samples of the data.

    Attributes:
        samples: How many.
        agreement: Share of them on which a model names the teacher's class, by the model's title.
        accuracy: Share on which it names the label, by title; empty where there are no labels.
        differing: Numbers of the samples on which the student does not name the teacher's class.
        wrong: Numbers of those on which the student does not name the label.
    """

    samples: int
    agreement: dict[str, float]
    accuracy: dict[str, float]
    differing: tuple[int, ...]
    wrong: tuple[int, ...]


def overview_of(named: dict[str, np.ndarray], y: np.ndarray | None) -> Overview:
    """Return the figures of what models named.

    Args:
        named: Class that each model names for each sample, by the model's title; with "Teacher" and "Student".
        y: The labels, where they are known.

    Returns:
        The `Overview`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.app.overview import overview_of
        >>> overview_of({"Teacher": np.array([0, 1]), "Student": np.array([0, 0])}, None)
        Overview(samples=2, agreement={'Student': 0.5}, accuracy={}, differing=(1,), wrong=())
    """
    teacher, student = named["Teacher"], named["Student"]
    return Overview(
        len(teacher),
        {title: float((classes == teacher).mean()) for title, classes in named.items() if title != "Teacher"},
        {} if y is None else {title: float((classes == y).mean()) for title, classes in named.items()},
        tuple(np.flatnonzero(student != teacher).tolist()),
        () if y is None else tuple(np.flatnonzero(student != y).tolist()),
    )
