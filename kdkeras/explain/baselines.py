"""What stands in for a part of a sample that is taken away."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdkeras.inputs import check_finite

_SIGMA, _RADIUS = 5, 5  # RISE: a kernel of 11 × 11, sigma 5


def baseline_of(x: np.ndarray, baseline: Any = None) -> np.ndarray:
    """Return what each place of each sample is replaced by.

    Args:
        x: The samples, `(n, ...)`.
        baseline: A number; an array that broadcasts to x, such as one sample or a mean per column; or `"blur"`: each
            image under a Gaussian of σ = 5 pixels, cut off at 5 pixels as in RISE, but reflected at the borders
            instead of darkened by zeros. By default 0 for inputs with positions, such as black images, and the mean of
            the given samples for tables of floats.

    Returns:
        float64, of x's shape.

    Raises:
        ValueError: The array does not fit x or is not finite, x is not images where it is to be blurred, or the
            baseline is another word.

    Example:
        >>> import numpy as np
        >>> from kdkeras.explain.baselines import baseline_of
        >>> baseline_of(np.ones((2, 3)), [0.0, 1.0, 2.0])
        array([[0., 1., 2.],
               [0., 1., 2.]])
    """
    if baseline is None:
        baseline = x.mean(axis=0) if x.ndim == 2 and x.dtype.kind == "f" else 0.0
    if isinstance(baseline, str):
        if baseline != "blur":
            raise ValueError(f"`baseline` must be a number, an array or 'blur'. Received: baseline={baseline!r}.")
        return _blurred(x)
    values = np.asarray(baseline, dtype="float64")
    check_finite(values, "`baseline`")
    try:
        return np.broadcast_to(values, x.shape)
    except ValueError:
        raise ValueError(
            f"`baseline` must be a number or an array that broadcasts to x. Received: shape {values.shape} for x of "
            f"shape {x.shape}. Pass one sample, or a value per channel or column."
        ) from None


def usual_reveal(x: np.ndarray) -> Any:
    """Return the baseline that `insertion` starts from when none is named: a blur for images, zeros for the rest.

    Args:
        x: The samples.

    Returns:
        `"blur"` or 0.
    """
    return "blur" if x.ndim == 4 else 0.0


def _blurred(x: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    if x.ndim != 4:
        raise ValueError(
            "`baseline='blur'` needs images of shape (n, height, width, channels). "
            f"Received: x of shape {x.shape}. Pass a number, or an array such as the mean of each column."
        )
    return ndimage.gaussian_filter(x.astype("float64"), _SIGMA, radius=_RADIUS, axes=(1, 2))
