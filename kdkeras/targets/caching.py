"""A teacher's answers beside the inputs, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np

from kdkeras.inputs import is_array_like
from kdkeras.signals import Cached, predict_with_head
from kdkeras.targets.answers import Head, logits

_HALF_PRECISION_KL = 1e-3  # nats; what float16 may cost at most


def cache(
    teacher: Any,
    x: Any,
    *,
    layers: Sequence[str] = (),
    dtype: Literal["float32", "float16"] = "float32",
    head: Head | None = None,
    batch_size: int = 256,
    verbose: int = 0,
) -> Cached:
    """Ask a teacher once, for training without it: `distiller.fit(targets.cache(teacher, x), y)`.

    A step then costs what the student alone costs. The answers hold for these very inputs, so that a student that
    augments its inputs wants the teacher itself. Where the teacher takes other inputs than the student, put the
    student's in afterwards: `cached._replace(inputs=x_student)`.

    With `dtype="float16"` the cache takes half the memory. No sample's distribution may then be further than 1e-3 nats
    from the teacher's own in KL divergence; this is measured, and refused otherwise. Logits between −128 and 128 always
    pass: float16 moves them by at most δ = 2⁻⁵, and the divergence is at most (2δ)² / 8 < 5e-4.

    Args:
        teacher: Whatever `logits` takes.
        x: The inputs, arrays in any nest, n samples.
        layers: Paths of layers of a Keras teacher, for losses that compare features.
        dtype: `"float32"` (default) or `"float16"`.
        head: As in `logits`.
        batch_size: As in `logits`.
        verbose: As in `logits`.

    Returns:
        `kdkeras.Cached(inputs=x, logits, features)`.

    Raises:
        TypeError: `x` is not arrays, or as `logits`.
        ValueError: `layers` of a teacher that is no Keras model, `float16` is not precise enough, or as `logits`.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import targets
        >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(3)])
        >>> cached = targets.cache(teacher, np.zeros((5, 4)), layers=["hidden"])
        >>> cached.logits.shape, cached.features["hidden"].shape
        ((5, 3), (5, 8))
    """
    if dtype not in ("float32", "float16"):
        raise ValueError(f"`cache` needs dtype 'float32' or 'float16'. Received: dtype={dtype!r}.")
    if not is_array_like(x):
        raise TypeError(
            f"`cache` needs arrays, because it keeps the inputs beside the answers. Received: {type(x).__name__}. "
            "For a dataset, make the pairs yourself with `kdkeras.Cached(inputs, targets.logits(...))`."
        )
    if isinstance(teacher, keras.Model) and head is None:
        signals, kind = predict_with_head(teacher, x, layers=layers, batch_size=batch_size)
        said, features = signals.logits, dict(signals.features)
    else:
        if layers:
            raise ValueError(
                f"`cache` reads layers of Keras models only. Received: layers={list(layers)} of a "
                f"{type(teacher).__name__}."
            )
        said, features, kind = logits(teacher, x, head=head, batch_size=batch_size, verbose=verbose), {}, head
    if dtype == "float16":
        said, features = _halved(said, kind), {path: _half(value, path) for path, value in features.items()}
    return Cached(x, said, features)


def _halved(z: np.ndarray, head: str | None) -> np.ndarray:
    half = _half(z, "logits")
    worst = _worst_divergence(z.astype("float64"), half.astype("float64"), binary=head == "sigmoid" or z.shape[-1] == 1)
    if worst > _HALF_PRECISION_KL:
        raise ValueError(
            f"`cache` keeps float16 logits only if no distribution moves by more than {_HALF_PRECISION_KL} nats. "
            f"Received: {worst:.2g}, with logits from {z.min():.4g} to {z.max():.4g}. Use dtype='float32'."
        )
    return half


def _half(values: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # said below, with the name
        half = values.astype("float16")
    if not np.isfinite(half).all():
        raise ValueError(
            f"`cache` cannot keep {name} up to {np.abs(values).max():.4g} as float16, which ends at 65504. "
            "Use dtype='float32'."
        )
    return half


def _worst_divergence(z: np.ndarray, rounded: np.ndarray, *, binary: bool) -> float:
    """Return the largest KL divergence of a sample's rounded distribution from its own."""
    if binary:
        # A unit with logit z is the softmax of (z, 0).
        z, rounded = (np.stack([a, np.zeros_like(a)], axis=-1) for a in (z, rounded))
    log_p, log_q = (a - a.max(axis=-1, keepdims=True) for a in (z, rounded))
    log_p, log_q = (a - np.log(np.exp(a).sum(axis=-1, keepdims=True)) for a in (log_p, log_q))
    return float((np.exp(log_p) * (log_p - log_q)).sum(axis=-1).max())
