"""What losses between the samples of a batch share: sample weights on pairs, and a batch that has no pairs."""

from __future__ import annotations

from typing import Any

from keras import ops


def weights_of(values: Any, sample_weight: Any = None) -> Any:
    """Return the weight of each sample, 1 by default.

    Args:
        values: Anything of shape `(batch, ...)`.
        sample_weight: Weights, shape `(batch,)`, or `None`.

    Returns:
        Shape `(batch,)`, in the dtype of `values`.
    """
    ones = ops.ones_like(ops.reshape(values, (ops.shape(values)[0], -1))[:, 0])
    return ones if sample_weight is None else ones * ops.cast(sample_weight, ones.dtype)


def batch_mean(values: Any, weights: Any) -> Any:
    """Return `Σᵢ wᵢ vᵢ / B`, as Keras weighs the samples of a batch.

    Args:
        values: Shape `(batch,)`.
        weights: Shape `(batch,)`.

    Returns:
        A scalar.
    """
    return ops.mean(values * weights)


def pair_mean(values: Any, weights: Any) -> Any:
    """Return `Σᵢⱼ wᵢ wⱼ vᵢⱼ / (B Σⱼ wⱼ)`: the mean over pairs, where a sample of weight 0 takes part in none.

    Doubling all weights doubles it, as it does any Keras loss.

    Args:
        values: Shape `(batch, batch)`.
        weights: Shape `(batch,)`.

    Returns:
        A scalar; 0 where nothing has a weight.
    """
    # where, not times 0: a pair without weight may be anything.
    pairs = weights[:, None] * weights[None, :]
    weighed = ops.where(pairs > 0, values * pairs, ops.zeros_like(values))
    return ops.sum(ops.mean(weighed, axis=0)) / positive(ops.sum(weights))


def positive(denominator: Any) -> Any:
    """Return a denominator, or 1 in the place of 0.

    Args:
        denominator: At least 0, any shape.

    Returns:
        Above 0, same shape.
    """
    return ops.where(denominator > 0, denominator, ops.ones_like(denominator))


def refuse_batch_of_one(values: Any, asked_by: str) -> None:
    """Raise if a batch is known to hold one sample only.

    Args:
        values: Anything of shape `(batch, ...)`.
        asked_by: Who asks, for the message.

    Raises:
        ValueError: There is one sample.
    """
    if values.shape[0] == 1:
        raise ValueError(
            f"`{asked_by}` compares the samples of a batch with each other. Received: a batch of one. Take a larger "
            "batch_size."
        )
