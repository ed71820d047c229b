"""How the demo trains on each data set."""

from __future__ import annotations

from dataclasses import dataclass, replace

BATCH = 32
TEMPERATURE = 4.0  # the setting of RepDistiller and mdistiller, like the two weights
SOFT_WEIGHT = 0.9
TASK_WEIGHT = 0.1
TEACHER_RATE = 3e-3
STUDENT_RATE = 1e-2


@dataclass(frozen=True)
class Settings:
    """Sizes of one run.

    Attributes:
        epochs: Epochs of teacher and students alike.
        tree_depth: Depth of the soft decision tree.
        tree_epochs: Epochs of the tree.
        explained: Test samples whose explanations are compared.
        limit: Training samples that are used; `None` for all.
    """

    epochs: int
    tree_depth: int
    tree_epochs: int
    explained: int
    limit: int | None = None


SETTINGS = {
    "digits": Settings(epochs=30, tree_depth=6, tree_epochs=60, explained=360),
    "fashion_mnist": Settings(epochs=6, tree_depth=6, tree_epochs=10, explained=500, limit=10_000),
    "breast_cancer": Settings(epochs=30, tree_depth=3, tree_epochs=60, explained=114),
}


def settings_of(name: str, *, quick: bool) -> Settings:
    """Return the sizes for a data set; `quick` keeps every stage and shrinks it."""
    full = SETTINGS[name]
    if not quick:
        return full
    return replace(full, epochs=2, tree_depth=3, tree_epochs=3, explained=60, limit=300)
