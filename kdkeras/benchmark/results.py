"""What a benchmark has found: its runs, and one row per pair and loss."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdkeras._files import atomic_path
from kdkeras.benchmark.plan import ALONE, REFERENCE, Cell, Settings

# Each measure's heading, the factor it is shown by, and its decimals.
MEASURES = {
    "accuracy": ("accuracy, %", 100, 2),
    "best_accuracy": ("best epoch, %", 100, 2),
    "agreement": ("agreement, %", 100, 2),
    "kl_to_teacher": ("KL to teacher", 1, 3),
    "explanation": ("Grad-CAM cosine", 1, 3),
    "cost": ("step cost", 1, 2),
}


@dataclass(frozen=True)
class Figure:
    """A mean over seeds.

    Attributes:
        mean: The mean.
        sd: Standard deviation of the sample (n − 1); `None` for one seed.
        n: Number of seeds.
    """

    mean: float
    sd: float | None
    n: int

    def shown(self, factor: float, decimals: int) -> str:
        """Return `mean ± sd` as text, times a factor."""
        sd = "" if self.sd is None else f" ± {factor * self.sd:.{decimals}f}"
        return f"{factor * self.mean:.{decimals}f}{sd}"


@dataclass(frozen=True)
class Row:
    """One loss on one pair of networks.

    Attributes:
        pair: Name of the pair.
        loss: Name of the loss.
        figures: Figure of each measure of `MEASURES`; `None` where it was not taken.
        verdict: `"better"`, `"worse"` or `"even"` in accuracy against soft targets, by a two-sided t-test of the
            differences seed by seed at 5 %; `""` for one seed, and for soft targets themselves.
    """

    pair: str
    loss: str
    figures: dict[str, Figure | None]
    verdict: str


@dataclass(frozen=True)
class BenchmarkResult:
    """All finished runs of a benchmark.

    Attributes:
        settings: What they have in common.
        runs: The figures of each run.
        planned: Number of runs when all are finished.
        out: The folder.
    """

    settings: Settings
    runs: tuple[dict[str, Any], ...]
    planned: int
    out: Path

    @property
    def rows(self) -> list[Row]:
        """One row per pair and loss, in the order of the runs."""
        keys = dict.fromkeys((run["pair"], run["loss"]) for run in self.runs)
        return [self._row(pair, loss) for pair, loss in keys]

    def _row(self, pair: str, loss: str) -> Row:
        runs = {run["seed"]: self._measured(run) for run in self.runs if (run["pair"], run["loss"]) == (pair, loss)}
        figures = {name: _figure([run[name] for run in runs.values()]) for name in MEASURES}
        reference = {
            run["seed"]: self._measured(run) for run in self.runs if (run["pair"], run["loss"]) == (pair, REFERENCE)
        }
        differences = [runs[seed]["accuracy"] - reference[seed]["accuracy"] for seed in runs if seed in reference]
        return Row(pair, loss, figures, "" if loss == REFERENCE else _verdict(differences))

    def _measured(self, run: dict[str, Any]) -> dict[str, float | None]:
        """Return the figures of one run by the names of `MEASURES`; the cost against the student alone of its seed."""
        alone = [
            other["step_ms"]
            for other in self.runs
            if (other["pair"], other["loss"], other["seed"]) == (run["pair"], ALONE, run["seed"])
        ]
        last = run["last"]
        return {
            "accuracy": last["accuracy"],
            "best_accuracy": run["best"]["accuracy"],
            "agreement": last["agreement"],
            "kl_to_teacher": last["kl_to_teacher"],
            "explanation": last.get("explanation"),
            "cost": run["step_ms"] / alone[0] if alone else None,
        }

    def teacher(self, pair: str) -> Figure:
        """Return the test accuracy of a pair's teachers.

        Args:
            pair: Name of the pair.

        Returns:
            Its mean over the seeds.
        """
        of_seeds = {run["seed"]: run["teacher_accuracy"] for run in self.runs if run["pair"] == pair}
        return _figure(list(of_seeds.values()))

    def larger(self, pair: str) -> dict[str, int]:
        """Return the parameters of students that are not as large as the student alone: what a loss leaves in them.

        Args:
            pair: Name of the pair.

        Returns:
            Numbers of parameters by the loss.
        """
        sizes = {run["loss"]: run["parameters"]["student"] for run in self.runs if run["pair"] == pair}
        return {loss: size for loss, size in sizes.items() if size != sizes.get(ALONE, size)}

    def table(self, pair: str) -> list[tuple[str, ...]]:
        """Return the rows of one pair as text: a header, then the losses by falling accuracy.

        Args:
            pair: Name of the pair.

        Returns:
            Lines of cells.
        """
        rows = sorted((row for row in self.rows if row.pair == pair), key=lambda row: -row.figures["accuracy"].mean)
        shown = [name for name in MEASURES if any(row.figures[name] for row in rows)]
        header = ("loss", *(MEASURES[name][0] for name in shown), "verdict")
        return [header, *((row.loss, *(_text(row.figures[name], name) for name in shown), row.verdict) for row in rows)]

    def csv(self) -> str:
        """Return one line per run: its pair, loss and seed, and every figure."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        names = ("accuracy", "agreement", "kl_to_teacher", "valid_accuracy", "explanation")
        writer.writerow(
            ["pair", "loss", "seed", *names, "best_epoch", "best_accuracy", "best_agreement", "step_ms", "seconds"]
        )
        for run in self.runs:
            last, best = run["last"], run["best"]
            figures = [*(last.get(name) for name in names), best["epoch"], best["accuracy"], best["agreement"]]
            writer.writerow([run["pair"], run["loss"], run["seed"], *figures, run["step_ms"], run["seconds"]])
        return buffer.getvalue()


def load(folder: str | Path) -> BenchmarkResult:
    """Return what a finished benchmark has found.

    Args:
        folder: Its folder, with `record.json` in it.

    Returns:
        The result.

    Raises:
        FileNotFoundError: There is no record.
        ValueError: The record is damaged.
    """
    path = Path(folder) / "record.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        runs = tuple(record["runs"])
        return BenchmarkResult(Settings(**record["settings"]), runs, len(runs), path.parent)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        problem = f"'{path}' is not the record of a benchmark: {error!r}. Run `kdkeras benchmark` anew."
        raise ValueError(problem) from error


def _figure(values: Sequence[float | None]) -> Figure | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Figure(statistics.mean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


def _text(figure: Figure | None, measure: str) -> str:
    return "–" if figure is None else figure.shown(*MEASURES[measure][1:])


def _verdict(differences: Sequence[float]) -> str:
    if len(differences) < 2:
        return ""
    from scipy.stats import t

    mean = statistics.mean(differences)
    error = statistics.stdev(differences) / len(differences) ** 0.5
    if mean == 0 or abs(mean) <= t.ppf(0.975, len(differences) - 1) * error:
        return "even"
    return "better" if mean > 0 else "worse"


def result_path(folder: Path, cell: Cell) -> Path:
    """Return the file of one run.

    Args:
        folder: Folder of the benchmark.
        cell: The run.

    Returns:
        A JSON file.
    """
    return folder / "runs" / f"{cell.key}.json"


def write_run(folder: Path, cell: Cell, settings: Settings, figures: dict[str, Any]) -> None:
    """Keep the figures of a run, whole or not at all.

    Args:
        folder: Folder of the benchmark.
        cell: The run.
        settings: Settings of the benchmark.
        figures: Its figures.
    """
    with atomic_path(result_path(folder, cell)) as temporary:
        text = json.dumps({"settings": settings.fingerprint(), **figures}, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_run(folder: Path, cell: Cell, settings: Settings) -> dict[str, Any] | None:
    """Return the figures of a finished run.

    Args:
        folder: Folder of the benchmark.
        cell: The run.
        settings: Settings of the benchmark.

    Returns:
        Its figures; `None` where there are none, or none that can be read.

    Raises:
        ValueError: They belong to other settings.
    """
    path = result_path(folder, cell)
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):  # damaged: the run is repeated
        return None
    if figures.pop("settings", None) != settings.fingerprint():
        raise ValueError(
            f"'{folder}' holds runs of other settings (see '{path.name}'). Choose another folder with --out, or the "
            "settings of those runs."
        )
    return figures
