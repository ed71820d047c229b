"""Representative data: any usual form in, one checked array per model input out.

The converter takes almost anything without a word, and empty, unscaled or constant data silently ruins an int8 file.
So data is brought into one form and checked here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from kdkeras.export.signature import Input, Signature

MINIMUM = 32
"""Fewest samples: below this the ranges, and an agreement counted in steps of 1/n, mean little."""

LIMIT = 512
"""Most samples that are used: the converter and the parity check run them one by one."""


def collect(calibration: Any, signature: Signature) -> list[np.ndarray]:
    """Bring representative data into one array per model input.

    Accepted: an array; a dict input name → array; for several inputs a list or tuple of arrays; a `tf.data.Dataset`,
    generator or list that yields batches or single samples of these. Of `(x, y)` and `(x, y, weight)` tuples only `x`
    is used. At most 512 samples are used: evenly spaced ones of arrays, the first ones of everything that is iterated.

    Args:
        calibration: The data.
        signature: The model's inputs.

    Returns:
        One array `(n, ...)` per input, in the signature's order and dtypes.

    Raises:
        TypeError: The data has a form or dtype that cannot be used.
        ValueError: A shape or name does not match, fewer than 32 samples, non-finite values, or raw uint8 images for
            a float input.
    """
    whole = _inputs_of(calibration, signature)
    if whole is None:
        arrays = _stream(calibration, signature)
    else:
        arrays = [_batched(array, item) for array, item in zip(whole, signature.inputs, strict=True)]
    sizes = [len(array) for array in arrays]
    if min(sizes) < MINIMUM or len(set(sizes)) > 1:
        raise ValueError(
            f"`calibration` needs at least {MINIMUM} samples, equally many for every input. "
            f"Received: {', '.join(map(str, sizes))}. Pass more of the training data."
        )
    rows = np.arange(LIMIT) * sizes[0] // LIMIT if sizes[0] > LIMIT else slice(None)
    checked = []
    for array, item in zip(arrays, signature.inputs, strict=True):
        checked.append(_checked(array[rows], item))
        _warn_if_constant(checked[-1], item)
    return checked


def random_samples(signature: Signature, *, count: int = 64, seed: int = 0) -> list[np.ndarray]:
    """Draw stand-in inputs: floats uniform in [0, 1), as scaled images are; integers 0 or 1, which any id range has.

    Args:
        signature: The model's inputs; every size but the batch must be known.
        count: Number of samples.
        seed: Seed of the generator.

    Returns:
        One array `(count, ...)` per input.

    Raises:
        ValueError: A size is unknown.
    """
    generator = np.random.default_rng(seed)
    arrays = []
    for item in signature.inputs:
        if None in item.shape[1:]:
            raise ValueError(
                f"An export needs fixed input sizes. Received: input {item.name!r} of shape {item.shape}. "
                "Pass `calibration` data of the size that the file shall have."
            )
        shape = (count, *item.shape[1:])
        floats = np.issubdtype(item.dtype, np.floating)
        drawn = generator.random(shape) if floats else generator.integers(0, 2, shape)
        arrays.append(drawn.astype(item.dtype))
    return arrays


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) or keras.ops.is_tensor(value)


def _inputs_of(element: Any, signature: Signature) -> list[Any] | None:
    """The inputs in one element, in signature order; `None` when it is no element but a collection of them."""
    count = len(signature.inputs)
    if isinstance(element, dict):
        missing = [item.key for item in signature.inputs if item.key not in element]
        if missing:
            keys = [item.key for item in signature.inputs]
            raise ValueError(f"`calibration` needs the inputs {keys}. Received a dict with keys {sorted(element)}.")
        return [element[item.key] for item in signature.inputs]
    if _is_array(element):
        if count > 1:
            raise ValueError(
                f"`calibration` needs {count} arrays, one per model input. Received one array. "
                f"Pass a dict with keys {[item.key for item in signature.inputs]}."
            )
        return [element]
    if isinstance(element, (list, tuple)) and len(element) == count and all(map(_is_array, element)):
        return list(element)
    if isinstance(element, tuple) and len(element) in (2, 3):  # (x, y) or (x, y, sample_weight)
        return _inputs_of(element[0], signature)
    return None


def _stream(calibration: Any, signature: Signature) -> list[np.ndarray]:
    if not isinstance(calibration, Iterable) or isinstance(calibration, (str, bytes)):
        raise TypeError(
            "`calibration` expects an array, a dict or list of arrays, a tf.data.Dataset or a generator. "
            f"Received: {type(calibration).__name__}."
        )
    columns: list[list[np.ndarray]] = [[] for _ in signature.inputs]
    taken = 0
    for element in calibration:
        inputs = _inputs_of(element, signature)
        if inputs is None:
            raise TypeError(
                f"`calibration` must yield arrays, or dicts or tuples of them. Received: {type(element).__name__}."
            )
        for column, value, item in zip(columns, inputs, signature.inputs, strict=True):
            column.append(_batched(value, item))
        taken += len(columns[0][-1])
        if taken >= LIMIT:
            break
    if not taken:
        raise ValueError(
            "`calibration` is empty. Received: no samples. A generator that has been used up yields nothing: "
            "make a new one."
        )
    return [_joined(column, item)[:LIMIT] for column, item in zip(columns, signature.inputs, strict=True)]


def _joined(parts: list[np.ndarray], item: Input) -> np.ndarray:
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"`calibration` needs samples of one shape for input {item.name!r}. Received: {sorted(shapes)}. "
            "Pad or resize them."
        )
    return np.concatenate(parts)


def _batched(value: Any, item: Input) -> np.ndarray:
    """An array `(n, ...)`, from a batch or from a single sample."""
    array = keras.ops.convert_to_numpy(value)
    sample = array.shape[1:] if array.ndim == len(item.shape) else array.shape
    expected = item.shape[1:]
    fits = len(sample) == len(expected) and all(
        want in (None, have) for want, have in zip(expected, sample, strict=True)
    )
    if not fits:
        raise ValueError(
            f"`calibration` for input {item.name!r} needs shape {item.shape}, or {expected} sample by sample. "
            f"Received: {array.shape}."
        )
    return array if array.ndim == len(item.shape) else array[None]


def _checked(array: np.ndarray, item: Input) -> np.ndarray:
    """Cast to the input's dtype, and refuse data that would ruin the file."""
    if array.dtype.kind not in "fiub":
        raise TypeError(f"`calibration` for input {item.name!r} needs numbers. Received: dtype {array.dtype}.")
    floats = np.issubdtype(item.dtype, np.floating)
    if floats and array.dtype == np.uint8 and array.max() > 1:
        raise ValueError(
            f"`calibration` for input {item.name!r} needs {item.dtype}, scaled as in training. Received: uint8 up to "
            f"{array.max()}. Scale it (often `/ 255.0`); if the model rescales inside, pass `.astype('float32')`."
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"`calibration` for input {item.name!r} needs finite values. Received: "
            f"{int((~np.isfinite(array)).sum())} that are NaN or infinite. Remove those samples."
        )
    cast = array.astype(item.dtype)
    if not floats and (cast != array).any():
        raise ValueError(
            f"`calibration` for input {item.name!r} needs whole numbers in the range of {item.dtype}. Received: "
            f"{array.dtype} values from {array.min()} to {array.max()} that are not. Round or check them."
        )
    return cast


def _warn_if_constant(array: np.ndarray, item: Input) -> None:
    if (array == array[:1]).all():
        warnings.warn(
            f"`calibration` is constant: all {len(array)} samples of input {item.name!r} are the same, so the ranges "
            "and the parity figures mean little. Pass real, shuffled data.",
            stacklevel=4,  # the caller of `tflite`
        )
