"""The block of docs/explore.md runs as it is written."""

import re
from pathlib import Path

import keras
import numpy as np

import kdkeras
from kdkeras.feedback import FeedbackStore, Mark, sample_id

PAGE = Path(__file__).parents[2] / "docs" / "explore.md"


def test_the_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).random((8, 6, 6, 1)).astype("float32")
    FeedbackStore("feedback.db").add(Mark(sample_id(x[2]), "student", "grad_cam", 0, "wrong"))

    def network():
        layers = [keras.layers.Conv2D(3, 3, name="conv"), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
        return keras.Sequential([keras.Input((6, 6, 1)), *layers])

    task = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    names = {"kdkeras": kdkeras, "np": np, "x": x, "y": np.arange(8) % 3, "task": task}
    names |= {"teacher": network(), "student": network()}
    [block] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(block, "docs/explore.md", "exec"), names)
    assert names["weights"].tolist() == [1, 1, 3, 1, 1, 1, 1, 1]
    assert "explanation_matching" in names["distiller"].history.history
