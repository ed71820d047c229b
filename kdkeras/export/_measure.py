"""The timed run of a TFLite file: a script that imports numpy and LiteRT, and nothing else of weight.

TensorFlow in the same process would share its threads and its memory with the runtime, so the figures would not be
those of the file alone:

    python -P _measure.py MODEL.tflite THREADS RUNS WARMUP OUTPUT.json
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def _main(model: str, threads: str, runs: str, warmup: str, output: str) -> None:
    baseline = _memory("VmRSS")
    # The peak that Linux keeps is set back to what is in use: importing peaks higher than a small model does.
    Path("/proc/self/clear_refs").write_text("5")
    interpreter = Interpreter(model_path=model, num_threads=int(threads))
    interpreter.allocate_tensors()
    generator = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], _drawn(generator, detail))
    for _ in range(int(warmup)):
        interpreter.invoke()
    times = []
    for _ in range(int(runs)):
        start = time.perf_counter()
        interpreter.invoke()
        times.append(1000 * (time.perf_counter() - start))
    shape = interpreter.get_input_details()[0]["shape"]
    record = {
        "times": times,
        "peak_memory": max(_memory("VmHWM") - baseline, 0),
        "batch_size": int(shape[0]) if len(shape) else 1,
    }
    Path(output).write_text(json.dumps(record))


def _drawn(generator: np.random.Generator, detail: dict[str, Any]) -> np.ndarray:
    """Random input: floats in [0, 1), the whole range of a quantized input, ids 0 and 1 of any other."""
    shape, dtype = detail["shape"], np.dtype(detail["dtype"])
    if dtype.kind == "f":
        return generator.random(shape).astype(dtype)
    quantized = bool(detail["quantization"][0])
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if quantized else (0, 1)
    return generator.integers(low, high, shape, endpoint=True).astype(dtype)


def _memory(field: str) -> int:
    """Bytes of this process by Linux' own count: VmRSS is in use now, VmHWM is the peak."""
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


if __name__ == "__main__":
    _main(*sys.argv[1:])
