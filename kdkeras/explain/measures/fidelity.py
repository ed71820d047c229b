"""Does the score change by as much as the attributions say? Mu-fidelity and infidelity."""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np

from kdkeras import metrics
from kdkeras.explain.baselines import baseline_of
from kdkeras.explain.explanation import Explanation
from kdkeras.explain.measures.attributions import is_constant, is_zero, question, spread
from kdkeras.explain.measures.randomness import check_floats, generators
from kdkeras.explain.measures.subsets import Subsets
from kdkeras.explain.measures.variants import scores_of_variants
from kdkeras.explain.subject import Score, Subject
from kdkeras.inputs import check_count

_CORRELATIONS = ("spearman", "pearson")


def mu_fidelity(
    model: keras.Model,
    x: Any,
    explanation: Explanation | Any,
    target: Any = None,
    *,
    correlation: Literal["spearman", "pearson"] = "spearman",
    samples: int = 200,
    share: float = 0.2,
    grid: int = 9,
    baseline: Any = 0.0,
    score: Score = "logit",
    batch_size: int = 32,
    seed: int = 0,
) -> np.ndarray:
    """Correlate the summed attribution of random subsets with the score that is lost without them.

        μ_F = corr_S(Σ_{i∈S} φ_i, f(x) − f(x with the places of S at the baseline))

    1 where the attributions say which parts matter more than others; 0 where they know nothing of it. For a linear
    model and φ = w·x it is 1.

    Args:
        model: A Keras model with one input, that returns `(batch, units)`.
        x: The samples explained, as for `deletion`.
        explanation: An `Explanation` or attributions φ, as for `deletion`.
        target: Index of the unit that was explained, as for `deletion`.
        correlation: `"spearman"`, of ranks, as most libraries have it; or `"pearson"`, as in the paper.
        samples: Number of subsets per sample. 200, as in Xplique.
        share: Share of the places in a subset. 0.2, as in Xplique.
        grid: Images are cut into `grid` × `grid` cells, and subsets are made of whole cells. 9, as in Xplique; at most
            one per pixel. Has no meaning for tables.
        baseline: What replaces a place, as for `deletion`. 0.
        score: f: `"logit"` or `"probability"`, as `deletion` defines them. The logit, which does not saturate.
        batch_size: Samples per pass. 32, as in Keras' `predict`.
        seed: Seed of the subsets.

    Returns:
        Values in [−1, 1], float64 `(n,)`; NaN where all sums of attributions are equal, as for constant attributions,
        or where the score never changes.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: The model has several inputs, or x, attributions, target or options do not fit it.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
        >>> x = np.random.default_rng(0).normal(size=(2, 6)).astype("float32")
        >>> explain.mu_fidelity(model, x, x * model.get_weights()[0][:, 0]).round(3)
        array([1., 1.])

    Reference:
        Bhatt, Weller and Moura, "Evaluating and aggregating feature-based model explanations", 2020.
    """
    subject, attributions = question(model, x, explanation, target, batch_size)
    subsets = Subsets(attributions.shape[1:], share=share, grid=grid, seed=seed)
    drops = subset_drops(subject, subsets, samples=samples, baseline=baseline, score=score)
    values = correlate(subset_sums(attributions, subsets, samples), drops, correlation)
    return np.where(is_constant(attributions), np.nan, values)


def infidelity(
    model: keras.Model,
    x: Any,
    explanation: Explanation | Any,
    target: Any = None,
    *,
    perturbation: Literal["subsets", "noise"] = "subsets",
    rescale: bool = False,
    samples: int = 200,
    share: float = 0.2,
    grid: int = 9,
    baseline: Any = 0.0,
    sd: float = 0.2,
    score: Score = "logit",
    batch_size: int = 32,
    seed: int = 0,
) -> np.ndarray:
    """Mean squared difference between the change of score that the attributions predict and the one that happens.

        INFD = E_I[(I·φ − (f(x) − f(x perturbed by I)))²]

    0 is best. What I and φ are depends on what the attributions mean:

    - `"subsets"`: φ_i is what a place contributes (Grad-CAM, input × gradient, integrated gradients). I is 1 on a
      random subset, whose places are set to the baseline, and 0 elsewhere. For a linear model, φ = w·(x − baseline)
      gives 0.
    - `"noise"`: φ_i is a slope (a gradient). I is Gaussian, f is taken at x − I, and all channels of a place get the
      same noise. For a linear model, φ = w gives 0, with φ summed over the channels where there are some.

    Args:
        model: A Keras model with one input, that returns `(batch, units)`.
        x: The samples explained, as for `deletion`.
        explanation: An `Explanation` or attributions φ, as for `deletion`.
        target: Index of the unit that was explained, as for `deletion`.
        perturbation: `"subsets"` or `"noise"`.
        rescale: Whether φ is first multiplied by the factor, one per sample, that makes its infidelity least. Needed
            for attributions without a scale, such as the `maps` of an `Explanation`, whose maximum is 1. Default
            `False`, as the measure is defined.
        samples: Number of perturbations per sample. 200, as for `mu_fidelity`.
        share: Share of the places in a subset. 0.2, as for `mu_fidelity`.
        grid: Cells of the subsets along height and width of images. 9, as for `mu_fidelity`.
        baseline: What replaces the places of a subset, as for `deletion`. 0.
        sd: Standard deviation of the noise, in units of x. 0.2, for inputs of about unit scale.
        score: f: `"logit"` or `"probability"`, as `deletion` defines them. The logit, which does not saturate.
        batch_size: Samples per pass. 32, as in Keras' `predict`.
        seed: Seed of the perturbations.

    Returns:
        Values of at least 0, in squared units of the score, float64 `(n,)`; NaN for attributions that are zero
        everywhere, which predict nothing.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: The model has several inputs, x is integers where noise is asked for, or x, attributions, target or
            options do not fit the model.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
        >>> x = np.random.default_rng(0).normal(size=(2, 6)).astype("float32")
        >>> explain.infidelity(model, x, x * model.get_weights()[0][:, 0]).round(6)
        array([0., 0.])

    Reference:
        Yeh, Hsieh, Suggala, Inouye and Ravikumar, "On the (in)fidelity and sensitivity of explanations", 2019.
    """
    subject, attributions = question(model, x, explanation, target, batch_size)
    if perturbation == "noise":
        pairs = _noise_pairs(subject, attributions, samples, sd, score, seed)
    elif perturbation == "subsets":
        subsets = Subsets(attributions.shape[1:], share=share, grid=grid, seed=seed)
        drops = subset_drops(subject, subsets, samples=samples, baseline=baseline, score=score)
        pairs = subset_sums(attributions, subsets, samples), drops
    else:
        raise ValueError(f"`perturbation` must be 'subsets' or 'noise'. Received: perturbation={perturbation!r}.")
    return np.where(is_zero(attributions), np.nan, squared_error(*pairs, rescale=rescale))


def subset_sums(attributions: np.ndarray, subsets: Subsets, samples: int) -> np.ndarray:
    """Return what the attributions say that each subset contributes.

    Args:
        attributions: Shape `(n, ...)`.
        subsets: The subsets.
        samples: Number of subsets per sample.

    Returns:
        float64 `(n, samples)`.
    """
    everyone = np.arange(len(attributions))
    masks = (subsets.draw(everyone, np.full(len(everyone), version)) for version in range(samples))
    return np.stack([(attributions * mask).reshape(len(everyone), -1).sum(axis=1) for mask in masks], axis=1)


def subset_drops(subject: Subject, subsets: Subsets, *, samples: int, baseline: Any, score: Score) -> np.ndarray:
    """Return what is lost of the score without each subset.

    Args:
        subject: The model with its samples and targets.
        subsets: The subsets.
        samples: Number of subsets per sample.
        baseline: What replaces the places of a subset.
        score: Which score is lost.

    Returns:
        float64 `(n, samples)`.

    Raises:
        ValueError: `samples` is below 2, or the baseline or the score does not fit.
    """
    if samples < 2:
        raise ValueError(f"`samples` must be at least 2. Received: samples={samples}.")
    replacement = baseline_of(subject.array, baseline)

    def make(index: np.ndarray, versions: np.ndarray) -> np.ndarray:
        gone = spread(subsets.draw(index, versions), subject.array)
        return np.where(gone, replacement[index], subject.array[index])

    return subject.scores(score=score)[:, np.newaxis] - scores_of_variants(subject, samples, make, score)


def correlate(predicted: np.ndarray, happened: np.ndarray, correlation: str) -> np.ndarray:
    """Return the correlation of each pair of rows.

    Args:
        predicted: Shape `(n, samples)`.
        happened: Shape `(n, samples)`.
        correlation: `"spearman"` or `"pearson"`.

    Returns:
        float64 `(n,)`; NaN where one of the rows is constant.

    Raises:
        ValueError: `correlation` is something else.
    """
    if correlation not in _CORRELATIONS:
        raise ValueError(f"`correlation` must be 'spearman' or 'pearson'. Received: correlation={correlation!r}.")
    pair = predicted[:, np.newaxis], happened[:, np.newaxis]  # (n, 1, samples): a map of one row
    return metrics.spearman(*pair) if correlation == "spearman" else metrics.pearson(*pair)


def squared_error(predicted: np.ndarray, happened: np.ndarray, *, rescale: bool) -> np.ndarray:
    """Return the mean squared difference of each pair of rows.

    Args:
        predicted: Shape `(n, samples)`.
        happened: Shape `(n, samples)`.
        rescale: Whether each row of predictions is first multiplied by the factor `Σ ab / Σ a²` that fits it best.

    Returns:
        float64 `(n,)`; NaN where nothing is predicted at all.
    """
    zero = ~predicted.any(axis=1)
    if rescale:
        factor = (predicted * happened).sum(axis=1) / np.where(zero, 1, (predicted**2).sum(axis=1))
        predicted = factor[:, np.newaxis] * predicted
    return np.where(zero, np.nan, ((predicted - happened) ** 2).mean(axis=1))


def _noise_pairs(
    subject: Subject, attributions: np.ndarray, samples: int, sd: float, score: Score, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the attributions say that noise takes away, and what it does."""
    check_floats(subject.array)
    check_count("samples", samples)
    if not sd > 0:
        raise ValueError(f"`sd` must be positive. Received: sd={sd}.")
    products = np.empty((len(attributions), samples))

    def make(index: np.ndarray, versions: np.ndarray) -> np.ndarray:
        noise = np.stack([random.normal(0, sd, attributions.shape[1:]) for random in generators(seed, index, versions)])
        products[index, versions] = (attributions[index] * noise).reshape(len(index), -1).sum(axis=1)
        return subject.array[index] - spread(noise, subject.array)

    moved = scores_of_variants(subject, samples, make, score)
    return products, subject.scores(score=score)[:, np.newaxis] - moved
