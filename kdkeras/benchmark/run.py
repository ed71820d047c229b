"""`run`: every loss, on several pairs of networks and seeds; it goes on where it was stopped."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from kdkeras import datasets
from kdkeras._files import atomic_path
from kdkeras._worker import start_worker
from kdkeras.benchmark import page
from kdkeras.benchmark.plan import Cell, Settings, cells
from kdkeras.benchmark.results import BenchmarkResult, read_run, write_run
from kdkeras.benchmark.training import pair_of, run_cell, teacher_path, train_teacher
from kdkeras.datasets import Dataset

DATA = ("fashion_mnist", "digits")
_Work = tuple[str, Callable[[], Any]]


def run(
    data: str = "fashion_mnist",
    losses: Sequence[str] | str = "all",
    out: str | Path = "kdkeras-benchmark",
    *,
    seeds: int = 3,
    pairs: Sequence[str] | None = None,
    factors: Sequence[float] = (1.0,),
    settings: Settings | None = None,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda line: None,
) -> BenchmarkResult:
    """Train one student per loss, network pair and seed, and hold them against each other.

    Within a pair and a seed all students start from the same weights and see the same teacher and the same batches; the
    settings of the losses are those of the recipe book. Every finished run is kept in `out` at once: the same call goes
    on where it was stopped. At the end, and after each seed, `runs.csv`, `record.json` and `report.html` are written.

    Args:
        data: `"fashion_mnist"` or `"digits"`.
        losses: Names of losses, or `"all"`.
        out: Folder of the results.
        seeds: Number of seeds, from 0.
        pairs: Names of network pairs: of `"same family"`, `"different family"`, `"transformer"`; by default all.
        factors: Factors on the weight of each loss, tried side by side.
        settings: Settings of all runs; by default `Settings(data)`.
        jobs: Number of processes, each with its share of the cores.
        progress: Called with one line of text at a time.

    Returns:
        The `BenchmarkResult`.

    Raises:
        ValueError: The data set, a loss or a pair is unknown, a number is below 1, or `out` holds runs of other
            settings.
        FileNotFoundError: Fashion-MNIST is not installed; the message says how to get it.
        OSError: `out` cannot be written.

    Example:
        >>> from kdkeras import benchmark
        >>> benchmark.run("mnist")
        Traceback (most recent call last):
        ValueError: The benchmark knows the data fashion_mnist, digits. Received: 'mnist'.
    """
    if data not in DATA:
        raise ValueError(f"The benchmark knows the data {', '.join(DATA)}. Received: '{data}'.")
    if jobs < 1:
        raise ValueError(f"A benchmark needs at least one process. Received: {jobs}.")
    settings = settings or Settings(data)
    folder, planned = Path(out), cells(losses, seeds, pairs, factors)
    done = {cell: figures for cell in planned if (figures := read_run(folder, cell, settings)) is not None}
    left = [cell for cell in planned if cell not in done]
    progress(f"{len(planned)} runs, {len(done)} of them finished before; results in '{folder}'")
    if left:
        _load(settings)  # what is missing shows here, not in another process
        _run_all(left, done, settings, folder, jobs, progress, total=len(planned))
    result = BenchmarkResult(settings, tuple(done[cell] for cell in planned), len(planned), folder)
    write(result)
    return result


def _run_all(
    left: list[Cell],
    done: dict[Cell, dict[str, Any]],
    settings: Settings,
    folder: Path,
    jobs: int,
    progress: Callable[[str], None],
    *,
    total: int,
) -> None:
    """Train what is left: first the teachers, then the students."""
    teachers = {teacher_path(folder, pair_of(cell.pair), cell.seed): cell for cell in left}
    missing = [cell for path, cell in teachers.items() if not path.exists()]
    with _Pool(jobs, settings, folder) as pool:
        for number, (cell, _) in enumerate(pool.map(_train_teacher, missing), start=1):
            progress(f"[teacher {number}/{len(missing)}] {pair_of(cell.pair).kind} · seed {cell.seed}")
        start = time.perf_counter()
        for number, (cell, figures) in enumerate(pool.map(_run_cell, left), start=1):
            write_run(folder, cell, settings, figures)
            done[cell] = figures
            remaining = (time.perf_counter() - start) / number * (len(left) - number)
            accuracy = figures["last"]["accuracy"]
            progress(f"[{len(done)}/{total}] {cell}: accuracy {accuracy:.4f}; {_words(remaining)} left")


class _Pool:
    """Runs cells in this process, or in several, each of which loads the data once."""

    def __init__(self, jobs: int, settings: Settings, folder: Path) -> None:
        self.jobs, self.settings, self.folder = jobs, settings, folder
        self._executor: concurrent.futures.ProcessPoolExecutor | None = None

    def __enter__(self) -> _Pool:
        if self.jobs > 1:
            threads = max(1, (os.cpu_count() or 1) // self.jobs)
            context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
            self._executor = concurrent.futures.ProcessPoolExecutor(
                self.jobs, mp_context=context, initializer=start_worker, initargs=(threads,)
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def map(self, work: Callable[..., Any], todo: Iterable[Cell]) -> Iterable[tuple[Cell, Any]]:
        """Yield each cell with its result, as they finish."""
        if self._executor is None:
            for cell in todo:
                yield cell, work(cell, self.settings, self.folder)
            return
        futures = {self._executor.submit(work, cell, self.settings, self.folder): cell for cell in todo}
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()


@functools.lru_cache(maxsize=1)
def _load(settings: Settings) -> Dataset:
    data = datasets.load(settings.data)
    limit = min(settings.images, len(data.x_train))
    return dataclasses.replace(data, x_train=data.x_train[:limit], y_train=data.y_train[:limit])


def _train_teacher(cell: Cell, settings: Settings, folder: Path) -> None:
    train_teacher(pair_of(cell.pair), cell.seed, _load(settings), settings, folder)


def _run_cell(cell: Cell, settings: Settings, folder: Path) -> dict[str, Any]:
    import keras

    keras.backend.clear_session()  # or the graphs of all earlier runs stay in memory
    return run_cell(cell, _load(settings), settings, folder)


def _words(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"about {minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"about {minutes} min"


def write(result: BenchmarkResult) -> None:
    """Write `runs.csv`, `record.json` and `report.html`, replacing older ones.

    Args:
        result: What the benchmark has found.

    Raises:
        OSError: The folder cannot be written.
    """
    record = {"settings": dataclasses.asdict(result.settings), "made": page.made(result), "runs": list(result.runs)}
    for name, text in {"runs.csv": result.csv(), "record.json": json.dumps(record, indent=1) + "\n"}.items():
        with atomic_path(result.out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    page.write(result, result.out / "report.html")
