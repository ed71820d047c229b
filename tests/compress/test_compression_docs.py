"""Every Python block of the page on compression runs, in the order of the page; every public name stands in it."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from kdkeras import compress

PAGE = (Path(__file__).parents[2] / "docs" / "compression.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/compression.md", "exec"), names)
    assert names["smaller"].macs[1] < 0.1 * names["smaller"].macs[0]
    assert compress.sparsity(names["shared"]).share == pytest.approx(0.7, abs=0.01)
    assert {row.unique for row in compress.sparsity(names["shared"]).rows} == {16}
    printed = capsys.readouterr().out
    for text in ("student.tflite: int8", "0 float tensors", "3,324 weights in kernels are zero", "355,008 → 26,544"):
        assert text in printed and text in PAGE


def test_every_public_name_stands_in_the_page():
    results = {"KernelSparsity", "LayerChannels", "Sparsity", "SmallerModel", "TfmotError", "TfmotResult"}
    names = {name for name in dir(compress) if callable(getattr(compress, name)) and not name.startswith("_")}
    assert {name for name in names if name not in PAGE} <= results


def test_the_figures_are_those_of_the_record():
    root = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location("compression", root / "benchmarks" / "compression.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    runs = json.loads((root / "benchmarks" / "compression.json").read_text(encoding="utf-8"))["runs"]
    for student in {run["student"] for run in runs}:
        assert script.table(runs, student) in PAGE
