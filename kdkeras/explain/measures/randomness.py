"""Random numbers that depend on the seed, the sample and the draw alone: not on how samples are batched."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np


def generators(seed: int, samples: np.ndarray, versions: np.ndarray) -> Iterator[np.random.Generator]:
    """Yield a generator for each pair of a sample's index and the number of a draw.

    Args:
        seed: The seed, at least 0.
        samples: Index of the sample, shape `(k,)`.
        versions: Number of the draw, shape `(k,)`.

    Yields:
        A numpy generator.

    Example:
        >>> from kdkeras.explain.measures.randomness import generators
        >>> first, second = (next(generators(0, [1], [version])).random() for version in (0, 0))
        >>> first == second
        True
    """
    for sample, version in zip(samples, versions, strict=True):
        yield np.random.default_rng((seed, int(sample), int(version)))


def check_floats(x: np.ndarray) -> None:
    """Raise unless noise can be added to samples.

    Args:
        x: The samples.

    Raises:
        ValueError: They are integers.
    """
    if not keras.backend.is_float_dtype(str(x.dtype)):
        raise ValueError(
            f"Noise can be added to floats only. Received: x of {x.dtype}. Measure a model of the embedded or scaled "
            "inputs."
        )
