"""LIME: a linear model that imitates the network around one sample."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from kdkeras._extras import require
from kdkeras.explain.baselines import baseline_of
from kdkeras.explain.method import Method
from kdkeras.explain.parts import check_counts, parts_of, rows_of_table, scores_with, share_out
from kdkeras.explain.subject import Subject

_KERNEL_WIDTH = 0.25  # lime's own for images and words, over the cosine distance


class LIME(Method):
    """The weights of a linear model that was fitted to the network's answers around the sample.

    Of images, superpixels are hidden at random, of sequences values; a ridge regression of the target's logit on what
    is seen, weighed by closeness to the whole sample, gives each part a weight. The weight of a superpixel is shared
    equally among its pixels, so that sums over pixels mean something. Of tables, samples are drawn around the
    background's mean with its standard deviations; the map is the local slope times the value's distance from that
    mean. (lime's tables are by default cut into quartiles, whose weights belong to bins and not to values.)

    The fits are those of the package `lime`, which the extra `explain` installs.

    Args:
        samples: Perturbed samples per explained one: as many forward passes. Default 1,000, lime's own for images.
        segments: About how many superpixels of an image. Default 50: what a person can look at.
        baseline: What is put in the place of a hidden part: a number, or an array of the shape of one sample. Default
            0: black, or the padding word. Not for tables.
        background: Rows of a table that tell the columns' means and standard deviations; training samples, if you
            explain few. By default the samples that are explained.
        seed: Seed of the perturbations.

    Raises:
        ValueError: A count is below 1; baseline or background do not fit.

    Example:
        >>> from kdkeras import explain
        >>> explain.LIME(samples=200, segments=20).segments
        20

    Reference:
        Ribeiro, Singh, Guestrin: "Why Should I Trust You?": Explaining the Predictions of Any Classifier, 2016,
        arXiv:1602.04938.
    """

    name: ClassVar[str] = "lime"
    title: ClassVar[str] = "LIME"

    def __init__(
        self,
        samples: int = 1000,
        segments: int = 50,
        baseline: Any = None,
        background: Any = None,
        *,
        seed: int = 0,
    ) -> None:
        check_counts("LIME", samples=samples, segments=segments)
        self.samples, self.segments, self.seed = samples, segments, seed
        self.baseline, self.background = baseline, background

    def maps(self, subject: Subject, layer: str | None) -> np.ndarray:
        """Return the maps, with sign: what speaks for the target is positive.

        Raises:
            ImportError: The extra `explain` is not installed.
        """
        x = subject.array
        background = rows_of_table(x, self.background, self.baseline)
        if background is not None:
            maps = self._table(subject, background)
        else:
            maps = [self._parts(subject, row) for row in range(len(x))]
        return np.stack(maps).astype("float32")

    def _parts(self, subject: Subject, row: int) -> np.ndarray:
        lime_base = require("lime.lime_base", extra="explain", what="`explain.LIME`")
        sample, random = subject.array[row], np.random.RandomState(self.seed)  # lime knows no newer generator
        parts = parts_of(sample, self.segments, "`explain.LIME`")
        seen = random.random_sample((self.samples, int(parts.max()) + 1)) < 0.5
        seen[0] = True  # the sample itself, as lime has it
        hidden = baseline_of(subject.array, self.baseline)[row]
        scores = scores_with(subject, row, seen, parts, hidden)
        distances = 1 - np.sqrt(seen.mean(axis=1))  # the cosine distance from a vector of ones
        _, weights, *_ = lime_base.LimeBase(_kernel, random_state=random).explain_instance_with_data(
            seen.astype("float64"), scores[:, None], distances, 0, seen.shape[1], feature_selection="none"
        )
        return share_out(_in_order(weights), parts)

    def _table(self, subject: Subject, background: np.ndarray) -> list[np.ndarray]:
        lime_tabular = require("lime.lime_tabular", extra="explain", what="`explain.LIME`")
        maps = []
        for row, sample in enumerate(subject.array):
            # A new one for each sample: its random numbers must not depend on the samples before.
            explainer = lime_tabular.LimeTabularExplainer(
                background,
                mode="regression",
                discretize_continuous=False,
                feature_selection="none",
                random_state=self.seed,
            )

            def answer(changed: np.ndarray, row: int = row) -> np.ndarray:
                return subject.scores(changed.astype("float32"), samples=np.full(len(changed), row))

            found = explainer.explain_instance(sample, answer, num_features=len(sample), num_samples=self.samples)
            slopes = _in_order(found.local_exp[1])  # under 1 is the regression, under 0 the same with its sign turned
            maps.append(slopes * (sample - background.mean(axis=0)) / explainer.scaler.scale_)
        return maps


def _kernel(distances: np.ndarray) -> np.ndarray:
    return np.sqrt(np.exp(-(distances**2) / _KERNEL_WIDTH**2))


def _in_order(weights: list[tuple[int, float]]) -> np.ndarray:
    """Return pairs of index and weight, which lime sorts by size, as an array by index."""
    return np.array([weight for _, weight in sorted(weights)])
