"""Whether a student looks where its teacher looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kdkeras import metrics
from kdkeras.explain.attribution import attribute
from kdkeras.explain.explanation import Explanation
from kdkeras.explain.method import Method
from kdkeras.explain.random_model import random_clone
from kdkeras.explain.subject import prepared, units_of
from kdkeras.explain.summary import Summary, plain, shown, summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class ExplanationComparison:
    """A student's maps beside its teacher's, and how much they agree.

    A map that is zero everywhere has no direction to agree with: its pair is NaN in every measure, counted, and left
    out of the summaries.

    Attributes:
        teacher: The teacher's `Explanation`.
        student: The student's `Explanation`, of the same targets.
        measures: Agreement of each pair of `maps`, shape `(n,)`, by name: `"cosine"`, `"pearson"`, `"spearman"`,
            `"ssim"`, `"top_k_iou"` and `"kl_divergence"` (small is good), as defined in `kdkeras.metrics`.
        top_k: Share of the pixels that `"top_k_iou"` looks at.
        floor: The same of a student whose weights are random, which has learned nothing: what the measures are worth
            where there is no agreement to find. `None` where it was not asked for.
    """

    teacher: Explanation
    student: Explanation
    measures: dict[str, np.ndarray]
    top_k: float
    floor: dict[str, np.ndarray] | None = None

    @property
    def summary(self) -> dict[str, Summary]:
        """The `Summary` of each measure, by name."""
        return {name: summarise(values) for name, values in self.measures.items()}

    @property
    def floor_summary(self) -> dict[str, Summary]:
        """The `Summary` of each measure for the random student, by name; empty where it was not asked for."""
        return {} if self.floor is None else {name: summarise(values) for name, values in self.floor.items()}

    @property
    def same_prediction(self) -> np.ndarray | None:
        """Whether both models predict the same class, boolean `(n,)`; `None` for models with a single output."""
        theirs, ours = (each.predictions for each in (self.teacher, self.student))
        return theirs.argmax(axis=1) == ours.argmax(axis=1) if theirs.shape[1] > 1 else None

    @property
    def by_prediction(self) -> dict[str, tuple[Summary, Summary]]:
        """The `Summary` of each measure where both predict the same class, and where they do not, by name.

        Empty for models with a single output.
        """
        same = self.same_prediction
        if same is None:
            return {}
        return {name: (summarise(each[same]), summarise(each[~same])) for name, each in self.measures.items()}

    @property
    def teacher_zeros(self) -> int:
        """Number of the teacher's maps that are zero everywhere."""
        return int(self.teacher.zero.sum())

    @property
    def student_zeros(self) -> int:
        """Number of the student's maps that are zero everywhere."""
        return int(self.student.zero.sum())

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain Python values, ready for JSON: NaN becomes `None`."""
        return {
            "method": self.teacher.method,
            "teacher": {"model": self.teacher.model, "layer": self.teacher.layer, "zero_maps": self.teacher_zeros},
            "student": {"model": self.student.model, "layer": self.student.layer, "zero_maps": self.student_zeros},
            "n": len(self.teacher.target),
            "top_k": self.top_k,
            "target": self.teacher.target.tolist(),
            "summary": {
                name: {**_record(each), "interval": [plain(end) for end in each.interval]}
                for name, each in self.summary.items()
            },
            "floor": {name: _record(each) for name, each in self.floor_summary.items()} or None,
            "by_prediction": {
                name: {"same": _record(same), "different": _record(different)}
                for name, (same, different) in self.by_prediction.items()
            }
            or None,
            "measures": {name: [plain(value) for value in values] for name, values in self.measures.items()},
        }

    def samples(self, class_names: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return the figures sample by sample, ready for `csv.DictWriter` or a data frame.

        Args:
            class_names: Name of each class; by default its index.

        Returns:
            One dict per sample: `"sample"` (its place), `"target"`, `"teacher"` and `"student"` (what each predicts:
            the class, or the value of a single output), and every measure, `None` where it is not defined.

        Example:
            >>> import keras, numpy as np
            >>> from kdkeras import explain
            >>> layers = [keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
            >>> model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
            >>> comparison = explain.compare(model, model, np.ones((2, 8, 8, 1)), target=1)
            >>> list(comparison.samples()[0])[:5], comparison.samples(["ant", "bee", "cow"])[1]["target"]
            (['sample', 'target', 'teacher', 'student', 'cosine'], 'bee')
        """

        def called(label: int) -> Any:
            return class_names[label] if len(class_names) else int(label)

        def said(predictions: np.ndarray) -> Any:
            return called(predictions.argmax()) if len(predictions) > 1 else float(predictions[0])

        return [
            {
                "sample": place,
                "target": called(target),
                "teacher": said(self.teacher.predictions[place]),
                "student": said(self.student.predictions[place]),
                **{name: plain(values[place]) for name, values in self.measures.items()},
            }
            for place, target in enumerate(self.teacher.target)
        ]

    def table(self) -> list[tuple[str, ...]]:
        """Return the means as text: a header, then one line per measure."""
        names = {"top_k_iou": f"top-{self.top_k:.0%} IoU", "ssim": "SSIM", "kl_divergence": "KL divergence, nats"}
        split, floor = self.by_prediction, self.floor_summary
        header = ["agreement", "mean", "95 % interval"]
        header += ["random student"] * bool(floor) + ["same prediction", "different"] * bool(split) + ["pairs"]
        lines = []
        for name, each in self.summary.items():
            low, high = each.interval
            line = [names.get(name, name.capitalize()), shown(each.mean)]
            line += ["–" if np.isnan(low) else f"{low:.3f} … {high:.3f}"]
            line += [shown(floor[name].mean)] if floor else []
            line += [shown(part.mean) for part in split[name]] if split else []
            lines.append((*line, f"{each.n}"))
        return [tuple(header), *lines]

    def __str__(self) -> str:
        from tabulate import tabulate

        pairs = len(self.teacher.target)
        header, *lines = self.table()
        table = tabulate(lines, header, disable_numparse=True, colalign=("left",) + ("right",) * (len(header) - 1))
        either = int((self.teacher.zero | self.student.zero).sum())
        same = self.same_prediction
        return (
            f"{self.teacher.title} of {pairs} images: teacher {_where(self.teacher)}, "
            f"student {_where(self.student)}\n{table}\n"
            + ("" if same is None else f"same prediction: {int(same.sum())} of {pairs}; ")
            + f"all-zero maps: teacher {self.teacher_zeros}, student {self.student_zeros}; "
            f"{either} of {pairs} pairs left out for them"
            + (
                "; nothing is left to compare: try an earlier `teacher_layer` or `student_layer`"
                if either == pairs
                else ""
            )
        )

    def plot(self, n: int = 6, *, class_names: Sequence[str] = ()) -> Figure:
        """Draw the first images, with the teacher's and the student's map of each over it.

        Args:
            n: Number of images, fewer where there are fewer. 6 fit a page's width.
            class_names: Name of each class; by default its index.

        Returns:
            A matplotlib `Figure`, not registered with pyplot.

        Raises:
            ValueError: `n` is below 1.
        """
        from kdkeras.explain.pictures import overlay_grid

        cosines = ["" if np.isnan(value) else f"cosine {value:.2f}" for value in self.measures["cosine"]]
        rows = [("Teacher", self.teacher), ("Student", self.student)]
        return overlay_grid(rows, n, class_names=class_names, notes=cosines)

    def plot_agreement(self, measure: str = "cosine") -> Figure:
        """Draw how one measure is spread over the samples: same prediction, different prediction, random student.

        Args:
            measure: Name of the measure.

        Returns:
            A matplotlib `Figure`, not registered with pyplot.

        Raises:
            ValueError: There is no such measure, or it is defined for no sample.
        """
        from kdkeras.explain.agreement_pictures import histogram

        if measure not in self.measures:
            raise ValueError(f"`measure` must be one of {', '.join(self.measures)}. Received: measure={measure!r}.")
        values, same = self.measures[measure], self.same_prediction
        groups = {"all images": values}
        if same is not None:
            groups = {"same prediction": values[same], "different prediction": values[~same]}
        random = None if self.floor is None else self.floor[measure]
        name = next(line[0] for line, key in zip(self.table()[1:], self.measures, strict=True) if key == measure)
        return histogram(groups, random, f"{self.teacher.title}: {name} of teacher and student")


def compare(
    teacher: keras.Model,
    student: keras.Model,
    images: Any,
    *,
    target: Any = None,
    method: str | Method = "grad_cam",
    teacher_layer: str | None = None,
    student_layer: str | None = None,
    top_k: float = 0.2,
    floor: bool = True,
    batch_size: int = 32,
    seed: int = 0,
) -> ExplanationComparison:
    """Compare where two models look, by maps of the same class in both.

    Maps are compared at the size of the images, because the two layers seldom have the same resolution.

    Args:
        teacher: A Keras model that takes images and returns `(batch, units)`.
        student: Another, with the same inputs and units.
        images: Images `(n, height, width, channels)`, scaled as in training; for several inputs, a list or dict.
        target: Index of the unit to explain in both: one integer, or one per sample. By default the class that the
            teacher predicts for each image, so that both maps answer the same question.
        method: A name, or a method with its settings, as `attribute` takes them. Default Grad-CAM.
        teacher_layer: Path of the teacher's layer; by default its last one called with height and width above 1.
        student_layer: Path of the student's layer; likewise.
        top_k: Share of the pixels, in (0, 1], of which `top_k_iou` takes the overlap. 0.2: the fifth that matters most.
        floor: Whether to explain a student with random weights too, so that there is something to compare with. It is a
            clone: the student is not changed. Default `True`; costs as much as the student.
        batch_size: Samples per pass. 32, as in Keras' `predict`.
        seed: Seed of the random weights.

    Returns:
        The `ExplanationComparison`; print it to see the table.

    Raises:
        TypeError: A model is not a Keras model.
        ValueError: The models have different numbers of units, or a layer, target or image does not fit; or Keras
            cannot clone the student for the floor.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> def model(filters):
        ...     layers = [keras.layers.Conv2D(filters, 3, activation="relu"), keras.layers.GlobalAveragePooling2D()]
        ...     return keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(3)])
        >>> teacher = model(8)
        >>> images = np.random.default_rng(0).random((4, 8, 8, 1))
        >>> comparison = explain.compare(teacher, teacher, images)
        >>> defined = ~comparison.teacher.zero  # maps that are zero everywhere are NaN
        >>> bool(np.allclose(comparison.measures["cosine"][defined], 1))
        True

    Reference:
        Parchami-Araghi et al., "Good teachers explain: explanation-enhanced knowledge distillation", 2024.
    """
    if not 0 < top_k <= 1:
        raise ValueError(f"`top_k` must be a share in (0, 1], such as 0.2. Received: top_k={top_k}.")
    theirs = attribute(teacher, images, target, method, teacher_layer, batch_size=batch_size)
    if theirs.maps.ndim != 3 or theirs.inputs.ndim not in (3, 4):
        raise ValueError(
            f"`compare` needs images (n, height, width, channels). Received: inputs {theirs.inputs.shape}. For tables "
            "use `kdkeras.explain.compare_importance`."
        )
    # Before the student is explained: a target that it lacks must not be blamed on the caller.
    units = theirs.predictions.shape[1], units_of(student, images)
    if units[0] != units[1]:
        raise ValueError(
            f"Teacher and student must have the same number of units. Received: teacher '{teacher.name}' {units[0]}, "
            f"student '{student.name}' {units[1]}. Compare models of the same classes."
        )
    ours = attribute(student, images, theirs.target, method, student_layer, batch_size=batch_size)
    random = None
    if floor:
        first = keras.tree.map_structure(lambda array: array[:1], prepared(student, images))
        clone = random_clone(student, first, seed)
        by_chance = attribute(clone, images, theirs.target, method, ours.layer, batch_size=batch_size)
        random = agreement(by_chance, theirs, top_k)
    return ExplanationComparison(theirs, ours, agreement(ours, theirs, top_k), top_k, random)


def agreement(student: Explanation, teacher: Explanation, top_k: float) -> dict[str, np.ndarray]:
    """Return how much the maps of two explanations agree.

    Args:
        student: Of any inputs.
        teacher: Of the same inputs and targets.
        top_k: As `compare` takes it.

    Returns:
        The measures of an `ExplanationComparison`; `"ssim"` of images only.
    """
    of_images = teacher.maps.ndim == 3 and teacher.inputs.ndim in (3, 4)
    # A row of features is a map of height 1.
    pair = [each.maps if of_images else each.maps.reshape(len(each.maps), 1, -1) for each in (student, teacher)]
    span = 2.0 if student.has_sign or teacher.has_sign else 1.0
    measures = {
        "cosine": metrics.cosine(*pair),
        "pearson": metrics.pearson(*pair),
        "spearman": metrics.spearman(*pair),
    }
    if of_images:
        window = min(7, *teacher.maps.shape[1:])  # images smaller than the usual window get one of their size
        measures["ssim"] = metrics.ssim(*pair, data_range=span, window=window)
    measures["top_k_iou"] = metrics.top_k_iou(*pair, top_k=top_k)
    measures["kl_divergence"] = metrics.kl_divergence(*pair)
    either_zero = student.zero | teacher.zero
    return {name: np.where(either_zero, np.nan, values) for name, values in measures.items()}


def _where(explanation: Explanation) -> str:
    return f"'{explanation.model}'" + (f" at {explanation.layer}" if explanation.layer else "")


def _record(summary: Summary) -> dict[str, Any]:
    return {"mean": plain(summary.mean), "sd": plain(summary.sd), "n": summary.n}
