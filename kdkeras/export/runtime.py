"""Running a TFLite file on NumPy batches, through its named signature."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from kdkeras._silence import silenced
from kdkeras.comparable import Comparable
from kdkeras.export import _anatomy
from kdkeras.export.signature import safe_name
from kdkeras.signals import Signals
from kdkeras.targets import logits


def load(path: str | os.PathLike[str], *, threads: int = 1) -> TFLiteModel:
    """Load a TFLite file as a function of NumPy batches.

    Args:
        path: A `.tflite` file with one signature, as `kdkeras.export.tflite` writes it.
        threads: CPU threads for one call.

    Returns:
        A `TFLiteModel`.

    Raises:
        FileNotFoundError: There is no file at `path`.
        ValueError: The file is not a TFLite model with a signature, it needs ops that the runtime lacks, or `threads`
            is below 1.

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


class Quantization(NamedTuple):
    """How integers stand for real numbers: `real = scale · (integer − zero_point)`.

    Attributes:
        scale: Step between two integers.
        zero_point: The integer that stands for 0.
    """

    scale: float
    zero_point: int

    def integers(self, reals: np.ndarray, dtype: Any) -> np.ndarray:
        """Return the nearest integers of a dtype; what is out of its range becomes its end."""
        limits = np.iinfo(dtype)
        rounded = np.round(np.asarray(reals, "float64") / self.scale) + self.zero_point
        return np.clip(rounded, limits.min, limits.max).astype(dtype)

    def reals(self, integers: np.ndarray) -> np.ndarray:
        """Return what integers stand for, in float32."""
        return (self.scale * (integers.astype("float64") - self.zero_point)).astype("float32")


class TFLiteModel(Comparable):
    """A TFLite model, called on batches like the Keras model that it came from.

    A batch of any size is run in batches of the file's size, mostly 1, as a device runs them. Inputs and outputs are
    found by name: their positions in a file are not those of the Keras model. Where a file takes or returns quantized
    integers, it is called with floats and returns floats all the same; integers of its dtype are taken as they are.
    `kdkeras.evaluate.compare` takes it beside Keras models.

    Args:
        content: The bytes of a TFLite file with a signature.
        threads: CPU threads for one call.

    Attributes:
        input_dtypes: Input name → dtype name.
        output_dtypes: Output name → dtype name.
        shapes: Input or output name → shape, with the batch.
        quantization: Input or output name → `Quantization`, for those that are quantized.
        batch_size: Samples in one run of the file.
        threads: CPU threads for one call.

    Raises:
        ValueError: `content` is not a TFLite model with a signature, it needs ops that the runtime lacks, or `threads`
            is below 1.
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
            try:
                interpreter.allocate_tensors()  # starts the delegate, so that its line falls into this block
            except RuntimeError as error:
                raise ValueError(_anatomy.cannot_start(content, str(error), asked_by="TFLiteModel")) from error
            self._runner = interpreter.get_signature_runner()
        self._content = content
        self._interpreter = interpreter  # the runner borrows its memory
        self._inputs, outputs = self._runner.get_input_details(), self._runner.get_output_details()
        self.threads = threads
        shape = next(iter(self._inputs.values()))["shape"]
        self.batch_size = int(shape[0]) if len(shape) else 1
        self.input_dtypes = {name: np.dtype(item["dtype"]).name for name, item in self._inputs.items()}
        self.output_dtypes = {name: np.dtype(item["dtype"]).name for name, item in outputs.items()}
        tensors = self._inputs | outputs
        self.shapes = {name: tuple(int(size) for size in item["shape"]) for name, item in tensors.items()}
        parameters = {name: item["quantization"] for name, item in tensors.items()}
        self.quantization = {name: Quantization(*values) for name, values in parameters.items() if values[0]}

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
        size = next(iter(sizes.values()))
        results = []
        for start in range(0, size, self.batch_size):
            rows = np.arange(start, start + self.batch_size) % size  # the last batch is filled up, and cut off below
            results.append(self._runner(**{name: array[rows] for name, array in arrays.items()}))
        return {name: self._joined(name, [each[name] for each in results])[:size] for name in self.output_dtypes}

    def _joined(self, name: str, parts: list[np.ndarray]) -> np.ndarray:
        joined = np.concatenate(parts)
        return self.quantization[name].reals(joined) if name in self.quantization else joined

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
        if name in self.quantization and array.dtype.kind == "f":
            return self.quantization[name].integers(array, detail["dtype"])
        if not np.can_cast(array.dtype, detail["dtype"], casting="same_kind"):
            raise TypeError(
                f"`TFLiteModel` expects input {name!r} as {np.dtype(detail['dtype']).name}. Received: {array.dtype}. "
                "Cast it first."
            )
        return array.astype(detail["dtype"], copy=False)

    def answers(self, x: Any, *, batch_size: int) -> Signals:
        """Return predictions and logits, for `kdkeras.evaluate.compare`.

        Args:
            x: Samples, as `predict` takes them.
            batch_size: Samples that are looked at together.

        Returns:
            The `Signals`. Logits of a file that ends in a softmax or a sigmoid are computed from its probabilities;
            those below 10⁻⁷ count as that, as they are 0 in many a quantized file.

        Raises:
            ValueError: The samples do not fit, or the file has several outputs.
        """
        found = logits(self.predict, x, head=self.head, batch_size=batch_size)
        if self.head == "softmax":
            return Signals(keras.ops.convert_to_numpy(keras.ops.softmax(found)), found, {})
        if self.head == "sigmoid":
            return Signals(keras.ops.convert_to_numpy(keras.ops.sigmoid(found)), found, {})
        return Signals(found, found, {})

    def predict(self, x: Any) -> Any:
        """Run a batch given as the Keras model takes it: inputs in a dict may have the names of Keras.

        Args:
            x: An array `(n, ...)`, or a dict of them for a model of several inputs.

        Returns:
            As a call does.

        Raises:
            ValueError: Names or shapes do not match the file.
        """
        return self({safe_name(name): array for name, array in x.items()} if isinstance(x, dict) else x)

    @functools.cached_property
    def head(self) -> Literal["softmax", "sigmoid", "linear"]:
        """What the only output has gone through, read from the file's last op."""
        return _anatomy.head(self._content)

    @functools.cached_property
    def parameters(self) -> int:
        """How many numbers the file keeps, without shapes and axes."""
        return _anatomy.parameters(self._content)

    @functools.cached_property
    def macs(self) -> int | None:
        """Multiply-accumulates of one sample; `None` where the file has loops or ops of a whole recurrent layer."""
        return _anatomy.macs(self._content)

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return len(self._content)
