"""The stages of the demo, each a function from what it needs to what it found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from kdkeras import export, losses
from kdkeras.datasets import Dataset
from kdkeras.demo import networks
from kdkeras.demo.results import ExportResult, TreeScore
from kdkeras.demo.settings import BATCH, SOFT_WEIGHT, STUDENT_RATE, TASK_WEIGHT, TEACHER_RATE, TEMPERATURE, Settings
from kdkeras.distiller import Distiller
from kdkeras.trees import SoftDecisionTree

Say = Callable[[str], None]
_FILES = {None: "float32", "float16": "float16", "dynamic": "dynamic", "int8": "int8"}
_CALIBRATION = 256  # samples of the training split; the gate needs 32


def train_teacher(data: Dataset, settings: Settings, seed: int, say: Say) -> tuple[keras.Model, list[float]]:
    """Return the trained teacher, and its validation accuracy by epoch."""
    keras.utils.set_random_seed(seed)
    model = networks.teacher(data)
    return model, _train_alone(model, data, settings, seed, TEACHER_RATE, say)


def train_student(data: Dataset, settings: Settings, seed: int, say: Say) -> tuple[keras.Model, list[float]]:
    """Return a student trained on labels alone, and its validation accuracy by epoch."""
    keras.utils.set_random_seed(seed)
    model = networks.student(data)
    return model, _train_alone(model, data, settings, seed, STUDENT_RATE, say)


def distill_student(
    teacher: keras.Model, data: Dataset, settings: Settings, seed: int, say: Say
) -> tuple[keras.Model, list[float]]:
    """Return the same student distilled, from the same start on the same batches, and its accuracy by epoch."""
    keras.utils.set_random_seed(seed)
    distiller = Distiller(student=networks.student(data), teacher=teacher).compile(
        optimizer=_optimizer(data, settings, STUDENT_RATE),
        loss=_task_loss(),
        metrics=["accuracy"],
        distillation_loss=losses.SoftTargets(temperature=TEMPERATURE, weight=SOFT_WEIGHT),
        task_weight=TASK_WEIGHT,
    )
    return distiller.student, _fit(distiller, data, settings, seed, say)


def export_student(student: keras.Model, data: Dataset, folder: Path, say: Say) -> tuple[ExportResult, ...]:
    """Return the four TFLite files of the student, each checked against Keras and measured on the test split."""
    results = []
    for quantize, name in _FILES.items():
        path = folder / f"student-{name}.tflite"
        card = export.Card(class_names=data.class_names or None)
        record = export.tflite(student, path, quantize=quantize, calibration=data.x_train[:_CALIBRATION], card=card)
        model = export.load(path)
        predicted = np.concatenate([model(sample[None]) for sample in data.x_test]).argmax(axis=1)
        results.append(ExportResult(record, float((predicted == data.y_test).mean())))
        say(f"{path.name}: {record.bytes / 1000:.1f} kB, test accuracy {results[-1].accuracy:.4f}")
    return tuple(results)


def distill_tree(teacher: keras.Model, data: Dataset, settings: Settings, seed: int, say: Say) -> SoftDecisionTree:
    """Return a soft decision tree distilled from the teacher.

    The teacher labels what the tree learns from, so that the validation images serve too: nothing is chosen by them.
    """
    keras.utils.set_random_seed(seed)
    tree = SoftDecisionTree(depth=settings.tree_depth, num_classes=data.num_classes)
    transfer = _transfer_set(data)
    tree.distill(teacher, transfer, epochs=settings.tree_epochs, verbose=0)
    say(f"distilled on {len(transfer)} samples of train and valid, without their labels")
    return tree


def score_tree(tree: SoftDecisionTree, teacher: keras.Model, data: Dataset, seed: int) -> tuple[TreeScore, ...]:
    """Return the readings of the tree on the test split, and a plain tree of the same depth."""
    from sklearn.tree import DecisionTreeClassifier

    said = teacher.predict(data.x_test, verbose=0).argmax(axis=1)

    def score(reading: str, predicted: np.ndarray) -> TreeScore:
        return TreeScore(reading, float((predicted == data.y_test).mean()), float((predicted == said).mean()))

    modes = {"mixture": "mixture of all leaves", "best_leaf": "best leaf", "greedy": "greedy path"}
    readings = [
        score(name, tree.predict(data.x_test, mode=mode, verbose=0).argmax(axis=1)) for mode, name in modes.items()
    ]
    cart = DecisionTreeClassifier(max_depth=tree.depth, random_state=seed)
    cart.fit(_flat(_transfer_set(data)), np.concatenate([data.y_train, data.y_valid]))
    plain = score("CART of the same depth", cart.predict(_flat(data.x_test)))
    return (*readings, plain)


def _transfer_set(data: Dataset) -> np.ndarray:
    return np.concatenate([data.x_train, data.x_valid])


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def _train_alone(
    model: keras.Model, data: Dataset, settings: Settings, seed: int, rate: float, say: Say
) -> list[float]:
    model.compile(optimizer=_optimizer(data, settings, rate), loss=_task_loss(), metrics=["accuracy"])
    return _fit(model, data, settings, seed, say)


def _fit(model: keras.Model, data: Dataset, settings: Settings, seed: int, say: Say) -> list[float]:
    """Train on batches whose order depends on the seed alone, and return the validation accuracy by epoch."""
    history = model.fit(
        data.tf_data("train", BATCH, shuffle_seed=seed),
        validation_data=data.tf_data("valid", 256),
        epochs=settings.epochs,
        shuffle=False,
        verbose=0,
        callbacks=[_Progress(settings.epochs, say)],
    )
    return [float(value) for value in history.history["val_accuracy"]]


def _task_loss() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _optimizer(data: Dataset, settings: Settings, rate: float) -> keras.optimizers.Optimizer:
    steps = settings.epochs * -(-len(data.x_train) // BATCH)
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))


class _Progress(keras.callbacks.Callback):
    """Says where the training stands, five times over its length."""

    def __init__(self, epochs: int, say: Say) -> None:
        super().__init__()
        self.epochs, self.say = epochs, say

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        done = epoch + 1
        if logs and (done == self.epochs or done % max(1, self.epochs // 5) == 0):
            self.say(
                f"epoch {done}/{self.epochs}: loss {logs['loss']:.4f}, validation accuracy {logs['val_accuracy']:.4f}"
            )
