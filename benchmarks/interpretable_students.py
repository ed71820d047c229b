"""Interpretable students of one teacher: fidelity and accuracy by kind and size, from the teacher or from labels.

Run `python benchmarks/interpretable_students.py`; it writes `interpretable_students.json` beside itself, prints the
tables of docs/interpretable_students.md, and draws docs/images/interpretable_students_*.png with `--pictures`. Settings
were chosen on the validation split, which is otherwise not used; students learn from the training split, like the
teacher, and are measured on the test split. Means and standard deviations are over three seeds.
"""

import dataclasses
import json
import os
import platform
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import sklearn
import tensorflow as tf

import kdkeras
from kdkeras import students

HERE = Path(__file__)
SEEDS = (0, 1, 2)
MEASURES = ("agreement", "kl", "r2", "accuracy")
SIZES = {
    "tree": (4, 8, 16, 32, 64, 128),
    "forest": (3, 10, 30, 100),
    "gradient_boosting": (3, 10, 30, 100),
    "linear": (2, 4, 8, 16, None),
    "additive": (2, 4, 8, 16, None),
}
SOFT_TREE = {"breast_cancer": 3, "digits": 6}  # depth


def main():
    """Train, measure, print the tables, write the record and draw the pictures."""
    start = time.process_time()
    record = {"command": "python benchmarks/interpretable_students.py", "seeds": SEEDS, "data": {}}
    for name in ("breast_cancer", "digits"):
        data = kdkeras.datasets.load(name)
        curves = [one_seed(data, seed) for seed in SEEDS]
        record["data"][name] = {
            "samples": {"train": len(data.x_train), "test": len(data.x_test)},
            "rows": rows(curves),
            "runs": [curve.to_dict()["points"] for curve in curves],
        }
        print(f"\n{name}\n\n{table(record['data'][name]['rows'])}", flush=True)
        if "--pictures" in sys.argv:
            figure = mean_curve(curves).plot()
            figure.savefig(HERE.parents[1] / "docs" / "images" / f"interpretable_students_{name}.png", dpi=90)
    record["versions"] = {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "scikit-learn": sklearn.__version__,
        "kdkeras": kdkeras.__version__,
    }
    record["hardware"] = f"{platform.machine()}, {os.cpu_count()} CPU cores"
    record["cpu_seconds"] = round(time.process_time() - start)
    HERE.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


def one_seed(data, seed):
    """Return the curve of one seed, with a soft decision tree and the teacher beside the students."""
    keras.utils.set_random_seed(seed)
    teacher = network(data)
    teacher.fit(data.x_train, data.y_train, epochs=40, batch_size=32, verbose=0)
    soft = kdkeras.SoftDecisionTree(depth=SOFT_TREE[data.name], num_classes=data.num_classes)
    soft.distill(teacher, data.x_train, verbose=0)
    return students.size_curve(
        teacher,
        data.x_train,
        data.x_test,
        data.y_test,
        y=data.y_train,
        sizes=SIZES,
        beside={"soft decision tree": soft, "teacher": teacher},
        seed=seed,
    )


def network(data):
    """Return the teacher, compiled."""
    layers = keras.layers
    if data.kind == "image":
        hidden = [
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.5),
        ]
    else:
        hidden = [layers.Dense(32, activation="relu"), layers.Dropout(0.3), layers.Dense(32, activation="relu")]
    model = keras.Sequential(
        [keras.Input(data.input_shape), *hidden, layers.Dense(data.num_classes, activation="softmax")]
    )
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
    return model


def rows(curves):
    """Return one row per model: mean and standard deviation of each measure over the seeds."""
    found = []
    for points in zip(*(curve.points for curve in curves), strict=True):
        row = {
            "student": points[0].name,
            "learned_from": points[0].learned_from,
            "size": points[0].size,
            "parameters": round(float(np.mean([each.parameters for each in points]))),
        }
        for measure in MEASURES:
            values = [getattr(each.fidelity, measure) for each in points]
            row[measure] = [round(float(np.mean(values)), 4), round(float(np.std(values, ddof=1)), 4)]
        found.append(row)
    return found


def table(found):
    """Return rows as Markdown."""
    lines = [
        "| student | learned from | size | parameters | agreement | KL | R² | accuracy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        size = "all" if row["size"] is None and row["learned_from"] else row["size"] or ""
        figures = [f"{row[m][0]:.3f} ± {row[m][1]:.3f}" for m in MEASURES]
        name = row["student"].replace("_", " ")
        lines.append(
            f"| {' | '.join([name, row['learned_from'], str(size), format(row['parameters'], ','), *figures])} |"
        )
    return "\n".join(lines)


def mean_curve(curves):
    """Return a curve of the means, to be drawn."""
    points = []
    for same in zip(*(curve.points for curve in curves), strict=True):
        means = {m: float(np.mean([getattr(each.fidelity, m) for each in same])) for m in MEASURES}
        parameters = round(float(np.mean([each.parameters for each in same])))
        fidelity = dataclasses.replace(same[0].fidelity, **means)
        points.append(dataclasses.replace(same[0], parameters=parameters, fidelity=fidelity))
    return students.SizeCurve(tuple(points))


if __name__ == "__main__":
    main()
