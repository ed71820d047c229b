"""The zoo of models under compression: the page is that of the record, and what works keeps its accuracy."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
RUNS = json.loads((FOLDER / "compression_zoo.json").read_text(encoding="utf-8"))["runs"]


def script(name):
    if name not in sys.modules:  # once for all tests: a second run would define its model class anew
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


ZOO = script("export_zoo").ZOO  # the other script imports it by this name
SCRIPT = script("compression_zoo")
TECHNIQUES = [f"native: {each}" for each in SCRIPT.NATIVE] + [f"tfmot: {each}" for each in SCRIPT.TFMOT]


def test_the_page_is_that_of_the_record_and_nothing_is_left_out():
    models = [name for name in ZOO if name in {run["model"] for run in RUNS}]
    assert [(run["model"], run["technique"]) for run in RUNS] == [
        (name, each) for name in models for each in TECHNIQUES
    ]
    page = (FOLDER.parent / "docs" / "compression_zoo.md").read_text(encoding="utf-8")
    assert page == SCRIPT.page(RUNS)
    for name in set(ZOO) - set(models):
        assert name.replace("_", " ") in page.split("Not measured yet")[1].split(".")[0]


def test_what_was_compressed_keeps_its_accuracy():
    for run in RUNS:
        if "refused" not in run:
            assert run["accuracy"] > run["keras_accuracy"] - 0.06, run


def test_pruning_and_clustering_of_ours_refuse_no_model():
    refused = [run for run in RUNS if "refused" in run and run["technique"].endswith(("Magnitude", "ClusterWeights"))]
    assert not refused


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "lstm", "several_inputs_and_outputs", "subclassed"])
def test_every_technique_works_or_refuses_as_recorded(name):
    for again in SCRIPT.measure(name):
        (run,) = [run for run in RUNS if (run["model"], run["technique"]) == (name, again["technique"])]
        assert again.get("refused") == run.get("refused"), again
