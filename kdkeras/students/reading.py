"""What can be read from a student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from kdkeras.students.student import Student


def tree_text(tree: Any, names: Sequence[str], class_names: Sequence[str], *, classes: bool) -> str:
    """Return a tree as indented rules.

    Args:
        tree: A scikit-learn regression tree, of probabilities or of numbers.
        names: Name of each feature that it takes.
        class_names: Name of each class; by default its index.
        classes: Whether its values are probabilities.

    Returns:
        Lines of text.
    """
    shape = tree.tree_

    def lines(node: int, indent: str) -> list[str]:
        left, right = shape.children_left[node], shape.children_right[node]
        if left == right:  # −1 and −1: a leaf
            return [f"{indent}{_leaf(shape.value[node][:, 0], class_names, classes=classes)}"]
        split = f"{names[shape.feature[node]]} <= {shape.threshold[node]:.3g}"
        return [
            f"{indent}if {split}:",
            *lines(left, indent + "    "),
            f"{indent}else:",
            *lines(right, indent + "    "),
        ]

    return "\n".join(lines(0, ""))


def sum_text(student: Student, names: Sequence[str], class_names: Sequence[str], n: int) -> str:
    """Return the terms of a linear or additive student, the largest coefficients first.

    Args:
        student: The student.
        names: Name of each feature that it takes.
        class_names: Name of each class; by default its index.
        n: How many terms.

    Returns:
        A table: of a linear student the coefficients of standardised features, by class where there are more than two;
        of an additive one the range of each term.
    """
    from tabulate import tabulate

    coefficients = np.atleast_2d(student.estimator[-1].coef_)
    if student.kind == "additive":
        groups = coefficients.reshape(len(coefficients), len(names), -1)
        values = np.ptp(groups, axis=2)  # splines are local: the term moves about between its coefficients
        what = "range"
    else:
        values, what = coefficients, "coefficient"
    order = np.argsort(-np.abs(values).mean(axis=0), kind="stable")[:n]
    labels = [what] if len(values) == 1 else [_name(index, class_names) for index in range(len(values))]
    rows = [(names[i], *(f"{value:.3f}" for value in values[:, i])) for i in order]
    table = tabulate(rows, ("feature", *labels), disable_numparse=True, colalign=("left", *["right"] * len(labels)))
    more = len(names) - len(order)
    return table + (f"\nand {more} more features" if more else "")


def _leaf(values: np.ndarray, class_names: Sequence[str], *, classes: bool) -> str:
    if not classes:
        return f"{values[0]:.3g}"
    top = int(values.argmax())
    return f"class {_name(top, class_names)}, probability {values[top]:.2f}"


def _name(index: int, class_names: Sequence[str]) -> str:
    return class_names[index] if len(class_names) else str(index)
