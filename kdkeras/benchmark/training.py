"""One teacher, or one student under one loss, trained and measured."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kdkeras
from kdkeras import losses, recipes
from kdkeras._files import atomic_path
from kdkeras.benchmark.networks import PAIRS, NetworkPair
from kdkeras.benchmark.plan import ALONE, RECIPE, Cell, Settings
from kdkeras.datasets import Dataset
from kdkeras.scores import classification_scores

_TASK = keras.losses.SparseCategoricalCrossentropy


class StepClock(keras.callbacks.Callback):
    """CPU time per training step, of every epoch but the first, in which the step is compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.milliseconds: list[float] = []
        self._start = 0.0
        self._steps = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self._start, self._steps = time.process_time(), 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count a step."""
        self._steps += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop the clock."""
        self.milliseconds.append(1000 * (time.process_time() - self._start) / self._steps)

    @property
    def median(self) -> float:
        """Median over the epochs."""
        return statistics.median(self.milliseconds[1:] or self.milliseconds)


class BestWeights(keras.callbacks.Callback):
    """Keeps the student's weights of the epoch with the highest validation accuracy; the teacher is not asked again."""

    def __init__(self, student: keras.Model, data: Dataset) -> None:
        super().__init__()
        self.student, self.data = student, data
        self.best, self.epoch, self.latest = -1.0, 0, 0.0
        self.weights: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep the weights if they are better."""
        self.latest = _accuracy(self.data.y_valid, _logits(self.student, self.data.x_valid))
        if self.latest > self.best:
            self.best, self.epoch, self.weights = self.latest, epoch + 1, self.student.get_weights()


def pair_of(name: str) -> NetworkPair:
    """Return a network pair by name.

    Args:
        name: Its name.

    Returns:
        The pair.
    """
    return next(pair for pair in PAIRS if pair.name == name)


def teacher_path(folder: Path, pair: NetworkPair, seed: int) -> Path:
    """Return where a teacher is kept; pairs with the same teacher share it.

    Args:
        folder: Folder of the benchmark.
        pair: The network pair.
        seed: Its seed.

    Returns:
        A `.keras` file.
    """
    return folder / "teachers" / f"{pair.kind}-{seed}.keras"


def train_teacher(pair: NetworkPair, seed: int, data: Dataset, settings: Settings, folder: Path) -> None:
    """Train the teacher of a pair on the labels, and keep it.

    Args:
        pair: The network pair.
        seed: Seed of its weights and batches.
        data: The data.
        settings: Settings of the benchmark.
        folder: Folder of the benchmark.
    """
    keras.utils.set_random_seed(seed)
    teacher = pair.teacher(data.input_shape, data.num_classes)
    epochs = settings.teacher_epochs
    optimizer = _optimizer(data, settings, epochs, settings.teacher_learning_rate)
    teacher.compile(optimizer, _TASK(from_logits=True), metrics=["accuracy"])
    teacher.fit(data.tf_data("train", settings.batch_size, seed), epochs=epochs, shuffle=False, verbose=0)
    with atomic_path(teacher_path(folder, pair, seed)) as temporary:
        teacher.save(temporary)


def run_cell(cell: Cell, data: Dataset, settings: Settings, folder: Path) -> dict[str, Any]:
    """Train and measure one student.

    Args:
        cell: The run.
        data: The data.
        settings: Settings of the benchmark.
        folder: Folder of the benchmark, with the teacher in it.

    Returns:
        The figures, ready for JSON.
    """
    pair = pair_of(cell.pair)
    teacher = keras.models.load_model(teacher_path(folder, pair, cell.seed))
    keras.utils.set_random_seed(1000 + cell.seed)  # all losses of a seed start from the same student
    student = pair.student(data.input_shape, data.num_classes)
    model = compiled(cell, student, teacher, data, settings)
    clock, best = StepClock(), BestWeights(student, data)
    callbacks = [clock, best, *_warm_up(cell, model, settings)]
    start = time.perf_counter()
    model.fit(_batches(data, settings, cell), epochs=settings.epochs, callbacks=callbacks, shuffle=False, verbose=0)
    deployed = _deployed(model, student, teacher)
    theirs = _answers(teacher, teacher_path(folder, pair, cell.seed).with_suffix(".npy"), data)
    last = _figures(deployed, theirs, data)
    if pair.kind == "convolution":
        last["explanation"] = _explanation_agreement(deployed, teacher, data, settings)
    last["valid_accuracy"] = best.latest
    if deployed is student:
        student.set_weights(best.weights)
        at_best = {**_figures(student, theirs, data), "epoch": best.epoch}
    else:  # what `fit` validates is not what is deployed
        at_best = {**last, "epoch": settings.epochs}
    return {
        "pair": cell.pair,
        "loss": cell.label,
        "seed": cell.seed,
        "last": last,
        "best": at_best,
        "step_ms": clock.median,
        "seconds": time.perf_counter() - start,
        "teacher_accuracy": _accuracy(data.y_test, theirs),
        "parameters": {"student": deployed.count_params(), "teacher": teacher.count_params()},
    }


def compiled(cell: Cell, student: keras.Model, teacher: keras.Model, data: Dataset, settings: Settings) -> keras.Model:
    """Return what is fitted so that the student learns.

    Args:
        cell: The run.
        student: The student.
        teacher: The teacher.
        data: The data.
        settings: Settings of the benchmark.

    Returns:
        The student itself, or a `kdkeras.Distiller`.
    """
    arguments = {
        "optimizer": _optimizer(data, settings, settings.epochs, settings.learning_rate),
        "metrics": ["accuracy"],
    }
    if cell.loss == ALONE:
        student.compile(loss=_TASK(from_logits=True), **arguments)
        return student
    recipe = recipes.recipe(cell.loss, RECIPE)
    terms = [losses.get(name, **settings) for name, settings in recipe.beside.items()]
    terms.append(losses.get(cell.loss, recipe=RECIPE, **_known_here(cell.loss, teacher, data)))
    terms[-1].weight *= cell.factor
    if isinstance(terms[-1], losses.FactorTransfer):
        terms[-1].fit_paraphraser(teacher, data.x_train, epochs=settings.epochs, verbose=0)
    return kdkeras.Distiller(student=student, teacher=teacher).compile(
        loss=_TASK(from_logits=True), distillation_loss=terms, task_weight=recipe.task_weight, **arguments
    )


def _deployed(model: keras.Model, student: keras.Model, teacher: keras.Model) -> keras.Model:
    """Return what goes to the phone: the student, or with SimKD the student under the teacher's classifier."""
    for loss in getattr(model, "distillation_losses", ()):  # the student alone has none
        if isinstance(loss, losses.SimKD):
            return loss.deployable_student(student, teacher)
    return student


def _known_here(loss: str, teacher: keras.Model, data: Dataset) -> dict[str, Any]:
    """Return the arguments of a loss that no recipe can know."""
    if loss == "contrastive_memory":
        negatives = recipes.recipe(loss, RECIPE).settings["negatives"]
        return {"samples": len(data.x_train), "negatives": min(negatives, len(data.x_train))}
    if loss == "overhaul":
        return {"margin": losses.batch_norm_margins(teacher, recipes.recipe(loss, RECIPE).settings["teacher_layer"])}
    return {}


def _optimizer(data: Dataset, settings: Settings, epochs: int, rate: float) -> keras.optimizers.Optimizer:
    steps = epochs * -(-len(data.x_train) // settings.batch_size)
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))


def _batches(data: Dataset, settings: Settings, cell: Cell) -> Any:
    """Return the training data, in an order that the seed fixes; with their numbers where the loss needs them."""
    if cell.loss == ALONE or "index" not in getattr(losses, recipes.entry(cell.loss).loss).needs:
        return data.tf_data("train", settings.batch_size, cell.seed)
    import tensorflow as tf

    x = kdkeras.Indexed(data.x_train, np.arange(len(data.x_train)))
    samples = tf.data.Dataset.from_tensor_slices((x, data.y_train))
    return samples.shuffle(len(data.x_train), seed=cell.seed).batch(settings.batch_size).prefetch(tf.data.AUTOTUNE)


def _warm_up(cell: Cell, model: keras.Model, settings: Settings) -> list[keras.callbacks.Callback]:
    if cell.loss == ALONE:
        return []
    recipe = recipes.recipe(cell.loss, RECIPE)
    if not recipe.warm_up_epochs:
        return []
    loss = model.distillation_losses[-1]
    schedule = kdkeras.callbacks.warm_up(loss.weight, epochs=recipe.warm_up_epochs)
    return [kdkeras.callbacks.Anneal(loss, "weight", schedule)]


def _figures(student: keras.Model, theirs: np.ndarray, data: Dataset) -> dict[str, float | None]:
    """Return the figures of a student on the test split, against what the teacher says of it."""
    scores = classification_scores(data.y_test, _logits(student, data.x_test), theirs)
    return {"accuracy": scores.accuracy, "agreement": scores.agreement, "kl_to_teacher": scores.kl_to_teacher}


def _explanation_agreement(student: keras.Model, teacher: keras.Model, data: Dataset, settings: Settings) -> float:
    """Return the mean cosine of Grad-CAM maps of the last stages."""
    layer = "stage3"
    own = layer if any(each.name == layer for each in student.layers) else None
    images = data.x_test[: settings.explained]
    layers = {"teacher_layer": layer, "student_layer": own}
    compared = kdkeras.explain.compare(teacher, student, images, **layers, floor=False)
    return float(compared.summary["cosine"].mean)


def _answers(teacher: keras.Model, path: Path, data: Dataset) -> np.ndarray:
    """Return what a teacher says of the test split, which every student of a seed is held against: kept in a file."""
    if not path.exists():
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, _logits(teacher, data.x_test))
    return np.load(path)


def _logits(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return model.predict(x, batch_size=500, verbose=0)


def _accuracy(labels: np.ndarray, logits: np.ndarray) -> float:
    return float((logits.argmax(axis=-1) == labels).mean())
