"""Loading models: what comes back, and what is refused."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import kdkeras
from kdkeras.testing import tiny_cnn


def test_any_keras_model_comes_back(tmp_path):
    model = tiny_cnn()
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).random((2, 8, 8, 1)).astype("float32")
    np.testing.assert_array_equal(kdkeras.load_model(tmp_path / "model.keras")(x), model(x))


def test_a_fresh_process_needs_only_load_model(tmp_path):
    keras.utils.set_random_seed(0)
    path = tmp_path / "distiller.keras"
    kdkeras.Distiller(student=tiny_cnn(name="s"), teacher=tiny_cnn(name="t")).compile("sgd").save(path)
    code = f"import kdkeras; print(type(kdkeras.load_model({str(path)!r})).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "Distiller\n"


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 cut off"])
def test_damaged_files_are_refused(tmp_path, content):
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged or no `.keras` file"):
        kdkeras.load_model(path)


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no model file"):
        kdkeras.load_model(tmp_path / "model.keras")
