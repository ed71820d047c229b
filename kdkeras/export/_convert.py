"""The converter: SavedModel folder in, TFLite bytes out. A script that runs in a process of its own.

It needs nothing but TensorFlow (and ai-edge-quantizer for int4), and serves requests until its input ends or none has
come for a while. A converter that crashes takes only this script with it.

    python -P _convert.py

Requests and replies are lines of JSON. A request is `{"task": "convert" | "errors_by_layer", ...}` with the arguments
of that function, paths in the place of arrays; the replies are `{"step": ..., "done": ..., "of": ...}` any number of
times, and then `{"result": ...}` or `{"error": text}`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_IDLE = 120  # seconds after which the process ends
Say = Callable[[str, int, int], None]


def convert(
    saved: str,
    quantize: str | None,
    samples: str | None,
    batch_size: int,
    io_dtype: str | None,
    output: str,
    say: Say,
) -> None:
    """Convert a SavedModel with builtin TFLite ops only, and write the file.

    Args:
        saved: Folder of the SavedModel.
        quantize: `None`, `"float16"`, `"dynamic"`, `"int8"`, `"int16x8"` or `"int4"`.
        samples: An npz file, signature input name → array `(n, ...)`, for modes that are calibrated.
        batch_size: Samples per call of the model.
        io_dtype: Dtype of the file's inputs and outputs, for integer modes; `None` leaves the model's.
        output: The file to write.
        say: Is told how far the calibration is.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(saved)
    ops = tf.lite.OpsSet
    converter.target_spec.supported_ops = [ops.TFLITE_BUILTINS]
    if quantize not in (None, "int4"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if samples is not None:
        whole = {
            "int8": ops.TFLITE_BUILTINS_INT8,
            "int16x8": ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        }
        converter.target_spec.supported_ops = [whole[quantize]]
        converter.representative_dataset = lambda: _batches(samples, batch_size, say)
    if io_dtype is not None:
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(io_dtype)
    content = converter.convert()
    if quantize == "int4":
        content = _int4_weights(content, output)
    Path(output).write_bytes(content)


def errors_by_layer(saved: str, samples: str, say: Say) -> list[dict[str, Any]]:
    """Return how far each op of an int8 file is from floats when it is given the same inputs.

    Args:
        saved: Folder of the SavedModel, at batch 1.
        samples: An npz file, signature input name → array `(n, ...)`.
        say: Is told how far the calibration is.

    Returns:
        In the order of the ops: `"op"`; `"tensor"`, its name; and `"steps"`, the root of the mean squared error, in
        steps of its scale: 0.29 is what rounding alone does.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(saved)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: _batches(samples, 1, say)
    # It takes inputs by place, and the places are the file's.
    inputs = tf.lite.Interpreter(model_content=converter.convert()).get_input_details()
    names = [item["name"].removeprefix("serving_default_").rpartition(":")[0] for item in inputs]
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter,
        debug_dataset=lambda: ([batch[name] for name in names] for batch in _batches(samples, 1, say)),
    )
    debugger.run()
    table = io.StringIO()
    debugger.layer_statistics_dump(table)
    table.seek(0)
    return [
        {
            "op": row["op_name"],
            "tensor": row["tensor_name"],
            "steps": math.sqrt(float(row["mean_squared_error"])) / float(row["scale"]),
        }
        for row in csv.DictReader(table)
    ]


def _batches(samples: str, size: int, say: Say) -> Iterator[dict[str, Any]]:
    """Yield whole batches; the last is filled up from the start."""
    import numpy as np

    with np.load(samples, allow_pickle=False) as stored:
        arrays = dict(stored)
    count = len(next(iter(arrays.values())))
    for start in range(0, count, size):
        rows = np.arange(start, start + size) % count
        yield {name: array[rows] for name, array in arrays.items()}
        say("calibrating", min(start + size, count), count)
    say("converting", 0, 0)


def _int4_weights(content: bytes, output: str) -> bytes:
    """Return the file with the weights of its linear layers in 4 bits, for every channel a scale of its own."""
    from ai_edge_quantizer import quantizer, recipe

    plain = Path(output).with_suffix(".float32")
    plain.write_bytes(content)
    tool = quantizer.Quantizer(str(plain), recipe.dynamic_wi4_afp32())
    return bytes(tool.quantize().quantized_model)


def _serve() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with Path(os.devnull).open("w", encoding="utf-8") as sink:  # the converter prints, from Python and from C++
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)

    def reply(**message: Any) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    import tensorflow as tf  # noqa: F401  # while the other process still saves the model

    while _waits_for_a_line() and (line := sys.stdin.buffer.readline()):
        request = json.loads(line)
        task = {"convert": convert, "errors_by_layer": errors_by_layer}[request.pop("task")]
        try:
            result = task(**request, say=lambda step, done, of: reply(step=step, done=done, of=of))
        except Exception:  # the converter raises many types; all mean the same to the caller
            reply(error=traceback.format_exc())
        else:
            reply(result=result)


def _waits_for_a_line() -> bool:
    if os.name == "nt":  # no `select` on pipes: the process stays until its input ends
        return True
    ready, _, _ = select.select([sys.stdin.buffer], [], [], _IDLE)
    return bool(ready)


if __name__ == "__main__":
    _serve()
