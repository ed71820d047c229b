"""Every Python block of the page on schemes runs, in the order of the page; every public name stands in it."""

import re
from pathlib import Path

import keras
import pytest

from kdkeras import schemes

PAGE = (Path(__file__).parents[2] / "docs" / "schemes.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # Keras' word for a head that no loss asks
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the page measures, which is TensorFlow's")
def test_the_page_runs_as_written(capsys):
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/schemes.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "['assistant', 'student'] student" in printed and "[1, 1, 2, 2]" in printed


def test_every_scheme_stands_in_the_page():
    functions = {name for name in dir(schemes) if callable(getattr(schemes, name)) and not name.startswith("_")}
    of_parts = {"Generations", "Parts", "group_logits", "group_targets"}
    assert {name for name in functions if name not in PAGE} <= of_parts
