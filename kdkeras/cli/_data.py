"""Data that a command is given: the name of a data set, or an `.npz` file."""

from __future__ import annotations

from typing import Any

HELP = "name of a data set, or an .npz file with x (or one array per model input, by name) and, for labels, y"


def inputs_of(data: str, split: str) -> Any:
    """Return inputs.

    Args:
        data: What the user gave.
        split: Which part of a data set; a file has none.

    Returns:
        An array `(n, ...)`, or a dict of them by input name.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The name is not known, or the file does not hold numbers.
    """
    return _read(data, split)[0]


def labelled(data: str, split: str) -> tuple[Any, Any, list[str] | None]:
    """Return inputs, labels and names of the classes.

    Args:
        data: What the user gave.
        split: Which part of a data set; a file has none.

    Returns:
        `(x, y, class names)`; the names are `None` where the data has none.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The name is not known, or the file does not hold numbers and labels.
    """
    x, y, names = _read(data, split)
    if y is None:
        raise ValueError(f"'{data}' needs labels y, one per sample. Received: none. Add them with `numpy.savez`.")
    return x, y, names


def _read(data: str, split: str) -> tuple[Any, Any, list[str] | None]:
    from kdkeras import datasets
    from kdkeras.datasets.arrays import read_arrays

    if not data.endswith(".npz"):
        found = datasets.load(data)
        return (*found.arrays(split), list(found.class_names) or None)
    arrays = read_arrays(data)
    names = arrays.pop("class_names", None)
    arrays.pop("feature_names", None)  # which the page of `kdkeras explore` reads
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub" or not array.ndim:
            raise ValueError(f"'{data}' needs arrays of numbers. Received: {name} of {array.dtype}, {array.ndim} axes.")
    y = arrays.pop("y", None)
    if not arrays:
        raise ValueError(f"'{data}' needs an array x, or one per model input by name. Received: none.")
    return arrays.get("x", arrays), y, None if names is None else [str(name) for name in names]
