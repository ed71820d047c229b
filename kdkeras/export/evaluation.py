"""How good TFLite files are on labelled data, beside the Keras models that they came from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras

from kdkeras.comparable import Comparable
from kdkeras.evaluate import Comparison, compare_all
from kdkeras.export.runtime import load

_Path = str | os.PathLike[str]


def evaluate(
    path: _Path | Iterable[_Path] | Mapping[str, _Path],
    data: Any,
    *,
    teacher: keras.Model | Comparable | None = None,
    student: keras.Model | Comparable | None = None,
    k: int = 5,
    latency: bool = True,
    batch_size: int = 256,
) -> Comparison:
    """Score TFLite files on held-out data: all columns of `kdkeras.evaluate.compare`, beside the Keras models.

    Agreement, KL divergence or R² are told against the teacher, else against the student, else not at all. Files are
    run in this process with one thread; `benchmark` times them by themselves. They keep their batch size, so many
    samples take as many runs.

    Args:
        path: One file, or several: paths, or a dict name → path. Without names, a file is called as it is.
        data: `(x, y)` arrays, or a `tf.data.Dataset` of batches `(x, y)`, as for `compare`; several inputs as a dict
            by name.
        teacher: The teacher.
        student: The Keras model that the files came from.
        k: How many classes count for top-k accuracy. Default 5, as for ImageNet.
        latency: Whether to time each model (50 runs of one sample after 10 warm-ups).
        batch_size: Samples per forward pass of the Keras models.

    Returns:
        A `kdkeras.evaluate.Comparison`: teacher, student, files. Print it to see the table.

    Raises:
        FileNotFoundError: There is no file at a path.
        TypeError: A model or `data` is of another kind.
        ValueError: A file is not one of TFLite, has several outputs or ops that LiteRT lacks; names are not unique;
            or as for `compare`.

    Example:
        >>> import pathlib, tempfile
        >>> import keras, numpy as np
        >>> from kdkeras import export
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "student.tflite"
        >>> _ = export.tflite(model, path)
        >>> data = np.random.default_rng(0).random((50, 4)), np.arange(50) % 3
        >>> table = export.evaluate(path, data, student=model, latency=False)
        >>> [row.name for row in table.rows], table["student.tflite"].scores.agreement
        (['student', 'student.tflite'], 1.0)
    """
    models: dict[str, Any] = {"teacher": teacher, "student": student}
    models = {name: model for name, model in models.items() if model is not None}
    paths = _by_name(path)
    if taken := sorted(models.keys() & paths.keys()):
        raise ValueError(f"`evaluate` needs a name of its own for each column. Received: {taken} twice. Rename a file.")
    reference = next(iter(models), None)
    files = {name: load(file) for name, file in paths.items()}
    return compare_all(models | files, data, reference=reference, k=k, latency=latency, batch_size=batch_size)


def _by_name(path: Any) -> dict[str, Path]:
    if isinstance(path, Mapping):
        return {name: Path(each) for name, each in path.items()}
    files = [Path(each) for each in ([path] if isinstance(path, (str, os.PathLike)) else path)]
    if not files:
        raise ValueError("`evaluate` needs one file at least. Received: none.")
    names = [file.name for file in files]
    # Files of one name in several folders are told apart by their folders.
    return dict(zip(names if len(set(names)) == len(names) else map(str, files), files, strict=True))
