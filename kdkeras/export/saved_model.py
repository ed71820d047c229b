"""`saved_model`: a TensorFlow SavedModel, checked against Keras before it is kept."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from kdkeras._silence import silenced
from kdkeras.export._checked import ModelExport, Named, figures_of
from kdkeras.export.conversion import save_model
from kdkeras.export.signature import Signature


def saved_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    calibration: Any = None,
    on_parity_failure: Literal["raise", "keep"] = "raise",
) -> ModelExport:
    """Write the inference pass of a Keras model as a SavedModel that is known to answer as the model does.

    The folder has one signature, `serve` and `serving_default`, with the input names of the model and its outputs by
    name; it takes batches of any size. It is loaded by `tf.saved_model.load` and compared with Keras: a relative error
    above 1e-4, or an output that is not finite or always the same, is refused, and `path` is as before. An earlier
    SavedModel at `path` is set aside, replaced and then removed: a process that is killed in between leaves it beside,
    under a name that begins with a dot.

    Args:
        model: A built Functional, Sequential or subclassed model.
        path: The folder to write.
        calibration: Representative inputs to compare on, as for `tflite`. Default: 64 seeded random samples.
        on_parity_failure: `"raise"`, or `"keep"` to write the folder all the same, with the failures in the result.

    Returns:
        A `ModelExport`.

    Raises:
        TypeError: `model` is not a Keras model, or the calibration data has a form that cannot be used.
        ValueError: An option or the data is not usable, or the model's input shape is not known.
        ExportParityError: The SavedModel does not match the model; nothing was written.
        FileExistsError: At `path` stands something else than a SavedModel or an empty folder.
        OSError: The folder cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> import keras
        >>> from kdkeras import export
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3)])
        >>> result = export.saved_model(model, pathlib.Path(tempfile.mkdtemp()) / "student")
        >>> result.inputs, result.outputs, result.max_rel_error < 1e-4
        ({'x': 'float32'}, ('output_0',), True)
    """
    target = Path(path)
    if target.exists() and not _may_be_replaced(target):
        raise FileExistsError(
            f"`saved_model` writes a folder. Received: {target}, where something else than a SavedModel stands. Choose "
            "another name."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as around:
        folder = Path(around) / "new"

        def write(model: keras.Model, signature: Signature) -> Callable[[Named], Named]:
            try:
                with silenced():
                    save_model(model, signature, folder)
                    return _runner(folder)
            except tf.errors.OpError as error:  # TensorFlow's own, where Python has OSError: a full or closed disk
                raise OSError(f"`saved_model` could not write {target} ({error.message}). Free some space.") from error

        what = "SavedModel"
        figures = figures_of(model, calibration, on_parity_failure, write, target=target, what=what)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        _replace(folder, target, aside=Path(around) / "old")
    return ModelExport(path=target, format=what, bytes=size, **figures)


def _runner(folder: Path) -> Callable[[Named], Named]:
    loaded = tf.saved_model.load(str(folder))

    def run(batch: Named) -> Named:
        serve = loaded.signatures["serving_default"]  # it does not keep its own variables: `loaded` does
        outputs = serve(**{name: tf.constant(array) for name, array in batch.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def _may_be_replaced(target: Path) -> bool:
    return target.is_dir() and ((target / "saved_model.pb").is_file() or not any(target.iterdir()))


def _replace(folder: Path, target: Path, aside: Path) -> None:
    """Rename `folder` to `target`; what stood there ends in `aside`, or where it was if that fails."""
    if not target.exists():
        folder.rename(target)
        return
    target.rename(aside)
    try:
        folder.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside)
