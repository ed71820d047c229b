"""Deletion and insertion: does the score follow the order in which an explanation ranks the pixels?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from kdkeras.explain.baselines import baseline_of, usual_reveal
from kdkeras.explain.explanation import Explanation
from kdkeras.explain.measures.attributions import is_constant, question, spread
from kdkeras.explain.measures.variants import scores_of_variants
from kdkeras.explain.subject import Score, Subject
from kdkeras.explain.summary import Summary, summarise
from kdkeras.inputs import check_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class PerturbationCurve:
    """How the target's score changes while a sample is taken away, or revealed, in the order of its attributions.

    Attributes:
        kind: `"deletion"` or `"insertion"`.
        model: Name of the model.
        score: What the curve shows of the target: `"probability"` or `"logit"`.
        share: Share of the places changed so far, from 0 to 1, shape `(steps + 1,)`.
        scores: Score of each sample at each share, shape `(n, steps + 1)`; NaN for constant attributions, which have
            no order.
        area: Area under each sample's curve by the trapezoidal rule, shape `(n,)`.
    """

    kind: Literal["deletion", "insertion"]
    model: str
    score: Score
    share: np.ndarray = field(repr=False)
    scores: np.ndarray = field(repr=False)
    area: np.ndarray = field(repr=False)

    @property
    def summary(self) -> Summary:
        """The `Summary` of the area over all samples that have one."""
        return summarise(self.area)

    def plot(self) -> Figure:
        """Draw the mean curve with the 95 % confidence interval of the mean.

        Returns:
            A matplotlib `Figure`, not registered with pyplot.

        Raises:
            ValueError: No sample has a curve.
        """
        from kdkeras.explain.measures.curve_pictures import curve_panels

        return curve_panels([self])


def deletion(
    model: keras.Model,
    x: Any,
    explanation: Explanation | Any,
    target: Any = None,
    *,
    baseline: Any = 0.0,
    steps: int = 50,
    score: Score = "probability",
    batch_size: int = 32,
    seed: int = 0,
) -> PerturbationCurve:
    """Take away the most relevant places first, and watch the score of the target fall.

    A true explanation names first what the prediction rests on, so the score falls early: a *small* area is good.

    Args:
        model: A Keras model with one input, that returns `(batch, units)`.
        x: The samples explained: images `(n, height, width, channels)`, tables `(n, features)`, or other arrays.
        explanation: An `Explanation`, or attributions: maps `(n, height, width)` for images, `(n, features)` for
            tables; in general x's shape, with or without the last axis. The largest come first; equal ones in random
            order.
        target: Index of the unit that was explained, one integer or one per sample. By default the `Explanation`'s
            own; for attributions alone, the class that the model predicts for the whole sample.
        baseline: What replaces a place: a number, an array that broadcasts to x, or `"blur"` (σ = 5 pixels). 0, as in
            RISE.
        steps: Number of equal steps from the whole sample to none of it; at most one per place. 50: two hundredths of
            the places at a time, where RISE takes one row of pixels.
        score: `"probability"`: the softmax or sigmoid of the logits, by the model's own head, softmax where it ends in
            several linear units, and the output itself where it is a single linear unit. `"logit"`: before it.
        batch_size: Samples per pass. 32, as in Keras' `predict`.
        seed: Seed of the order of equal attributions.

    Returns:
        The `PerturbationCurve`.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: The model has several inputs, or x, attributions, target or options do not fit it.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> model.set_weights([np.array([[3.0], [1.0]])])
        >>> curve = explain.deletion(model, np.ones((1, 2)), [[3.0, 1.0]])
        >>> curve.scores, curve.area  # 4, then 1 without the first column, then 0
        (array([[4., 1., 0.]]), array([1.5]))

    Reference:
        Petsiuk, Das and Saenko, "RISE: Randomized input sampling for explanation of black-box models", 2018.
    """
    subject, attributions = question(model, x, explanation, target, batch_size)
    return deletion_curve(subject, attributions, baseline=baseline, steps=steps, score=score, seed=seed)


def insertion(
    model: keras.Model,
    x: Any,
    explanation: Explanation | Any,
    target: Any = None,
    *,
    baseline: Any = None,
    steps: int = 50,
    score: Score = "probability",
    batch_size: int = 32,
    seed: int = 0,
) -> PerturbationCurve:
    """Reveal the most relevant places first, and watch the score of the target rise.

    A true explanation names first what the prediction rests on, so the score rises early: a *large* area is good.

    Args:
        model: A Keras model with one input, that returns `(batch, units)`.
        x: The samples explained, as for `deletion`.
        explanation: An `Explanation` or attributions, as for `deletion`.
        target: Index of the unit that was explained, as for `deletion`.
        baseline: What a place is before it is revealed: a number, an array that broadcasts to x, or `"blur"` (σ = 5
            pixels). By default `"blur"` for images, as in RISE, and 0 for everything else.
        steps: Number of equal steps from nothing to the whole sample; at most one per place. 50, as for `deletion`.
        score: `"probability"` or `"logit"`, as for `deletion`.
        batch_size: Samples per pass. 32, as in Keras' `predict`.
        seed: Seed of the order of equal attributions.

    Returns:
        The `PerturbationCurve`.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: The model has several inputs, or x, attributions, target or options do not fit it.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> model.set_weights([np.array([[3.0], [1.0]])])
        >>> explain.insertion(model, np.ones((1, 2)), [[3.0, 1.0]]).scores
        array([[0., 3., 4.]])

    Reference:
        Petsiuk, Das and Saenko, "RISE: Randomized input sampling for explanation of black-box models", 2018.
    """
    subject, attributions = question(model, x, explanation, target, batch_size)
    return insertion_curve(subject, attributions, baseline=baseline, steps=steps, score=score, seed=seed)


def deletion_curve(
    subject: Subject, attributions: np.ndarray, *, baseline: Any, steps: int, score: Score, seed: int
) -> PerturbationCurve:
    """Do as `deletion`, for a model that is already asked.

    Args:
        subject: The model with its samples and targets.
        attributions: Shape `(n, ...)`.
        baseline: As for `deletion`.
        steps: As for `deletion`.
        score: As for `deletion`.
        seed: As for `deletion`.

    Returns:
        The `PerturbationCurve`.
    """
    gone = baseline_of(subject.array, baseline)
    return _curve("deletion", subject, attributions, (subject.array, gone), steps, score, seed)


def insertion_curve(
    subject: Subject, attributions: np.ndarray, *, baseline: Any, steps: int, score: Score, seed: int
) -> PerturbationCurve:
    """Do as `insertion`, for a model that is already asked.

    Args:
        subject: The model with its samples and targets.
        attributions: Shape `(n, ...)`.
        baseline: As for `insertion`.
        steps: As for `insertion`.
        score: As for `insertion`.
        seed: As for `insertion`.

    Returns:
        The `PerturbationCurve`.
    """
    hidden = baseline_of(subject.array, usual_reveal(subject.array) if baseline is None else baseline)
    return _curve("insertion", subject, attributions, (hidden, subject.array), steps, score, seed)


def _curve(
    kind: Literal["deletion", "insertion"],
    subject: Subject,
    attributions: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    steps: int,
    score: Score,
    seed: int,
) -> PerturbationCurve:
    """Walk from the first to the second of `ends`, the most relevant places first."""
    check_count("steps", steps)
    places = attributions[0].size
    changed = np.round(np.linspace(0, places, min(steps, places) + 1)).astype(int)
    ranks = _ranks(attributions, seed)
    before, after = ends

    def make(samples: np.ndarray, versions: np.ndarray) -> np.ndarray:
        moved = ranks[samples] < changed[versions].reshape(-1, *(1,) * (ranks.ndim - 1))
        return np.where(spread(moved, subject.array), after[samples], before[samples])

    values = scores_of_variants(subject, len(changed), make, score)
    values[is_constant(attributions)] = np.nan
    share = changed / places
    return PerturbationCurve(kind, subject.model.name, score, share, values, np.trapezoid(values, share, axis=1))


def _ranks(attributions: np.ndarray, seed: int) -> np.ndarray:
    """Return the place of each attribution in its sample's order: 0 for the largest; equal ones at random."""
    rows = attributions.reshape(len(attributions), -1)
    ranks = np.empty(rows.shape, dtype=int)
    for index, row in enumerate(rows):
        chance = np.random.default_rng((seed, index)).random(row.size)
        ranks[index, np.lexsort((chance, -row))] = np.arange(row.size)
    return ranks.reshape(attributions.shape)
