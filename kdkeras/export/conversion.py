"""From a Keras model to the bytes of a TFLite file, quietly and without risk to this process."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kdkeras._silence import silenced
from kdkeras.export import _convert
from kdkeras.export.signature import Signature


class ConversionError(RuntimeError):
    """The TFLite converter refused the model, or crashed on it. No file was written."""


def to_tflite(model: keras.Model, signature: Signature, quantize: str | None, samples: Sequence[np.ndarray]) -> bytes:
    """Convert `model` at batch 1 to TFLite bytes.

    The way is Keras → SavedModel → converter, with builtin ops only. int8 is converted in a process of its own,
    because the converter's calibration step kills Python on some models (RNNs); that costs the import of
    TensorFlow, measured at 3.5 seconds on two cores. The other modes are converted in this process, with its output
    silenced.

    Args:
        model: A built float32 model.
        signature: Its inputs, with every size known.
        quantize: `None`, `"float16"`, `"dynamic"` or `"int8"`.
        samples: One array `(n, ...)` per input; only int8 reads them.

    Returns:
        The bytes of the TFLite file.

    Raises:
        ConversionError: The converter refused the model or crashed.
    """
    with tempfile.TemporaryDirectory(prefix="kdkeras-") as folder:
        saved = Path(folder) / "saved_model"
        try:
            with silenced():
                save_model(model, signature, saved)
        except tf.errors.OpError as error:  # TensorFlow's own, where Python has OSError: a full or closed disk
            raise OSError(
                f"The model could not be saved to '{folder}' for conversion ({error.message}). Free some space."
            ) from error
        if quantize == "int8":
            return _convert_apart(saved, signature, samples)
        try:
            with silenced():
                return _convert.convert_saved_model(saved, quantize)
        except Exception as error:  # the converter raises many types; all mean the same to the caller
            raise ConversionError(_sentence(quantize, f"{type(error).__name__}: {error}")) from error


def save_model(model: keras.Model, signature: Signature, folder: Path) -> None:
    """Save the inference pass of `model` as a SavedModel with named inputs and outputs.

    `model.export` leaves the input names to TensorFlow; this keeps those of `signature`, because the file's inputs
    are found by name.
    """
    specs = [tf.TensorSpec(item.shape, item.dtype, name=item.name) for item in signature.inputs]

    @tf.function(input_signature=specs)
    def serve(*flat: Any) -> dict[str, Any]:
        return named_outputs(model(signature.pack(flat), training=False))

    serve.get_concrete_function()  # the archive asks for a function that has been traced
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", serve)
    archive.write_out(str(folder), verbose=False)


def named_outputs(outputs: Any) -> dict[str, Any]:
    """Name a model's outputs as the file does: dict keys, else `output_0`, `output_1`, ..."""
    if isinstance(outputs, dict):
        return {re.sub(r"\W", "_", key): value for key, value in outputs.items()}
    return {f"output_{index}": value for index, value in enumerate(keras.tree.flatten(outputs))}


def _convert_apart(saved: Path, signature: Signature, samples: Sequence[np.ndarray]) -> bytes:
    arrays, output = saved.with_name("samples.npz"), saved.with_name("model.tflite")
    np.savez(arrays, **{item.name: array for item, array in zip(signature.inputs, samples, strict=True)})
    # -P keeps this package's folder off the script's module path.
    command = [sys.executable, "-P", _convert.__file__, str(saved), "int8", str(arrays), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode < 0:
        raise ConversionError(
            f"The TFLite converter crashed on this model for quantize='int8' (signal {-done.returncode}), in a process "
            "of its own. Recurrent layers are the known cause: build them with unroll=True, or use quantize='dynamic'."
        )
    if done.returncode > 0:
        raise ConversionError(_sentence("int8", done.stderr))
    return output.read_bytes()


def _sentence(quantize: str | None, text: str) -> str:
    """Say in a sentence what the converter says in a page."""
    missing = re.findall(r"'tf\.(\w+)' op is neither a custom op nor a flex op", text)
    if missing:
        return (
            f"The TFLite converter refused the model for quantize={quantize!r}: TFLite has no builtin op for "
            f"{', '.join(sorted(set(missing)))}. Replace the layer that uses it by one made of basic ops."
        )
    errors = re.findall(r"^[\w.]*(?:Error|Exception): .+$", text, re.MULTILINE) or [text.strip() or "no message"]
    return (
        f"The TFLite converter refused the model for quantize={quantize!r}: {errors[-1][:400]}. Try another `quantize` "
        "mode, or export the model without its last layers to find the one it stops at."
    )
