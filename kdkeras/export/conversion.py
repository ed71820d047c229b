"""From a Keras model to the bytes of a TFLite file, quietly and without risk to this process."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kdkeras._shared_vectors import share_repeated
from kdkeras._silence import silenced
from kdkeras.export import _converter_process
from kdkeras.export._flatbuffer import float_parts
from kdkeras.export._progress import Progress, Verbose
from kdkeras.export.modes import MODES
from kdkeras.export.signature import Signature, safe_name

_DEBUGGED = 64  # samples on which the layer where an error starts is looked for
_TOO_MANY_STEPS = 0.7  # rounding alone is off by 1/√12 = 0.29 of a step
_TRIES = 3  # the converter left ops of an unrolled LSTM in float in 2 of 25 conversions of the same model


class ConversionError(RuntimeError):
    """The TFLite converter refused the model, or crashed on it. No file was written."""


def to_tflite(
    model: keras.Model,
    signature: Signature,
    quantize: str | None,
    samples: Sequence[np.ndarray],
    *,
    io_dtype: str | None = None,
    float_ops: Collection[str] = (),
    verbose: Verbose = 0,
) -> bytes:
    """Convert `model` to TFLite bytes.

    The way is Keras → SavedModel → converter, with builtin ops only. The converter runs in a process of its own,
    because it kills Python on some models, and logs from C++. That process is kept for the next conversion: the first
    one pays for its import of TensorFlow, measured at 3.5 seconds on two cores, while the model is saved.

    The converter does not always do the same: now and then it leaves ops in float that it can turn into integers. Where
    floats are left in a file that should have none, it is asked again, up to three times in all.

    Args:
        model: A built float32 model.
        signature: Its inputs, with every size known, also the batch's.
        quantize: One of `MODES`.
        samples: One array `(n, ...)` per input; only calibrated modes read them.
        io_dtype: Dtype of the file's inputs and outputs; `None` leaves the model's.
        float_ops: Names of ops that may work on floats in a file of integers.
        verbose: As `Progress` takes it.

    Returns:
        The bytes of the TFLite file.

    Raises:
        ConversionError: The converter refused the model or crashed.
        OSError: There is no room for the files in between.
    """
    calibrated = MODES[quantize].calibrated
    progress = Progress(_title(model, quantize), verbose)
    with _saved(model, signature, samples if calibrated else None, progress) as (paths, say):
        request = {
            "saved": str(paths.model),
            "quantize": quantize,
            "samples": str(paths.samples) if calibrated else None,
            "batch_size": signature.inputs[0].shape[0],
            "io_dtype": io_dtype,
            "output": str(paths.output),
        }
        content = _converted(request, say)
        for _ in range(_TRIES - 1):
            if not calibrated or set(float_parts(content).operators) <= set(float_ops):
                break
            with contextlib.suppress(ConversionError):  # there is a file already
                content = min(content, _converted(request, say), key=lambda each: float_parts(each).tensors)
        return share_repeated(content)


def _converted(request: dict[str, Any], say: Progress) -> bytes:
    """Ask the converter once."""
    quantize = request["quantize"]
    try:
        _converter_process.ask("convert", say, **request)
    except _converter_process.ConverterCrashError as crash:
        raise ConversionError(
            f"The TFLite converter crashed on this model for quantize={quantize!r} (signal {crash.signal}), in a "
            f"process of its own. {MODES[quantize].crash_advice}"
        ) from crash
    except _converter_process.ConverterError as error:
        raise ConversionError(_sentence(quantize, str(error))) from error
    return Path(request["output"]).read_bytes()


def where_error_starts(model: keras.Model, signature: Signature, samples: Sequence[np.ndarray]) -> str:
    """Say which layer of an int8 file is the first to lose more than rounding does, when its inputs are right.

    Args:
        model: A built float32 model.
        signature: Its inputs, with every size known.
        samples: One array `(n, ...)` per input.

    Returns:
        A sentence; empty where the converter cannot tell.
    """
    some = [array[:_DEBUGGED] for array in samples]
    alone = signature.fixed(some)
    with _saved(model, alone, some, Progress(f"{model.name}: which layer", 0)) as (paths, say):
        try:
            rows = _converter_process.ask("errors_by_layer", say, saved=str(paths.model), samples=str(paths.samples))
        except (_converter_process.ConverterCrashError, _converter_process.ConverterError):
            return ""
    bad = [row for row in rows if row["steps"] > _TOO_MANY_STEPS]
    if not bad:
        return "No layer loses more than rounding does: the ranges are too wide, as outliers in the data make them."
    return (
        f"The error starts at {_layer_name(model, bad[0]['tensor'])} ({bad[0]['op']}): it is off by "
        f"{bad[0]['steps']:.1f} steps of its scale where rounding makes 0.3."
    )


def _layer_name(model: keras.Model, tensor: str) -> str:
    """Return the layer that made a tensor, from the tensor's own name: `"model/layer/op;model/layer/other op"`."""
    names = {layer.name for layer in model._flatten_layers()} - {model.name}
    parts = re.split("[/;]", tensor)
    if parts[0] != model.name:  # where the model was traced before, every name in it has got a number more
        parts = [re.sub(r"_\d+$", "", part) for part in parts]
    known = [part for part in parts if part in names]
    return f"layer '{known[0]}'" if known else f"'{tensor.split(';')[0]}'"


class _Paths(NamedTuple):
    model: Path
    samples: Path
    output: Path


@contextlib.contextmanager
def _saved(
    model: keras.Model, signature: Signature, samples: Sequence[np.ndarray] | None, progress: Progress
) -> Iterator[tuple[_Paths, Progress]]:
    """Save a model and samples where the converter finds them, for as long as the block runs."""
    _converter_process.start()
    with tempfile.TemporaryDirectory(prefix="kdkeras-") as folder, progress as say:
        paths = _Paths(*(Path(folder) / name for name in ("saved_model", "samples.npz", "model.tflite")))
        say("saving")
        try:
            with silenced():
                save_model(model, signature, paths.model)
        except tf.errors.OpError as error:  # TensorFlow's own, where Python has OSError: a full or closed disk
            raise OSError(
                f"The model could not be saved to '{folder}' for conversion ({error.message}). Free some space."
            ) from error
        if samples is not None:
            np.savez(paths.samples, **{item.name: array for item, array in zip(signature.inputs, samples, strict=True)})
        say("converting")
        yield paths, say


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
        return {safe_name(key): value for key, value in outputs.items()}
    return {f"output_{index}": value for index, value in enumerate(keras.tree.flatten(outputs))}


def _sentence(quantize: str | None, text: str) -> str:
    """Say in a sentence what the converter says in a page."""
    missing = re.findall(r"'tf\.(\w+)' op is neither a custom op nor a flex op", text)
    if missing:
        return (
            f"The TFLite converter refused the model for quantize={quantize!r}: TFLite has no builtin op for "
            f"{', '.join(sorted(set(missing)))}. Replace the layer that uses it by one made of basic ops."
        )
    if quantize == "int16x8" and "Max and min for dynamic tensors should be recorded" in text:
        return (
            "The TFLite converter refused the model for quantize='int16x8': it has no 16-bit form for integer inputs, "
            "such as words. Use quantize='int8' or 'dynamic'."
        )
    errors = re.findall(r"^[\w.]*(?:Error|Exception): .+$", text, re.MULTILINE) or [text.strip() or "no message"]
    last = errors[-1][:400].rstrip(".")
    return (
        f"The TFLite converter refused the model for quantize={quantize!r}: {last}. Try another `quantize` "
        "mode, or export the model without its last layers to find the one it stops at."
    )
