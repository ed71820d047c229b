"""The same class on TensorFlow, JAX and PyTorch: ten SGD steps end in the same weights.

The suite as a whole runs on the backend of `KERAS_BACKEND`, TensorFlow by default. `make test` runs it whole on
TensorFlow and, again, the files that `BACKEND_TESTS` of the Makefile lists on JAX; `make test-torch` runs those on
PyTorch, where it is installed. This file starts the other backends itself.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

SCRIPT = Path(__file__).parent / "ten_steps.py"
OTHERS = [name for name in ("tensorflow", "jax", "torch") if name != keras.backend.backend()]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return on_backend(keras.backend.backend(), tmp_path_factory.mktemp("here"))


def on_backend(name, folder):
    command = [sys.executable, str(SCRIPT), str(folder / "steps.npz")]
    done = subprocess.run(command, env={**os.environ, "KERAS_BACKEND": name}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(folder / "steps.npz") as results:
        return dict(results)


@pytest.mark.parametrize("other", OTHERS)
def test_ten_steps_end_in_the_same_weights(other, here, tmp_path):
    if importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    there = on_backend(other, tmp_path)
    assert set(there) == set(here)
    for name, values in here.items():
        np.testing.assert_allclose(there[name], values, atol=1e-5, rtol=1e-5, err_msg=name)
