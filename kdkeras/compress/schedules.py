"""How much of a kernel is zero, by the epoch, which may be a fraction."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[float], float]


def constant(sparsity: float, *, delay: float = 0.0) -> Schedule:
    """Return a schedule that prunes at once.

    Args:
        sparsity: Share of zeros, in [0, 1).
        delay: Epochs without pruning before it. Default 0.

    Returns:
        The schedule.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> from kdkeras.compress import constant
        >>> [constant(0.5, delay=1)(epoch) for epoch in (0, 1, 2)]
        [0.0, 0.5, 0.5]
    """
    _check("constant", delay, sparsity)
    return lambda epoch: sparsity if epoch >= delay else 0.0


def polynomial(end: float, *, epochs: float, start: float = 0.0, delay: float = 0.0, power: float = 3.0) -> Schedule:
    """Return a schedule that prunes fast at first, while there is much to spare, and slowly in the end.

    `s(t) = end + (start − end) · (1 − (t − delay) / epochs)^power`, 0 before `delay` and `end` after `delay + epochs`.

    Args:
        end: Share of zeros in the end, in [0, 1). Go on training for a while when it is reached.
        epochs: Length of the way, in epochs, above 0.
        start: Share of zeros in the beginning. Default 0.
        delay: Epochs without pruning before it. Default 0.
        power: Default 3, the paper's.

    Returns:
        The schedule.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> from kdkeras.compress import polynomial
        >>> [round(polynomial(0.8, epochs=4)(epoch), 3) for epoch in range(6)]
        [0.0, 0.463, 0.7, 0.788, 0.8, 0.8]

    Reference:
        Zhu, Gupta: To prune, or not to prune: exploring the efficacy of pruning for model compression, 2017,
        arXiv:1710.01878, equation 1.
    """
    _check("polynomial", delay, start, end)
    if not (math.isfinite(epochs) and epochs > 0 and power > 0):
        raise ValueError(f"`polynomial` needs `epochs` and `power` above 0. Received: {epochs=}, {power=}.")

    def value(epoch: float) -> float:
        left = 1 - min(max((epoch - delay) / epochs, 0.0), 1.0)
        return end + (start - end) * left**power if epoch >= delay else 0.0

    return value


def _check(name: str, delay: float, *shares: float) -> None:
    if not all(0 <= share < 1 for share in shares):
        raise ValueError(f"`{name}` needs shares of zeros in [0, 1). Received: {', '.join(map(str, shares))}.")
    if not (math.isfinite(delay) and delay >= 0):
        raise ValueError(f"`{name}` needs a `delay` of at least 0 epochs. Received: {delay}.")
