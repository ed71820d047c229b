"""The divergence of a distribution from a mixture that it is a part of."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from kdkeras.losses.base import checked_number


def kl_to_mixture(log_p: Any, log_q: Any, share: float) -> Any:
    """Return `KL(p ‖ λ p + (1 − λ) q)` over the last axis; at most `−log λ`.

    Args:
        log_p: Log-probabilities of p, shape `(..., classes)`.
        log_q: Log-probabilities of q, same shape.
        share: Share λ of p in the mixture, in (0, 1).

    Returns:
        Divergences in nats, shape `(...)`.
    """
    # log(p / m) = −log(λ + (1 − λ) q / p). By softplus, whose gradient is right where p = q too; that of `logaddexp`
    # on TensorFlow is not.
    log_share, log_other = math.log(share), math.log1p(-share)
    log_ratio = -log_share - ops.softplus(log_other - log_share + log_q - log_p)
    return ops.sum(ops.exp(log_p) * log_ratio, axis=-1)


def checked_share(owner: str, name: str, value: float) -> float:
    """Return a share as a float, or raise.

    Args:
        owner: Whose setting it is, for the message.
        name: Name of the setting.
        value: Its value.

    Returns:
        The value.

    Raises:
        TypeError: It is no number.
        ValueError: It does not lie between 0 and 1.
    """
    value = checked_number(owner, name, value, minimum=0.0, exclusive=True)
    if value >= 1:
        raise ValueError(f"`{owner}` needs a {name} below 1. Received: {value}. At 0 and 1 there is no mixture.")
    return value
