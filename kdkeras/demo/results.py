"""What the demo found, as plain records."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kdkeras.evaluate import Comparison
from kdkeras.export import TFLiteExport


@dataclass(frozen=True)
class ExportResult:
    """One TFLite file of the distilled student.

    Attributes:
        export: What the parity gate measured.
        accuracy: Accuracy of the file itself on the test split, run in LiteRT.
    """

    export: TFLiteExport
    accuracy: float

    def moved_to(self, folder: Path) -> ExportResult:
        """Return the result with its file in `folder`."""
        return replace(self, export=replace(self.export, path=folder / self.export.path.name))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return self.export.to_dict() | {"path": self.export.path.name, "accuracy": self.accuracy}


@dataclass(frozen=True)
class TreeScore:
    """One way to read a tree.

    Attributes:
        reading: `"mixture"`, `"best leaf"`, `"greedy"`, or the plain CART beside it.
        accuracy: Share of test samples whose class is right.
        fidelity: Share of test samples on which the tree's class is the teacher's.
    """

    reading: str
    accuracy: float
    fidelity: float


@dataclass(frozen=True)
class DemoResult:
    """All that one run of the demo found.

    Attributes:
        data: Name of the data set.
        seed: Seed of the run.
        quick: Whether it was a shortened run, whose figures mean nothing.
        comparison: Teacher, student alone and student distilled on the test split.
        exports: The TFLite files.
        tree: Readings of the soft decision tree, and a CART of the same depth.
        explanation: Agreement of explanations: of the student alone and of the distilled one with the teacher.
        settings: How it was made, by name.
        seconds: Wall time of each stage.
        out: The output folder.
    """

    data: str
    seed: int
    quick: bool
    comparison: Comparison
    exports: tuple[ExportResult, ...]
    tree: tuple[TreeScore, ...]
    explanation: dict[str, dict[str, Any]]
    settings: dict[str, str]
    seconds: dict[str, float]
    out: Path

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "data": self.data,
            "seed": self.seed,
            "quick": self.quick,
            "comparison": self.comparison.to_dict(),
            "exports": [export.to_dict() for export in self.exports],
            "tree": [asdict(score) for score in self.tree],
            "explanation": self.explanation,
            "settings": self.settings,
            "seconds": self.seconds,
        }

    def export_table(self) -> list[tuple[str, ...]]:
        """Return the TFLite figures as text: a header, then one line per file."""
        header = ("TFLite file", "size", "accuracy", "agrees with Keras", "1 thread", "2 threads")
        lines = [
            (
                result.export.path.name,
                f"{result.export.bytes / 1000:.1f} kB",
                f"{result.accuracy:.4f}",
                "–" if result.export.agreement is None else f"{result.export.agreement:.2%}",
                f"{result.export.latency_1_thread.median:.3f} ms",
                f"{result.export.latency_2_threads.median:.3f} ms",
            )
            for result in self.exports
        ]
        return [header, *lines]

    def tree_table(self) -> list[tuple[str, ...]]:
        """Return the tree's figures as text: a header, then one line per reading."""
        header = ("tree", "accuracy", "fidelity to the teacher")
        return [header, *((score.reading, f"{score.accuracy:.4f}", f"{score.fidelity:.4f}") for score in self.tree)]
