"""The demo's results as pictures and as a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdkeras.datasets import Dataset
from kdkeras.demo.results import DemoResult
from kdkeras.explain import ExplanationComparison, ImportanceComparison
from kdkeras.report import Picture, Report, Section, Table, picture, training_curves
from kdkeras.trees import SoftDecisionTree

_SHOWN = 6  # pairs of maps that fit a page's width
_MEASURES = {
    "cosine": "cosine",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "ssim": "SSIM",
    "top_k_iou": "top-20 % IoU",
}


def draw(
    data: Dataset,
    curves: Mapping[str, Sequence[float]],
    explanation: ExplanationComparison | ImportanceComparison,
    tree: SoftDecisionTree,
) -> dict[str, Picture]:
    """Return the demo's pictures by name: training curves, explanations, and the tree with one sample's path."""
    names = data.class_names
    sample = {"sample": data.x_test[0], "class_names": names, "feature_names": data.feature_names or None}
    curve = picture(
        training_curves(curves, ylabel="validation accuracy"),
        alt="Validation accuracy over the epochs of teacher, student alone and student distilled.",
        caption="Both students start from the same weights and see the same batches.",
        wide=False,
    )
    if isinstance(explanation, ExplanationComparison):
        pairs = picture(
            explanation.plot(_SHOWN, class_names=names),
            alt="Test images with the Grad-CAM maps of the teacher and of the distilled student over them.",
            caption="Bright is what speaks for the teacher's top class, each map on its own scale.",
        )
    else:
        pairs = picture(
            explanation.plot(),
            alt="Permutation importance of each feature for the teacher and for the distilled student.",
            caption="How much worse each model predicts when a column is shuffled.",
        )
    whole = picture(
        tree.plot(**sample),
        alt="The soft decision tree, with the path of the first test sample to its leaf.",
        caption=f"Path of the first test sample, whose label is {names[data.y_test[0]]}.",
    )
    return {"curves": curve, "explanation": pairs, "tree": whole}


def tell(result: DemoResult, pictures: Mapping[str, Picture], data: Dataset, tree: SoftDecisionTree) -> Report:
    """Return the report of one run."""
    table = Table(tuple(result.comparison.table()), f"On the {result.comparison.samples} test samples.")
    rules = tree.export_text(feature_names=data.feature_names or None, class_names=data.class_names)
    sections = (
        Section("Teacher and students", _comparison_text(result), (table,)),
        Section(
            "Training",
            ("Accuracy on the validation split, which no model is trained on.",),
            pictures=(pictures["curves"],),
        ),
        _explanation_section(result, pictures["explanation"]),
        Section(
            "On the phone",
            (
                "Each file was run in LiteRT and compared with Keras before it was kept; a file that disagrees is not "
                "written. Latency is the median of one sample on this machine, not on a phone.",
            ),
            (Table(tuple(result.export_table())),),
        ),
        Section(
            "An interpretable student",
            (
                "A soft decision tree, distilled from the same teacher on train and valid without their "
                "labels; the plain tree (CART) beside it learned from the labels of the same samples. The path to the "
                "best leaf is the explanation of a decision.",
            ),
            (Table(tuple(result.tree_table())),),
            (pictures["tree"],),
            rules,
            "The tree as rules",
        ),
    )
    title = f"kdkeras on {data.name}" + (" (quick run: the figures mean nothing)" if result.quick else "")
    return Report(title, lead(result), sections, result.settings)


def lead(result: DemoResult) -> str:
    """Return what one run found, in two sentences."""
    teacher, alone, distilled = (result.comparison[name] for name in ("teacher", "alone", "distilled"))
    change = 100 * (distilled.scores.accuracy - alone.scores.accuracy)
    ratio = teacher.cost.parameters / distilled.cost.parameters
    verdict = f"{change:+.1f} points against the same student on labels alone" if change else "as on labels alone"
    return (
        f"The distilled student has {ratio:.0f}× fewer parameters than its teacher and reaches "
        f"{distilled.scores.accuracy:.1%} test accuracy ({verdict}; teacher {teacher.scores.accuracy:.1%}). "
        f"It decides as its teacher does on {distilled.scores.agreement:.1%} of the test samples. This is one run with "
        f"one seed on {result.comparison.samples} samples: one sample is {1 / result.comparison.samples:.1%}."
    )


def _comparison_text(result: DemoResult) -> tuple[str, ...]:
    return (
        "‘alone’ is the student trained on labels, ‘distilled’ the same student from the same initial weights on the "
        "same batches, with the teacher's soft targets. The weights file holds no optimizer state; latency is one "
        "sample in a compiled tf.function.",
    )


def _explanation_section(result: DemoResult, pairs: Picture) -> Section:
    alone, distilled = result.explanation["alone"], result.explanation["distilled"]
    if "spearman" in alone:
        lines = (
            ("Rank correlation with the teacher", "alone", "distilled"),
            ("Spearman", _figure(alone["spearman"]), _figure(distilled["spearman"])),
        )
        text = "Permutation importance: which columns each model relies on, and whether the two orders agree."
        return Section("Does the student rely on what its teacher relies on?", (text,), (Table(lines),), (pairs,))
    lines = [("Agreement with the teacher's map", "alone", "distilled")]
    lines += [
        (label, *(_mean_sd(found["summary"][name]) for found in (alone, distilled)))
        for name, label in _MEASURES.items()
    ]
    zeros = [f"{found['student']['zero_maps']} of {found['n']}" for found in (alone, distilled)]
    lines.append(("maps that are all zero", *zeros))
    text = (
        f"Grad-CAM at the teacher's top class on {alone['n']} test images (teacher: layer {alone['teacher']['layer']}, "
        f"student: layer {alone['student']['layer']}). Mean ± sd over the pairs in which neither map is all zero; the "
        f"teacher has {alone['teacher']['zero_maps']} such maps."
    )
    return Section("Does the student look where its teacher looks?", (text,), (Table(tuple(lines)),), (pairs,))


def _mean_sd(summary: Mapping[str, Any]) -> str:
    return f"{_figure(summary['mean'])} ± {_figure(summary['sd'])}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
