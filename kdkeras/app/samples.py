"""The samples that the page shows: a data set of this library, or arrays of one's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kdkeras import datasets
from kdkeras.datasets.arrays import read_arrays


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample.

    Attributes:
        x: Without the batch axis.
        id: Its `kdkeras.feedback.sample_id`.
        index: Its number in the data; `None` for one that was uploaded.
        label: Its class index, where it is known.
    """

    x: np.ndarray = field(repr=False)
    id: str
    index: int | None = None
    label: int | None = None


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples with what is known of them.

    Attributes:
        name: Name of the data, with its split: "digits/test".
        x: Shape `(n, ...)`, as the models take them.
        y: Class index of each, shape `(n,)`; `None` where it is not known.
        class_names: Name of each class; empty where they have none.
        feature_names: Name of each column of a table; empty where they have none.
    """

    name: str
    x: np.ndarray
    y: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()

    @property
    def of_images(self) -> bool:
        """Whether the samples are images `(height, width, channels)`."""
        return self.x.ndim == 4


def load_samples(data: str, split: str = "test") -> Samples:
    """Return the samples of a data set, or of an `.npz` file.

    Args:
        data: A name that `kdkeras.datasets.load` knows, or the path of an `.npz` file with `x` and, where they are
            known, `y` (class indices), `class_names` and `feature_names`.
        split: `"train"`, `"valid"` or `"test"`, of a data set. A file has no splits.

    Returns:
        The `Samples`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The name is not known, or the file does not hold what is needed.

    Example:
        >>> from kdkeras.app.samples import load_samples
        >>> samples = load_samples("wine")
        >>> samples.x.shape, samples.class_names
        ((36, 13), ('class_0', 'class_1', 'class_2'))
    """
    if not data.endswith(".npz"):
        found = datasets.load(data)
        x, y = found.arrays(split)
        return Samples(f"{data}/{split}", x, y if found.class_names else None, found.class_names, found.feature_names)
    return _checked(Path(data).name, read_arrays(data))


def _checked(name: str, arrays: dict[str, np.ndarray]) -> Samples:
    x, y = arrays.get("x"), arrays.get("y")
    if x is None or x.ndim < 2 or not len(x) or x.dtype.kind not in "fiub":
        got = "none" if x is None else f"shape {x.shape} of {x.dtype}"
        raise ValueError(f"'{name}' needs an array x of numbers (n, ...), at least one sample. Received: {got}.")
    if y is not None:
        y = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
        if y.shape != (len(x),) or y.dtype.kind not in "iub":
            raise ValueError(
                f"y of '{name}' must be one class index per sample, shape ({len(x)},). Received: shape {y.shape} of "
                f"{y.dtype}. Leave y out where it is something else."
            )
    texts = (tuple(str(each) for each in arrays.get(key, ())) for key in ("class_names", "feature_names"))
    return Samples(name, x, None if y is None else y.astype("int64"), *texts)
