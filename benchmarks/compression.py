"""What each way to a smaller student costs and saves, on Fashion-MNIST: accuracy of the TFLite file, size, latency.

    python benchmarks/compression.py                      both students, three seeds; goes on where it was stopped
    python benchmarks/compression.py --students depthwise --seeds 0 --images 2000 --epochs 1   a quick look, no record

20,000 training images; the official 10,000 test images are used for nothing but this table. The teacher is a CNN; the
students are a depthwise CNN of some 8 thousand parameters and a small MobileNetV2. Every way starts from the same
distilled student of its seed, and trains as many more epochs as the control row. Writes compression.json,
compression.csv and docs/images/compression.png, where points on the line are beaten by no other way in both.
"""

import argparse
import csv
import json
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from kdkeras import Cached, Distiller, compress, datasets, evaluate, export, losses
from kdkeras.signals import predict_logits

SEEDS, IMAGES, CALIBRATION = (0, 1, 2), 20_000, 256
ROUNDS = 3  # of timing
EPOCHS, MORE, BATCH = 12, 3, 64
RATE, LOWER = 3e-3, 5e-4
TEMPERATURE, ALPHA = 1.0, 0.5  # of the facts that this repeats
RECORD = Path(__file__).with_suffix(".json")
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "compression.png"
layers = keras.layers


def teacher():
    """A CNN of 0.4 million parameters."""
    parts = []
    for width in (32, 64):
        parts += [layers.Conv2D(width, 3, padding="same", use_bias=False), layers.BatchNormalization(momentum=0.9)]
        parts += [layers.ReLU(), layers.MaxPooling2D()]
    parts += [layers.Flatten(), layers.Dropout(0.4), layers.Dense(128, "relu"), layers.Dense(10, name="logits")]
    return keras.Sequential([keras.Input((28, 28, 1), name="image"), *parts], name="teacher")


def depthwise():
    """Depthwise separable convolutions, 7.8 thousand parameters."""
    parts = [layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)]
    parts += [layers.BatchNormalization(momentum=0.9), layers.ReLU()]
    for width, strides in ((32, 2), (48, 1), (64, 2)):
        parts += [layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)]
        parts += [layers.BatchNormalization(momentum=0.9), layers.ReLU()]
        parts += [layers.Conv2D(width, 1, use_bias=False), layers.BatchNormalization(momentum=0.9), layers.ReLU()]
    parts += [layers.GlobalAveragePooling2D(), layers.Dense(10, name="logits")]
    return keras.Sequential([keras.Input((28, 28, 1), name="image"), *parts], name="depthwise")


def mobilenet():
    """Inverted residuals with linear bottlenecks, as in MobileNetV2."""
    inputs = keras.Input((28, 28, 1), name="image")

    def normed(x, relu=True):
        x = layers.BatchNormalization(momentum=0.9)(x)
        return layers.ReLU(6.0)(x) if relu else x

    x = normed(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(inputs))
    for width, strides in ((16, 1), (24, 2), (24, 1), (32, 2), (32, 1)):
        inner = normed(layers.Conv2D(4 * x.shape[-1], 1, use_bias=False)(x))
        inner = normed(layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(inner))
        inner = normed(layers.Conv2D(width, 1, use_bias=False)(inner), relu=False)
        x = layers.Add()([x, inner]) if strides == 1 and x.shape[-1] == width else inner
    x = normed(layers.Conv2D(96, 1, use_bias=False)(x))
    outputs = layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs, name="mobilenet")


STUDENTS = {"depthwise": depthwise, "mobilenet": mobilenet}


class Trial:
    """One student and one seed: data, the teacher's answers, and the student that every way starts from."""

    def __init__(self, name, seed, images, epochs):
        data = datasets.fashion_mnist()
        self.x, self.y = data.x_train[:images], data.y_train[:images]
        self.x_test, self.y_test = data.x_test, data.y_test
        self.name, self.seed, self.epochs, self.more = name, seed, epochs, min(MORE, epochs)
        keras.utils.set_random_seed(seed)
        self.teacher = teacher()
        self.plain(self.teacher, epochs, 2e-3)
        self.answers = predict_logits(self.teacher, self.x)
        keras.utils.set_random_seed(seed)
        self.labelled = STUDENTS[name]()
        self.plain(self.labelled, epochs, RATE)
        keras.utils.set_random_seed(seed)
        self.start = self.distilled(STUDENTS[name](), epochs, RATE)

    def plain(self, model, epochs, rate):
        """Train on labels alone."""
        steps = epochs * -(-len(self.x) // BATCH)
        optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(self.x, self.y, batch_size=BATCH, epochs=epochs, verbose=0)

    def distilled(self, student, epochs, rate, more=()):
        """Train on labels and the teacher's answers; return the student."""
        steps = epochs * -(-len(self.x) // BATCH)
        distiller = Distiller(student=student, teacher=None).compile(
            optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            distillation_loss=losses.SoftTargets(temperature=TEMPERATURE, weight=ALPHA),
            task_weight=1 - ALPHA,
        )
        x = Cached(inputs=self.x, logits=self.answers)
        distiller.fit(x, self.y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=list(more))
        return student

    def copy(self):
        """Return the distilled student again."""
        copy = STUDENTS[self.name]()
        copy.set_weights(self.start.get_weights())
        return copy

    def on(self, student, more=()):
        """Train a student that has been changed for the same time as the control."""
        keras.utils.set_random_seed(self.seed)
        return self.distilled(student, self.more, LOWER, more)

    def pruned(self, share):
        """Return the student with a share of its weights at 0."""
        student = self.copy()
        epochs = max(self.more - 1, 0.5)
        self.on(student, [compress.PruneLowMagnitude(student, compress.polynomial(share, epochs=epochs), every=50)])
        return compress.strip(student)

    def clustered(self):
        """Return the student with 16 different weights per layer."""
        student = self.copy()
        self.on(student, [compress.ClusterWeights(student, 16, seed=self.seed)])
        return compress.strip(student)

    def narrower(self):
        """Return the student with half of its multiply-accumulates, distilled as long as the first time."""
        narrow = compress.remove_channels(self.start, HALVES[self.name]).model
        keras.utils.set_random_seed(self.seed)
        return self.distilled(narrow, self.epochs, RATE)


HALVES = {"depthwise": 0.36, "mobilenet": 0.35}  # shares of channels that leave 49 % and 48 % of the MACs


def ways(trial):
    """Yield the ways: a name, and a function that returns the model and the mode of its file, or a file."""
    control = {}

    def trained_on():
        if not control:
            control["model"] = trial.on(trial.copy())
        return control["model"]

    def quantized(bits):
        return trial.on(compress.quantize_aware(trial.start, weight_bits=bits, calibration=trial.x[:CALIBRATION]))

    def by_tfmot():
        options = {"temperature": TEMPERATURE, "alpha": ALPHA, "epochs": trial.more, "batch_size": BATCH}
        options |= {"learning_rate": LOWER, "seed": trial.seed, "teacher": trial.teacher}
        return compress.with_tfmot(trial.start, "qat", trial.x, trial.y, **options)

    yield "labels, fp32", lambda: (trial.labelled, None)
    yield "distilled, fp32", lambda: (trial.start, None)
    yield "distilled, int8", lambda: (trial.start, "int8")
    yield "distilled, int4 weights", lambda: (trial.start, "int4")
    yield "control: more epochs, fp32", lambda: (trained_on(), None)
    yield "control: more epochs, int8", lambda: (trained_on(), "int8")
    yield "QAT + KD, int8", lambda: (quantized(8), "int8")
    yield "QAT + KD, int8, tfmot", lambda: (by_tfmot(), "file")
    yield "QAT + KD, 4-bit weights", lambda: (quantized(4), "int8")
    yield "prune 50 % + KD, int8", lambda: (trial.pruned(0.5), "int8")
    yield "prune 80 % + KD, int8", lambda: (trial.pruned(0.8), "int8")
    yield "cluster 16 + KD, int8", lambda: (trial.clustered(), "int8")
    narrow = {}

    def narrower():
        if not narrow:
            narrow["model"] = trial.narrower()
        return narrow["model"]

    yield "half the MACs + KD, fp32", lambda: (narrower(), None)
    yield "half the MACs + KD, int8", lambda: (narrower(), "int8")


def measured(trial):
    """Return the records of all ways of one student and one seed."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {way: Path(folder) / f"{number}.tflite" for number, (way, _) in enumerate(ways(trial))}
        records = [measure(trial, way, make, paths[way]) for way, make in ways(trial)]
        times = timed(paths)
    return [record | {"latency_ms": times[record["way"]]} for record in records]


def timed(paths):
    """Return the latency of each file in milliseconds: the median of rounds over all of them."""
    print("timing", flush=True)
    rounds = [{way: export.benchmark(path, threads=(1,)) for way, path in paths.items()} for _ in range(ROUNDS)]
    return {way: statistics.median(each[way].runs[0].latency.median for each in rounds) for way in paths}


def measure(trial, way, make, path):
    """Return the record of one way but for its latency, and write its file."""
    start = time.perf_counter()
    model, mode = make()
    seconds = time.perf_counter() - start
    if mode == "file":
        model.save(path)
    else:
        # Nothing is refused for its accuracy: what is lost is what is measured.
        options = {"calibration": trial.x[:CALIBRATION], "min_agreement": 0, "card": None, "verbose": 0}
        export.tflite(model, path, quantize=mode, **options)
    answers = export.load(path)(trial.x_test)
    counted = None if mode == "file" else evaluate.count(compress.strip(model))
    return {
        "student": trial.name,
        "seed": trial.seed,
        "way": way,
        "accuracy": float((answers.argmax(axis=1) == trial.y_test).mean()),
        "bytes": path.stat().st_size,
        "zip_bytes": _zipped(path),
        "macs": None if counted is None else counted.macs,
        "parameters": None if counted is None else counted.parameters,
        "sparsity": None if mode == "file" else compress.sparsity(compress.strip(model)).share,
        "seconds": seconds,
    }


def _zipped(path):
    import io
    import zipfile

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "student.tflite")
    return len(stream.getvalue())


def table(runs, student):
    """Return one student's rows as Markdown: mean ± standard deviation over the seeds."""
    head = "| way | accuracy, % | file, kB | zipped, kB | MACs, thousand | zeros, % | latency, ms |"
    lines = [head, "|" + "---|" * 7]
    mine = [run for run in runs if run["student"] == student]
    for way in dict.fromkeys(run["way"] for run in mine):
        rows = [run for run in mine if run["way"] == way]
        accuracy = [100 * run["accuracy"] for run in rows]
        spread = f" ± {statistics.stdev(accuracy):.2f}" if len(rows) > 1 else ""
        macs, zeros = rows[0]["macs"], rows[0]["sparsity"]
        cells = [
            way,
            f"{statistics.mean(accuracy):.2f}{spread}",
            *(f"{statistics.mean(run[each] for run in rows) / 1000:.1f}" for each in ("bytes", "zip_bytes")),
            "" if macs is None else f"{macs / 1000:,.0f}",
            "" if not zeros or zeros < 0.01 else f"{100 * zeros:.0f}",
            f"{statistics.median(run['latency_ms'] for run in rows):.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(runs, path):
    """Draw accuracy against size and against latency, with the ways that no other beats in both."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    students = list(dict.fromkeys(run["student"] for run in runs))
    figure, axes = plt.subplots(
        len(students), 2, figsize=(11, 4.6 * len(students)), squeeze=False, layout="constrained"
    )
    for row, student in zip(axes, students, strict=True):
        for axis, (column, title) in zip(
            row, (("zip_bytes", "zipped file, kB"), ("latency_ms", "latency, ms")), strict=True
        ):
            points = {}
            for way in dict.fromkeys(run["way"] for run in runs):
                mine = [run for run in runs if (run["student"], run["way"]) == (student, way)]
                cost = statistics.mean(run[column] for run in mine) / (1000 if column == "zip_bytes" else 1)
                points[way] = cost, 100 * statistics.mean(run["accuracy"] for run in mine)
            front = [
                way
                for way, (cost, accuracy) in points.items()
                if not any(c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in points.values())
            ]
            for way, (cost, accuracy) in points.items():
                best = way in front
                axis.scatter(cost, accuracy, s=46, marker="o" if best else "x", color="#0072b2" if best else "#999999")
            # One way that ruins the student would press all others together.
            good = [accuracy for _, accuracy in points.values() if accuracy > max(a for _, a in points.values()) - 4]
            axis.set_ylim(min(good) - 0.5, max(good) + 0.5)
            for place, numbers in _together(list(points.values()), axis):
                text = ", ".join(map(str, numbers))
                axis.annotate(text, place, textcoords="offset points", xytext=(6, 5), fontsize=9)
            below = [str(n) for n, (_, accuracy) in enumerate(points.values(), 1) if accuracy < min(good) - 0.5]
            if below:
                axis.text(0.98, 0.02, f"below: {', '.join(below)}", transform=axis.transAxes, ha="right", fontsize=9)
            steps = sorted(points[way] for way in front)
            axis.plot(*zip(*steps, strict=True), color="#0072b2", linewidth=1, alpha=0.5)
            axis.set(xlabel=title, ylabel="test accuracy, %", title=student)
            axis.grid(alpha=0.2)
    names = [f"{number} {way}" for number, way in enumerate(dict.fromkeys(run["way"] for run in runs), start=1)]
    columns = ["\n".join(names[start::3]) for start in range(3)]
    for place, text in zip((0.02, 0.36, 0.7), columns, strict=True):
        figure.text(place, -0.01, text, va="top", fontsize=9)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def _together(points, axis):
    """Return the numbers of the points that are in sight, those that nearly touch as one: places, and their numbers."""
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    groups = []
    for number, (x, y) in enumerate(points, start=1):
        if not low <= y <= high:
            continue
        for (x0, y0), numbers in groups:
            if abs(x - x0) < 0.05 * (right - left) and abs(y - y0) < 0.035 * (high - low):
                numbers.append(number)
                break
        else:
            groups.append(((x, y), [number]))
    return groups


def main():
    """Measure what is missing, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    whole = (options.images, options.epochs) == (IMAGES, EPOCHS)
    runs = json.loads(RECORD.read_text(encoding="utf-8"))["runs"] if whole and RECORD.exists() else []
    for student in options.students:
        for seed in options.seeds:
            if any((run["student"], run["seed"]) == (student, seed) for run in runs):
                continue
            trial = Trial(student, seed, options.images, options.epochs)
            runs += measured(trial)
            print(f"\n{student}, seed {seed}\n{table(runs, student)}", flush=True)
            if whole:
                write(runs)


def write(runs):
    """Write the record, and the same as a table of numbers."""
    record = {
        "command": "python benchmarks/compression.py",
        "settings": {"images": IMAGES, "epochs": EPOCHS, "more epochs": MORE, "batch": BATCH, "rates": [RATE, LOWER]},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {each: version(each) for each in ("kdkeras", "keras", "tensorflow", "ai-edge-litert")},
        "runs": runs,
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    plot(runs, PICTURE)
    with RECORD.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(runs[0]))
        writer.writeheader()
        writer.writerows(runs)


if __name__ == "__main__":
    main()
