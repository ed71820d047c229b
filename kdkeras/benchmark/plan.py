"""Which runs a benchmark consists of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from kdkeras import recipes
from kdkeras.benchmark.networks import PAIRS

ALONE = "student_alone"  # the row without any teacher
REFERENCE = "soft_targets"  # what every other loss is held against
RECIPE = "benchmark"  # name of the recipes that the benchmark reads


@dataclass(frozen=True)
class Settings:
    """What all runs of a benchmark have in common.

    Attributes:
        data: Name of an image data set that `kdkeras.datasets.load` knows.
        images: Number of training images.
        epochs: Epochs of each student.
        teacher_epochs: Epochs of each teacher.
        batch_size: Samples per step.
        learning_rate: Adam's for students, at the start of a cosine to 0.
        teacher_learning_rate: The same for teachers.
        explained: Number of test images whose Grad-CAM maps are compared.
    """

    data: str = "fashion_mnist"
    images: int = 10_000
    epochs: int = 8
    teacher_epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 5e-3
    teacher_learning_rate: float = 2e-3
    explained: int = 200

    def fingerprint(self) -> str:
        """Return a short hash, by which runs of other settings are told apart."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Cell:
    """One student to be trained.

    Attributes:
        pair: Name of the network pair.
        loss: Name of the loss, or `ALONE`.
        seed: Seed of teacher, student and batches.
        factor: Factor on the weight that the recipe gives the loss.
    """

    pair: str
    loss: str
    seed: int
    factor: float = 1.0

    @property
    def label(self) -> str:
        """What its row is called."""
        return self.loss if self.factor == 1 else f"{self.loss} × {self.factor:g}"

    @property
    def key(self) -> str:
        """Name of the file that holds its result."""
        return f"{self.pair.replace(' ', '-')}--{self.label.replace(' × ', '-x')}--{self.seed}"

    def __str__(self) -> str:
        return f"{self.pair} · {self.label} · seed {self.seed}"


def cells(
    losses: Sequence[str] | str, seeds: int, pairs: Sequence[str] | None = None, factors: Sequence[float] = (1.0,)
) -> list[Cell]:
    """Return all runs, those of the first seed first, so that an unfinished benchmark shows every loss.

    Args:
        losses: Names of losses, or `"all"` for all that have a recipe for the benchmark.
        seeds: Number of seeds.
        pairs: Names of network pairs; by default all.
        factors: Factors on the weights of the losses, each of which makes a run of its own; soft targets have 1 only.

    Returns:
        The cells: for each pair its student alone, soft targets, and the losses that suit it.

    Raises:
        ValueError: A loss or a pair is unknown, a loss has no recipe for the benchmark, there are no seeds, or no
            factors above 0.

    Example:
        >>> from kdkeras.benchmark.plan import cells
        >>> [cell.loss for cell in cells(["hard_targets"], 1) if cell.pair == "same family"]
        ['student_alone', 'soft_targets', 'hard_targets']
    """
    if seeds < 1:
        raise ValueError(f"A benchmark needs at least one seed. Received: {seeds}.")
    if not factors or not all(0 < factor < float("inf") for factor in factors):
        raise ValueError(f"A benchmark needs factors above 0 for the weights. Received: {list(factors)}.")
    chosen = _with_recipe() if losses == "all" else list(dict.fromkeys(losses))
    for loss in chosen:
        recipes.recipe(loss, RECIPE)
    known = [pair.name for pair in PAIRS]
    if unknown := set(pairs or ()) - set(known):
        raise ValueError(f"A benchmark knows the pairs {', '.join(known)}. Received: {', '.join(sorted(unknown))}.")
    return [
        Cell(pair.name, loss, seed, factor)
        for seed in range(seeds)
        for pair in PAIRS
        if (pairs is None or pair.name in pairs) and any(_suits(loss, pair.kind) for loss in chosen)
        for loss in (ALONE, REFERENCE, *(loss for loss in chosen if loss != REFERENCE))
        if loss == ALONE or _suits(loss, pair.kind)
        for factor in ((1.0,) if loss in (ALONE, REFERENCE) else dict.fromkeys(factors))
    ]


def _with_recipe() -> list[str]:
    return [loss for loss in recipes.names() if RECIPE in recipes.entry(loss).recipes]


def _suits(loss: str, kind: str) -> bool:
    """Whether a loss can compare networks of a kind: those for transformers have layers that others lack."""
    entry = recipes.entry(loss)
    if entry.kind == "transformers":
        return kind == "transformer"
    return kind == "convolution" or entry.kind == "logits"
