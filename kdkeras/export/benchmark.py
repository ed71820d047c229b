"""How fast a TFLite file is and how much memory it takes: in a process of its own, as an app would run it."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from kdkeras.evaluate import keras_latency
from kdkeras.export import _measure
from kdkeras.export._anatomy import cannot_start, parse
from kdkeras.export.calibration import random_samples
from kdkeras.export.signature import signature_of
from kdkeras.inputs import check_count
from kdkeras.latency import Latency, summary

_WARMUP = 10
_PHONE = "/data/local/tmp"
_BINARY = (
    "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/nightly/latest/"
    "android_aarch64_benchmark_model"
)


@dataclasses.dataclass(frozen=True)
class ThreadCount:
    """What was measured with one number of threads.

    Attributes:
        threads: CPU threads.
        latency: Time of one run of the file, in milliseconds.
        peak_memory: Most memory that the process held for LiteRT and the model, above what it held before, in bytes.
    """

    threads: int
    latency: Latency
    peak_memory: int


@dataclasses.dataclass(frozen=True)
class TFLiteBenchmark:
    """What `benchmark` measured; prints as a table.

    Attributes:
        path: The file.
        bytes: Its size.
        batch_size: Samples in one run of it.
        runs: One entry per number of threads, ascending.
        keras: Time of as many samples through the Keras model's `tf.function`, in milliseconds; `None` without a model.
        machine: Processor and number of cores of the machine that measured.
        phone: Command lines that measure the same on an Android phone.
    """

    path: Path
    bytes: int
    batch_size: int
    runs: tuple[ThreadCount, ...]
    keras: Latency | None
    machine: str
    phone: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain types, ready for JSON."""
        runs = [dataclasses.asdict(run) | {"latency": run.latency._asdict()} for run in self.runs]
        known = None if self.keras is None else self.keras._asdict()
        return {
            "path": str(self.path),
            "bytes": self.bytes,
            "batch_size": self.batch_size,
            "runs": runs,
            "keras": known,
            "machine": self.machine,
            "phone": list(self.phone),
        }

    def table(self) -> list[tuple[str, ...]]:
        """Return the figures as text: a header, then Keras if it was timed, then one line per number of threads."""
        lines = [("", "threads", "median", "p90", "peak memory")]
        if self.keras is not None:
            lines.append(("Keras, tf.function", "–", *_times(self.keras), "–"))
        for run in self.runs:
            memory = f"{run.peak_memory / 1e6:.1f} MB"
            lines.append((self.path.name, str(run.threads), *_times(run.latency), memory))
        if self.keras is None:
            return lines
        gains = ["", *(f"{self.keras.median / run.latency.median:.1f}×" for run in self.runs)]
        return [(*line, gain) for line, gain in zip(lines, ["faster", *gains], strict=True)]

    def __str__(self) -> str:
        from tabulate import tabulate

        header, *lines = self.table()
        aligned = ("left", *["right"] * (len(header) - 1))
        table = tabulate(lines, headers=header, colalign=aligned, disable_numparse=True)
        return "\n".join([table, f"{self.machine}; batch {self.batch_size}", "", "On an Android phone:", *self.phone])


def benchmark(
    path: str | os.PathLike[str],
    *,
    model: keras.Model | None = None,
    threads: Sequence[int] | None = None,
    runs: int = 50,
) -> TFLiteBenchmark:
    """Time a TFLite file in a fresh process that imports numpy and LiteRT only, once per number of threads.

    After 10 warm-up calls, each of `runs` calls is timed by itself on one set of random inputs: the runtime's
    `invoke` alone, without copying inputs and outputs, as the phone's `benchmark_model` does it too. Peak memory is
    that of the process above what it held once Python and LiteRT were imported; about 10 MB of it LiteRT takes for any
    file.

    A Keras model is timed through a compiled `tf.function` at the file's batch size in this process, with TensorFlow's
    own number of threads; `predict` would be many times slower and would flatter the file.

    The figures are of this machine. `phone` has the command lines for a phone, with Google's nightly build of
    `benchmark_model` for 64-bit ARM.

    Args:
        path: A `.tflite` file.
        model: The Keras model that it came from, to be timed beside it.
        threads: Numbers of CPU threads. Default: 1, 2 and the number of cores.
        runs: Timed calls per number of threads. Default 50, as `benchmark_model`'s.

    Returns:
        A `TFLiteBenchmark`; print it to see the table.

    Raises:
        FileNotFoundError: There is no file at `path`.
        ValueError: It is no TFLite file, it has ops that LiteRT lacks, it crashes the runtime, or a number is below 1.
        TypeError: `model` is not a Keras model.

    Example:
        >>> import pathlib, tempfile
        >>> import keras
        >>> from kdkeras import export
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "student.tflite"
        >>> _ = export.tflite(model, path)
        >>> result = export.benchmark(path, threads=[1], runs=5)
        >>> result.runs[0].latency.runs, result.phone[0]
        (5, 'adb push /tmp/.../student.tflite /data/local/tmp/student.tflite')
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"`benchmark` expects a TFLite file. Received: {file}, which does not exist.")
    if model is not None and not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {type(model).__name__}.")
    check_count("runs", runs)
    counts = sorted({1, 2, os.cpu_count() or 1} if threads is None else set(threads))
    if not counts:
        raise ValueError("`threads` needs one number at least. Received: none.")
    for count in counts:
        check_count("threads", count)
    content = file.read_bytes()
    parse(content)
    records = [_record(file, content, count, runs) for count in counts]
    batch_size = records[0]["batch_size"]
    return TFLiteBenchmark(
        path=file,
        bytes=len(content),
        batch_size=batch_size,
        runs=tuple(
            ThreadCount(count, summary(record["times"]), record["peak_memory"])
            for count, record in zip(counts, records, strict=True)
        ),
        keras=None if model is None else keras_latency(model, _samples(model, batch_size)),
        machine=machine(),
        phone=_phone_commands(file, counts, runs),
    )


def _record(file: Path, content: bytes, threads: int, runs: int) -> dict[str, Any]:
    """Run the script, and return what it wrote."""
    with tempfile.TemporaryDirectory(prefix="kdkeras-") as folder:
        output = Path(folder) / "times.json"
        numbers = map(str, (threads, runs, _WARMUP))
        # -P keeps this package's folder off the script's module path.
        command = [sys.executable, "-P", _measure.__file__, str(file), *numbers, str(output)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode < 0:
            raise ValueError(
                f"LiteRT crashed on {file} (signal {-done.returncode}), in a process of its own. Convert it again."
            )
        if done.returncode:
            if said := re.findall(r"^RuntimeError: (.+)$", done.stderr, re.MULTILINE):
                raise ValueError(cannot_start(content, said[-1], asked_by="benchmark"))
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ValueError(f"LiteRT cannot read {file}, which may be damaged ({last}). Convert the model again.")
        return json.loads(output.read_text())


def _samples(model: keras.Model, count: int) -> Any:
    """Random samples in the structure that the model is called with."""
    signature = signature_of(model)
    return signature.pack(random_samples(signature, count=count))


def _phone_commands(file: Path, threads: Sequence[int], runs: int) -> tuple[str, ...]:
    """The flags are those of the README of tensorflow/lite/tools/benchmark."""
    remote = f"{_PHONE}/{re.sub(r'[^A-Za-z0-9._-]', '_', file.name)}"  # the phone's shell would split other names
    tool = f"{_PHONE}/benchmark_model"
    call = f"adb shell {tool} --graph={remote} --warmup_runs={_WARMUP} --num_runs={runs}"
    return (
        f"adb push {shlex.quote(str(file))} {remote}",
        f"curl -o benchmark_model {_BINARY}",
        f"adb push benchmark_model {tool}",
        f"adb shell chmod +x {tool}",
        *(f"{call} --num_threads={count}" for count in threads),
        # By itself, because looking at the memory changes the times.
        f"{call} --num_threads=1 --report_peak_memory_footprint=true",
    )


def _times(latency: Latency) -> tuple[str, str]:
    return f"{latency.median:.3f} ms", f"{latency.p90:.3f} ms"


def machine() -> str:
    """Name the processor, as Linux does, and its number of cores: Python knows the processor's kind only."""
    known = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", known.read_text(), re.MULTILINE) if known.exists() else None
    return f"{found[1] if found else platform.machine()}, {os.cpu_count()} cores"
