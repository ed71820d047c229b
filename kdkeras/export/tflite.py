"""`tflite`: convert a Keras model, check the file against it, and only then write the file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from kdkeras import latency
from kdkeras._extras import require
from kdkeras._files import replace_together
from kdkeras.export import calibration as representative
from kdkeras.export import parity
from kdkeras.export._flatbuffer import float_parts
from kdkeras.export._progress import Verbose
from kdkeras.export.card import Card, check_place, companions
from kdkeras.export.conversion import ConversionError, to_tflite, where_error_starts
from kdkeras.export.modes import MODES, IODtype, Quantize
from kdkeras.export.precision import float32_model
from kdkeras.export.runtime import TFLiteModel
from kdkeras.export.signature import Signature, signature_of
from kdkeras.inputs import check_count


@dataclasses.dataclass(frozen=True)
class TFLiteExport:
    """What `tflite` wrote, and how it compares with Keras.

    Attributes:
        path: The file.
        quantize: The mode that was asked for.
        batch_size: Samples in one run of the file.
        bytes: Size of the file.
        max_abs_error: Largest absolute difference from Keras over all outputs and samples.
        max_rel_error: The same over the largest absolute Keras value of that output.
        agreement: Share of equal decisions (top-1; the side of 0.5 for one sigmoid output), worst output; `None` for
            a single linear output. Several linear outputs are taken as classes, also where they are a regression.
        parity_samples: Number of samples that were compared.
        parity_data: `"calibration"`, or `"random"` when no calibration data was given.
        input_dtypes: Signature input name → dtype.
        output_dtypes: Signature output name → dtype.
        float_tensors: Float tensors left inside an int8 or int16x8 file, inputs and outputs not counted; `None` in
            other modes.
        latency_1_thread: Time of one run of the file with one CPU thread, in milliseconds.
        latency_2_threads: The same with two.
        failures: What the parity gate found; not empty only with `on_parity_failure="keep"`.
    """

    path: Path
    quantize: Quantize | None
    batch_size: int
    bytes: int
    max_abs_error: float
    max_rel_error: float
    agreement: float | None
    parity_samples: int
    parity_data: Literal["calibration", "random"]
    input_dtypes: dict[str, str]
    output_dtypes: dict[str, str]
    float_tensors: int | None
    latency_1_thread: latency.Latency
    latency_2_threads: latency.Latency
    failures: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain types, ready for JSON."""
        record = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return record | {
            "path": str(self.path),
            "latency_1_thread": self.latency_1_thread._asdict(),
            "latency_2_threads": self.latency_2_threads._asdict(),
            "failures": list(self.failures),
        }

    def __str__(self) -> str:
        agreement = "" if self.agreement is None else f"agreement {self.agreement:.2%}, "
        lines = [
            f"{self.path}: {self.quantize or 'float32'}, {self.bytes / 1000:.1f} kB",
            f"  parity   {agreement}max error {self.max_abs_error:.3g} (relative {self.max_rel_error:.3g}) "
            f"on {self.parity_samples} {self.parity_data} samples",
            f"  latency  {self.latency_1_thread.median:.3f} ms with 1 thread, "
            f"{self.latency_2_threads.median:.3f} ms with 2 (median, batch {self.batch_size})",
        ]
        if self.float_tensors is not None:
            lines.append(f"  inside   {self.float_tensors} float tensors left")
        if self.failures:
            lines.append(f"  FAILED   {'; '.join(self.failures)}")
        return "\n".join(lines)


def tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    quantize: Quantize | None = None,
    calibration: Any = None,
    io_dtype: IODtype | None = None,
    batch_size: int = 1,
    min_agreement: float = 0.95,
    float_ops: Collection[str] = (),
    on_parity_failure: Literal["raise", "keep"] = "raise",
    card: Card | None = Card(),  # noqa: B008  (frozen)
    verbose: Verbose = "auto",
) -> TFLiteExport:
    """Convert a Keras model to a TFLite file that is known to answer as the model does.

    The model is converted with builtin ops only, in a process of its own, run in LiteRT, and compared with Keras on
    `calibration`. Only a file that passes is moved to `path`, replacing what stood there; on failure `path` is as
    before. Beside `NAME.tflite` stands its card, `NAME.json` for programs and `NAME.md` for people: how to call the
    file, and what was measured of it.

    Refused are outputs that are not finite or the same for all samples; a relative error above 1e-4 (float32) or 0.05
    (float16); for the other modes, an agreement under `min_agreement`, or, without decisions or without calibration
    data, a relative error above 0.1 (0.25 for `"int4"`); and float tensors left inside an int8 or int16x8 file.

    | `quantize` | weights | activations | needs | for |
    |---|---|---|---|---|
    | `None` | float32 | float32 | | the reference |
    | `"float16"` | float16 | float32 (float16 on GPUs) | | half the size, nothing lost |
    | `"dynamic"` | int8 | quantized on the fly | | a quarter of the size without data |
    | `"int8"` | int8 | int8 | `calibration` | speed on CPUs; microcontrollers and NPUs, which know nothing else |
    | `"int16x8"` | int8 | int16 | `calibration` | where int8 activations lose too much; slow on CPUs |
    | `"int4"` | int4 | quantized on the fly | the extra `int4` | an eighth of the size; costs accuracy untrained |

    Inputs and outputs keep the model's dtypes in every mode unless `io_dtype` says otherwise, so the file is called
    like the model. Half-precision models are exported from a float32 copy. `"dynamic"` leaves weights of fewer than
    1024 values in float32. While the model is saved and the runtime starts, what the process prints is discarded:
    their log lines cannot be switched off.

    Args:
        model: A built Functional, Sequential or subclassed model. Every size but the batch must be known, from the
            model or from `calibration`.
        path: The file to write. Its folder is made if it is missing.
        quantize: A mode of the table.
        calibration: Representative inputs, scaled as in training, at least 32: an array, a dict or list of arrays, a
            `tf.data.Dataset` or a generator; labels are dropped and 512 samples at most are used. Required for
            `"int8"` and `"int16x8"`. When `None`, parity runs on 64 seeded random samples (floats uniform in [0, 1),
            integers 0 or 1), and the result says so. Parity on wrongly scaled data says nothing about real data.
        io_dtype: What float inputs and outputs become: `"int8"` or `"uint8"` with `"int8"`, `"int16"` with
            `"int16x8"`, for devices without floats. `None` (default) leaves them. `export.load` takes floats still.
        batch_size: Samples in one run of the file. Default 1, as devices run models.
        min_agreement: Least share of equal decisions of a quantized file, in [0, 1]. The default lets one of 32
            samples differ, not two.
        float_ops: Names of TFLite ops, such as `"NEG"`, that may work on floats in an int8 or int16x8 file: CPUs run
            such a file, integer-only devices do not. The refusal names those that do. Default: none.
        on_parity_failure: `"raise"`, or `"keep"` to write the file all the same, with the failures in the result.
        card: What the card says besides: class names, preprocessing, teacher, test data. `None` writes no card, and
            removes one of an earlier file at `path`.
        verbose: `"auto"` shows what takes over two seconds in one line on a terminal; 1 shows every step; 0 nothing.

    Returns:
        A `TFLiteExport`: size, agreement, errors, and latency with one and two threads.

    Raises:
        ValueError: An option or the calibration data is not usable, or the model's input shape is not known.
        TypeError: `model` is not a Keras model, or the calibration data has a form that cannot be used.
        ConversionError: The converter refused the model or crashed.
        ExportParityError: The file does not match the model; nothing was written.
        ImportError: `"int4"` is asked for without its extra.
        FileExistsError: Where the card goes stands something else.
        OSError: The file cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> import keras
        >>> from kdkeras import export
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "student.tflite"
        >>> result = export.tflite(model, path)
        >>> result.bytes == path.stat().st_size, result.parity_data
        (True, 'random')

    Reference:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
        CVPR 2018.
    """
    target = Path(path)
    _check_arguments(model, target, quantize, calibration, min_agreement, on_parity_failure)
    _check_form(quantize, io_dtype, batch_size)
    if card is not None:
        check_place(target)
    model = float32_model(model)
    signature = signature_of(model)
    source = "random" if calibration is None else "calibration"
    if calibration is None:
        samples = representative.random_samples(signature)
    else:
        samples = representative.collect(calibration, signature)
    fixed = signature.fixed(samples, batch_size)
    content = to_tflite(model, fixed, quantize, samples, io_dtype=io_dtype, float_ops=float_ops, verbose=verbose)
    figures, failures = _gate(model, signature, samples, content, quantize, source, min_agreement, float_ops)
    failures += parity.dtype_failures(signature, figures["input_dtypes"], io_dtype)
    if on_parity_failure == "raise" and failures:
        found = quantize == "int8" and parity.inaccurate(failures)
        where = where_error_starts(model, signature, samples) if found else ""
        parity.raise_for(failures, quantize, f"{len(samples[0])} {source} samples", target, where)
    result = TFLiteExport(
        path=target,
        quantize=quantize,
        batch_size=batch_size,
        bytes=len(content),
        parity_samples=len(samples[0]),
        parity_data=source,
        failures=tuple(failures),
        **figures,
        **_timings(content, signature, samples),
    )
    settings = {
        "quantize": quantize,
        "io_dtype": io_dtype,
        "batch_size": batch_size,
        "min_agreement": min_agreement,
        "float_ops": sorted(float_ops),
    }
    _write(target, content, companions(card, result, content, model, _named(signature, samples), settings))
    return result


def _check_arguments(
    model: Any, path: Path, quantize: Any, calibration: Any, min_agreement: float, on_parity_failure: str
) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"`tflite` expects a keras.Model. Received: {type(model).__name__}.")
    if quantize not in MODES:
        raise ValueError(f"`quantize` must be one of {tuple(MODES)}. Received: {quantize!r}.")
    if MODES[quantize].calibrated and calibration is None:
        raise ValueError(
            f"quantize={quantize!r} needs `calibration` data to set its ranges. Received: None. "
            "Pass at least 32 training samples, scaled as in training."
        )
    if not 0 <= min_agreement <= 1:
        raise ValueError(f"`min_agreement` is a share from 0 to 1. Received: {min_agreement}.")
    if on_parity_failure not in ("raise", "keep"):
        raise ValueError(f"`on_parity_failure` must be 'raise' or 'keep'. Received: {on_parity_failure!r}.")
    if path.is_dir():
        raise IsADirectoryError(f"`path` must be a file. Received: the folder {path}. Add a name such as model.tflite.")


def _check_form(quantize: str | None, io_dtype: Any, batch_size: Any) -> None:
    if io_dtype is not None and io_dtype not in MODES[quantize].io_dtypes:
        modes = {name: mode.io_dtypes for name, mode in MODES.items() if mode.io_dtypes}
        raise ValueError(f"`io_dtype` can be {modes}. Received: io_dtype={io_dtype!r} for quantize={quantize!r}.")
    check_count("batch_size", batch_size)
    if quantize == "int4":
        require("ai_edge_quantizer", extra="int4", what="quantize='int4'")


def _gate(
    model: keras.Model,
    signature: Signature,
    samples: list[np.ndarray],
    content: bytes,
    quantize: str | None,
    source: str,
    min_agreement: float,
    float_ops: Collection[str],
) -> tuple[dict[str, Any], list[str]]:
    """Run the file beside the model; return the figures and what is wrong with them."""
    expected = parity.keras_outputs(model, signature, samples)
    try:
        lite = TFLiteModel(content)
        received = lite.run(_named(signature, samples))
    except (RuntimeError, ValueError) as error:  # of LiteRT, when it prepares or runs the ops
        raise ConversionError(
            f"The TFLite converter made a file for quantize={quantize!r} that LiteRT cannot run "
            f"({str(error).splitlines()[0][:300]}). Use another mode; for a model from `compress.quantize_aware`, "
            "'int8'."
        ) from error
    results = {name: parity.compare(values, received[name]) for name, values in expected.items()}
    inner = float_parts(content) if MODES[quantize].calibrated else None
    limit = min_agreement if source == "calibration" else None
    failures = parity.broken_outputs(expected, received) or parity.limit_failures(
        results, quantize, limit, inner, float_ops
    )
    figures = dataclasses.asdict(parity.worst(results.values())) | {
        "float_tensors": None if inner is None else inner.tensors,
        "input_dtypes": lite.input_dtypes,
        "output_dtypes": lite.output_dtypes,
    }
    return figures, failures


def _timings(content: bytes, signature: Signature, samples: list[np.ndarray]) -> dict[str, latency.Latency]:
    single, double = TFLiteModel(content, threads=1), TFLiteModel(content, threads=2)
    sample = _named(signature, [np.resize(array, (single.batch_size, *array.shape[1:])) for array in samples])
    return {
        "latency_1_thread": latency.measure(lambda: single.run(sample)),
        "latency_2_threads": latency.measure(lambda: double.run(sample)),
    }


def _named(signature: Signature, samples: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {item.name: array for item, array in zip(signature.inputs, samples, strict=True)}


def _write(path: Path, content: bytes, beside: dict[Path, bytes | None]) -> None:
    try:
        replace_together(path, content, beside)
    except OSError as error:
        raise OSError(
            error.errno,
            f"`tflite` could not write {path} ({error.strerror}). Choose a folder that you may write to and that has "
            f"{len(content) / 1000:.0f} kB free",
        ) from error
