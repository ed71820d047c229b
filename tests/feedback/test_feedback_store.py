"""The feedback file: nothing stored is lost, whoever writes beside it, kills it or fills the disk."""

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest

from kdkeras import cli
from kdkeras.feedback import FeedbackStore, Mark, sample_id

SAMPLE = sample_id(np.arange(4.0))


def mark(note="", **others):
    return Mark(SAMPLE, "student", "grad_cam", 3, "wrong", note=note, **others)


def in_another_process(code, *arguments):
    start = "import sys\nfrom kdkeras.feedback import FeedbackStore, Mark\n"
    command = [sys.executable, "-c", start + textwrap.dedent(code), *map(str, arguments)]
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}  # the tests read what goes to stderr
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=quiet)


@pytest.fixture
def store(tmp_path):
    return FeedbackStore(tmp_path / "feedback.db")


def test_what_is_stored_comes_back(store):
    full = mark("It looks at the frame, not at the\n\"shoe\"; 'quoted', ü", who="Ada", layer="block/conv", index=17)
    before = datetime.now(UTC).isoformat(timespec="milliseconds")
    assert [store.add(full), store.add(mark())] == [1, 2]
    after = datetime.now(UTC).isoformat(timespec="milliseconds")
    found = store.marks()
    assert before <= found[0].time <= found[1].time <= after
    assert found[0] == Mark(**{**vars(full), "time": found[0].time})


def test_the_log_is_flushed_at_every_mark(store, monkeypatch):
    """WAL with synchronous=FULL: the two settings that make `add` durable."""
    spoken = []
    connect = FeedbackStore._connect

    def listening(self, mode):
        connection = connect(self, mode)
        connection.set_trace_callback(spoken.append)
        return connection

    monkeypatch.setattr(FeedbackStore, "_connect", listening)
    store.add(mark())
    assert "PRAGMA synchronous = FULL" in spoken
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_many_processes_write_at_once(store):
    code = """
        store = FeedbackStore(sys.argv[1])
        for number in range(25):
            store.add(Mark("a" * 64, "student", "rise", number, "right", who=sys.argv[2]))
    """
    writers = [in_another_process(code, store.path, who) for who in range(6)]  # none has made the file before
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    written = [(found.who, found.target) for found in store.marks()]
    assert sorted(written) == sorted((str(who), number) for who in range(6) for number in range(25))
    assert [number for who, number in written if who == "3"] == list(range(25))


def test_many_threads_write_at_once(store):
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda number: store.add(mark(str(number))), range(40)))
    assert sorted(numbers) == list(range(1, 41))
    assert {found.note for found in store.marks()} == {str(number) for number in range(40)}


def test_killed_right_after_the_acknowledgement(store):
    code = """
        store = FeedbackStore(sys.argv[1])
        number = 0
        while True:
            number += 1
            store.add(Mark("a" * 64, "student", "rise", number, "right"))
            print(number, flush=True)
    """
    with in_another_process(code, store.path) as writer:
        acknowledged = [writer.stdout.readline() for _ in range(12)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += writer.stdout.readlines()
    targets = [found.target for found in store.marks()]
    count = int([line for line in acknowledged if line.endswith("\n")][-1])
    assert targets[:count] == list(range(1, count + 1))
    assert len(targets) <= count + 1  # one may have been stored and not yet told
    assert store.add(mark()) == len(targets) + 1  # and the file takes more


def test_a_full_disk_loses_nothing(store):
    for number in range(5):
        store.add(mark(str(number)))
    # No file of this process may grow beyond 64 KiB: the system's own refusal, as on a full disk.
    code = """
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        store = FeedbackStore(sys.argv[1])
        stored = 0
        try:
            while True:
                store.add(Mark("a" * 64, "student", "rise", 0, "right", note="x" * 2000))
                stored += 1
        except OSError as error:
            print(stored, str(error))
    """
    out, errors = in_another_process(code, store.path).communicate(timeout=120)
    count, sentence = out.split(maxsplit=1)
    assert errors == "" and int(count) > 5
    assert sentence.startswith(f"Feedback cannot be stored or read in '{store.path}': ")
    assert "What was stored before is kept." in sentence and len(sentence.splitlines()) == 1
    notes = [found.note for found in store.marks()]
    assert notes == [*map(str, range(5)), *["x" * 2000] * int(count)]
    assert store.add(mark("after")) > int(count)


@pytest.mark.parametrize("name", ["file/feedback.db", "folder"])
def test_a_place_that_cannot_be_written(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"Feedback cannot be stored.*What was stored before is kept"):
        FeedbackStore(tmp_path / name).prepare()
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_may_only_be_read(tmp_path):
    folder = tmp_path / "archive"
    store = FeedbackStore(folder / "feedback.db")
    store.add(mark("kept"))
    folder.chmod(0o555)
    store.path.chmod(0o444)
    for parent in folder.parents:  # another user must be able to come here
        if parent.stat().st_mode & 0o055 == 0o055:
            break
        parent.chmod(parent.stat().st_mode | 0o055)
    # The administrator may write everywhere: as root, ask as nobody.
    code = """
        import os
        if os.geteuid() == 0:
            os.seteuid(65534)
        store = FeedbackStore(sys.argv[1])
        print([mark.note for mark in store.marks()])
        try:
            store.add(Mark("a" * 64, "student", "rise", 0, "right"))
        except OSError as error:
            print(error)
    """
    out, errors = in_another_process(code, store.path).communicate(timeout=60)
    folder.chmod(0o755)
    assert errors == ""
    assert out.splitlines()[0] == "['kept']"
    assert out.splitlines()[1].startswith(f"Feedback cannot be stored or read in '{store.path}': ")
    assert [found.note for found in store.marks()] == ["kept"]


def test_another_programs_database_is_left_alone(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    before = path.read_bytes()
    for use in (lambda store: store.add(mark()), lambda store: store.marks()):
        with pytest.raises(ValueError, match="another program's database"):
            use(FeedbackStore(path))
    assert path.read_bytes() == before


def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at closely by SQLite" * 20)
    before = path.read_bytes()
    for use in (lambda store: store.add(mark()), lambda store: store.marks()):
        with pytest.raises(ValueError, match="is no feedback file, or damaged"):
            use(FeedbackStore(path))
    assert path.read_bytes() == before


def test_a_later_version_is_not_touched(store):
    store.add(mark())
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(ValueError, match="holds feedback of version 2; this is for version 1"):
        store.add(mark())


def test_nothing_there_is_said_and_not_made(store):
    with pytest.raises(FileNotFoundError, match="There is no feedback file"):
        store.marks()
    assert not store.path.exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"verdict": "bad"}, "`verdict` must be one of right, wrong, unclear"),
        ({"model": "tree"}, "`model` must be one of teacher, student"),
        ({"note": "x" * 2001}, "`note` must have at most 2000 characters"),
        ({"who": "x" * 101}, "`who` must have at most 100 characters"),
    ],
)
def test_marks_that_cannot_be(values, message):
    whole = {"sample": SAMPLE, "model": "student", "method": "rise", "target": 0, "verdict": "right"}
    with pytest.raises(ValueError, match=message):
        Mark(**{**whole, **values})


def test_sample_ids_are_by_content():
    rows = np.arange(12.0).reshape(3, 4)
    assert len({sample_id(row) for row in rows}) == 3
    assert sample_id(rows[:, 1]) == sample_id(rows[:, 1].copy().astype("int16"))
    assert sample_id(np.zeros(3)) == sample_id(-np.zeros(3))
    with pytest.raises(TypeError, match="A sample must be numbers"):
        sample_id(np.array(["a"]))


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_export_by_command(store, tmp_path, capsys, ending):
    store.add(mark('with, commas and "quotes"\nand lines, ü', index=4, layer="conv"))
    store.add(mark())
    target = tmp_path / "new" / f"out.{ending}"
    assert cli.main(["feedback", "export", str(store.path), "--to", str(target)]) == 0
    assert capsys.readouterr().out == f"2 marks written to {target}\n"
    if ending == "json":
        rows = json.loads(target.read_text(encoding="utf-8"))
        assert rows == [vars(found) for found in store.marks()]
    else:
        with target.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert rows[0]["note"] == 'with, commas and "quotes"\nand lines, ü'
        assert [(row["index"], row["layer"], row["target"]) for row in rows] == [("4", "conv", "3"), ("", "", "3")]


@pytest.mark.parametrize(("name", "message"), [("out.txt", "ends in .csv or .json"), ("out.csv", "no feedback file")])
def test_export_that_cannot_be(tmp_path, capsys, name, message):
    assert cli.main(["feedback", "export", str(tmp_path / "none.db"), "--to", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
