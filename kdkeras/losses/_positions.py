"""The positions of a feature tensor, the axes between batch and channels, as one axis or none."""

from __future__ import annotations

from typing import Any

from keras import ops


def flatten_positions(values: Any) -> Any:
    """Return features with all positions on one axis.

    Args:
        values: Shape `(batch, positions..., channels)`.

    Returns:
        Shape `(batch, positions, channels)`.
    """
    return ops.reshape(values, (ops.shape(values)[0], -1, values.shape[-1]))


def average_positions(values: Any) -> Any:
    """Return the mean over all positions.

    Args:
        values: Shape `(batch, positions..., channels)`; with no positions it stays as it is.

    Returns:
        Shape `(batch, channels)`.
    """
    axes = tuple(range(1, len(values.shape) - 1))
    return ops.mean(values, axis=axes) if axes else values
