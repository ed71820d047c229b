"""The converter call: SavedModel folder in, TFLite bytes out. Runs in this process or as a script in its own.

As a script it needs nothing but TensorFlow, so that a converter that crashes takes only this script with it:

    python -P _convert.py SAVED_MODEL QUANTIZE SAMPLES.npz OUTPUT
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf


def convert_saved_model(folder: Path, quantize: str | None, samples: dict[str, np.ndarray] | None = None) -> bytes:
    """Convert a SavedModel with builtin TFLite ops only.

    Args:
        folder: The SavedModel.
        quantize: `None`, `"float16"`, `"dynamic"` or `"int8"`.
        samples: For int8: signature input name → array `(n, ...)`.

    Returns:
        The bytes of the TFLite file.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: _rows(samples)
    return converter.convert()


def _rows(samples: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    count = len(next(iter(samples.values())))
    for row in range(count):
        yield {name: array[row : row + 1] for name, array in samples.items()}


def _main(folder: str, quantize: str, samples: str, output: str) -> None:
    with np.load(samples, allow_pickle=False) as arrays:
        content = convert_saved_model(Path(folder), quantize, dict(arrays))
    Path(output).write_bytes(content)


if __name__ == "__main__":
    _main(*sys.argv[1:])
