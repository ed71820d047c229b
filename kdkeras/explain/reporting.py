"""Everything that explains a teacher and its student, on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kdkeras import report as pages
from kdkeras.explain.attribution import attribute
from kdkeras.explain.comparison import ExplanationComparison, compare
from kdkeras.explain.importance_comparison import compare_importance
from kdkeras.explain.insides import class_selectivity, compare_structure, layer_similarity
from kdkeras.explain.measures import faithfulness
from kdkeras.explain.method import Method
from kdkeras.explain.pictures import method_grid
from kdkeras.losses import DistillationLoss

if TYPE_CHECKING:
    from kdkeras.trees import SoftDecisionTree

_IMAGE_METHODS = ("grad_cam", "integrated_gradients", "occlusion")
_TABLE_METHODS = ("integrated_gradients",)


def report(
    teacher: keras.Model,
    student: keras.Model,
    x: Any,
    y: Any = None,
    *,
    path: str | Path | None = None,
    methods: Sequence[str | Method] | None = None,
    losses: Sequence[DistillationLoss] = (),
    tree: SoftDecisionTree | None = None,
    class_names: Sequence[str] = (),
    feature_names: Sequence[str] | None = None,
    shown: int = 6,
    measured: int = 64,
    title: str = "Teacher and student, explained",
    batch_size: int = 32,
    seed: int = 0,
    verbose: int = 0,
) -> pages.Report:
    """Explain a teacher and its student on one page: where they look, how far they agree, is it true, what is inside.

    Args:
        teacher: A Keras model with one input, of images or tables, that returns `(batch, units)`.
        student: Another, with the same inputs and units.
        x: Samples, scaled as in training: images `(n, height, width, channels)` or tables `(n, features)`.
        y: Their labels, shape `(n,)`; without them there is no permutation importance and no class selectivity.
        path: HTML file to write; an older one is replaced when the new one is whole. By default nothing is written.
        methods: Methods of `attribute` to show; the first is compared and measured. By default Grad-CAM, integrated
            gradients and occlusion for images, integrated gradients for tables.
        losses: Distillation losses whose layers are marked, such as `distiller.distillation_losses`.
        tree: A soft decision tree that learned from the same teacher, to be drawn.
        class_names: Name of each class; by default its index.
        feature_names: Name of each column of a table.
        shown: Samples in the pictures. 6 fit a page's width.
        measured: Samples whose explanations are held against the models, which costs some 300 forward passes each.
        title: Title of the page.
        batch_size: Samples per pass.
        seed: Seed of all that is random.
        verbose: 1 shows a progress bar over the parts. 0.

    Returns:
        The `kdkeras.report.Report`; `kdkeras.report.write` makes a page of it, alone or with more sections.

    Raises:
        TypeError: A model is not a Keras model.
        ValueError: x is neither images nor a table, or does not fit a model.
        OSError: The page cannot be written.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> def model(filters):
        ...     layers = [keras.layers.Conv2D(filters, 3, activation="relu"), keras.layers.GlobalAveragePooling2D()]
        ...     return keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(3)])
        >>> images = np.random.default_rng(0).random((8, 8, 8, 1))
        >>> page = explain.report(model(8), model(4), images, methods=["grad_cam"], measured=4)
        >>> [section.title for section in page.sections]
        ['Where they look', 'Is it true?', 'Inside']
    """
    x = np.asarray(x)
    if x.ndim not in (2, 4):
        raise ValueError(
            f"`explain.report` needs images (n, height, width, channels) or a table (n, features). Received: shape "
            f"{x.shape}. Take `explain.attribute` and `explain.faithfulness` for other inputs."
        )
    of_images = x.ndim == 4
    methods = list(methods or (_IMAGE_METHODS if of_images else _TABLE_METHODS))
    progress = keras.utils.Progbar(3 + (tree is not None), verbose=verbose)
    sections, lead = [], ""
    if of_images:
        found = compare(teacher, student, x, method=methods[0], batch_size=batch_size, seed=seed)
        lead = _lead(found)
        sections.append(_agreement(found, shown, class_names))
    elif y is not None:
        importance = compare_importance(teacher, student, x, y, feature_names=feature_names, seed=seed)
        caption = "How much worse each model predicts when a column is shuffled."
        drawn = pages.picture(importance.plot(), alt="Permutation importance of each column.", caption=caption)
        sections.append(pages.Section("What matters to them", pictures=(drawn,)))
    several = methods if of_images and len(methods) > 1 else [] if of_images else methods
    if several:
        sections.append(_methods(teacher, student, x[:shown], several, class_names, batch_size))
    progress.add(1)
    few = x[:measured]
    sections.append(_truth(teacher, student, few, methods[0], batch_size, seed))
    progress.add(1)
    sections.append(_insides(teacher, student, x, y, losses, class_names))
    progress.add(1)
    if tree is not None:
        sections.append(_tree(tree, x[0], class_names, feature_names))
        progress.add(1)
    made = {"samples": f"{len(x)}, of which {len(few)} measured", "seed": f"{seed}"}
    page = pages.Report(title, lead, tuple(sections), made)
    if path is not None:
        pages.write(page, path)
    return page


def _lead(found: ExplanationComparison) -> str:
    cosine, floor = found.summary["cosine"], found.floor_summary["cosine"]
    same = found.same_prediction
    agree = "" if same is None else f"Both predict the same class for {int(same.sum())} of {len(same)} images. "
    if np.isnan(cosine.mean):
        return f"{agree}No pair of {found.teacher.title} maps can be compared: each has one that is zero everywhere."
    by_chance = "" if np.isnan(floor.mean) else f"; with random weights it is {floor.mean:.2f}"
    return f"{agree}The mean cosine of their {found.teacher.title} maps is {cosine.mean:.2f}{by_chance}."


def _agreement(found: ExplanationComparison, shown: int, class_names: Sequence[str]) -> pages.Section:
    pictures = [
        pages.picture(
            found.plot(shown, class_names=class_names),
            alt=f"Images with the {found.teacher.title} maps of teacher and student over them.",
            caption="Each map on its own scale, of the class that the teacher predicts.",
        )
    ]
    if found.summary["cosine"].n:
        spread = found.plot_agreement()
        alt = "How the cosine of the maps is spread over the images."
        pictures.append(pages.picture(spread, alt=alt, caption="Each image counts once.", wide=False))
    zeros = f"All-zero maps: teacher {found.teacher_zeros}, student {found.student_zeros}; their pairs are left out."
    text = ("The random student has the same layers, and weights from which nothing was learned.", zeros)
    return pages.Section("Where they look", text, (pages.Table(tuple(found.table())),), tuple(pictures))


def _methods(
    teacher: keras.Model,
    student: keras.Model,
    x: np.ndarray,
    methods: Sequence[str | Method],
    class_names: Sequence[str],
    batch_size: int,
) -> pages.Section:
    pictures, target = [], None
    for role, model in (("teacher", teacher), ("student", student)):
        explained = [attribute(model, x, target, method, batch_size=batch_size) for method in methods]
        target = explained[0].target  # the teacher's, for both
        if x.ndim == 4:
            figures = [method_grid(explained, len(x), class_names=class_names)]
        else:
            figures = [each.plot(len(x), class_names=class_names) for each in explained]
        names = ", ".join(each.title for each in explained)
        caption = f"The {role}. Red speaks for the class, blue against it, where a method tells the two apart."
        pictures += [pages.picture(figure, alt=f"{names} of the {role}.", caption=caption) for figure in figures]
    return pages.Section("By several methods", (), (), tuple(pictures))


def _truth(
    teacher: keras.Model, student: keras.Model, x: np.ndarray, method: str | Method, batch_size: int, seed: int
) -> pages.Section:
    tables, pictures = [], []
    for role, model in (("Teacher", teacher), ("Student", student)):
        explained = attribute(model, x, method=method, batch_size=batch_size)
        found = faithfulness(model, explained.inputs, explained, batch_size=batch_size, seed=seed)
        caption = f"{role}: {explained.title} of {len(x)} samples, of the class that it predicts itself."
        tables.append(pages.Table(tuple(found.table()), caption))
        if found.zeros + found.constants < len(x):
            alt = f"Deletion and insertion curves of the {role.lower()}."
            pictures.append(pages.picture(found.plot(), alt=alt, caption=f"{role}. Broken lines are random maps."))
    text = ("What the score of a class does when the places that are said to matter are taken away or shown.",)
    return pages.Section("Is it true?", text, tuple(tables), tuple(pictures))


def _insides(
    teacher: keras.Model,
    student: keras.Model,
    x: np.ndarray,
    y: Any,
    losses: Sequence[DistillationLoss],
    class_names: Sequence[str],
) -> pages.Section:
    structure = pages.picture(
        compare_structure(teacher, student, x, losses).plot(),
        alt="The layers of teacher and student side by side.",
        caption="Bars are shares of parameters; lines join what a distillation loss compares.",
    )
    pictures = [structure]
    if len(x) >= 4:
        similarity = layer_similarity(teacher, student, x)
        alt, caption = "Linear CKA of all pairs of layers.", "A dot marks the teacher's nearest layer."
        pictures.append(pages.picture(similarity.plot(), alt=alt, caption=caption, wide=False))
    if y is not None and len(np.unique(y)) > 1 and np.asarray(y).dtype.kind in "iu":
        for role, model in (("teacher", teacher), ("student", student)):
            drawn = class_selectivity(model, x, y).plot(class_names=class_names)
            alt = f"Which class each unit of the {role} prefers."
            pictures.append(pages.picture(drawn, alt=alt, caption=f"Units of the {role}'s last layer of features."))
    return pages.Section("Inside", (), (), tuple(pictures))


def _tree(
    tree: SoftDecisionTree, sample: np.ndarray, class_names: Sequence[str], feature_names: Sequence[str] | None
) -> pages.Section:
    drawn = tree.plot(sample=sample, class_names=list(class_names) or None, feature_names=feature_names)
    picture = pages.picture(
        drawn, alt="The soft decision tree, with one sample's path.", caption="The path of the first sample."
    )
    rules = tree.export_text(feature_names=feature_names, class_names=list(class_names) or None)
    return pages.Section("As a tree", (), (), (picture,), rules, "Rules")
