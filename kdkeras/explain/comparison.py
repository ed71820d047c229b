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
from kdkeras.explain.subject import units_of
from kdkeras.explain.summary import Summary, summarise

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
            `"ssim"` and `"top_k_iou"`, as defined in `kdkeras.metrics`.
        top_k: Share of the pixels that `"top_k_iou"` looks at.
    """

    teacher: Explanation
    student: Explanation
    measures: dict[str, np.ndarray]
    top_k: float

    @property
    def summary(self) -> dict[str, Summary]:
        """The `Summary` of each measure, by name."""
        return {name: summarise(values) for name, values in self.measures.items()}

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
                name: {"mean": _plain(mean), "sd": _plain(sd), "n": n} for name, (mean, sd, n) in self.summary.items()
            },
            "measures": {name: [_plain(value) for value in values] for name, values in self.measures.items()},
        }

    def __str__(self) -> str:
        from tabulate import tabulate

        pairs = len(self.teacher.target)
        names = {"top_k_iou": f"top-{self.top_k:.0%} IoU", "ssim": "SSIM"}
        rows = [
            (names.get(name, name.capitalize()), f"{mean:.3f}", f"{sd:.3f}", n)
            for name, (mean, sd, n) in self.summary.items()
        ]
        table = tabulate(
            rows, ("agreement", "mean", "sd", "pairs"), disable_numparse=True, colalign=("left",) + ("right",) * 3
        )
        either = int((self.teacher.zero | self.student.zero).sum())
        return (
            f"{self.teacher.title} of {pairs} images: teacher '{self.teacher.model}' at {self.teacher.layer}, "
            f"student '{self.student.model}' at {self.student.layer}\n{table}\n"
            f"all-zero maps: teacher {self.teacher_zeros}, student {self.student_zeros}; "
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
    batch_size: int = 32,
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
        batch_size: Samples per pass. 32, as in Keras' `predict`.

    Returns:
        The `ExplanationComparison`.

    Raises:
        TypeError: A model is not a Keras model.
        ValueError: The models have different numbers of units, or a layer, target or image does not fit.

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
    return ExplanationComparison(theirs, ours, _measures(ours, theirs, top_k), top_k)


def _measures(student: Explanation, teacher: Explanation, top_k: float) -> dict[str, np.ndarray]:
    window = min(7, *teacher.maps.shape[1:])  # images smaller than the usual window get one of their size
    pair = student.maps, teacher.maps
    measures = {
        "cosine": metrics.cosine(*pair),
        "pearson": metrics.pearson(*pair),
        "spearman": metrics.spearman(*pair),
        "ssim": metrics.ssim(*pair, window=window),
        "top_k_iou": metrics.top_k_iou(*pair, top_k=top_k),
    }
    either_zero = student.zero | teacher.zero
    return {name: np.where(either_zero, np.nan, values) for name, values in measures.items()}


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
