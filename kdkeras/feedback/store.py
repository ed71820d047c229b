"""The file that marks are kept in: SQLite, for several processes at once, and safe when one of them is killed."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime as dt
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from kdkeras._files import atomic_path
from kdkeras.feedback.mark import VERDICTS, Mark

_T = TypeVar("_T")
_APPLICATION = 0x6B64666B  # says in the file's header whose it is
_VERSION = 1  # of the schema
_PATIENCE = 30.0  # seconds that a writer waits for the others
_COLUMNS = tuple(field.name for field in dataclasses.fields(Mark))
_SCHEMA = f"""
CREATE TABLE marks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sample TEXT NOT NULL,
    model TEXT NOT NULL,
    method TEXT NOT NULL,
    target INTEGER NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN {VERDICTS}),
    note TEXT NOT NULL,
    who TEXT NOT NULL,
    layer TEXT,
    "index" INTEGER,
    data TEXT NOT NULL,
    target_name TEXT NOT NULL,
    teacher_file TEXT NOT NULL,
    student_file TEXT NOT NULL,
    time TEXT NOT NULL
)
"""
_NAMES = ", ".join(f'"{name}"' for name in _COLUMNS)
_INSERT = f"INSERT INTO marks ({_NAMES}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_SELECT = f"SELECT {_NAMES} FROM marks ORDER BY id"


class FeedbackStore:
    """Marks on explanations in one SQLite file.

    When `add` returns, the mark is on the disk: a process that is killed then, or a machine that stops, loses nothing.
    Several processes and threads may write at once, each waits for the others, at most 30 seconds. Nothing is ever
    changed or deleted. The file must lie on a local disk: SQLite's write-ahead log does not work over a network.

    Args:
        path: The file, made by the first `add`. While it is in use two more files lie beside it, `-wal` and `-shm`.

    Example:
        >>> import pathlib, tempfile
        >>> from kdkeras.feedback import FeedbackStore, Mark
        >>> store = FeedbackStore(pathlib.Path(tempfile.mkdtemp()) / "feedback.db")
        >>> store.add(Mark("00" * 32, "student", "grad_cam", 3, "wrong"))
        1
        >>> [mark.verdict for mark in store.marks()]
        ['wrong']
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def prepare(self) -> None:
        """Make the file where it is missing, and check that it can be written: better at once than at the first mark.

        Raises:
            OSError: It cannot be written.
            ValueError: The file is something else.
        """
        self._patiently(lambda: self._write(lambda connection: None))

    def add(self, mark: Mark) -> int:
        """Store a mark; its time is set to now.

        Args:
            mark: The mark.

        Returns:
            Its number, from 1.

        Raises:
            OSError: It cannot be written: no space, no permission, or others have written for 30 seconds. What was
                stored before is not touched.
            ValueError: The file is something else.
        """
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        values = dataclasses.astuple(dataclasses.replace(mark, time=now))
        return self._patiently(lambda: self._write(lambda connection: connection.execute(_INSERT, values).lastrowid))

    def marks(self) -> list[Mark]:
        """Return all marks, in the order in which they were stored.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: It cannot be read.
            ValueError: The file is something else.
        """
        if not self.path.is_file():
            raise FileNotFoundError(f"There is no feedback file '{self.path}'. `kdkeras explore` makes one.")
        return [Mark(*row) for row in self._patiently(self._read)]

    def export(self, path: str | os.PathLike[str]) -> int:
        """Write all marks into a CSV or a JSON file, one row or object for each, with the names of `Mark`'s attributes.

        Args:
            path: Its name ends in `.csv` or `.json`.

        Returns:
            How many marks were written.

        Raises:
            FileNotFoundError: There is no store.
            OSError: The file cannot be written.
            ValueError: The name has another ending, or the store is something else.
        """
        target = Path(path)
        if target.suffix not in (".csv", ".json"):
            raise ValueError(f"Feedback is exported to a file that ends in .csv or .json. Received: '{target}'.")
        rows = [dataclasses.asdict(mark) for mark in self.marks()]
        with atomic_path(target) as temporary:
            if target.suffix == ".json":
                temporary.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            else:
                with temporary.open("w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, _COLUMNS)
                    writer.writeheader()
                    writer.writerows(rows)
        return len(rows)

    def _patiently(self, work: Callable[[], _T]) -> _T:
        """Do work on the file, again while others are in its way, and say in a sentence why it cannot be done."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return work()
            except sqlite3.DatabaseError as error:
                # SQLite's own waiting does not cover the moment in which a log is begun or ended.
                if _code(error) == sqlite3.SQLITE_BUSY and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                raise self._told(error) from error

    def _write(self, change: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(self._sentence("stored", error.strerror or str(error))) from error
        with contextlib.closing(self._connect("rwc")) as connection:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                self._check(connection)  # before anything of another's file is changed
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            with _transaction(connection):
                if not self._check(connection):
                    connection.execute(_SCHEMA)
                    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                    connection.execute(f"PRAGMA user_version = {_VERSION}")
                return change(connection)

    def _read(self) -> list[tuple]:
        try:
            return self._select("rw")
        except sqlite3.OperationalError as error:
            wal = self.path.with_name(self.path.name + "-wal")
            if _code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or wal.exists():
                raise
            return self._select("ro&immutable=1")  # a folder that may not be written, where nobody writes

    def _select(self, mode: str) -> list[tuple]:
        with contextlib.closing(self._connect(mode)) as connection:
            return connection.execute(_SELECT).fetchall() if self._check(connection) else []

    def _connect(self, mode: str) -> sqlite3.Connection:
        address = f"file:{quote(str(self.path.absolute()))}?mode={mode}"
        return sqlite3.connect(address, uri=True, timeout=_PATIENCE, isolation_level=None)

    def _check(self, connection: sqlite3.Connection) -> bool:
        """Return whether the file holds marks, or is still empty, and refuse anything else."""
        with contextlib.nullcontext() if connection.in_transaction else _transaction(connection, "DEFERRED"):
            # At one moment: another may be making the file just now.
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            application, version = (
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            )
        if application == _APPLICATION and version == _VERSION:
            return True
        if application == _APPLICATION:
            raise ValueError(
                f"'{self.path}' holds feedback of version {version}; this is for version {_VERSION}. Use the kdkeras "
                "that wrote it, or another file."
            )
        if application or version or tables:
            raise ValueError(f"'{self.path}' is another program's database. Choose another file for the feedback.")
        return False

    def _told(self, error: sqlite3.DatabaseError) -> Exception:
        if _code(error) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return ValueError(f"'{self.path}' is no feedback file, or damaged: {error}. Choose another file.")
        return OSError(self._sentence("stored or read", str(error)))

    def _sentence(self, what: str, why: str) -> str:
        return (
            f"Feedback cannot be {what} in '{self.path}': {why}. What was stored before is kept. Free some space, or "
            "choose a file on a local disk that may be written."
        )


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _code(error: sqlite3.DatabaseError) -> int:
    """Return SQLite's number of the error, without what it says more closely."""
    return error.sqlite_errorcode & 0xFF
