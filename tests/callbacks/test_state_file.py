"""State files: what goes in comes out, and no damage passes unseen; the plain state of objects."""

import json
import random

import keras
import ml_dtypes
import numpy as np
import pytest

from kdkeras.callbacks import _attributes
from kdkeras.callbacks._state_file import DamagedStateError, State, StateFolder, read_state, write_state

ARRAYS = [
    np.arange(6, dtype="float32").reshape(2, 3),
    np.float16(0.5).reshape(()),
    np.arange(3).astype(ml_dtypes.bfloat16),
    np.zeros((0, 4), "int64"),
    np.arange(12).reshape(3, 4).T,
    np.array(["a", "bcd"]),
    np.array([True, False]),
]


def state(epoch=0):
    return State({"epoch": epoch, "batch": 0, "inf": float("inf")}, list(ARRAYS))


def test_round_trip(tmp_path):
    write_state(tmp_path / "one", state())
    read = read_state(tmp_path / "one")
    assert read.record == state().record
    for one, other in zip(read.arrays, ARRAYS, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        np.testing.assert_array_equal(one, other)


def test_every_flipped_byte_and_every_truncation_is_seen(tmp_path):
    path = tmp_path / "one"
    write_state(path, state())
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        with pytest.raises(DamagedStateError):
            read_state(path)
        path.write_bytes(content[:position])
        with pytest.raises(DamagedStateError):
            read_state(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(DamagedStateError, match=r"\d+ bytes of \d+"):
        read_state(path)


def test_the_two_files_take_turns_and_the_good_one_is_never_overwritten(tmp_path):
    folder = StateFolder(tmp_path)
    for epoch in range(3):
        folder.save(state(epoch))
    assert [read_state(tmp_path / f"state-{n}.kdkeras").record["epoch"] for n in (0, 1)] == [2, 1]
    (tmp_path / "state-0.kdkeras").write_bytes(b"")
    again = StateFolder(tmp_path)
    with pytest.warns(RuntimeWarning, match="state-0.*continues from the beginning of epoch 2"):
        assert again.load().record["epoch"] == 1
    again.save(state(7))  # in place of the damaged one
    assert [read_state(tmp_path / f"state-{n}.kdkeras").record["epoch"] for n in (0, 1)] == [7, 1]


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    (tmp_path / ".state-1-abc.kdkeras").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    folder = StateFolder(tmp_path)
    folder.prepare()
    folder.save(state())
    assert {path.name for path in tmp_path.iterdir()} == {"state-0.kdkeras", "notes.txt"}
    folder.delete()
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt"}


def test_plain_values_round_trip():
    values = {"a": [1, 2.5, None, "x", (True, float("-inf"))], 3: {"deep": np.arange(3)}, "s": np.float32(0.1)}
    arrays = []
    read = _attributes.decode(json.loads(json.dumps(_attributes.encode(values, arrays))), arrays)
    np.testing.assert_array_equal(read[3].pop("deep"), values[3].pop("deep"))
    assert read == values
    assert type(read["s"]) is np.float32
    for value in (print, object(), np.array([object()]), keras.layers.Dense(1)):
        with pytest.raises(_attributes.NotPlainError):
            _attributes.encode(value, [])


def test_changed_attributes_and_generators_come_back():
    class Owner:
        def __init__(self):
            self.patience, self.wait, self.model = 3, 0, object()
            self.numbers, self.old, self.dice = np.random.default_rng(0), np.random.RandomState(0), random.Random(0)

    owner, arrays = Owner(), []
    before = _attributes.fingerprints(owner)
    owner.wait = 2
    for draw in (owner.numbers.random, owner.old.rand, owner.dice.random):
        draw()
    saved = json.loads(json.dumps(_attributes.changed_attributes(owner, before, arrays)))
    assert set(saved) == {"wait", "numbers", "old", "dice"}
    again = Owner()
    again.patience = 5  # a new setting is not undone
    numbers = again.numbers
    _attributes.restore_attributes(again, saved, arrays)
    assert (again.wait, again.patience) == (2, 5)
    assert again.numbers is numbers
    assert (numbers.random(), again.old.rand(), again.dice.random()) == (
        owner.numbers.random(),
        owner.old.rand(),
        owner.dice.random(),
    )
    again.numbers = None
    with pytest.raises(ValueError, match="A random generator was saved, and there is NoneType in its place"):
        _attributes.restore_attributes(again, saved, arrays)
