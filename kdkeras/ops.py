"""Arithmetic that losses and metrics share: `keras.ops` only, in log space."""

from __future__ import annotations

from typing import Any

from keras import ops


def log_soften(logits: Any, temperature: Any = 1.0) -> Any:
    """Return `log softmax(z / T)` over the last axis.

    Args:
        logits: Logits z, shape `(..., classes)`.
        temperature: Temperature T > 0; larger is softer.

    Returns:
        Log-probabilities, shape of `logits`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.ops import log_soften
        >>> np.exp(log_soften(np.array([[0.0, 0.0]]))).tolist()
        [[0.5, 0.5]]
    """
    return ops.log_softmax(logits / temperature, axis=-1)


def kl_divergence(log_p: Any, log_q: Any) -> Any:
    """Return `KL(p ‖ q) = Σ p (log p − log q)` over the last axis.

    Args:
        log_p: Log-probabilities of the reference, shape `(..., classes)`.
        log_q: Log-probabilities of the approximation, same shape.

    Returns:
        Divergences in nats, shape `(...)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.ops import kl_divergence
        >>> round(float(kl_divergence(np.log([1.0 - 1e-9, 1e-9]), np.log([0.5, 0.5]))), 4)
        0.6931
    """
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


def binary_kl_divergence(logits_p: Any, logits_q: Any) -> Any:
    """Return `KL(Bernoulli(σ(a)) ‖ Bernoulli(σ(b)))` of each element.

    Args:
        logits_p: Logits a of the reference, any shape.
        logits_q: Logits b of the approximation, same shape.

    Returns:
        Divergences in nats, same shape.

    Example:
        >>> import numpy as np
        >>> from kdkeras.ops import binary_kl_divergence
        >>> float(binary_kl_divergence(np.array(2.0), np.array(2.0)))
        0.0
    """
    positive = ops.sigmoid(logits_p) * (ops.log_sigmoid(logits_p) - ops.log_sigmoid(logits_q))
    negative = ops.sigmoid(-logits_p) * (ops.log_sigmoid(-logits_p) - ops.log_sigmoid(-logits_q))
    return positive + negative


def mean_per_sample(values: Any) -> Any:
    """Return the mean over every axis but the first.

    Args:
        values: Shape `(batch, ...)`.

    Returns:
        Shape `(batch,)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.ops import mean_per_sample
        >>> np.asarray(mean_per_sample(np.array([[[1.0, 3.0]], [[2.0, 2.0]]]))).tolist()
        [2.0, 2.0]
    """
    axes = tuple(range(1, len(values.shape)))
    return ops.mean(values, axis=axes) if axes else values
