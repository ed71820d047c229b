"""What losses on the relations between samples share, with sample weights in it."""

from __future__ import annotations

from typing import Any

from keras import ops

from kdkeras.losses._batch import positive
from kdkeras.ops import flatten_samples, squared_distances

# Two samples whose squared distance is below this share of their sizes count as identical: it is rounding error.
_IDENTICAL = 1e-6


def present(values: Any, weights: Any) -> Any:
    """Return flat features in which the samples of weight 0 are 0, whatever they were.

    Args:
        values: Shape `(batch, ...)`.
        weights: Shape `(batch,)`.

    Returns:
        Shape `(batch, size)`.
    """
    flat = flatten_samples(values)
    return ops.where(weights[:, None] > 0, flat, ops.zeros_like(flat))


def relative_weights(weights: Any) -> Any:
    """Return `w Σw / Σw²`: 1 for each of several equal weights, 0 for 0, whatever their scale.

    Args:
        weights: Shape `(batch,)`.

    Returns:
        Shape `(batch,)`.
    """
    return weights * ops.sum(weights) / positive(ops.sum(ops.square(weights)))


def centred(values: Any, weights: Any) -> Any:
    """Return flat features less their mean, so that little is lost where distances are taken by products.

    Args:
        values: Shape `(batch, ...)`.
        weights: Shape `(batch,)`.

    Returns:
        Shape `(batch, size)`; 0 for samples of weight 0.
    """
    flat = present(values, weights)
    count = positive(ops.sum(ops.cast(weights > 0, flat.dtype)))
    # What follows does not change with the centre, and so has no gradient by it.
    return present(flat - ops.stop_gradient(ops.sum(flat, axis=0, keepdims=True) / count), weights)


def distances_of(flat: Any) -> tuple[Any, Any]:
    """Return the distance of each pair, and which pairs are apart.

    Args:
        flat: Shape `(batch, size)`, centred.

    Returns:
        Distances, shape `(batch, batch)`, and booleans of that shape. Pairs that are not apart, among them each sample
        with itself, have distance 0 and no gradient.
    """
    place, sizes = ops.arange(ops.shape(flat)[0]), ops.sum(ops.square(flat), axis=-1)
    squares = squared_distances(flat)
    apart = ops.logical_and(place[:, None] != place[None, :], squares > _IDENTICAL * (sizes[:, None] + sizes[None, :]))
    # where before the root too: its slope at 0 is infinite
    roots = ops.sqrt(ops.where(apart, squares, ops.ones_like(squares)))
    return ops.where(apart, roots, ops.zeros_like(roots)), apart


def huber(difference: Any) -> Any:
    """Return the Huber loss at δ = 1, smooth L1: `d² / 2` up to 1, then `|d| − 1/2`.

    Args:
        difference: Any shape.

    Returns:
        Same shape.
    """
    size = ops.abs(difference)
    near = ops.minimum(size, 1.0)
    return near * (size - near / 2)
