"""Training states on disk: one self-checking file each, written whole or not at all, the previous one kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kdkeras._files import atomic_path

_MAGIC = b"kdkeras training state 1\n"
_SLOTS = ("state-0.kdkeras", "state-1.kdkeras")
_LENGTH = 8


class DamagedStateError(ValueError):
    """A state file is truncated, altered, or something else."""


@dataclass
class State:
    """What a state file holds.

    Attributes:
        record: Everything but arrays, as JSON values.
        arrays: The arrays that `record` refers to by position.
    """

    record: dict[str, Any]
    arrays: list[np.ndarray] = field(default_factory=list)


class StateFolder:
    """Two state files in a folder, written in turns, so that one good file stands at any moment.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._next = 0
        self._count = 0

    def prepare(self) -> None:
        """Make the folder, and remove what a killed process was writing.

        Raises:
            OSError: The folder cannot be made.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for slot in _SLOTS:
            for left_over in self.path.glob(f".{Path(slot).stem}-*{Path(slot).suffix}"):
                left_over.unlink(missing_ok=True)

    def load(self) -> State | None:
        """Return the newest good state, and `None` where there is none; say which files could not be used."""
        good: tuple[int, int, State] | None = None
        damaged: list[str] = []
        for position, slot in enumerate(_SLOTS):
            try:
                state = read_state(self.path / slot)
            except FileNotFoundError:
                continue
            except (DamagedStateError, OSError) as error:
                damaged.append(f"'{self.path / slot}' ({error})")
                continue
            if good is None or state.record["count"] > good[0]:
                good = (state.record["count"], position, state)
        if damaged:
            where = "training starts anew" if good is None else f"training continues from {described(good[2])}"
            warnings.warn(
                f"`Resume` cannot use {' and '.join(damaged)}: {where}.", category=RuntimeWarning, stacklevel=2
            )
        if good is None:
            return None
        # The next state takes the other place, so that this one stays until a newer good one stands.
        self._count, self._next = good[0], 1 - good[1]
        return good[2]

    def save(self, state: State) -> None:
        """Write `state` in place of the older of the two files.

        Args:
            state: The state. Its record receives the number of this save.

        Raises:
            OSError: The disk is full, or the folder cannot be written. Both files are as before.
        """
        state.record["count"] = self._count + 1
        write_state(self.path / _SLOTS[self._next], state)
        self._count, self._next = self._count + 1, 1 - self._next

    def delete(self) -> None:
        """Remove both files, and the folder if nothing else is in it."""
        for slot in _SLOTS:
            (self.path / slot).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else is in it, or it is gone
            self.path.rmdir()


def described(state: State) -> str:
    """Return the place of a state in the training, in words: `"epoch 3, batch 20"`, counted from 1."""
    epoch, batch = state.record["epoch"] + 1, state.record["batch"]
    return f"epoch {epoch}, batch {batch + 1}" if batch else f"the beginning of epoch {epoch}"


def write_state(path: Path, state: State) -> None:
    """Write one state to a file: a mark, a SHA-256 of all the rest, its length, a JSON header, the arrays' bytes.

    Args:
        path: The file. What stood there is replaced only when the new one is whole and on the disk.
        state: The state.

    Raises:
        OSError: The file cannot be written.
    """
    arrays = [np.ascontiguousarray(array).reshape(array.shape) for array in state.arrays]
    header = {"record": state.record, "arrays": [[_dtype_name(array.dtype), array.shape] for array in arrays]}
    text = json.dumps(header).encode()
    parts = [len(text).to_bytes(_LENGTH, "little"), text, *(array.reshape(-1).view(np.uint8).data for array in arrays)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    length = sum(len(part) for part in parts)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.writelines([_MAGIC, digest.digest(), length.to_bytes(_LENGTH, "little"), *parts])
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def read_state(path: Path) -> State:
    """Read what `write_state` wrote, and check every byte of it.

    Args:
        path: The file.

    Returns:
        The state. Its arrays cannot be written to.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedStateError: The file is truncated, altered, or something else.
    """
    content = path.read_bytes()
    prefix = len(_MAGIC) + hashlib.sha256().digest_size + _LENGTH
    if len(content) < prefix or not content.startswith(_MAGIC):
        raise DamagedStateError(f"no training state, {len(content)} bytes")
    body = memoryview(content)[prefix:]
    expected = int.from_bytes(content[prefix - _LENGTH : prefix], "little")
    if len(body) != expected:
        raise DamagedStateError(f"{len(body)} bytes of {expected}")
    if hashlib.sha256(body).digest() != content[len(_MAGIC) : prefix - _LENGTH]:
        raise DamagedStateError("its checksum does not match")
    start = _LENGTH + int.from_bytes(body[:_LENGTH], "little")
    header = json.loads(bytes(body[_LENGTH:start]))
    return State(header["record"], _split(body[start:], header["arrays"]))


def _split(body: memoryview, specs: Sequence[tuple[str, list[int]]]) -> list[np.ndarray]:
    arrays, start = [], 0
    for name, shape in specs:
        dtype = np.dtype(name)
        count = int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(body, dtype, count, start).reshape(shape))
        start += count * dtype.itemsize
    return arrays


def _dtype_name(dtype: np.dtype) -> str:
    # bfloat16 and the like are known to numpy by name only.
    return dtype.name if dtype.kind == "V" else dtype.str


def _sync_folder(path: Path) -> None:
    """Bring a rename to the disk, so that it survives a power cut too."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
