"""Loading what this library saved."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import keras

import kdkeras.distiller
import kdkeras.losses
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
    if Path(path).suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ValueError(f"'{path}' is damaged or no `.keras` file: it is not a zip archive. Save the model again.")
    return keras.saving.load_model(path, **kwargs)
