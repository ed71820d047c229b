"""Do schemes help? One small student under each scheme on Fashion-MNIST, three seeds, mean ± standard deviation.

Run: python benchmarks/schemes.py [--images 10000] [--epochs 12] [--seeds 3]

Within a seed every student starts from the same weights and learns from the same teacher with the same optimizer. The
last column is what a row cost: epochs of training of any model, the teacher's apart. No setting was chosen by these
figures: they are the defaults of each scheme, with the distillation loss of the second row.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

import kdkeras
from kdkeras import schemes
from kdkeras.losses import Hints, SoftTargets

CLASSES = 10
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(width, name):
    """Three convolutions, the first two with a stride, and a linear classifier."""
    blocks = [
        layers.Conv2D(width * size, 3, strides=stride, padding="same", activation="relu", name=f"conv{place}")
        for place, (size, stride) in enumerate(((1, 2), (2, 2), (2, 1)), start=1)
    ]
    pooling = [layers.GlobalAveragePooling2D(name="pool"), layers.Dense(CLASSES, name="head")]
    return keras.Sequential([keras.Input((28, 28, 1)), *blocks, *pooling], name=name)


def student(seed, name="student", width=8):
    """The same student for every scheme."""
    keras.utils.set_random_seed(seed)
    return network(width, name)


def train(scheme, teacher, x, y, seed, epochs):
    """Return the student of a scheme, and how many epochs all models took."""
    settings = {"optimizer": keras.optimizers.Adam(2e-3), "loss": LOSS, "task_weight": 0.5}
    settings["distillation_loss"] = SoftTargets(temperature=4, weight=0.5)
    fit = {"epochs": epochs, "batch_size": 64, "verbose": 0}
    model = student(seed)
    if scheme == "labels alone":
        model.compile(keras.optimizers.Adam(2e-3), LOSS)
        model.fit(x, y, **fit)
        return model, epochs
    if scheme == "soft targets":
        distiller = kdkeras.Distiller(student=model, teacher=teacher)
        distiller.compile(**settings).fit(x, y, **fit)
        return model, epochs
    if scheme == "teacher assistant":
        assistant = student(seed + 100, "assistant", 16)
        schemes.teacher_assistants(teacher, [assistant], model, x, y, compile=settings, fit=fit)
        return model, 2 * epochs
    if scheme.startswith("born again"):
        generations = [model, student(seed + 100, "second")]
        trained = schemes.born_again(teacher, lambda k: generations[k - 1], 2, x, y, compile=settings, fit=fit)
        return trained.ensemble if scheme.endswith("ensemble") else trained.student, 2 * epochs
    if scheme == "mutual learning, no teacher":
        peers = schemes.MutualLearning([model, student(seed + 100, "peer")])
        peers.compile(keras.optimizers.Adam(2e-3), LOSS).fit(x, y, **fit)
        return model, 2 * epochs
    if scheme == "self-distillation, no teacher":
        teaching = schemes.SelfDistillation(model, ["conv1", "conv2"], feature="pool")
        teaching.compile(keras.optimizers.Adam(2e-3), LOSS).fit(x, y, **fit)
        return model, epochs
    if scheme == "FitNets":
        del fit["epochs"]
        early = max(epochs // 4, 1)
        hint = {"hint": Hints("conv2", "conv2"), "hint_epochs": early, "kd_epochs": epochs}
        schemes.fitnets(model, teacher, x, y, **hint, compile=settings, fit=fit)
        return model, epochs + early
    if scheme == "progressive":
        early = max(epochs // 4, 1)
        pairs = [("conv1", "conv1"), ("conv2", "conv2")]
        stages = lambda stage: {**fit, "epochs": early if stage < len(pairs) else epochs}  # noqa: E731
        schemes.progressive(model, teacher, pairs, x, y, compile=settings, fit=stages)
        return model, epochs + early * len(pairs)
    if scheme == "function matching":
        crop = keras.Sequential([layers.RandomTranslation(0.1, 0.1), layers.RandomFlip("horizontal")])
        views = schemes.SameViews(x, 64, augment=crop, seed=seed)
        schemes.function_matching(model, teacher, views, epochs=epochs, learning_rate=4e-3, fit={"verbose": 0})
        return model, epochs
    groups = {"light": [0, 2, 4, 6], "other clothes": [1, 3, 8], "shoes": [5, 7, 9]}
    parts = schemes.class_groups(teacher, groups, weight=0.5 / len(groups))
    settings["distillation_loss"] = parts.losses
    kdkeras.Distiller(student=model, teacher=teacher).compile(**settings).fit(x, y, **fit)
    return model, epochs


SCHEMES = (
    *("labels alone", "soft targets", "teacher assistant", "born again", "born again, ensemble"),
    *("mutual learning, no teacher", "self-distillation, no teacher", "FitNets", "progressive", "function matching"),
    "class groups",
)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("images", 10_000), ("epochs", 12), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    data = kdkeras.datasets.fashion_mnist(limit=options.images)
    (x, y), (x_test, y_test) = data.arrays("train"), data.arrays("test")
    rows, start, done = {scheme: [] for scheme in SCHEMES}, time.perf_counter(), 0
    for seed in range(options.seeds):
        teacher = student(seed + 1000, "teacher", 32)
        teacher.compile(keras.optimizers.Adam(2e-3), LOSS)
        teacher.fit(x, y, epochs=options.epochs, batch_size=64, verbose=0)
        theirs = teacher.predict(x_test, verbose=0).argmax(axis=1)
        for scheme in SCHEMES:
            model, cost = train(scheme, teacher, x, y, seed, options.epochs)
            ours = model.predict(x_test, verbose=0).argmax(axis=1)
            rows[scheme].append(((ours == y_test).mean(), (ours == theirs).mean(), cost))
            done += 1
            left = (time.perf_counter() - start) / done * (options.seeds * len(SCHEMES) - done)
            print(f"seed {seed}, {scheme}: {rows[scheme][-1][0]:.4f}; {left:.0f} s left", flush=True)
    print(f"\nkdkeras {kdkeras.__version__}, keras {keras.__version__}, {keras.backend.backend()}: {options}")
    print("| | test accuracy | agreement with the teacher | epochs of all models |\n|---|---|---|---|")
    for scheme, values in rows.items():
        accuracy, agreement, cost = zip(*values, strict=True)
        cells = [f"{np.mean(v):.4f} ± {statistics.stdev(v) if len(v) > 1 else 0:.4f}" for v in (accuracy, agreement)]
        print(f"| {scheme} | {cells[0]} | {cells[1]} | {cost[0]} |")


if __name__ == "__main__":
    main()
