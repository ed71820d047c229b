"""`onnx`: an ONNX file, checked against Keras in ONNX Runtime before it is kept."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from kdkeras._extras import require
from kdkeras._files import atomic_path
from kdkeras._silence import silenced
from kdkeras.export._checked import ModelExport, Named, figures_of
from kdkeras.export.conversion import ConversionError, named_outputs
from kdkeras.export.signature import Signature
from kdkeras.inputs import check_count


def onnx(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    calibration: Any = None,
    opset: int | None = None,
    on_parity_failure: Literal["raise", "keep"] = "raise",
) -> ModelExport:
    """Write a Keras model as an ONNX file that is known to answer as the model does.

    The file is written by Keras' own export, through tf2onnx; it keeps the input names of the model, has its outputs by
    name, and takes batches of any size. It is run in ONNX Runtime and compared with Keras: a relative error above
    1e-4, or an output that is not finite or always the same, is refused, and `path` is as before.

    Args:
        model: A built Functional, Sequential or subclassed model.
        path: The file to write. Its folder is made if it is missing.
        calibration: Representative inputs to compare on, as for `tflite`. Default: 64 seeded random samples.
        opset: Version of ONNX' set of operators. Default: that of tf2onnx.
        on_parity_failure: `"raise"`, or `"keep"` to write the file all the same, with the failures in the result.

    Returns:
        A `ModelExport`.

    Raises:
        ImportError: The extra `onnx` is not installed.
        TypeError: `model` is not a Keras model, or the calibration data has a form that cannot be used.
        ValueError: An option or the data is not usable, or the model's input shape is not known.
        ConversionError: tf2onnx refused the model, or ONNX Runtime what it wrote.
        ExportParityError: The file does not match the model; nothing was written.
        OSError: The file cannot be written.

    Example:
        >>> import keras
        >>> from kdkeras import export
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> print(export.onnx(model, "student.onnx"))  # doctest: +SKIP
        student.onnx: ONNX, 0.6 kB
          parity   agreement 100.00%, max error 0 (relative 0) on 64 random samples
    """
    for package in ("onnx", "tf2onnx", "onnxruntime"):
        require(package, extra="onnx", what="`export.onnx`")
    if opset is not None:
        check_count("opset", opset)
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"`path` must be a file. Received: the folder {target}. Add a name such as model.onnx.")
    what = "ONNX"
    with atomic_path(target) as temporary:

        def write(model: keras.Model, signature: Signature) -> Callable[[Named], Named]:
            with silenced(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Keras and tf2onnx use what numpy will drop
                try:
                    _write(model, signature, temporary, opset)
                    return _runner(temporary)
                except OSError:
                    raise
                except Exception as error:  # tf2onnx and ONNX Runtime raise many types; all mean the same here
                    raise ConversionError(_sentence(error)) from error

        figures = figures_of(model, calibration, on_parity_failure, write, target=target, what=f"{what} file")
        size = temporary.stat().st_size
    return ModelExport(path=target, format=what, bytes=size, **figures)


class _Named(keras.Model):
    """A model as a function of flat inputs with outputs by name: Keras' export calls those of the file by these."""

    def __init__(self, model: keras.Model, signature: Signature) -> None:
        super().__init__(name=f"{model.name}_named")
        self._inner, self._signature = model, signature
        self.built = True

    def call(self, inputs: Any) -> dict[str, Any]:
        return named_outputs(self._inner(self._signature.pack(inputs), training=False))


def _write(model: keras.Model, signature: Signature, path: Path, opset: int | None) -> None:
    specs = [tf.TensorSpec(item.shape, item.dtype, name=item.name) for item in signature.inputs]
    _Named(model, signature).export(
        str(path), format="onnx", verbose=False, input_signature=[specs], opset_version=opset
    )


def _runner(path: Path) -> Callable[[Named], Named]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda batch: dict(zip(names, session.run(names, batch), strict=True))


def _sentence(error: Exception) -> str:
    said = (str(error).strip().splitlines() or ["no message"])[0]
    return (
        f"The model could not be made an ONNX file: {type(error).__name__}: {said[:400]}. Replace the layer that it "
        "stops at by one made of basic ops, or use `saved_model` or `tflite`."
    )
