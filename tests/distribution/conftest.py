"""Runs scripts in processes of their own: one process holds one `tf.distribute` strategy."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

collect_ignore = ["scripts"]  # each of them sets up its devices when it is run
SCRIPTS = Path(__file__).parent / "scripts"
PATIENCE = 300  # seconds; a worker whose partner has died waits for ever


def _start(script, *arguments, **environment):
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), *arguments]
    surroundings = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    root = str(Path(__file__).parents[2])
    surroundings["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [surroundings.get("PYTHONPATH")])])
    return subprocess.Popen(command, env=surroundings, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _answers(processes):
    answers = []
    try:
        for process in processes:
            output, errors = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, errors[-4000:]
            answers.append(json.loads(output.splitlines()[-1]))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return answers


@pytest.fixture(scope="session")
def run():
    """Return a function that runs a script and returns what it reports."""
    return lambda script, *arguments, **environment: _answers([_start(script, *arguments, **environment)])[0]


@pytest.fixture(scope="session")
def mirrored(run):
    """Return what one device and two replicas of one machine computed, and what was refused there."""
    return run("mirrored")


@pytest.fixture(scope="session")
def run_workers():
    """Return a function that runs a script as two workers on loopback and returns what each reports."""

    def together(script, *arguments):
        sockets = [socket.socket() for _ in range(2)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        workers = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
        for one in sockets:
            one.close()
        cluster = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}} for index in range(2)]
        return _answers([_start(script, *arguments, TF_CONFIG=json.dumps(config)) for config in cluster])

    return together


@pytest.fixture(scope="session")
def assert_same():
    """Return a function that compares two reports of `workload.results`."""

    def compare(one, other, tolerance=1e-5):
        assert set(one["history"]) == set(other["history"])
        assert {"task_loss", "soft_targets", "hints", "val_task_loss", "accuracy"} <= set(one["history"])
        for part in ("history", "evaluate"):
            for name, values in one[part].items():
                np.testing.assert_allclose(other[part][name], values, rtol=0, atol=tolerance, err_msg=name)
        np.testing.assert_allclose(other["predict"], one["predict"], rtol=0, atol=tolerance)
        for ours, theirs in zip(one["weights"], other["weights"], strict=True):
            np.testing.assert_allclose(theirs, ours, rtol=0, atol=tolerance)

    return compare
