"""The same tests on the other backends, each in a process of its own."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent


@pytest.mark.parametrize(
    ("backend", "files"),
    [
        ("jax", ["test_schedules.py"]),
        pytest.param("jax", ["test_resume.py", "test_student_checkpoint.py"], marks=pytest.mark.slow),
        pytest.param(
            "torch", ["test_schedules.py", "test_resume.py", "test_student_checkpoint.py"], marks=pytest.mark.slow
        ),
    ],
)
def test_the_same_on(backend, files):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *(str(FOLDER / file) for file in files)]
    environment = dict(os.environ, KERAS_BACKEND=backend, TF_CPP_MIN_LOG_LEVEL="3")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=FOLDER.parents[1])
    assert done.returncode == 0, done.stdout[-5000:]
    assert "passed" in done.stdout
