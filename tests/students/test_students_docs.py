"""Every Python block of the page on interpretable students runs; its tables are those of the benchmark's record."""

import importlib.util
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "interpretable_students.md").read_text(encoding="utf-8")


def test_the_page_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/interpretable_students.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "class malignant, probability" in printed
    assert "additive, 4 features" in printed
    assert "LASSO" in printed
    assert names["found"].fidelity.agreement > 0.9
    for picture in ("curve.png", "importance.png"):
        assert (tmp_path / picture).read_bytes()[:4] == b"\x89PNG"


def test_the_tables_are_those_of_the_record():
    path = ROOT / "benchmarks" / "interpretable_students.py"
    spec = importlib.util.spec_from_file_location("interpretable_students", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["data"]
    for name, found in record.items():
        section = PAGE.split(f"### {name}\n")[1].split("\n![")[0].split("\n#")[0]
        lines = [line for line in section.splitlines() if line.startswith("|")]
        assert len(lines) > 12
        assert set(lines) <= set(benchmark.table(found["rows"]).splitlines())
        assert f"| {found['rows'][-1]['student']} |" in lines[-1]
