"""The parts of a sample that are seen or hidden as one: superpixels of images, single values elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdkeras._extras import require
from kdkeras.explain.subject import Subject


def check_counts(name: str, **counts: int) -> None:
    """Raise if a count is below 1.

    Args:
        name: The method's name, for the message.
        **counts: The counts by name.

    Raises:
        ValueError: One is below 1.
    """
    for what, value in counts.items():
        if value < 1:
            raise ValueError(f"`{name}` needs {what} of at least 1. Received: {value}.")


def parts_of(sample: np.ndarray, segments: int, what: str) -> np.ndarray:
    """Return which part each place of a sample belongs to.

    Images are cut into superpixels by SLIC: patches of about one size that follow the edges. Where as many are asked
    for as there are pixels, each pixel is one. Elsewhere each value is a part.

    Args:
        sample: One sample.
        segments: About how many superpixels.
        what: The method, for the message if scikit-image is missing.

    Returns:
        Indices from 0, of the shape of the sample; of an image, `(height, width)`.

    Raises:
        ImportError: scikit-image, which LIME brings with it, is missing.

    Example:
        >>> import numpy as np
        >>> from kdkeras.explain.parts import parts_of
        >>> image = np.zeros((8, 8, 1))
        >>> image[:, 4:] = 1
        >>> parts = parts_of(image, 4, "LIME")
        >>> parts.shape, set(parts[:, :4].flat) & set(parts[:, 4:].flat)
        ((8, 8), set())

    Reference:
        Achanta et al.: SLIC Superpixels Compared to State-of-the-Art Superpixel Methods, 2012.
    """
    shape = sample.shape[:2] if sample.ndim == 3 else sample.shape
    places = int(np.prod(shape))
    if sample.ndim != 3 or segments >= places:
        return np.arange(places).reshape(shape)
    segmentation = require("skimage.segmentation", extra="explain", what=what)
    low, high = float(sample.min()), float(sample.max())
    scaled = (sample - low) / ((high - low) or 1)
    # 0.5 suits colours in [0, 1] (the default of 10 is for CIELAB): at 0.1, noise makes a single superpixel.
    found = segmentation.slic(
        scaled, n_segments=segments, compactness=0.5, channel_axis=-1, convert2lab=False, start_label=0
    )
    return np.unique(found, return_inverse=True)[1].reshape(shape)


def scores_with(subject: Subject, row: int, seen: np.ndarray, parts: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Return the target's logit of one sample when only some of its parts are seen.

    Args:
        subject: What is explained.
        row: Index of the sample.
        seen: Which parts are seen, boolean `(m, parts)`.
        parts: The part of each place, as `parts_of` returns it.
        hidden: What is put in the place of hidden parts, of the sample's shape.

    Returns:
        float64, shape `(m,)`.
    """
    sample, size = subject.array[row], subject.batch_size
    scores = []
    for start in range(0, len(seen), size):  # batch by batch: hundreds of copies of a large image fill the memory
        places = seen[start : start + size][:, parts]
        kept = places[..., np.newaxis] if places.ndim == sample.ndim else places
        changed = np.where(kept, sample, hidden).astype(sample.dtype)
        scores.append(subject.scores(changed, samples=np.full(len(changed), row)))
    return np.concatenate(scores)


def share_out(values: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return each part's value, shared equally among its places, so that the sum over the places is the parts' sum.

    Args:
        values: One per part.
        parts: The part of each place.

    Returns:
        Of the shape of `parts`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.explain.parts import share_out
        >>> share_out(np.array([6.0, 1.0]), np.array([0, 0, 1]))
        array([3., 3., 1.])
    """
    return (values / np.bincount(parts.ravel(), minlength=len(values)))[parts]


def rows_of_table(x: np.ndarray, background: Any, baseline: Any) -> np.ndarray | None:
    """Return the rows that say how a table's columns are distributed.

    Args:
        x: The samples.
        background: A table, or `None` for the samples themselves.
        baseline: The baseline that was set, which tables have no use for.

    Returns:
        float32 `(m, features)`; `None` where x is no table of floats.

    Raises:
        ValueError: The background has other columns, x is no table, or it is one and a baseline was set.

    Example:
        >>> import numpy as np
        >>> from kdkeras.explain.parts import rows_of_table
        >>> rows_of_table(np.ones((1, 2), "float32"), [[0, 0], [3, 5]], None).shape
        (2, 2)
    """
    table = x.ndim == 2 and x.dtype.kind == "f"
    if table and baseline is not None:
        raise ValueError("`baseline` is for images and sequences. Received: a table. Set `background`, rows of it.")
    if background is None:
        return x if table else None
    rows = np.asarray(background, dtype="float32")
    if not table or rows.ndim != 2 or rows.shape[1] != x.shape[1] or not len(rows):
        raise ValueError(
            f"`background` must be rows of the table that is explained. Received: shape {rows.shape} for inputs "
            f"{x.shape}. Pass training samples; for images and sequences set `baseline`."
        )
    return rows
