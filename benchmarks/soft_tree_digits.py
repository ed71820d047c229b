"""How well a soft decision tree of depth 6 reads digits, on labels and distilled, beside a plain CART of that depth.

Run `python benchmarks/soft_tree_digits.py`; it writes `soft_tree_digits.json` beside itself. The default settings of
`SoftDecisionTree` were chosen by cross-validation inside the 80 % that everything here is trained on; the test 20 %
were used for nothing but this table. Fidelity is the agreement with the class that the teacher names.
"""

import json
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import sklearn
import tensorflow as tf
from sklearn.tree import DecisionTreeClassifier

import kdkeras

SEEDS = (0, 1, 2)
DEPTH = 6
MODES = ("mixture", "best_leaf", "greedy")


def main():
    """Train, test, print the table and write the record."""
    digits = kdkeras.datasets.digits()
    x = np.concatenate([digits.x_train, digits.x_valid])
    y = np.concatenate([digits.y_train, digits.y_valid])
    test = digits.x_test, digits.y_test
    runs = [run for seed in SEEDS for run in one_seed(seed, x, y, *test)]
    rows = [
        summary(name, [run for run in runs if run["model"] == name]) for name in dict.fromkeys(r["model"] for r in runs)
    ]
    print(table(rows))
    record = {
        "command": "python benchmarks/soft_tree_digits.py",
        "data": f"kdkeras.datasets.digits: {len(x)} samples (train + valid) for training, {len(test[0])} for the test",
        "depth": DEPTH,
        "seeds": SEEDS,
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "scikit-learn": sklearn.__version__,
            "kdkeras": kdkeras.__version__,
        },
        "hardware": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "mean_and_sd": rows,
        "runs": runs,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


def one_seed(seed, x, y, x_test, y_test):
    """Yield one measurement per model."""
    keras.utils.set_random_seed(seed)
    teacher = cnn()
    teacher.fit(x, y, epochs=40, batch_size=64, verbose=0)
    said = teacher.predict(x_test, verbose=0).argmax(axis=1)
    yield measure("teacher (CNN)", seed, {"mixture": said}, said, y_test)

    start = time.perf_counter()
    cart = DecisionTreeClassifier(max_depth=DEPTH, random_state=seed).fit(x.reshape(len(x), -1), y)
    seconds = time.perf_counter() - start
    predictions = {"mixture": cart.predict(x_test.reshape(len(x_test), -1))}
    yield measure("CART", seed, predictions, said, y_test, seconds)

    students = {
        "soft tree, labels": lambda tree: tree.fit(x, y, verbose=0),
        "soft tree, distilled": lambda tree: tree.distill(teacher, x, verbose=0),
    }
    for name, train in students.items():
        keras.utils.set_random_seed(seed)
        tree = kdkeras.SoftDecisionTree(depth=DEPTH, num_classes=10)
        start = time.perf_counter()
        train(tree)
        seconds = time.perf_counter() - start
        predictions = {mode: tree.predict(x_test, verbose=0, mode=mode).argmax(axis=1) for mode in MODES}
        yield measure(name, seed, predictions, said, y_test, seconds)


def cnn():
    """Return the teacher, compiled."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def measure(model, seed, predictions, said, y_test, seconds=None):
    """Return accuracy and fidelity of a model's classes in each prediction mode."""
    accuracy = {mode: float((classes == y_test).mean()) for mode, classes in predictions.items()}
    fidelity = {mode: float((classes == said).mean()) for mode, classes in predictions.items()}
    return {"model": model, "seed": seed, "accuracy": accuracy, "fidelity": fidelity, "training_seconds": seconds}


def summary(name, runs):
    """Return mean and standard deviation over the seeds, in percent."""
    row = {"model": name}
    for measured in ("accuracy", "fidelity"):
        for mode in runs[0][measured]:
            values = [100 * run[measured][mode] for run in runs]
            row[f"{measured}, {mode}"] = [round(float(np.mean(values)), 2), round(float(np.std(values, ddof=1)), 2)]
    if runs[0]["training_seconds"] is not None:
        row["training_seconds"] = round(float(np.mean([run["training_seconds"] for run in runs])), 1)
    return row


def table(rows):
    """Return the rows as aligned text."""
    columns = [f"{measured}, {mode}" for measured in ("accuracy", "fidelity") for mode in MODES]
    lines = [["", *columns, "seconds"]]
    for row in rows:
        figures = [f"{row[c][0]:.1f} ± {row[c][1]:.1f}" if c in row else "" for c in columns]
        lines.append([row["model"], *figures, str(row.get("training_seconds", ""))])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


if __name__ == "__main__":
    main()
