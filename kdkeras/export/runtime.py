"""Running a TFLite file on NumPy batches, through its named signature."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from kdkeras._silence import silenced


def load(path: str | os.PathLike[str], *, threads: int = 1) -> TFLiteModel:
    """Load a TFLite file as a function of NumPy batches.

    Args:
        path: A `.tflite` file with one signature, as `kdkeras.export.tflite` writes it.
        threads: CPU threads for one call.

    Returns:
        A `TFLiteModel`.

    Raises:
        FileNotFoundError: There is no file at `path`.
        ValueError: The file is not a TFLite model with a signature, or `threads` is below 1.

    Example:
        >>> import pathlib, tempfile
        >>> import keras, numpy as np
        >>> from kdkeras import export
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.tflite"
        >>> _ = export.tflite(model, path)
        >>> export.load(path)(np.ones((3, 4))).shape
        (3, 2)
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"`load` expects a TFLite file. Received: {file}, which does not exist.")
    return TFLiteModel(file.read_bytes(), threads=threads)


class TFLiteModel:
    """A TFLite model, called on batches like the Keras model that it came from.

    Files have batch 1, as a device runs them, so a batch is run sample by sample. Inputs and outputs are found by
    name: their positions in a file are not those of the Keras model.

    Args:
        content: The bytes of a TFLite file with a signature.
        threads: CPU threads for one call.

    Attributes:
        input_dtypes: Input name → dtype name.
        output_dtypes: Output name → dtype name.
        threads: CPU threads for one call.

    Raises:
        ValueError: `content` is not a TFLite model with a signature, or `threads` is below 1.
    """

    def __init__(self, content: bytes, *, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        if threads < 1:
            raise ValueError(f"`TFLiteModel` needs threads >= 1. Received: threads={threads}.")
        with silenced():  # the runtime reports its delegate on stderr
            try:
                interpreter = Interpreter(model_content=content, num_threads=threads)
            except ValueError as error:
                raise ValueError(f"`TFLiteModel` needs a TFLite file. Received: {len(content)} other bytes.") from error
            if not interpreter.get_signature_list():
                raise ValueError(
                    "`TFLiteModel` needs a file with a named signature. Received: a file without one. "
                    "Write it with `kdkeras.export.tflite`."
                )
            interpreter.allocate_tensors()  # starts the delegate, so that its line falls into this block
            self._runner = interpreter.get_signature_runner()
        self._interpreter = interpreter  # the runner borrows its memory
        self._inputs = self._runner.get_input_details()
        self.threads = threads
        self.input_dtypes = {name: np.dtype(item["dtype"]).name for name, item in self._inputs.items()}
        self.output_dtypes = {
            name: np.dtype(item["dtype"]).name for name, item in self._runner.get_output_details().items()
        }

    def __call__(self, inputs: Any) -> Any:
        """Run a batch.

        Args:
            inputs: An array `(n, ...)` for a model of one input, else a dict input name → array `(n, ...)`.

        Returns:
            An array `(n, ...)` for a model of one output, else a dict output name → array `(n, ...)`.

        Raises:
            ValueError: Names or shapes do not match the file, or the batch is empty.
            TypeError: An array cannot be cast to the file's input dtype without loss of kind.
        """
        outputs = self.run(self._named(inputs))
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run a batch given by input name, and return every output by name."""
        arrays = {name: self._cast(name, np.asarray(array)) for name, array in inputs.items()}
        sizes = {name: len(array) for name, array in arrays.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise ValueError(f"`TFLiteModel` needs inputs of one batch size, at least 1. Received: {sizes}.")
        rows = range(next(iter(sizes.values())))
        results = [self._runner(**{name: array[row : row + 1] for name, array in arrays.items()}) for row in rows]
        return {name: np.concatenate([result[name] for result in results]) for name in self.output_dtypes}

    def _named(self, inputs: Any) -> dict[str, Any]:
        names = sorted(self._inputs)
        if isinstance(inputs, dict):
            if sorted(inputs) != names:
                raise ValueError(f"`TFLiteModel` expects inputs named {names}. Received: {sorted(inputs)}.")
            return inputs
        if len(names) > 1:
            raise ValueError(
                f"`TFLiteModel` has {len(names)} inputs: pass a dict with keys {names}. "
                f"Received: {type(inputs).__name__}."
            )
        return {names[0]: inputs}

    def _cast(self, name: str, array: np.ndarray) -> np.ndarray:
        detail = self._inputs[name]
        expected = tuple(int(size) for size in detail["shape"][1:])
        if array.shape[1:] != expected or array.ndim != len(expected) + 1:
            raise ValueError(
                f"`TFLiteModel` expects input {name!r} of shape (batch, {', '.join(map(str, expected))}). "
                f"Received: {array.shape}."
            )
        if not np.can_cast(array.dtype, detail["dtype"], casting="same_kind"):
            raise TypeError(
                f"`TFLiteModel` expects input {name!r} as {np.dtype(detail['dtype']).name}. Received: {array.dtype}. "
                "Cast it first."
            )
        return array.astype(detail["dtype"], copy=False)
