"""A part of the classes and the rest of them, in log space."""

from __future__ import annotations

from typing import Any

from keras import ops

from kdkeras.ops import log_soften


def is_class(classes: Any, like: Any) -> Any:
    """Return where each class stands among the logits.

    Args:
        classes: Indices of classes, shape `(...)`.
        like: Logits, shape `(..., classes)`.

    Returns:
        Booleans, shape of `like`, one `True` in each vector.
    """
    return ops.equal(ops.arange(like.shape[-1]), ops.expand_dims(classes, -1))


def pick(values: Any, chosen: Any) -> Any:
    """Return the value at the one class that is chosen.

    Args:
        values: Shape `(..., classes)`.
        chosen: Booleans of the same shape, one `True` in each vector.

    Returns:
        Shape `(...)`.
    """
    return ops.sum(ops.where(chosen, values, ops.zeros_like(values)), axis=-1)


def log_within(logits: Any, part: Any) -> Any:
    """Return the log-probabilities of the classes of a part, given that it is one of them.

    Args:
        logits: Logits, shape `(..., classes)`, divided by the temperature already.
        part: Which classes belong to the part, booleans of the same shape.

    Returns:
        Shape of `logits`. Elsewhere it is finite, of probability 0.
    """
    return log_soften(_only(logits, part))


def log_odds(logits: Any, part: Any) -> Any:
    """Return `log Σ_part exp z − log Σ_rest exp z`: the logit of a part against the rest of the classes.

    Args:
        logits: Logits z, shape `(..., classes)`, divided by the temperature already.
        part: Which classes belong to the part, booleans of the same shape.

    Returns:
        Shape `(...)`; about 1e4 where there is no rest.
    """
    rest = ops.logical_not(part)
    return ops.logsumexp(_only(logits, part), axis=-1) - ops.logsumexp(_only(logits, rest), axis=-1)


def _only(logits: Any, part: Any) -> Any:
    # Far below all others, so that its exponential is 0; not -inf, which makes NaN of differences.
    nowhere = ops.stop_gradient(ops.min(logits, axis=-1, keepdims=True)) - 1e4
    return ops.where(part, logits, nowhere)
