"""Latencies are medians of timed calls."""

import time

import pytest

from kdkeras.latency import measure


def test_median_of_a_known_wait():
    latency = measure(lambda: time.sleep(0.005), runs=9, warmup=1)
    assert 5 <= latency.median < 50
    assert latency.p90 >= latency.median
    assert latency.runs == 9


def test_no_runs_are_refused():
    with pytest.raises(ValueError, match=r"runs >= 1 and warmup >= 0. Received: runs=0"):
        measure(lambda: None, runs=0)
