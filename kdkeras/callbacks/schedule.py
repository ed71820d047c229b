"""Schedules: functions from the epoch, which may be a fraction, to a value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

Schedule = Callable[[float], float]


def linear(start: float, end: float, *, epochs: float, delay: float = 0.0) -> Schedule:
    """Return a schedule that goes from `start` to `end` in a straight line.

    `value(t) = start + (end − start) · clip((t − delay) / epochs, 0, 1)`

    Args:
        start: Value until `delay`.
        end: Value from `delay + epochs` on: with one value per epoch, the first epoch that has it is number
            `delay + epochs`, counted from 0.
        epochs: Length of the way, in epochs, above 0.
        delay: Epochs before it begins. Default 0.

    Returns:
        The schedule.

    Raises:
        ValueError: `epochs` is not above 0, or another value is not finite or negative where it cannot be.

    Example:
        >>> from kdkeras.callbacks import linear
        >>> [linear(8, 1, epochs=2, delay=1)(epoch) for epoch in range(5)]
        [8.0, 8.0, 4.5, 1.0, 1.0]
    """
    _check("linear", epochs, delay, start, end)
    return lambda epoch: start + (end - start) * _progress(epoch, epochs, delay)


def cosine(start: float, end: float, *, epochs: float, delay: float = 0.0) -> Schedule:
    """Return a schedule that goes from `start` to `end` on half a cosine: slow, fast, slow.

    `value(t) = end + (start − end) · (1 + cos(π · clip((t − delay) / epochs, 0, 1))) / 2`

    Args:
        start: Value until `delay`.
        end: Value from `delay + epochs` on.
        epochs: Length of the way, in epochs, above 0.
        delay: Epochs before it begins. Default 0.

    Returns:
        The schedule.

    Raises:
        ValueError: As for `linear`.

    Example:
        >>> from kdkeras.callbacks import cosine
        >>> [round(cosine(1, 0, epochs=4)(epoch), 3) for epoch in range(5)]
        [1.0, 0.854, 0.5, 0.146, 0.0]

    Reference:
        Loshchilov, Hutter: SGDR: Stochastic Gradient Descent with Warm Restarts, 2017, arXiv:1608.03983.
    """
    _check("cosine", epochs, delay, start, end)
    return lambda epoch: end + (start - end) * (1 + math.cos(math.pi * _progress(epoch, epochs, delay))) / 2


def warm_up(end: float, *, epochs: float, delay: float = 0.0) -> Schedule:
    """Return a schedule that rises from 0 to `end` in a straight line.

    Args:
        end: Value from `delay + epochs` on.
        epochs: Length of the way, in epochs, above 0.
        delay: Epochs of value 0 before it begins. Default 0.

    Returns:
        The schedule.

    Raises:
        ValueError: As for `linear`.

    Example:
        >>> from kdkeras.callbacks import warm_up
        >>> [warm_up(0.9, epochs=3)(epoch) for epoch in (0, 1.5, 7)]
        [0.0, 0.45, 0.9]
    """
    _check("warm_up", epochs, delay, end)
    return lambda epoch: end * _progress(epoch, epochs, delay)


def stages(values: Mapping[float, float]) -> Schedule:
    """Return a schedule that stands at one value after the other.

    Args:
        values: Value by the epoch from which it holds, counted from 0. The first epoch must be among them.

    Returns:
        The schedule.

    Raises:
        ValueError: There is no value for epoch 0, or a value is not finite.

    Example:
        >>> from kdkeras.callbacks import stages
        >>> [stages({0: 1.0, 2: 0.1})(epoch) for epoch in range(4)]
        [1.0, 1.0, 0.1, 0.1]
    """
    if 0 not in values or min(values) < 0 or not all(map(math.isfinite, [*values, *values.values()])):
        raise ValueError(
            f"`stages` needs finite values by epoch, the first of them at 0. Received: {dict(values)}. "
            "Write for example `{0: 1.0, 10: 0.1}`."
        )
    ordered = dict(sorted(values.items()))
    return lambda epoch: [value for begin, value in ordered.items() if begin <= epoch][-1]


def _progress(epoch: float, epochs: float, delay: float) -> float:
    return min(max((epoch - delay) / epochs, 0.0), 1.0)


def _check(name: str, epochs: float, delay: float, *values: float) -> None:
    if not (math.isfinite(epochs) and epochs > 0 and math.isfinite(delay) and delay >= 0):
        raise ValueError(
            f"`{name}` needs `epochs` above 0 and a `delay` of at least 0. Received: {epochs=}, {delay=}. Both are "
            "counted in epochs."
        )
    if not all(map(math.isfinite, values)):
        raise ValueError(f"`{name}` needs finite values. Received: {values}.")
