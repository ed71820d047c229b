"""The HTML page of a benchmark: one plot and one table for each pair of networks."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from kdkeras import report
from kdkeras._plain_text import plain_text
from kdkeras.benchmark.plan import ALONE, REFERENCE
from kdkeras.benchmark.results import BenchmarkResult, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PACKAGES = ("kdkeras", "tensorflow", "keras", "numpy")
_COLOURS = {"better": "#3d8b5f", "worse": "#c8642a", "even": "#1f5fa8", "": "#444c56"}


def write(result: BenchmarkResult, path: Path) -> None:
    """Write the page.

    Args:
        result: What the benchmark has found.
        path: The HTML file.

    Raises:
        OSError: The file cannot be written.
    """
    pairs = dict.fromkeys(row.pair for row in result.rows)
    sections = tuple(_section(result, pair) for pair in pairs)
    seeds = len({run["seed"] for run in result.runs})
    losses = {run["loss"] for run in result.runs} - {ALONE}
    lead = (
        f"{len(losses)} distillation losses on {result.settings.data}, {len(pairs)} pairs of networks, {seeds} seeds: "
        f"{len(result.runs)} students. {_found(result)}"
    )
    report.write(report.Report("Distillation losses, compared", lead, sections, made(result)), path)


def made(result: BenchmarkResult) -> dict[str, str]:
    """Return how the figures were made, by name.

    Args:
        result: What the benchmark has found.

    Returns:
        Settings, versions and machine.
    """
    settings = result.settings
    return {
        "data": f"{settings.data}, {settings.images} training images; figures are of the test split",
        "training": f"{settings.epochs} epochs, batches of {settings.batch_size}, Adam with cosine decay from "
        f"{settings.learning_rate:g}; teachers {settings.teacher_epochs} epochs, {settings.teacher_learning_rate:g}",
        "losses": "with the recipe 'benchmark' of kdkeras.recipes: published settings, whose weights were tried at 1, "
        "0.1 and 0.01 times their size on the validation split",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in _PACKAGES)]
        ),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _found(result: BenchmarkResult) -> str:
    verdicts = [row.verdict for row in result.rows if row.loss != ALONE]
    if not any(verdicts):
        return "One seed tells nothing about differences."
    counts = {word: verdicts.count(word) for word in ("better", "even", "worse")}
    return (
        f"Against {REFERENCE}, seed by seed, {counts['better']} are better in accuracy, {counts['worse']} worse and "
        f"{counts['even']} not to be told apart."
    )


def _section(result: BenchmarkResult, pair: str) -> report.Section:
    rows = [row for row in result.rows if row.pair == pair]
    sizes = next(run["parameters"] for run in result.runs if run["pair"] == pair)
    text = (
        f"Teacher {sizes['teacher']:,} parameters and {result.teacher(pair).shown(100, 2)} % accuracy, student "
        f"{sizes['student']:,} parameters. Mean ± standard deviation over the seeds, of the last epoch; the best epoch "
        "is chosen by the validation split.",
        f"The verdict, better or worse than {REFERENCE}: a two-sided t-test of the accuracies, seed by seed, at 5 %: "
        "of twenty equal losses one would pass it by chance. Step cost is CPU time per training step over that of the "
        "student alone; it includes the teacher.",
        *(f"The student of {loss} is larger: {size:,} parameters." for loss, size in result.larger(pair).items()),
    )
    picture = report.picture(
        accuracy_plot(rows),
        alt=f"Accuracy of each loss, {pair}",
        caption="Test accuracy, mean and standard deviation over the seeds; the broken line is the student alone. "
        f"Green is better than {REFERENCE}, orange worse, blue neither.",
    )
    table = report.Table(tuple(result.table(pair)), caption="By falling accuracy.")
    return report.Section(pair.capitalize(), text, (table,), (picture,))


@plain_text
def accuracy_plot(rows: list[Row]) -> Figure:
    """Draw the accuracy of each loss, the best on top.

    Args:
        rows: Rows of one pair.

    Returns:
        The matplotlib figure.
    """
    from matplotlib.figure import Figure

    rows = sorted(rows, key=lambda row: row.figures["accuracy"].mean)
    figure = Figure(figsize=(7, 0.8 + 0.26 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        accuracy = row.figures["accuracy"]
        colour = _COLOURS["" if row.loss in (ALONE, REFERENCE) else row.verdict]
        axes.errorbar(accuracy.mean, place, xerr=accuracy.sd or 0, fmt="o", color=colour, capsize=3, markersize=5)
        if row.loss == ALONE:
            axes.axvline(accuracy.mean, color="#9aa4b1", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), [row.loss for row in rows], fontsize=8)
    axes.set_xlabel("test accuracy")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e3e7ec")
    axes.set_axisbelow(True)
    return figure
