"""Arrays of one's own, from a file of NumPy."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of an `.npz` file.

    Args:
        path: The file, as `numpy.savez` writes it.

    Returns:
        Name → array.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or holds something else than plain arrays.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from kdkeras.datasets.arrays import read_arrays
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "data.npz"
        >>> np.savez(path, x=np.zeros((3, 2)))
        >>> read_arrays(path)["x"].shape
        (3, 2)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no data file '{path}'. Write it with `numpy.savez('{path.name}', x=x, y=y)`."
        )
    try:
        with zipfile.ZipFile(path):  # NumPy would read other files too
            pass
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"'{path}' is damaged, or no `.npz` file of plain arrays. Use `numpy.savez`.") from error
