"""How much two maps agree: five similarities of relevance maps, and a divergence, one value per pair.

Every function takes two stacks of maps `(n, height, width)` and returns `(n,)` in float64. A map that is zero
everywhere says nothing about where a model looks, so no similarity is defined for it: the value is NaN, never 0 or 1.
Average with the NaNs counted, as `kdkeras.explain.compare` does.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def cosine(student: Any, teacher: Any) -> np.ndarray:
    """Cosine similarity: Σ aᵢbᵢ / (‖a‖ ‖b‖).

    Blind to the scale of a map, not to a constant added to it.

    Args:
        student: Maps a, shape `(n, height, width)`.
        teacher: Maps b, same shape.

    Returns:
        Values in [−1, 1], in [0, 1] for maps without negative values; NaN where a map is all zero. Shape `(n,)`.

    Raises:
        ValueError: Not two finite stacks of one shape.

    Example:
        >>> import numpy as np
        >>> from kdkeras import metrics
        >>> metrics.cosine(np.array([[[3.0, 4.0]]]), np.array([[[4.0, 3.0]]])).round(6)
        array([0.96])
    """
    a, b = _pair(student, teacher)
    return _correlation(a, b, _is_zero(a) | _is_zero(b))


def pearson(student: Any, teacher: Any) -> np.ndarray:
    """Pearson correlation: the cosine of the maps less their means.

    Blind to the scale of a map and to a constant added to it.

    Args:
        student: Maps, shape `(n, height, width)`.
        teacher: Maps, same shape.

    Returns:
        Values in [−1, 1]; NaN where a map is constant, which includes all zero. Shape `(n,)`.

    Raises:
        ValueError: Not two finite stacks of one shape.

    Example:
        >>> import numpy as np
        >>> from kdkeras import metrics
        >>> maps = np.array([[[0.0, 1.0, 2.0]]])
        >>> metrics.pearson(maps, 5 - 2 * maps).round(6)
        array([-1.])
    """
    a, b = _pair(student, teacher)
    return _correlation(_centred(a), _centred(b), _is_constant(a) | _is_constant(b))


def spearman(student: Any, teacher: Any) -> np.ndarray:
    """Spearman rank correlation: the Pearson correlation of the pixels' ranks, ties sharing their mean rank.

    Asks for the same order of pixels only; blind to any monotone change of the values.

    Args:
        student: Maps, shape `(n, height, width)`.
        teacher: Maps, same shape.

    Returns:
        Values in [−1, 1]; NaN where a map is constant, which includes all zero. Shape `(n,)`.

    Raises:
        ValueError: Not two finite stacks of one shape.

    Example:
        >>> import numpy as np
        >>> from kdkeras import metrics
        >>> maps = np.array([[[0.0, 1.0, 2.0]]])
        >>> metrics.spearman(maps, maps**3).round(6)
        array([1.])
    """
    from scipy import stats

    a, b = _pair(student, teacher)
    ranks_a, ranks_b = stats.rankdata(a, axis=-1), stats.rankdata(b, axis=-1)
    return _correlation(_centred(ranks_a), _centred(ranks_b), _is_constant(a) | _is_constant(b))


def ssim(student: Any, teacher: Any, *, data_range: float = 1.0, window: int = 7) -> np.ndarray:
    """Structural similarity, the mean over all windows that lie inside the map.

    In each window, with means μ, population variances σ² and covariance σ_ab:

        SSIM = (2 μ_a μ_b + C₁)(2 σ_ab + C₂) / ((μ_a² + μ_b² + C₁)(σ_a² + σ_b² + C₂)),
        C₁ = (0.01 L)², C₂ = (0.03 L)², L = data_range.

    Args:
        student: Maps, shape `(n, height, width)`.
        teacher: Maps, same shape.
        data_range: L, the largest difference that values can have. 1, because maps are scaled to [0, 1].
        window: Side of the square, uniformly weighted window, at most the shorter side of the maps. 7, as in
            scikit-image.

    Returns:
        Values in [−1, 1], 1 for equal maps; NaN where a map is all zero. Shape `(n,)`.

    Raises:
        ValueError: Not two finite stacks of one shape, a window larger than the map, or `data_range` not positive.

    Example:
        >>> import numpy as np
        >>> from kdkeras import metrics
        >>> maps = np.random.default_rng(0).random((1, 8, 8))
        >>> metrics.ssim(maps, maps)
        array([1.])

    Reference:
        Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural
        similarity", 2004.
    """
    a, b = _pair(student, teacher)
    height, width = np.shape(student)[1:]
    if not 1 <= window <= min(height, width):
        raise ValueError(
            f"`window` must be between 1 and the shorter side of the maps. Received: window={window} for maps of "
            f"{height}×{width}. Pass a smaller window."
        )
    if data_range <= 0:
        raise ValueError(f"`data_range` must be positive. Received: data_range={data_range}.")
    undefined = _is_zero(a) | _is_zero(b)
    a, b = a.reshape(-1, height, width), b.reshape(-1, height, width)
    mean_a, mean_b = _window_means(a, window), _window_means(b, window)  # (n, h - window + 1, w - window + 1)
    # Less the global mean first: the variance of a nearly constant window is then not a difference of large numbers.
    a, b = a - a.mean(axis=(1, 2), keepdims=True), b - b.mean(axis=(1, 2), keepdims=True)
    local_a, local_b = _window_means(a, window), _window_means(b, window)
    variance_a = _window_means(a * a, window) - local_a**2
    variance_b = _window_means(b * b, window) - local_b**2
    covariance = _window_means(a * b, window) - local_a * local_b
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    size = (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    return np.where(undefined, np.nan, (likeness / size).mean(axis=(1, 2)))


def top_k_iou(student: Any, teacher: Any, *, top_k: float = 0.2) -> np.ndarray:
    """Overlap of the most relevant pixels: |A ∩ B| / |A ∪ B|.

    A holds the pixels of a map that are at least as large as its k-th largest, k = ⌈top_k · height · width⌉. Pixels at
    the map's minimum are never among them, so that a map with few positive pixels does not fill up with arbitrary
    zeros; pixels tied with the k-th all are.

    Args:
        student: Maps, shape `(n, height, width)`.
        teacher: Maps, same shape.
        top_k: Share of the pixels, in (0, 1]. 0.2: the fifth that matters most.

    Returns:
        Values in [0, 1]; NaN where a map is constant, which includes all zero. Shape `(n,)`.

    Raises:
        ValueError: Not two finite stacks of one shape, or `top_k` outside (0, 1].

    Example:
        >>> import numpy as np
        >>> from kdkeras import metrics
        >>> metrics.top_k_iou(np.array([[[0, 1, 2, 3]]]), np.array([[[0, 2, 1, 3]]]), top_k=0.5).round(3)
        array([0.333])
    """
    if not 0 < top_k <= 1:
        raise ValueError(f"`top_k` must be a share in (0, 1], such as 0.2. Received: top_k={top_k}.")
    a, b = _pair(student, teacher)
    top_a, top_b = _top(a, top_k), _top(b, top_k)
    shared, either = (top_a & top_b).sum(axis=1), (top_a | top_b).sum(axis=1)
    return np.where(_is_constant(a) | _is_constant(b), np.nan, shared / np.maximum(either, 1))


def kl_divergence(student: Any, teacher: Any, *, floor: float = 0.01) -> np.ndarray:
    """Kullback-Leibler divergence of maps as distributions over the pixels: Σ p log(p / q), in nats.

    p is the teacher's map divided by its sum, q the student's; both with a share `floor` spread over all pixels, so
    that one pixel that the student leaves out does not make it infinite. Relevance against the target (negative
    values) is no probability, and counts as none. Blind to the scale of a map.

    Args:
        student: Maps, shape `(n, height, width)`.
        teacher: Maps, same shape.
        floor: Share of the whole that is spread evenly, in (0, 1). Default 0.01: no pixel is less than a hundredth of
            what it had in an even map, and no value above log(pixels / floor).

    Returns:
        Values of at least 0, 0 for equal maps; NaN where a map has nothing positive. Shape `(n,)`.

    Raises:
        ValueError: Not two finite stacks of one shape, or `floor` outside (0, 1).

    Example:
        >>> import numpy as np
        >>> from kdkeras import metrics
        >>> maps = np.array([[[3.0, 1.0]]])
        >>> metrics.kl_divergence(maps[..., ::-1], maps).round(3), metrics.kl_divergence(maps, 2 * maps)
        (array([0.537]), array([0.]))
    """
    if not 0 < floor < 1:
        raise ValueError(f"`floor` must be a share between 0 and 1, such as 0.01. Received: floor={floor}.")
    masses = [np.maximum(values, 0) for values in _pair(student, teacher)]
    undefined = _is_zero(masses[0]) | _is_zero(masses[1])
    sums = [mass.sum(axis=1, keepdims=True) for mass in masses]
    q, p = (
        (1 - floor) * mass / np.where(total > 0, total, 1) + floor / mass.shape[1]
        for mass, total in zip(masses, sums, strict=True)
    )
    return np.where(undefined, np.nan, np.maximum((p * np.log(p / q)).sum(axis=1), 0))  # rounding can step below 0


def _pair(student: Any, teacher: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return both stacks as float64 `(n, height * width)`."""
    a, b = np.asarray(student, dtype="float64"), np.asarray(teacher, dtype="float64")
    if a.ndim != 3 or a.shape != b.shape or not a.size:
        raise ValueError(
            "Maps must be two stacks of one shape (n, height, width), not empty. "
            f"Received: student {a.shape}, teacher {b.shape}. Resize both to the size of the images first."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("Maps must be finite. Received: NaN or infinite values. Leave those samples out first.")
    return a.reshape(len(a), -1), b.reshape(len(b), -1)


def _correlation(a: np.ndarray, b: np.ndarray, undefined: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows, NaN where `undefined`."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    values = (a * b).sum(axis=1) / np.where(undefined, 1, norms)
    return np.where(undefined, np.nan, np.clip(values, -1, 1))  # rounding can step over ±1


def _centred(a: np.ndarray) -> np.ndarray:
    return a - a.mean(axis=1, keepdims=True)


def _is_zero(a: np.ndarray) -> np.ndarray:
    return ~a.any(axis=1)


def _is_constant(a: np.ndarray) -> np.ndarray:
    return a.max(axis=1) == a.min(axis=1)


def _top(a: np.ndarray, top_k: float) -> np.ndarray:
    """Mask of the pixels that are at least the k-th largest of their row, and above its smallest."""
    k = int(np.ceil(top_k * a.shape[1]))
    threshold = np.sort(a, axis=1)[:, -k, None]
    return (a >= threshold) & (a > a.min(axis=1, keepdims=True))


def _window_means(maps: np.ndarray, window: int) -> np.ndarray:
    """Mean of every window inside the maps, shape `(n, height - window + 1, width - window + 1)`."""
    for axis in (1, 2):
        maps = np.lib.stride_tricks.sliding_window_view(maps, window, axis=axis).mean(axis=-1)
    return maps
