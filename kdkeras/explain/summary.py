"""One measure over many samples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_CONFIDENCE = 0.95


class Summary(NamedTuple):
    """One measure over all samples for which it is defined.

    Attributes:
        mean: Mean; NaN where no sample is left.
        sd: Standard deviation of the sample (n − 1); NaN for fewer than two.
        n: Number of samples.
    """

    mean: float
    sd: float
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the mean: `mean ± t · sd / √n`, t of Student with n − 1 degrees of freedom.

        NaN for fewer than two samples.

        Example:
            >>> from kdkeras.explain.summary import summarise
            >>> [round(end, 2) for end in summarise([1.0, 2.0, 3.0]).interval]  # 2 ± 4.303 · 1 / √3
            [-0.48, 4.48]
        """
        from scipy import stats

        if self.n < 2:
            return float("nan"), float("nan")
        half = float(stats.t.ppf((1 + _CONFIDENCE) / 2, self.n - 1)) * self.sd / self.n**0.5
        return self.mean - half, self.mean + half


def summarise(values: np.ndarray) -> Summary:
    """Return mean, standard deviation and number of the values that are not NaN.

    Args:
        values: One per sample, shape `(n,)`.

    Returns:
        The `Summary`.

    Example:
        >>> from kdkeras.explain.summary import summarise
        >>> summarise([1.0, 3.0, float("nan")])
        Summary(mean=2.0, sd=1.4142135623730951, n=2)
    """
    values = np.asarray(values, dtype="float64")
    values = values[~np.isnan(values)]
    n = len(values)
    mean = float(values.mean()) if n else float("nan")
    return Summary(mean, float(values.std(ddof=1)) if n > 1 else float("nan"), n)


def shown(value: float) -> str:
    """Return a figure with three decimals; NaN is a dash.

    Args:
        value: The figure.

    Returns:
        The text.
    """
    return "–" if np.isnan(value) else f"{value:.3f}"


def plain(value: float) -> float | None:
    """Return a figure as JSON has it: NaN becomes `None`.

    Args:
        value: The figure.

    Returns:
        A Python float, or `None`.
    """
    return None if np.isnan(value) else float(value)
