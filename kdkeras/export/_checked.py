"""Formats without quantization: one way to write, run, compare and only then keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from kdkeras.export import calibration as representative
from kdkeras.export import parity
from kdkeras.export.precision import float32_model
from kdkeras.export.signature import Signature, signature_of

_BATCH = 64

Named = dict[str, np.ndarray]
Write = Callable[[keras.Model, Signature], Callable[[Named], Named]]


@dataclasses.dataclass(frozen=True)
class ModelExport:
    """What `saved_model` or `onnx` wrote, and how it compares with Keras.

    Attributes:
        path: The file, or the folder of a SavedModel.
        format: `"SavedModel"` or `"ONNX"`.
        bytes: Size of the file, or of all files of the folder.
        max_abs_error: Largest absolute difference from Keras over all outputs and samples.
        max_rel_error: The same over the largest absolute Keras value of that output.
        agreement: Share of equal decisions, worst output, as for `TFLiteExport`.
        parity_samples: Number of samples that were compared.
        parity_data: `"calibration"`, or `"random"` when no calibration data was given.
        inputs: Input name → dtype.
        outputs: Names of the outputs.
        failures: What the parity gate found; not empty only with `on_parity_failure="keep"`.
    """

    path: Path
    format: Literal["SavedModel", "ONNX"]
    bytes: int
    max_abs_error: float
    max_rel_error: float
    agreement: float | None
    parity_samples: int
    parity_data: Literal["calibration", "random"]
    inputs: dict[str, str]
    outputs: tuple[str, ...]
    failures: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain types, ready for JSON."""
        record = dataclasses.asdict(self)
        return record | {"path": str(self.path), "outputs": list(self.outputs), "failures": list(self.failures)}

    def __str__(self) -> str:
        agreement = "" if self.agreement is None else f"agreement {self.agreement:.2%}, "
        lines = [
            f"{self.path}: {self.format}, {self.bytes / 1000:.1f} kB",
            f"  parity   {agreement}max error {self.max_abs_error:.3g} (relative {self.max_rel_error:.3g}) "
            f"on {self.parity_samples} {self.parity_data} samples",
        ]
        if self.failures:
            lines.append(f"  FAILED   {'; '.join(self.failures)}")
        return "\n".join(lines)


def figures_of(
    model: Any,
    calibration: Any,
    on_parity_failure: str,
    write: Write,
    *,
    target: Path,
    what: str,
) -> dict[str, Any]:
    """Write a model under a temporary name, run it there, and compare it with Keras.

    Args:
        model: The model.
        calibration: Representative inputs, or `None`.
        on_parity_failure: `"raise"` or `"keep"`.
        write: Writes a model and returns how a batch, input name → array, is run through what it wrote.
        target: Where it shall go, for the message.
        what: Name of what is written, for the message.

    Returns:
        The fields of a `ModelExport` that are measured.

    Raises:
        TypeError: `model` is not a Keras model, or the data has a form that cannot be used.
        ValueError: An option, the data or the model's inputs cannot be used.
        ExportParityError: What was written does not match the model.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"An export needs a keras.Model. Received: {type(model).__name__}.")
    if on_parity_failure not in ("raise", "keep"):
        raise ValueError(f"`on_parity_failure` must be 'raise' or 'keep'. Received: {on_parity_failure!r}.")
    model = float32_model(model)
    signature = signature_of(model)
    source = "random" if calibration is None else "calibration"
    if calibration is None:
        samples = representative.random_samples(signature)
    else:
        samples = representative.collect(calibration, signature)
    run = write(model, signature)
    expected = parity.keras_outputs(model, signature, samples)
    received = _in_batches(run, {item.name: array for item, array in zip(signature.inputs, samples, strict=True)})
    results = {name: parity.compare(values, received[name]) for name, values in expected.items()}
    failures = parity.broken_outputs(expected, received) or parity.limit_failures(results, None, None, None)
    if on_parity_failure == "raise":
        parity.raise_for(failures, None, f"{len(samples[0])} {source} samples", target, what=what)
    return dataclasses.asdict(parity.worst(results.values())) | {
        "parity_samples": len(samples[0]),
        "parity_data": source,
        "inputs": {item.name: item.dtype for item in signature.inputs},
        "outputs": tuple(expected),
        "failures": tuple(failures),
    }


def _in_batches(run: Callable[[Named], Named], samples: Named) -> Named:
    count = len(next(iter(samples.values())))
    starts = range(0, count, _BATCH)
    parts = [run({name: array[start : start + _BATCH] for name, array in samples.items()}) for start in starts]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
