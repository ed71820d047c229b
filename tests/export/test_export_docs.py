"""Every Python block of the export guide runs, in the order of the page."""

import hashlib
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "export.md"


def test_the_export_guide_runs_as_written(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks:
        exec(compile(block, "docs/export.md", "exec"), names)
    content = Path("student.tflite").read_bytes()
    assert names["contract"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert names["table"]["student.tflite"].scores.accuracy > 0.8
    printed = capsys.readouterr().out
    for text in ("image int8 0.0039", "KL to teacher", "peak memory", "adb push student.tflite", "SavedModel"):
        assert text in printed
