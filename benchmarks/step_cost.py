"""What one training step costs: plain student, teacher, keras.distillation and kdkeras, in one run, interleaved.

Run: python benchmarks/step_cost.py [--backend tensorflow|jax] [--device cpu|gpu] [--pairs digits resnet transformer]
Prints the tables of docs/benchmarks.md and writes benchmarks/step_cost_BACKEND_DEVICE.json.

A step is what `fit` does between the ends of two batches: fetching (one batch in memory, repeated by tf.data), the
compiled train step, metrics, callbacks. Every case is fitted for STEPS steps in turn, ROUNDS times, so that a busy
machine is busy for all; the first step of each `fit` is left out. CPU time of the whole process on a CPU, wall time
on a GPU (`--device gpu`). The teacher alone is its compiled forward pass and nothing around it. Peak memory is that of
a process of its own per case.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0
FEATURE = "keras.distillation, + feature"
TARGETS = [  # (case, what it is divided by the sum of, most)
    ("kdkeras, logits, live", ("plain", "teacher forward"), 1.03),
    ("kdkeras, logits, frozen", ("plain", "teacher forward"), 1.00),
    ("kdkeras, + hint, live", (FEATURE,), 0.70),
    ("kdkeras, + hint, frozen", (FEATURE,), 0.70),
    ("kdkeras, cached", ("plain",), 1.05),
]
MEMORY_TARGETS = [  # (case, the case whose peak memory it may not exceed)
    ("kdkeras, logits, live", "keras.distillation, logits"),
    ("kdkeras, logits, frozen", "keras.distillation, logits"),
    ("kdkeras, + hint, live", FEATURE),
    ("kdkeras, + hint, frozen", FEATURE),
]


@dataclass
class Pair:
    """Teacher and student makers, a batch, and two layers of equal shape that a hint compares."""

    teacher: Callable[[], Any]
    student: Callable[[], Any]
    x: np.ndarray
    classes: int
    layers: tuple[str, str]  # the student's, the teacher's


# --- the models ------------------------------------------------------------------------------------------------------


def digits() -> Pair:
    """The demo's convolutional pair on 8×8 digits."""
    from kdkeras import datasets
    from kdkeras.demo import networks

    data = datasets.digits()
    x = data.x_train[:32]
    return Pair(lambda: networks.teacher(data), lambda: networks.student(data), x, 10, ("features", "features"))


def resnet() -> Pair:
    """ResNet-20 and ResNet-8 of CIFAR-10 (He et al. 2015), 32×32×3, batch 64."""
    x = np.random.default_rng(SEED).normal(size=(64, 32, 32, 3)).astype("float32")
    return Pair(lambda: _resnet(3, "teacher"), lambda: _resnet(1, "student"), x, 10, ("stage3", "stage3"))


def transformer() -> Pair:
    """Encoders of width 128, four layers and two (DistilBERT's halving) over 32 tokens, batch 32."""
    x = np.random.default_rng(SEED).integers(1, 1000, (32, 32)).astype("int32")
    return Pair(lambda: _encoder(4, "teacher"), lambda: _encoder(2, "student"), x, 10, ("block2", "block4"))


PAIRS = {"digits": digits, "resnet": resnet, "transformer": transformer}


def _resnet(blocks: int, name: str) -> Any:
    import keras
    from keras import layers

    def normalised(x: Any, filters: int, size: int, strides: int) -> Any:
        x = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(normalised(inputs, 16, 3, 1))
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(blocks):
            strides = 2 if stage > 1 and block == 0 else 1
            shortcut = normalised(x, filters, 1, strides) if strides > 1 else x
            y = layers.ReLU()(normalised(x, filters, 3, strides))
            y = layers.Add()([normalised(y, filters, 3, 1), shortcut])
            x = layers.ReLU(name=f"stage{stage}" if block == blocks - 1 else None)(y)
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)), name=name)


def _encoder(depth: int, name: str) -> Any:
    import keras
    from keras import layers

    width = 128
    tokens = keras.Input((32,), dtype="int32")
    x = layers.Embedding(1000, width)(tokens)
    for block in range(1, depth + 1):
        attended = layers.MultiHeadAttention(4, width // 4, dropout=0.1)(x, x)
        x = layers.LayerNormalization()(layers.Add()([x, attended]))
        hidden = layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(x))
        x = layers.LayerNormalization(name=f"block{block}")(layers.Add()([x, layers.Dropout(0.1)(hidden)]))
    return keras.Model(tokens, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)), name=name)


# --- the cases -------------------------------------------------------------------------------------------------------


class Case:
    """One way to train the student of a pair, timed step by step inside `fit`."""

    def __init__(self, name: str, pair: Pair, clock: Callable[[], float]) -> None:
        import keras

        keras.utils.set_random_seed(SEED)
        self.pair = pair
        self.clock = clock
        self.teacher, self.student = pair.teacher(), pair.student()
        self.y = np.random.default_rng(SEED).integers(0, pair.classes, len(pair.x)).astype("int32")
        self.x: Any = pair.x
        self.model = self._compiled(name)
        start = time.perf_counter()
        self.times(2)
        self.first = time.perf_counter() - start

    def times(self, steps: int) -> list[float]:
        """Return the seconds of each of `steps` steps, after one that is left out."""
        import keras
        import tensorflow as tf

        ends: list[float] = []

        def note(batch: int, logs: dict[str, Any]) -> None:
            float(logs["loss"])  # waits for the device
            ends.append(self.clock())

        data = tf.data.Dataset.from_tensors((self.x, self.y)).repeat()
        callback = keras.callbacks.LambdaCallback(on_train_batch_end=note)
        self.model.fit(data, steps_per_epoch=steps + 1, shuffle=False, verbose=0, callbacks=[callback])
        return [later - earlier for earlier, later in itertools.pairwise(ends)]

    def _compiled(self, name: str) -> Any:
        import keras

        settings = {
            "optimizer": keras.optimizers.Adam(),
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "metrics": ["accuracy"],
        }
        if name == "plain":
            self.student.compile(**settings)
            return self.student
        if name.startswith("keras.distillation"):
            distiller = self._keras_distiller(feature="feature" in name)
            distiller.compile(**settings)
            return distiller
        return self._kdkeras_distiller(name, settings)

    def _keras_distiller(self, *, feature: bool) -> Any:
        import keras

        losses = [keras.distillation.LogitsDistillation(temperature=4.0, loss=keras.losses.KLDivergence())]
        if feature:
            student, teacher = self.pair.layers
            losses.append(
                keras.distillation.FeatureDistillation("mse", teacher_layer_name=teacher, student_layer_name=student)
            )
        return keras.distillation.Distiller(
            teacher=self.teacher, student=self.student, distillation_losses=losses, student_loss_weight=0.1
        )

    def _kdkeras_distiller(self, name: str, settings: dict[str, Any]) -> Any:
        import kdkeras

        losses: list[Any] = [kdkeras.losses.SoftTargets(temperature=4, weight=0.9)]
        if "hint" in name or "three" in name:
            losses.append(kdkeras.losses.Hints(*self.pair.layers))
        if "three" in name:
            losses.append(kdkeras.losses.LogitMatching(weight=0.1))
        cached = "cached" in name
        if cached:
            logits = self.teacher.predict(self.pair.x, verbose=0)
            self.x = kdkeras.Cached(inputs=self.pair.x, logits=logits)
        extra = {} if cached else {"freeze_teacher": "frozen" in name}
        if "no guard" in name:
            extra["max_skipped_steps"] = None
        distiller = kdkeras.Distiller(student=self.student, teacher=None if cached else self.teacher)
        return distiller.compile(**settings, distillation_loss=losses, task_weight=0.1, **extra)


class Forward:
    """The teacher's forward pass alone, compiled as Keras compiles it, with nothing around it."""

    def __init__(self, name: str, pair: Pair, clock: Callable[[], float]) -> None:
        import keras

        keras.utils.set_random_seed(SEED)
        self.clock = clock
        teacher = pair.teacher()
        if keras.backend.backend() == "jax":
            import jax

            state = [[jax.numpy.asarray(v) for v in teacher.trainable_variables]]
            state.append([jax.numpy.asarray(v) for v in teacher.non_trainable_variables])
            function = jax.jit(lambda t, n, x: teacher.stateless_call(t, n, x, training=False)[0])
            x = jax.numpy.asarray(pair.x)
            self.step = lambda: function(*state, x).block_until_ready()
        else:
            import tensorflow as tf

            function = tf.function(lambda x: teacher(x, training=False))
            x = tf.constant(pair.x)
            self.step = lambda: function(x).numpy()
        start = time.perf_counter()
        self.times(2)
        self.first = time.perf_counter() - start

    def times(self, steps: int) -> list[float]:
        """Return the seconds of each of `steps` steps, after one that is left out."""
        self.step()
        times = []
        for _ in range(steps):
            start = self.clock()
            self.step()
            times.append(self.clock() - start)
        return times


CASES = {
    "plain": Case,
    "teacher forward": Forward,
    "keras.distillation, logits": Case,
    "keras.distillation, + feature": Case,
    "kdkeras, logits, live": Case,
    "kdkeras, logits, live, no guard": Case,
    "kdkeras, logits, frozen": Case,
    "kdkeras, + hint, live": Case,
    "kdkeras, + hint, frozen": Case,
    "kdkeras, three losses, frozen": Case,
    "kdkeras, cached": Case,
}


# --- measuring -------------------------------------------------------------------------------------------------------


def measure(pair: Pair, names: list[str], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Time every case of a pair in turn."""
    clock = time.perf_counter if options.device == "gpu" else time.process_time
    cases = {name: CASES[name](name, pair, clock) for name in names}
    times: dict[str, list[list[float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name, case in cases.items():
            times[name].append(case.times(options.steps))
    figures = {}
    for name, rounds in times.items():
        medians = [statistics.median(steps) for steps in rounds]
        ratios = [own / statistics.median(plain) for own, plain in zip(medians, times[names[0]], strict=True)]
        quarters = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        figures[name] = {
            "milliseconds": 1000 * statistics.median(step for steps in rounds for step in steps),
            "ratio_to_plain": quarters[1],
            "ratio_quartiles": [quarters[0], quarters[2]],
            "first_steps_seconds": cases[name].first,
        }
    return figures


def peak_memory(pair: str, name: str, options: argparse.Namespace) -> float:
    """Return the peak memory in MB of a process that does nothing but one case."""
    command = [sys.executable, __file__, "--backend", options.backend, "--device", options.device]
    command += ["--pairs", pair, "--memory-of", name, "--steps", str(options.steps)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"Case '{name}' of pair '{pair}' failed in its own process:\n{run.stderr}")
    return float(run.stdout.splitlines()[-1])


def own_peak() -> float:
    """Return the peak memory of this process in MB."""
    status = Path("/proc/self/status")
    if status.is_file():  # `ru_maxrss` is inherited from the process that started this one
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def check(figures: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each target with what was reached."""
    results = []
    for own, others, most in TARGETS:
        if {own, *others} <= set(figures):
            base = sum(figures[other]["milliseconds"] for other in others)
            target = f"time of '{own}' ÷ {' + '.join(others)}"
            results.append({"target": target, "most": most, "reached": figures[own]["milliseconds"] / base})
    for own, other in MEMORY_TARGETS:
        if {own, other} <= set(figures) and "peak_megabytes" in figures[own]:
            reached = figures[own]["peak_megabytes"] / figures[other]["peak_megabytes"]
            results.append({"target": f"peak memory of '{own}' ÷ {other}", "most": 1.0, "reached": reached})
    return results


def tables(record: dict[str, Any]) -> list[str]:
    """The record as Markdown."""
    lines = []
    for name, pair in record["pairs"].items():
        sizes = f"teacher {pair['teacher_parameters']:,} parameters, student {pair['student_parameters']:,}"
        lines += [f"**{name}**: {sizes}, batch {pair['batch']}", ""]
        lines += [
            "| | ms per step | × plain | quartiles | first steps, s | peak memory, MB |",
            "|---|---|---|---|---|---|",
        ]
        for case, row in pair["cases"].items():
            low, high = row["ratio_quartiles"]
            cells = [f"{row['milliseconds']:.2f}", f"{row['ratio_to_plain']:.2f}", f"{low:.2f} to {high:.2f}"]
            peak = row.get("peak_megabytes")
            cells += [f"{row['first_steps_seconds']:.1f}", "–" if peak is None else f"{peak:.0f}"]
            lines.append(f"| {case} | {' | '.join(cells)} |")
        lines += ["", "| target | at most | reached | |", "|---|---|---|---|"]
        for row in pair["targets"]:
            verdict = "yes" if row["reached"] <= row["most"] else "missed"
            lines.append(f"| {row['target']} | {row['most']:.2f} | {row['reached']:.3f} | {verdict} |")
        lines.append("")
    return lines


def processor() -> str:
    """Return the name of the processor, where the system tells."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {os.cpu_count()} cores" if names else f"{platform.processor()}, {os.cpu_count()} cores"


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=("tensorflow", "jax"), default="tensorflow")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="the figures are wall time on a GPU")
    parser.add_argument("--pairs", choices=PAIRS, nargs="+", default=list(PAIRS))
    parser.add_argument("--cases", choices=CASES, nargs="+", default=list(CASES), help="the first is the unit: plain")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10, help="timed steps per round")
    parser.add_argument("--no-memory", action="store_true", help="leave out the processes that measure peak memory")
    parser.add_argument("--memory-only", action="store_true", help="measure memory anew for the figures in the file")
    parser.add_argument("--memory-of", choices=CASES, help=argparse.SUPPRESS)  # what those processes are given
    parser.add_argument("--output", type=Path, help="default: a JSON file beside this script")
    options = parser.parse_args()
    os.environ["KERAS_BACKEND"] = options.backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["JAX_PLATFORMS"] = "cpu"
    if options.memory_of:
        CASES[options.memory_of](options.memory_of, PAIRS[options.pairs[0]](), time.process_time).times(options.steps)
        print(own_peak())
        return
    # Only TensorFlow's graphs are made of constants; XLA folds nothing that comes as an argument.
    names = [name for name in options.cases if options.backend == "tensorflow" or "frozen" not in name]
    report(options, names)


def report(options: argparse.Namespace, names: list[str]) -> None:
    """Measure, print the tables and write the file."""
    output = options.output or Path(__file__).with_name(f"step_cost_{options.backend}_{options.device}.json")
    record = remember(output, options) if options.memory_only else measure_all(options, names)
    output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("\n".join(tables(record)))


def remember(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the record in a file with its peak memories measured anew."""
    record = json.loads(path.read_text(encoding="utf-8"))
    for name, pair in record["pairs"].items():
        for case, figures in pair["cases"].items():
            print(f"{name}, {case} ...", file=sys.stderr, flush=True)
            figures["peak_megabytes"] = peak_memory(name, case, options)
        pair["targets"] = check(pair["cases"])
    record["memory_command"] = shlex.join(["python", "benchmarks/step_cost.py", *sys.argv[1:]])
    return record


def measure_all(options: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """Measure every pair."""
    packages = ("kdkeras", "keras", "tensorflow", "numpy", *(("jax",) if options.backend == "jax" else ()))
    record: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/step_cost.py", *sys.argv[1:]]),
        "seed": SEED,
        "backend": options.backend,
        "clock": "wall" if options.device == "gpu" else "CPU time of the process",
        "processor": processor(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "pairs": {},
    }
    for name in options.pairs:
        pair = PAIRS[name]()
        print(f"{name} ...", file=sys.stderr, flush=True)
        figures = measure(pair, names, options)
        for case in [] if options.no_memory else names:
            figures[case]["peak_megabytes"] = peak_memory(name, case, options)
        record["pairs"][name] = {
            "teacher_parameters": pair.teacher().count_params(),
            "student_parameters": pair.student().count_params(),
            "batch": len(pair.x),
            "cases": figures,
            "targets": check(figures),
        }
    return record


if __name__ == "__main__":
    main()
