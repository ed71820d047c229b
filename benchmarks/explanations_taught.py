"""Does a student learn where to look? Grad-CAM of teacher and student with and without `ExplanationMatching`.

Run: python benchmarks/explanations_taught.py     prints the table; writes benchmarks/explanations_taught.json

Fashion-MNIST, 50 images a class for the student, as in the low-data setting of e²KD (Parchami-Araghi et al. 2024); the
teacher has seen 20,000. Within a seed all students start from the same weights and see the same batches in the same
order. Cosine, all-zero maps and the share of overlapping top pixels are those of `kdkeras.explain.compare` on the first
2,000 test images, accuracy and agreement those of all 10,000. Time is CPU time per epoch, the median without the first.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

import kdkeras
from kdkeras import datasets, explain
from kdkeras.scores import classification_scores

SEEDS = (0, 1, 2)
TEACHER_IMAGES, TEACHER_EPOCHS = 20_000, 8
PER_CLASS, EPOCHS, BATCH = 50, 60, 50
LEARNING_RATE = 2e-3  # falls to 0 along a cosine
TEMPERATURE, TASK_WEIGHT = 4.0, 0.5
HEADS = ("pooled", "dense")  # of the student; the teacher ends pooled
WEIGHTS = (0.0, 1.0, 5.0)  # λ of ExplanationMatching; 0 leaves it out
COMPARED = 2_000
MEASURES = {
    "accuracy": ("test accuracy", 3),
    "agreement": ("agreement", 3),
    "cosine": ("Grad-CAM cosine", 3),
    "floor": ("of random weights", 3),
    "top_k_iou": ("top-20 % IoU", 3),
    "zero_maps": ("all-zero maps, %", 1),
    "time": ("time ÷ λ = 0", 2),
}
OUTPUT = Path(__file__).with_suffix(".json")


def network(filters, name, head="pooled"):
    """A small CNN; `maps` is what Grad-CAM looks at, 7 × 7. It ends pooled, or in a hidden layer of all positions."""
    inputs = features = keras.Input((28, 28, 1))
    for stage, width in enumerate(filters, start=1):
        features = layers.Conv2D(width, 3, padding="same", use_bias=False)(features)
        features = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(features))
        if stage < len(filters):
            features = layers.MaxPooling2D()(features)
    features = layers.Activation("linear", name="maps")(features)
    if head == "pooled":
        features = layers.GlobalAveragePooling2D()(features)
    else:
        features = layers.Dense(64, activation="relu")(layers.Flatten()(features))
    return keras.Model(inputs, layers.Dense(10, name="logits")(features), name=name)


def few(data, seed):
    """Return `PER_CLASS` training images of each class, drawn by the seed."""
    random = np.random.default_rng(seed)
    chosen = [random.choice(np.flatnonzero(data.y_train == label), PER_CLASS, replace=False) for label in range(10)]
    chosen = random.permutation(np.concatenate(chosen))
    return data.x_train[chosen], data.y_train[chosen]


def compile_(model, steps, **extra):
    """Compile anything that is trained here in the same way."""
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss, **extra)
    return model


class CpuTime(keras.callbacks.Callback):
    """CPU seconds of each epoch."""

    def on_train_begin(self, logs=None):
        """Forget an earlier training."""
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock."""
        self._start = time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        """Stop it."""
        self.epochs.append(time.process_time() - self._start)


def trained_student(head, weight, seed, teacher, x, y, epochs):
    """Return a student, and its CPU seconds per epoch."""
    keras.utils.set_random_seed(1000 + seed)
    student = network((16, 32, 32), "student", head)
    losses = [kdkeras.losses.SoftTargets(TEMPERATURE, weight=1 - TASK_WEIGHT)]
    if weight:
        losses.append(kdkeras.losses.ExplanationMatching("maps", "maps", weight=weight))
    distiller = kdkeras.Distiller(student=student, teacher=teacher)
    compile_(distiller, epochs * len(x) // BATCH, distillation_loss=losses, task_weight=TASK_WEIGHT)
    clock = CpuTime()
    distiller.fit(x, y, batch_size=BATCH, epochs=epochs, callbacks=[clock], verbose=0)
    return student, statistics.median(clock.epochs[1:])


def measured(student, teacher, data):
    """Return the figures of one student."""
    logits, theirs = (model.predict(data.x_test, batch_size=500, verbose=0) for model in (student, teacher))
    scores = classification_scores(data.y_test, logits, theirs)
    looks = explain.compare(teacher, student, data.x_test[:COMPARED], batch_size=500)
    return {
        "accuracy": float(scores.accuracy),
        "agreement": float(scores.agreement),
        "cosine": looks.summary["cosine"].mean,
        "top_k_iou": looks.summary["top_k_iou"].mean,
        "floor": looks.floor_summary["cosine"].mean,
        "zero_maps": 100 * looks.student_zeros / COMPARED,
    }


def table(runs):
    """The runs as a Markdown table."""
    header = ["student's head", "λ", *(words for words, _ in MEASURES.values())]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for head, weight in dict.fromkeys((run["head"], run["weight"]) for run in runs):
        cells = [head, f"{weight:g}"]
        for name, (_, digits) in MEASURES.items():
            values = [run[name] for run in runs if (run["head"], run["weight"]) == (head, weight)]
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.{digits}f}{spread}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main():
    """Make the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    data = datasets.fashion_mnist()
    runs, teachers = [], []
    for seed in options.seeds:
        keras.utils.set_random_seed(seed)
        teacher = network((32, 64, 128), "teacher")
        x, y = data.x_train[:TEACHER_IMAGES], data.y_train[:TEACHER_IMAGES]
        compile_(teacher, TEACHER_EPOCHS * TEACHER_IMAGES // 64).fit(x, y, 64, TEACHER_EPOCHS, verbose=0)
        teachers.append(float(np.mean(teacher.predict(data.x_test, 500, verbose=0).argmax(1) == data.y_test)))
        x, y = few(data, seed)
        for head in HEADS:
            alone = None
            for weight in WEIGHTS:
                student, seconds = trained_student(head, weight, seed, teacher, x, y, options.epochs)
                alone = alone or seconds
                run = {"seed": seed, "head": head, "weight": weight, **measured(student, teacher, data)}
                runs.append(run | {"time": seconds / alone})
                print(runs[-1], flush=True)
    record = {
        "command": shlex.join(["python", "benchmarks/explanations_taught.py", *sys.argv[1:]]),
        "settings": {
            "images": 10 * PER_CLASS,
            "epochs": options.epochs,
            "temperature": TEMPERATURE,
            "task_weight": TASK_WEIGHT,
            "learning_rate": LEARNING_RATE,
        },
        "teacher_accuracy": teachers,
        "runs": runs,
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(runs)))


if __name__ == "__main__":
    main()
