"""Every Python block of the page on trees runs, in the order of the page."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "trees.md").read_text(encoding="utf-8")


def test_the_page_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/trees.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "Split 0 leads" in printed
    assert "No change shorter than" in printed
    assert "then class malignant" in printed
    assert "Hard tree of depth" in printed
    assert names["answer"].found
    assert names["hard"].test_fidelity > 0.9
    assert (tmp_path / "pruned_tree.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "tree.tflite").stat().st_size > 1000
    assert names["annealed"].beta == 3.0
    assert (tmp_path / "tree.dot").read_text(encoding="utf-8").startswith("digraph tree {")
