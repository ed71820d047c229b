"""Every example runs from top to bottom, in its quick form, and prints one result."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
RESULTS = {
    "keras_tutorial_distillation": "from scratch",
    "student_for_the_phone": "student.tflite: int8",
    "two_workers": "workers trained one student",
    "tree_with_rules": "Most important features",
    "is_the_explanation_true": "gradient × input",
    "ways_to_look": "Integrated gradients",
}


def test_each_example_is_known():
    assert {path.stem for path in EXAMPLES} == set(RESULTS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path):
    done = subprocess.run([sys.executable, path, "--quick"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert RESULTS[path.stem] in done.stdout
    assert "Traceback" not in done.stderr
    assert len(path.read_text().splitlines()) < 80
