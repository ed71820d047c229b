"""Does it distil? One student under six trainings on Fashion-MNIST, three seeds, mean ± standard deviation.

Run: python benchmarks/quality.py            the table, on the test split; writes benchmarks/quality.json
     python benchmarks/quality.py --select   settings, on the validation split; writes benchmarks/quality_selection.json

10,000 training images. Within a seed all methods start from the same student weights, see the same teacher and the same
batches in the same order, and use the same optimizer and number of epochs; the last epoch counts. The settings are
those that `--select` chose, with a seed that the table does not use, by validation accuracy plus validation agreement;
`keras.distillation` "at its defaults" has none to choose. The test split takes no part in any choice.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import kdkeras
from kdkeras import datasets
from kdkeras.scores import classification_scores

SEEDS = (0, 1, 2)
SELECTION_SEED = 100
IMAGES = 10_000
EPOCHS = 12
BATCH = 64
LEARNING_RATE = 2e-3  # falls to 0 along a cosine
MEASURES = {
    "accuracy": "test accuracy",
    "agreement": "agreement with the teacher",
    "kl_to_teacher": "KL to the teacher",
}

ALONE = "student alone"
DEFAULTS = "keras.distillation, defaults"
INSTANCE = "keras.distillation, KLDivergence()"
TUTORIAL = "Keras tutorial's class"
SOFT = "kdkeras SoftTargets"
HINTS = "kdkeras SoftTargets + Hints"

# What `--select` tries: the same four for every method that has a temperature. The two parts weigh `task_weight` and
# 1 − `task_weight`, in each library's spelling; `Hints` comes on top.
_CANDIDATES = [{"temperature": t, "task_weight": w} for t in (3.0, 10.0) for w in (0.1, 0.5)]
GRID: dict[str, list[dict[str, float]]] = {
    ALONE: [{}],
    DEFAULTS: [{}],
    INSTANCE: _CANDIDATES,
    TUTORIAL: _CANDIDATES,
    SOFT: _CANDIDATES,
    HINTS: _CANDIDATES,
}
HINT_WEIGHT = 0.1
SELECTION = Path(__file__).with_name("quality_selection.json")


# --- the models ------------------------------------------------------------------------------------------------------


def network(filters: tuple[int, ...], name: str) -> keras.Model:
    """Return convolutions with BatchNorm, each but the last pooled to half the size, under one dense layer."""
    stack = []
    for place, count in enumerate(filters, start=1):
        stack += [layers.Conv2D(count, 3, padding="same", use_bias=False), layers.BatchNormalization(momentum=0.9)]
        stack += [layers.ReLU(name=f"map{place}")] + [layers.MaxPooling2D()] * (place < len(filters))
    head = [layers.GlobalAveragePooling2D(), layers.Dense(10, name="logits")]
    return keras.Sequential([keras.Input((28, 28, 1)), *stack, *head], name=name)


def teacher_network() -> keras.Model:
    """Return the untrained teacher: 94 thousand parameters."""
    return network((32, 64, 128), "teacher")


def student_network() -> keras.Model:
    """Return the untrained student: 14 thousand parameters."""
    return network((12, 24, 48), "student")


class TutorialDistiller(keras.Model):
    """The distiller that the Keras 3 tutorial on knowledge distillation describes, written from that description.

    The loss is `alpha · task + (1 − alpha) · T² · KL(softmax(teacher / T) ‖ softmax(student / T))`, and the step is
    `keras.Model`'s own. Nothing keeps the teacher from being trained by it, and it is: that is left as it is there.
    """

    def __init__(self, student: keras.Model, teacher: keras.Model, *, alpha: float, temperature: float) -> None:
        super().__init__(name="tutorial")
        self.student, self.teacher = student, teacher
        self.alpha, self.temperature = alpha, temperature
        self.task = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.divergence = keras.losses.KLDivergence()

    def call(self, x: Any) -> Any:
        """Return the student's logits."""
        return self.student(x)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, **_: Any
    ) -> Any:
        """Return the loss of the class docstring."""
        soft = [keras.ops.softmax(z / self.temperature) for z in (self.teacher(x, training=False), y_pred)]
        distillation = self.temperature**2 * self.divergence(*soft)
        return self.alpha * self.task(y, y_pred) + (1 - self.alpha) * distillation


# --- training --------------------------------------------------------------------------------------------------------


def batches(data: datasets.Dataset, seed: int, options: argparse.Namespace) -> tf.data.Dataset:
    """Return the training images, in an order that the seed fixes."""
    return data.tf_data("train", BATCH, shuffle_seed=seed)


def compiled(model: Any, steps: int, **extra: Any) -> Any:
    """Compile anything that is trained here in the same way."""
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    extra.setdefault("loss", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.compile(optimizer=keras.optimizers.Adam(rate), **extra)
    return model


def trainer(method: str, setting: dict[str, float], student: keras.Model, teacher: keras.Model, steps: int) -> Any:
    """Return what is to be fitted so that `student` learns by `method`."""
    if method == ALONE:
        return compiled(student, steps)
    if method in (DEFAULTS, INSTANCE):
        losses, extra = keras.distillation.LogitsDistillation(), {}
        if method == INSTANCE:
            losses = keras.distillation.LogitsDistillation(setting["temperature"], loss=keras.losses.KLDivergence())
            extra = {"student_loss_weight": setting["task_weight"]}
        distiller = keras.distillation.Distiller(teacher=teacher, student=student, distillation_losses=losses, **extra)
        return compiled(distiller, steps)
    if method == TUTORIAL:
        alpha, temperature = setting["task_weight"], setting["temperature"]
        return compiled(TutorialDistiller(student, teacher, alpha=alpha, temperature=temperature), steps, loss=None)
    task_weight = setting["task_weight"]
    terms: list[Any] = [kdkeras.losses.SoftTargets(setting["temperature"], weight=1 - task_weight)]
    if method == HINTS:
        terms.append(kdkeras.losses.Hints("map3", "map3", weight=HINT_WEIGHT))
    distiller = kdkeras.Distiller(student=student, teacher=teacher)
    return compiled(distiller, steps, distillation_loss=terms, task_weight=task_weight)


def train(method: str, setting: dict[str, float], seed: int, data: Any, teacher: Any, options: Any) -> keras.Model:
    """Return a student that learned by `method`."""
    keras.utils.set_random_seed(1000 + seed)
    student = student_network()
    apart = keras.models.clone_model(teacher)  # some methods change the teacher: each gets its own
    apart.set_weights(teacher.get_weights())
    batched = batches(data, seed, options)
    trainer(method, setting, student, apart, len(batched) * options.epochs).fit(
        batched, epochs=options.epochs, shuffle=False, verbose=0
    )
    return student


def trained_teacher(seed: int, data: datasets.Dataset, options: argparse.Namespace) -> keras.Model:
    """Return the teacher of a seed."""
    keras.utils.set_random_seed(seed)
    teacher = teacher_network()
    batched = batches(data, seed, options)
    compiled(teacher, len(batched) * options.epochs).fit(batched, epochs=options.epochs, shuffle=False, verbose=0)
    return teacher


def measure(model: keras.Model, teacher: keras.Model, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return accuracy, agreement and KL divergence on a split."""
    logits, targets = (which.predict(x, batch_size=500, verbose=0) for which in (model, teacher))
    scores = classification_scores(y, logits, targets)
    return {name: float(getattr(scores, name)) for name in MEASURES}


# --- the two commands ------------------------------------------------------------------------------------------------


def select(data: datasets.Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Try every setting on the validation split."""
    teacher = trained_teacher(SELECTION_SEED, data, options)
    trials = []
    for method, settings in GRID.items():
        for setting in settings if len(settings) > 1 else ():
            student = train(method, setting, SELECTION_SEED, data, teacher, options)
            found = measure(student, teacher, data.x_valid, data.y_valid)
            trials.append({"method": method, "setting": setting, **found})
            print(method, setting, found, flush=True)
    best = {}
    for trial in trials:
        own = trial["accuracy"] + trial["agreement"]
        if trial["method"] not in best or own > best[trial["method"]]["accuracy"] + best[trial["method"]]["agreement"]:
            best[trial["method"]] = trial
    for method, trial in best.items():
        print(f"best for {method}: {trial['setting']}")
    return {"trials": trials, "chosen": {method: trial["setting"] for method, trial in best.items()}}


def compare(data: datasets.Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Train every method with every seed, and measure on the test split."""
    if not options.selection.is_file():
        raise FileNotFoundError(f"No settings: '{options.selection}' is missing. Run with --select first.")
    chosen = json.loads(options.selection.read_text(encoding="utf-8"))["chosen"]
    settings = {method: chosen.get(method, {}) for method in GRID}
    runs = []
    for seed in options.seeds:
        teacher = trained_teacher(seed, data, options)
        split = (data.x_test, data.y_test)
        runs.append({"seed": seed, "method": "teacher", **measure(teacher, teacher, *split)})
        for method, setting in settings.items():
            start = time.perf_counter()
            student = train(method, setting, seed, data, teacher, options)
            found = measure(student, teacher, *split)
            runs.append({"seed": seed, "method": method, **found, "seconds": time.perf_counter() - start})
            print(seed, method, found, flush=True)
    return {"settings": settings, "runs": runs}


def table(runs: list[dict[str, Any]]) -> list[str]:
    """The runs as a Markdown table."""
    lines = [f"| | {' | '.join(MEASURES.values())} |", "|---|" + "---|" * len(MEASURES)]
    for method in dict.fromkeys(run["method"] for run in runs):
        cells = []
        for name in MEASURES:
            values = [run[name] for run in runs if run["method"] == method]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Choose settings, or make the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--select", action="store_true", help="try the settings on the validation split")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--images", type=int, default=IMAGES, help="training images; fewer for a trial")
    parser.add_argument("--selection", type=Path, default=SELECTION, help="where --select has written")
    parser.add_argument("--output", type=Path, help="default: a JSON file beside this script")
    options = parser.parse_args()
    data = datasets.fashion_mnist(limit=options.images)
    start = time.perf_counter()
    found = select(data, options) if options.select else compare(data, options)
    record = {
        "command": shlex.join(["python", "benchmarks/quality.py", *sys.argv[1:]]),
        "seeds": [SELECTION_SEED] if options.select else options.seeds,
        "epochs": options.epochs,
        "images": len(data.x_train),
        "parameters": {"teacher": teacher_network().count_params(), "student": student_network().count_params()},
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("kdkeras", "keras", "tensorflow", "numpy")},
        "seconds": time.perf_counter() - start,
        **found,
    }
    default = SELECTION if options.select else Path(__file__).with_name("quality.json")
    (options.output or default).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if not options.select:
        print("\n".join(table(record["runs"])))


if __name__ == "__main__":
    main()
