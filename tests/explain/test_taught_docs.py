"""The page on teaching explanations says what its records say."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", ["explanations_taught", "right_reasons"])
def test_the_tables_are_those_of_the_records(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    record = json.loads((ROOT / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))
    assert {run["seed"] for run in record["runs"]} == set(script.SEEDS) == {0, 1, 2}
    page = (ROOT / "docs" / "taught_to_explain.md").read_text(encoding="utf-8")
    assert "\n".join(script.table(record["runs"])) in page
