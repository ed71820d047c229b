"""From a Keras model to the bytes of a TFLite file, quietly and without risk to this process."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kdkeras._silence import silenced
from kdkeras.export import _converter_process
from kdkeras.export._progress import Progress, Verbose
from kdkeras.export.modes import MODES
from kdkeras.export.signature import Signature


class ConversionError(RuntimeError):
    """The TFLite converter refused the model, or crashed on it. No file was written."""


def to_tflite(
    model: keras.Model,
    signature: Signature,
    quantize: str | None,
    samples: Sequence[np.ndarray],
    *,
    io_dtype: str | None = None,
    verbose: Verbose = 0,
) -> bytes:
    """Convert `model` to TFLite bytes.

    The way is Keras → SavedModel → converter, with builtin ops only. The converter runs in a process of its own,
    because it kills Python on some models, and logs from C++. That process is kept for the next conversion: the first
    one pays for its import of TensorFlow, measured at 3.5 seconds on two cores, while the model is saved.

    Args:
        model: A built float32 model.
        signature: Its inputs, with every size known, also the batch's.
        quantize: One of `MODES`.
        samples: One array `(n, ...)` per input; only calibrated modes read them.
        io_dtype: Dtype of the file's inputs and outputs; `None` leaves the model's.
        verbose: As `Progress` takes it.

    Returns:
        The bytes of the TFLite file.

    Raises:
        ConversionError: The converter refused the model or crashed.
        OSError: There is no room for the files in between.
    """
    _converter_process.start()
    with tempfile.TemporaryDirectory(prefix="kdkeras-") as folder, Progress(_title(model, quantize), verbose) as say:
        saved, arrays, output = (Path(folder) / name for name in ("saved_model", "samples.npz", "model.tflite"))
        say("saving")
        try:
            with silenced():
                save_model(model, signature, saved)
        except tf.errors.OpError as error:  # TensorFlow's own, where Python has OSError: a full or closed disk
            raise OSError(
                f"The model could not be saved to '{folder}' for conversion ({error.message}). Free some space."
            ) from error
        calibrated = MODES[quantize].calibrated
        if calibrated:
            np.savez(arrays, **{item.name: array for item, array in zip(signature.inputs, samples, strict=True)})
        request = {
            "saved": str(saved),
            "quantize": quantize,
            "samples": str(arrays) if calibrated else None,
            "batch_size": signature.inputs[0].shape[0],
            "io_dtype": io_dtype,
            "output": str(output),
        }
        say("converting")
        try:
            _converter_process.convert(request, say)
        except _converter_process.ConverterCrashError as crash:
            raise ConversionError(
                f"The TFLite converter crashed on this model for quantize={quantize!r} (signal {crash.signal}), in a "
                f"process of its own. {MODES[quantize].crash_advice}"
            ) from crash
        except _converter_process.ConverterError as error:
            raise ConversionError(_sentence(quantize, str(error))) from error
        return output.read_bytes()


def _title(model: keras.Model, quantize: str | None) -> str:
    return f"{model.name} to TFLite ({quantize or 'float32'})"


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
