"""SHAP: Shapley values, each part's fair share of what the model says."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from kdkeras._extras import require
from kdkeras.explain.baselines import baseline_of
from kdkeras.explain.method import Method
from kdkeras.explain.parts import check_counts, parts_of, rows_of_table, scores_with, share_out
from kdkeras.explain.subject import Subject


class SHAP(Method):
    """Shapley values of the target's logit, by Kernel SHAP: how much each part adds, the mean over all orders.

    The values of a sample add up to its logit less that of the background. Of tables the parts are the features, and
    hidden ones take the values of background rows, the mean over the rows; of images they are superpixels, of
    sequences single values, and hidden ones take the baseline. The value of a superpixel is shared equally among its
    pixels. A linear logit is explained exactly, by w_i (x_i − mean_i); others as well as the evaluations allow.

    The values are computed by the package `shap`, which the extra `explain` installs.

    Args:
        evaluations: Sets of parts that are tried per sample, at least twice the number of parts; each costs a forward
            pass, of a table one per background row. Default 500. With 2^parts sets or more, all are tried.
        segments: About how many superpixels of an image. Default 50: what a person can look at.
        baseline: What is put in the place of a hidden part: a number, or an array of the shape of one sample. Default
            0: black, or the padding word. Not for tables.
        background: Rows of a table, such as training samples. By default the samples that are explained.
        background_rows: How many of them are used, drawn at random where there are more. Default 50.
        seed: Seed of the sets and of the background's rows.

    Raises:
        ValueError: A count is below 1; baseline or background do not fit.

    Example:
        >>> from kdkeras import explain
        >>> explain.SHAP(evaluations=2000).evaluations
        2000

    Reference:
        Lundberg, Lee: A Unified Approach to Interpreting Model Predictions, 2017, arXiv:1705.07874.
    """

    name: ClassVar[str] = "shap"
    title: ClassVar[str] = "SHAP"

    def __init__(
        self,
        evaluations: int = 500,
        segments: int = 50,
        baseline: Any = None,
        background: Any = None,
        background_rows: int = 50,
        *,
        seed: int = 0,
    ) -> None:
        check_counts("SHAP", evaluations=evaluations, segments=segments, background_rows=background_rows)
        self.evaluations, self.segments, self.seed = evaluations, segments, seed
        self.baseline, self.background, self.background_rows = baseline, background, background_rows

    def maps(self, subject: Subject, layer: str | None) -> np.ndarray:
        """Return the maps, with sign: what speaks for the target is positive.

        Raises:
            ImportError: The extra `explain` is not installed.
        """
        x, shap = subject.array, _shap()
        background = rows_of_table(x, self.background, self.baseline)
        if background is not None:
            background = self._some(background)
            maps = [self._table(shap, subject, row, background) for row in range(len(x))]
        else:
            maps = [self._parts(shap, subject, row) for row in range(len(x))]
        return np.stack(maps).astype("float32")

    def _table(self, shap: ModuleType, subject: Subject, row: int, background: np.ndarray) -> np.ndarray:
        def answer(changed: np.ndarray) -> np.ndarray:
            return subject.scores(changed.astype("float32"), samples=np.full(len(changed), row))

        return self._values(shap, answer, background, subject.array[row])

    def _parts(self, shap: ModuleType, subject: Subject, row: int) -> np.ndarray:
        parts = parts_of(subject.array[row], self.segments, "`explain.SHAP`")
        hidden, count = baseline_of(subject.array, self.baseline)[row], int(parts.max()) + 1

        def answer(seen: np.ndarray) -> np.ndarray:
            return scores_with(subject, row, seen > 0.5, parts, hidden)

        return share_out(self._values(shap, answer, np.zeros((1, count)), np.ones(count)), parts)

    def _values(
        self, shap: ModuleType, answer: Callable[[np.ndarray], np.ndarray], background: np.ndarray, sample: np.ndarray
    ) -> np.ndarray:
        sets = max(self.evaluations, 2 * len(sample))
        with _seeded(self.seed):
            explainer = shap.KernelExplainer(answer, background)
            return explainer.shap_values(sample, nsamples=sets, l1_reg=False, silent=True)

    def _some(self, background: np.ndarray) -> np.ndarray:
        if len(background) <= self.background_rows:
            return background
        chosen = np.random.default_rng(self.seed).choice(len(background), self.background_rows, replace=False)
        return background[np.sort(chosen)]


def _shap() -> ModuleType:
    with warnings.catch_warnings():
        # shap builds its colours at import in a way that matplotlib 3.11 is going to drop.
        warnings.filterwarnings("ignore", r"The set_(bad|over|under) function", PendingDeprecationWarning)
        return require("shap", extra="explain", what="`explain.SHAP`")


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, the only one that Kernel SHAP knows, and put it back."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
