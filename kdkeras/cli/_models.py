"""Model files that a command is given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def check_file(name: str) -> Path:
    """Return the path of a model file.

    Args:
        name: What the user gave.

    Returns:
        The path.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no file of Keras.
    """
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file '{path}'. Give the path that `save` was given.")
    if path.suffix not in (".keras", ".h5"):
        raise ValueError(f"A model file of Keras is needed, which ends in .keras. Received: '{path}'.")
    return path


def quiet_tensorflow() -> None:
    """Start TensorFlow without its first lines and without its warnings."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from kdkeras._silence import silenced_descriptors

    with silenced_descriptors():  # it logs its first lines before any setting of its own works
        import tensorflow as tf

        tf.config.list_physical_devices()
        tf.get_logger().setLevel("ERROR")  # it warns that several models are traced


def load(path: Path) -> Any:
    """Return the model of a file.

    Args:
        path: The file.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: It is damaged, or has classes that are not known here.
    """
    from kdkeras import saving

    try:
        return saving.load_model(path, compile=False)
    except TypeError as error:  # Keras' word for a class that it does not know
        said = str(error).split(". ")[0].splitlines()[0]
        raise ValueError(f"'{path}' cannot be loaded: {said}. Load it in Python, where its classes are.") from error


def save(model: Any, path: Path) -> None:
    """Write a model; what stood there is replaced when the new file is whole.

    Args:
        model: The model.
        path: The file.

    Raises:
        OSError: It cannot be written.
    """
    from kdkeras._files import atomic_path

    with atomic_path(path) as temporary:
        model.save(temporary)
