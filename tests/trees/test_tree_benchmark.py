"""The figures in docs/trees.md are those of the benchmark's record."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECORD = json.loads((ROOT / "benchmarks" / "soft_tree.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("soft_tree", ROOT / "benchmarks" / "soft_tree.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("task", RECORD["tasks"])
def test_the_tables_of_the_page_are_those_of_the_record(task, benchmark):
    page = (ROOT / "docs" / "trees.md").read_text(encoding="utf-8")
    assert benchmark.table(RECORD["tasks"][task]["mean_and_sd"]) in page


@pytest.mark.parametrize("task", RECORD["tasks"])
def test_the_record_is_of_the_settings_in_the_script(task, benchmark):
    recorded = RECORD["tasks"][task]
    assert recorded["settings"] == benchmark.SETTINGS[task]
    assert {run["seed"] for run in recorded["runs"]} == set(benchmark.SEEDS)
    rows = {run["model"]: [r for r in recorded["runs"] if r["model"] == run["model"]] for run in recorded["runs"]}
    assert [benchmark.summary(name, runs) for name, runs in rows.items()] == recorded["mean_and_sd"]
