"""`run`: the whole demo."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras

from kdkeras import datasets, evaluate, explain, report
from kdkeras.datasets import Dataset
from kdkeras.demo import stages, story
from kdkeras.demo.output import output_folder
from kdkeras.demo.results import DemoResult
from kdkeras.demo.settings import BATCH, SETTINGS, SOFT_WEIGHT, TASK_WEIGHT, TEMPERATURE, Settings, settings_of

DATA = tuple(SETTINGS)
_PACKAGES = ("kdkeras", "tensorflow", "keras", "numpy", "scikit-learn", "tf-keras-vis", "ai-edge-litert")
_STAGES = 8


def run(
    data: str = "digits",
    out: str | Path = "kdkeras-demo",
    *,
    seed: int = 0,
    quick: bool = False,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> DemoResult:
    """Train a teacher, a student alone and the same student distilled; export, explain and report.

    Into `out` go the models (`.keras`), four TFLite files of the distilled student, a soft decision tree, the pictures,
    `report.html`, and `record.json` with every figure. They appear together when all has succeeded.

    Args:
        data: `"digits"`, `"fashion_mnist"` or `"breast_cancer"`.
        out: The output folder.
        seed: Seed of initial weights, batch order and dropout.
        quick: Shorten every stage; the figures then mean nothing.
        overwrite: Whether results of an earlier run in `out` may be replaced. Other files there are never touched.
        progress: Called with one line of text at a time.

    Returns:
        The `DemoResult`.

    Raises:
        ValueError: The data set is unknown, or the seed is negative.
        FileExistsError: `out` has files and `overwrite` is off.
        FileNotFoundError: Fashion-MNIST is not installed; the message says how to get it.
        OSError: `out` cannot be written.

    Example:
        >>> from kdkeras import demo
        >>> demo.run("mnist")
        Traceback (most recent call last):
        ValueError: The demo knows the data digits, fashion_mnist, breast_cancer. Received: 'mnist'.
    """
    if data not in DATA:
        raise ValueError(f"The demo knows the data {', '.join(DATA)}. Received: '{data}'.")
    if not 0 <= seed < 2**32:
        raise ValueError(f"A seed is a whole number from 0 to 2³² − 1. Received: {seed}.")
    with output_folder(out, overwrite=overwrite) as folder:
        return _Run(data, folder, Path(out), seed, quick, progress).result()


class _Run:
    """One run: the clock, the voice, and the order of the stages."""

    def __init__(
        self, name: str, folder: Path, out: Path, seed: int, quick: bool, progress: Callable[[str], None]
    ) -> None:
        self.name, self.folder, self.out = name, folder, out
        self.seed, self.quick, self.progress = seed, quick, progress
        self.settings = settings_of(name, quick=quick)
        self.seconds: dict[str, float] = {}

    def result(self) -> DemoResult:
        seed, settings, say = self.seed, self.settings, self.say
        data = self.stage("data", lambda: _load(self.name, settings))
        say(f"{data.source} {len(data.x_train)} to train, {len(data.x_valid)} to validate, {len(data.x_test)} to test")
        teacher, teacher_curve = self.stage("teacher", lambda: stages.train_teacher(data, settings, seed, say))
        alone, alone_curve = self.stage("student alone", lambda: stages.train_student(data, settings, seed, say))
        student, curve = self.stage(
            "student distilled", lambda: stages.distill_student(teacher, data, settings, seed, say)
        )
        models = {"alone": alone, "distilled": student}
        comparison = self.stage("comparison", lambda: evaluate.compare(teacher, models, (data.x_test, data.y_test)))
        exports = self.stage("TFLite", lambda: stages.export_student(student, data, self.folder, say))
        explanations = self.stage("explanation", lambda: _explain(teacher, models, data, settings))
        tree = self.stage("soft decision tree", lambda: stages.distill_tree(teacher, data, settings, seed, say))
        result = DemoResult(
            data=self.name,
            seed=seed,
            quick=self.quick,
            comparison=comparison,
            exports=tuple(export.moved_to(self.out) for export in exports),
            tree=stages.score_tree(tree, teacher, data, seed),
            explanation={name: value.to_dict() for name, value in explanations.items()},
            settings=_settings_text(self, data),
            seconds={name: round(value, 1) for name, value in self.seconds.items()},
            out=self.out,
        )
        curves = {"teacher": teacher_curve, "student alone": alone_curve, "student distilled": curve}
        pictures = story.draw(data, curves, explanations["distilled"], tree)
        self._write(result, pictures, data, tree)
        for name, model in {"teacher": teacher, "student-alone": alone, "student": student, "tree": tree}.items():
            model.save(self.folder / f"{name}.keras")
        return result

    def stage(self, name: str, work: Callable[[], Any]) -> Any:
        """Announce and time one stage."""
        self.progress(f"[{len(self.seconds) + 1}/{_STAGES}] {name}")
        start = time.perf_counter()
        found = work()
        self.seconds[name] = time.perf_counter() - start
        return found

    def say(self, line: str) -> None:
        """Pass on a line from inside a stage."""
        self.progress(f"      {line}")

    def _write(self, result: DemoResult, pictures: dict[str, report.Picture], data: Dataset, tree: Any) -> None:
        (self.folder / "pictures").mkdir()
        for name, picture in pictures.items():
            (self.folder / "pictures" / f"{name}.png").write_bytes(picture.png)
        (self.folder / "record.json").write_text(json.dumps(result.to_dict(), indent=1), encoding="utf-8")
        report.write(story.tell(result, pictures, data, tree), self.folder / "report.html")


def _load(name: str, settings: Settings) -> Dataset:
    data = datasets.load(name)
    if settings.limit is None or settings.limit >= len(data.x_train):
        return data
    # The splits are shuffled already, so that their first samples are a sample of all classes.
    limit = settings.limit
    return dataclasses.replace(data, x_train=data.x_train[:limit], y_train=data.y_train[:limit])


def _explain(
    teacher: keras.Model, students: dict[str, keras.Model], data: Dataset, settings: Settings
) -> dict[str, Any]:
    """Compare the explanations of each student with the teacher's: Grad-CAM, or feature importance for tables."""
    x, y = data.x_test[: settings.explained], data.y_test[: settings.explained]
    if data.kind == "image":
        return {name: explain.compare(teacher, student, x) for name, student in students.items()}
    names = data.feature_names
    return {
        name: explain.compare_importance(teacher, student, x, y, feature_names=names)
        for name, student in students.items()
    }


def _settings_text(run: _Run, data: Dataset) -> dict[str, str]:
    return {
        "data": f"{data.name}. {data.source}",
        "split": f"{len(data.x_train)} train, {len(data.x_valid)} valid, {len(data.x_test)} test, fixed and stratified",
        "seed": str(run.seed),
        "training": f"{run.settings.epochs} epochs, batches of {BATCH}, Adam with cosine decay, last epoch's weights",
        "distillation": f"soft targets: temperature {TEMPERATURE:g}, weight {SOFT_WEIGHT:g}; task {TASK_WEIGHT:g}",
        "tree": f"depth {run.settings.tree_depth}, {run.settings.tree_epochs} epochs on the teacher's probabilities",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in _PACKAGES)]
        ),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "numerics": f"oneDNN {os.environ.get('TF_ENABLE_ONEDNN_OPTS', 'default')}, XLA off",
        "command": f"kdkeras demo --data {run.name} --seed {run.seed}" + (" --quick" if run.quick else ""),
        "seconds": ", ".join(f"{name} {value:.1f}" for name, value in run.seconds.items()),
    }
