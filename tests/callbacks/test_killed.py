"""Real kills: SIGKILL at random moments, twenty times; the training then ends as if none had happened."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from kdkeras.callbacks._state_file import StateFolder

KILLS = 20
EPOCHS = 60
PROGRAM = pathlib.Path(__file__).with_name("resumable.py")


def start(folder, result):
    """A distillation with dropout, augmentation, Adam and averaged weights; 25 batches an epoch, saved every 2."""
    command = [sys.executable, str(PROGRAM), str(folder), str(result), "shuffled", str(EPOCHS), "2", "200"]
    return subprocess.Popen(command, env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3"), stderr=subprocess.PIPE)


def finish(folder, result):
    process = start(folder, result)
    errors = process.communicate(timeout=600)[1].decode()
    assert process.returncode == 0, errors
    with np.load(result) as variables:
        return dict(variables), result.with_suffix(".json").read_text(), errors


def place(folder):
    state = StateFolder(folder).load()
    return (0, 0) if state is None else (state.record["epoch"], state.record["batch"])


def saved_at(folder):
    return max((path.stat().st_mtime_ns for path in folder.glob("state-*")), default=0)


@pytest.mark.slow
def test_twenty_kills(tmp_path):
    rng = random.Random(0)
    expected, history, _ = finish(tmp_path / "whole", tmp_path / "whole.npz")
    places, messages = [], []
    for kill in range(KILLS):
        process = start(tmp_path / "killed", tmp_path / "killed.npz")
        before = b""
        while not before.endswith(b"begin\n"):
            before += process.stderr.readline()
            assert process.poll() is None, before
        if kill % 4:  # while it trains and writes, however long this machine takes to compile
            newest = saved_at(tmp_path / "killed")
            while saved_at(tmp_path / "killed") == newest and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 1.0))
        else:  # while it resumes and compiles
            time.sleep(rng.uniform(0.0, 3.0))
        process.send_signal(signal.SIGKILL)
        messages.append(before + process.communicate()[1])
        assert process.returncode == -signal.SIGKILL, messages[-1]
        places.append(place(tmp_path / "killed"))
    assert places == sorted(places)
    assert len(set(places)) > KILLS // 2
    assert any(batch for _, batch in places)
    assert places[-1] < (EPOCHS, 0)
    assert not any(b"RuntimeWarning" in message for message in messages)  # no kill damages a state
    variables, resumed_history, errors = finish(tmp_path / "killed", tmp_path / "killed.npz")
    assert "RuntimeWarning" not in errors
    assert variables.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(variables[name], value)
    assert resumed_history == history
