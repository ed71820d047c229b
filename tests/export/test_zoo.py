"""The zoo of models: every mode passes the gate or is refused as the committed record, and the page made of it, say."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNS = json.loads((ROOT / "benchmarks" / "export_zoo.json").read_text(encoding="utf-8"))["runs"]


def script():
    if "export_zoo" not in sys.modules:  # once for all tests: a second run would define its model class anew
        spec = importlib.util.spec_from_file_location("export_zoo", ROOT / "benchmarks" / "export_zoo.py")
        sys.modules["export_zoo"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["export_zoo"])
    return sys.modules["export_zoo"]


ZOO = script()
QUICK = ("mlp",)


def test_the_page_is_that_of_the_record_and_nothing_is_left_out():
    assert [(run["model"], run["mode"]) for run in RUNS] == [(name, mode) for name in ZOO.ZOO for mode in ZOO.MODES]
    assert (ROOT / "docs" / "export_zoo.md").read_text(encoding="utf-8") == ZOO.page(RUNS)


def test_files_of_the_record_are_as_good_as_keras():
    for run in RUNS:
        if "refused" not in run:
            loss = {"int8": 0.05, "int4": 0.1}.get(run["mode"], 0.03)
            assert run["accuracy"] > run["keras_accuracy"] - loss, run
        else:
            assert run["mode"] not in (None, "float16", "dynamic"), run  # every model reaches these


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ZOO.ZOO]
)
def test_every_mode_passes_or_is_refused_as_recorded(name):
    found = {run["mode"]: run for run in ZOO.measure(name)}
    for run in RUNS:
        if run["model"] == name:
            again = found[run["mode"]]
            assert again.get("refused") == run.get("refused"), again
            if "refused" in run:  # figures in the message may differ in their last digits
                assert again["message"].split(":")[0] == run["message"].split(":")[0]
