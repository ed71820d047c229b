"""Loading what this library saved."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import keras

import kdkeras.compress
import kdkeras.distiller
import kdkeras.losses
import kdkeras.schemes
import kdkeras.teachers
import kdkeras.trees  # noqa: F401  (each import registers its classes with Keras)


def load_model(path: str | Path, **kwargs: Any) -> keras.Model:
    """Load a `.keras` file that holds a distiller, a soft decision tree, or any Keras model.

    The same as `keras.saving.load_model`, with this library's classes registered first and Keras' safe mode on.

    Args:
        path: The file.
        **kwargs: Further arguments of `keras.saving.load_model`.

    Returns:
        The model, compiled as it was, with its optimizer's state.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A `.keras` file is damaged, or something else.

    Example:
        >>> import kdkeras
        >>> kdkeras.load_model("nowhere.keras")
        Traceback (most recent call last):
        FileNotFoundError: There is no model file 'nowhere.keras'. Give the path that `save` was given.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"There is no model file '{path}'. Give the path that `save` was given.")
    if Path(path).suffix == ".keras" and not _holds_a_model(Path(path)):
        raise ValueError(f"'{path}' is damaged or no `.keras` file. Save the model again.")
    return keras.saving.load_model(path, **kwargs)


def _holds_a_model(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return {"config.json", "model.weights.h5"} <= set(archive.namelist())
