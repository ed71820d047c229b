"""The parity gate: is the file's answer that of the Keras model?"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from kdkeras.export._flatbuffer import FloatParts
from kdkeras.export.conversion import named_outputs
from kdkeras.export.modes import MODES
from kdkeras.export.signature import Signature

_BATCH = 64


class ExportParityError(RuntimeError):
    """What was exported does not answer as its Keras model does. Nothing was written."""


@dataclass(frozen=True)
class Parity:
    """How far a file's output is from that of Keras.

    Attributes:
        max_abs_error: Largest absolute difference.
        max_rel_error: That difference over the largest absolute Keras value.
        agreement: Share of equal decisions; `None` when the output is no decision.
    """

    max_abs_error: float
    max_rel_error: float
    agreement: float | None


def keras_outputs(model: keras.Model, signature: Signature, samples: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Run `model` in inference mode over `samples` and return every output by its name in the file."""
    batches = []
    for start in range(0, len(samples[0]), _BATCH):
        flat = [keras.ops.convert_to_tensor(array[start : start + _BATCH]) for array in samples]
        outputs = named_outputs(model(signature.pack(flat), training=False))
        batches.append({name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()})
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def compare(expected: np.ndarray, received: np.ndarray) -> Parity:
    """Measure the distance of one output from that of Keras.

    Args:
        expected: Keras output `(n, ...)`.
        received: The same from the file.

    Returns:
        A `Parity`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.export.parity import compare
        >>> result = compare(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([[0.8, 0.2], [0.5, 0.5]]))
        >>> round(result.max_abs_error, 3), result.agreement
        (0.1, 0.5)
    """
    error = float(np.abs(expected.astype("float64") - received).max())
    scale = max(float(np.abs(expected).max()), np.finfo("float32").tiny)
    return Parity(error, error / scale, agreement(expected, received))


def worst(results: Iterable[Parity]) -> Parity:
    """Join the parities of several outputs: the largest errors and the smallest agreement."""
    results = list(results)
    agreements = [result.agreement for result in results if result.agreement is not None]
    return Parity(
        max(result.max_abs_error for result in results),
        max(result.max_rel_error for result in results),
        min(agreements) if agreements else None,
    )


def agreement(expected: np.ndarray, received: np.ndarray) -> float | None:
    """Share of equal decisions.

    With two or more values on the last axis: equal top-1. With one value that Keras keeps in [0, 1] (a sigmoid):
    equal sides of 0.5. Any other single value may be a regression, which has no decision: `None`.

    Args:
        expected: Keras outputs `(n, ..., classes)`.
        received: The file's outputs, same shape.

    Returns:
        A share in [0, 1], or `None`.
    """
    if expected.ndim > 1 and expected.shape[-1] > 1:
        return float(np.mean(expected.argmax(-1) == received.argmax(-1)))
    if expected.min() >= 0 and expected.max() <= 1:
        return float(np.mean((expected > 0.5) == (received > 0.5)))
    return None


def broken_outputs(reference: dict[str, np.ndarray], candidate: dict[str, np.ndarray]) -> list[str]:
    """Say which outputs cannot be compared at all: not finite, or the same for every sample."""
    failures = []
    for name in reference:
        # When Keras itself is broken there, the file says nothing new.
        fault = _fault("Keras", reference[name]) or _fault("the file", candidate[name])
        if fault:
            failures.append(f"output {name!r} of {fault}")
    return failures


def _fault(side: str, values: np.ndarray) -> str | None:
    if not np.isfinite(values).all():
        return f"{side} is not finite"
    if (values == values[:1]).all():
        return f"{side} is the same for all {len(values)} samples"
    return None


def limit_failures(
    results: dict[str, Parity],
    quantize: str | None,
    min_agreement: float | None,
    inner: FloatParts | None,
    float_ops: Collection[str] = (),
) -> list[str]:
    """Say which limits the outputs break.

    Args:
        results: Output name → parity.
        quantize: The export mode.
        min_agreement: The limit for decisions of quantized files; `None` when the samples are random, on which
            agreement means nothing and the relative error decides.
        inner: The float tensors left in an int8 file; `None` in other modes.
        float_ops: Names of ops that may work on floats in it.

    Returns:
        One phrase per broken limit, with figure and limit.
    """
    failures = []
    for name, result in results.items():
        mode = MODES[quantize]
        if mode.by_agreement and min_agreement is not None and result.agreement is not None:
            if result.agreement < min_agreement:
                failures.append(
                    f"agreement of {name!r} is {result.agreement:.4g}, under min_agreement={min_agreement:g}"
                )
        elif result.max_rel_error > mode.relative_limit:
            failures.append(f"relative error of {name!r} is {result.max_rel_error:.3g}, over {mode.relative_limit:g}")
    if inner is not None and not set(inner.operators) <= set(float_ops):
        failures.append(
            f"{inner.tensors} float tensors are left in an {quantize} file, at {', '.join(inner.operators)}"
        )
    return failures


def dtype_failures(signature: Signature, received: dict[str, str], io_dtype: str | None) -> list[str]:
    """Say which inputs of a file have another dtype than was asked for.

    Args:
        signature: The model's inputs.
        received: Input name → dtype of the file.
        io_dtype: What float inputs were to become; `None` for what they are.

    Returns:
        One phrase per input.
    """
    failures = []
    for item in signature.inputs:
        expected = io_dtype if io_dtype and item.dtype.startswith("float") else item.dtype
        if received[item.name] != expected:
            failures.append(f"input {item.name!r} is {received[item.name]}, not {expected}")
    return failures


def raise_for(
    failures: list[str], quantize: str | None, samples: str, path: Path, where: str = "", *, what: str | None = None
) -> None:
    """Raise one readable error for `failures`, if there are any.

    Args:
        failures: What the gate found.
        quantize: The export mode.
        samples: How many samples of what were compared.
        path: The file that was not written.
        where: A sentence on where the error starts.
        what: What was exported, if it is no TFLite file.

    Raises:
        ExportParityError: `failures` is not empty.
    """
    if failures:
        raise ExportParityError(
            f"The {what or f'TFLite file for quantize={quantize!r}'} does not match its Keras model on {samples}: "
            f"{'; '.join(failures)}. {path} was not written. {where + ' ' if where else ''}"
            f"{_next_step(quantize, f'{samples} {failures}')} "
            "`on_parity_failure='keep'` writes it all the same."
        )


def inaccurate(failures: list[str]) -> bool:
    """Whether a file was refused for how far it is from Keras, and not for what it is made of."""
    return any(failure.startswith(("agreement", "relative error")) or "of the file" in failure for failure in failures)


def _next_step(quantize: str | None, text: str) -> str:
    if "of Keras" in text:
        return "Look at `model.predict` on this data first: an untrained or dead model, or unscaled data, does this."
    if "float tensors" in text:
        return (
            "Use quantize='dynamic', replace the layers that have no integer op, or let these be float by `float_ops`."
        )
    if quantize is not None and "random samples" in text:
        return "Pass `calibration` data, on which agreement is judged, or use a milder `quantize` mode."
    if MODES[quantize].calibrated:
        return "Calibrate on real data, scaled as in training; else use quantize='dynamic' or 'float16'."
    if quantize is not None:
        return "Use a milder `quantize` mode."
    return "Look for a layer that behaves differently at batch 1 or draws random numbers at inference."
