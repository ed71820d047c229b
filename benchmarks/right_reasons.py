"""Right for the right reasons? Digits with a coloured corner that gives the label away, but only in training.

Run: python benchmarks/right_reasons.py     prints the table; writes benchmarks/right_reasons.json

The 8 × 8 digits of scikit-learn, in grey on 12 × 12 RGB with a 2 × 2 patch in the upper left corner. In the students'
training images the colour of the patch is that of the class; the teacher was trained with colours at random, so that
it learned to ignore them. Tested are images with the patch as in training, with none, with the colour of another
class, and with that colour moved to the lower right corner. Within a seed all students start from the same weights and
see the same batches in the same order.
"""

import argparse
import colorsys
import json
import os
import shlex
import statistics
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

import kdkeras
from kdkeras import datasets, explain

SEEDS = (0, 1, 2)
EPOCHS, BATCH = 40, 32
LEARNING_RATE = 3e-3  # falls to 0 along a cosine
TEMPERATURE = 4.0
COLOURS = np.array([colorsys.hsv_to_rgb(label / 10, 1, 1) for label in range(10)], "float32")
MATCHING = kdkeras.losses.ExplanationMatching
METHODS = {
    "labels": (1.0, []),
    "soft targets and labels": (0.5, [kdkeras.losses.SoftTargets(TEMPERATURE, weight=0.5)]),
    "the same, Grad-CAM matched": (
        0.5,
        [kdkeras.losses.SoftTargets(TEMPERATURE, weight=0.5), MATCHING("maps", "maps", weight=5)],
    ),
    "the same, input gradient matched": (
        0.5,
        [kdkeras.losses.SoftTargets(TEMPERATURE, weight=0.5), MATCHING(method="input_gradient", weight=5)],
    ),
}
TESTS = ("as in training", "no patch", "another class's colour", "the same, other corner")
OUTPUT = Path(__file__).with_suffix(".json")


def images(x, colours, corner=0):
    """Return digits on 12 × 12 RGB with a patch of a colour each, shape `(n, 12, 12, 3)`; `None` leaves it out."""
    canvas = np.zeros((len(x), 12, 12, 3), "float32")
    canvas[:, 2:10, 2:10] = x
    if colours is not None:
        place = slice(0, 2) if corner == 0 else slice(10, 12)
        canvas[:, place, place] = colours[:, None, None]
    return canvas


def network(widths, name):
    """A small CNN whose `maps`, 6 × 6, are followed by a hidden layer of all positions."""
    inputs = features = keras.Input((12, 12, 3))
    for width in widths:
        features = layers.Conv2D(width, 3, padding="same", use_bias=False)(features)
        features = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(features))
    features = layers.MaxPooling2D(name="maps")(features)
    hidden = layers.Dense(64, activation="relu")(layers.Flatten()(features))
    return keras.Model(inputs, layers.Dense(10, name="logits")(hidden), name=name)


def compile_(model, steps, **extra):
    """Compile anything that is trained here in the same way."""
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss, **extra)
    return model


def tests(x, y, random):
    """Return the test images of each kind."""
    other = COLOURS[(y + random.integers(1, 10, len(y))) % 10]
    kinds = (images(x, COLOURS[y]), images(x, None), images(x, other), images(x, other, corner=1))
    return dict(zip(TESTS, kinds, strict=True))


def accuracy(model, x, y):
    """Return the share of images whose class is found."""
    return float(np.mean(model.predict(x, batch_size=500, verbose=0).argmax(axis=1) == y))


def patch_share(model, x, y):
    """Share of |x · ∂z/∂x| of the true class that lies on the patch."""
    maps = np.abs(explain.attribute(model, x, y, "gradient_times_input", batch_size=500).raw)
    return float(np.mean(maps[:, :2, :2].sum(axis=(1, 2)) / maps.sum(axis=(1, 2))))


def table(runs):
    """The runs as a Markdown table."""
    columns = [*TESTS, "attribution on the patch"]
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for method in dict.fromkeys(run["method"] for run in runs):
        cells = []
        for column in columns:
            values = [run[column] for run in runs if run["method"] == method]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def main():
    """Make the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    data = datasets.load("digits")
    steps = options.epochs * len(data.x_train) // BATCH
    runs = []
    for seed in options.seeds:
        random = np.random.default_rng(seed)
        shown = tests(data.x_test, data.y_test, random)

        def measured(model, shown=shown):
            found = {kind: accuracy(model, x, data.y_test) for kind, x in shown.items()}
            return found | {"attribution on the patch": patch_share(model, shown[TESTS[0]], data.y_test)}

        keras.utils.set_random_seed(seed)
        teacher = compile_(network((32, 32), "teacher"), steps)
        teacher.fit(
            images(data.x_train, COLOURS[random.integers(0, 10, len(data.x_train))]),
            data.y_train,
            BATCH,
            options.epochs,
            verbose=0,
        )
        runs.append({"seed": seed, "method": "teacher", **measured(teacher)})
        print(runs[-1], flush=True)
        x = images(data.x_train, COLOURS[data.y_train])
        for method, (task_weight, losses) in METHODS.items():
            keras.utils.set_random_seed(1000 + seed)
            student = network((8, 16), "student")
            distiller = kdkeras.Distiller(student=student, teacher=teacher)
            fresh = [type(loss).from_config(loss.get_config()) for loss in losses]
            compile_(distiller, steps, distillation_loss=fresh, task_weight=task_weight)
            distiller.fit(x, data.y_train, batch_size=BATCH, epochs=options.epochs, verbose=0)
            runs.append({"seed": seed, "method": method, **measured(student)})
            print(runs[-1], flush=True)
    record = {"command": shlex.join(["python", "benchmarks/right_reasons.py", *sys.argv[1:]]), "epochs": options.epochs}
    options.output.write_text(json.dumps(record | {"runs": runs}, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(runs)))


if __name__ == "__main__":
    main()
