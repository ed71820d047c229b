"""How long a call takes: one definition for Keras models and for TFLite files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Latency(NamedTuple):
    """Wall-clock time of one call, in milliseconds.

    Attributes:
        median: Median over the timed calls.
        p90: 90th percentile over the timed calls.
        runs: Number of timed calls.
    """

    median: float
    p90: float
    runs: int


def measure(call: Callable[[], Any], *, runs: int = 50, warmup: int = 10) -> Latency:
    """Time `call` and return its median and 90th percentile.

    Medians, because a shared machine makes a few calls slow; warm-up calls first, because the first calls pay for
    tracing and for cold caches.

    Args:
        call: The function to time; it must return only when its work is done.
        runs: Number of timed calls, at least 1.
        warmup: Number of calls before the clock starts.

    Returns:
        A `Latency`, in milliseconds.

    Raises:
        ValueError: `runs` is below 1 or `warmup` is negative.

    Example:
        >>> from kdkeras.latency import measure
        >>> measure(lambda: sum(range(100)), runs=5).runs
        5
    """
    if runs < 1 or warmup < 0:
        raise ValueError(f"`measure` needs runs >= 1 and warmup >= 0. Received: runs={runs}, warmup={warmup}.")
    for _ in range(warmup):
        call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return summary(times)


def summary(times: Sequence[float]) -> Latency:
    """Return median and 90th percentile of the times of single calls.

    Args:
        times: Milliseconds of each call, at least one.

    Returns:
        A `Latency`.

    Example:
        >>> from kdkeras.latency import summary
        >>> summary([3.0, 1.0, 2.0]).median
        2.0
    """
    return Latency(float(np.median(times)), float(np.percentile(times, 90)), len(times))
