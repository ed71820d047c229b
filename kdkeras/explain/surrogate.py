"""Global surrogates: a readable model that imitates a network everywhere, and how far it can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np

from kdkeras.explain.importance import FeatureImportance, feature_importance
from kdkeras.students import Fidelity, Student
from kdkeras.students.fidelity import between
from kdkeras.students.learning import from_logits, teacher_logits


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A readable model that imitates another, with its fidelity.

    Attributes:
        model: Name of the model that is imitated.
        student: The surrogate, a `kdkeras.students.Student`.
        fidelity: How close it comes to the model on held-out samples: the figure to believe it by.
        train_fidelity: The same on the samples that it was fitted to, which flatters.
        importance: What the surrogate relies on: how much worse it tells the model's answers of held-out samples when a
            column is shuffled.
        text: The surrogate in words: rules, or terms.
    """

    model: str
    student: Student
    fidelity: Fidelity
    train_fidelity: Fidelity
    importance: FeatureImportance = field(repr=False)
    text: str = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain Python values, ready for JSON."""
        return {
            "model": self.model,
            "kind": self.student.kind,
            "parameters": self.student.parameters,
            "fidelity": asdict(self.fidelity),
            "train_fidelity": asdict(self.train_fidelity),
            "importance": self.importance.to_dict(),
            "text": self.text,
        }

    def __str__(self) -> str:
        return (
            f"Surrogate of '{self.model}', {self.student}\nheld out: {self.fidelity}\nfitted to: {self.train_fidelity}"
            f"\n\n{self.text}"
        )


def surrogate(
    model: Any,
    x: Any,
    kind: str = "tree",
    *,
    size: int | None = None,
    feature_names: Sequence[str] = (),
    class_names: Sequence[str] = (),
    held_out: float = 0.25,
    head: str | None = None,
    repeats: int = 10,
    seed: int = 0,
) -> Surrogate:
    """Fit a readable model to a network's answers on x, and measure on held-out rows how well it imitates them.

    A surrogate explains the network as far as its fidelity reaches: where the two differ, what is read from the
    surrogate is not true of the network. It is `kdkeras.students.distill` with a part of x held out; of a soft decision
    tree, `SoftDecisionTree.to_hard_tree` gives an ordinary classifier of its classes.

    Args:
        model: A Keras model, or anything that `students.distill` takes.
        x: Samples, shape `(n, ...)`, labels are not needed; images are flattened.
        kind: `"linear"`, `"lasso"`, `"additive"`, `"tree"`, `"forest"` or `"gradient_boosting"`.
        size: Leaves, trees, rounds or features, as for `students.distill`.
        feature_names: Name of each feature; by default `"feature 0"` and so on.
        class_names: Name of each class; by default its index.
        held_out: Share of x that is held out, in (0, 1). Default a quarter.
        head: What the answers of a function have gone through, as for `students.distill`.
        repeats: Shuffles of each column for the importance. Default 10: images have many columns.
        seed: Of the split, the surrogate and the shuffles.

    Returns:
        The `Surrogate`.

    Raises:
        TypeError: The model gives no answers.
        ValueError: `kind`, `size`, `held_out`, the names or the samples do not fit; fewer than 8 samples.

    Example:
        >>> import numpy as np
        >>> from kdkeras import explain
        >>> x = np.random.default_rng(0).normal(size=(400, 2))
        >>> found = explain.surrogate(lambda x: np.where(x[:, :1] > 0, [[0.1, 0.9]], [[0.8, 0.2]]), x, head="softmax")
        >>> found.fidelity.agreement, found.student.nodes, found.importance.importances.round(3)[1]
        (1.0, 3, np.float64(0.0))

    Reference:
        Molnar: Interpretable Machine Learning, chapter "Global surrogate". Craven, Shavlik: Extracting Tree-Structured
        Representations of Trained Networks, 1996.
    """
    x = np.asarray(x)
    if not 0 < held_out < 1:
        raise ValueError(f"`held_out` must lie between 0 and 1, such as 0.25. Received: held_out={held_out}.")
    if x.ndim < 2 or len(x) < 8:
        raise ValueError(f"A surrogate needs 8 samples or more, of shape (n, ...). Received: shape {x.shape}.")
    order = np.random.default_rng(seed).permutation(len(x))
    tests = min(max(1, round(held_out * len(x))), len(x) - 4)
    test, train = x[order[:tests]], x[order[tests:]]
    said = [teacher_logits(model, part, head) for part in (train, test)]
    student = from_logits(train, *said[0], kind, size, seed)
    text = student.export_text(feature_names, class_names)
    fitted, found = (
        between(logits, student.logits(part), None, end)
        for part, (logits, end) in zip((train, test), said, strict=True)
    )
    return Surrogate(
        model.name if isinstance(model, keras.Model) else type(model).__name__,
        student,
        found,
        fitted,
        feature_importance(
            student,
            test.reshape(len(test), -1),
            _answers(*said[1]),
            feature_names=feature_names,
            repeats=repeats,
            seed=seed,
        ),
        text,
    )


def _answers(logits: np.ndarray, head: str) -> np.ndarray:
    """Return the classes that a model names, or its numbers."""
    if logits.shape[1] > 1:
        return logits.argmax(axis=1)
    return logits[:, 0] if head == "linear" else (logits[:, 0] > 0).astype("int64")
