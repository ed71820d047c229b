"""A failed write leaves what was there."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from kdkeras._files import atomic_path, check_place


def test_replaces_only_on_success(tmp_path):
    target = tmp_path / "deep" / "report.html"
    with atomic_path(target) as temporary:
        temporary.write_text("one")
        assert temporary.suffix == ".html"
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "one"
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_a_place_is_checked_before_the_work(tmp_path):
    target = tmp_path / "new" / "model.keras"
    check_place(target)
    assert list(target.parent.iterdir()) == []
    target.write_text("old")
    check_place(target)
    assert target.read_text() == "old"
    with pytest.raises(IsADirectoryError, match="new"):
        check_place(target.parent)


def test_an_error_names_the_file_that_was_asked_for(tmp_path):
    (tmp_path / "file").touch()
    for write in (check_place, lambda path: atomic_path(path).__enter__()):
        with pytest.raises(OSError, match=r"Not a directory|File exists") as caught:
            write(tmp_path / "file" / "model.keras")
        assert caught.value.filename == str(tmp_path / "file" / "model.keras")


def test_full_disk_leaves_the_old_file(tmp_path):
    target = tmp_path / "model.bin"
    target.write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"), atomic_path(target), Path("/dev/full").open("wb") as full:
        full.write(b"new" * 10_000)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


WRITER = """
import hashlib, os, pathlib, signal, sys
from kdkeras._files import replace_together

path, calls = pathlib.Path(sys.argv[1]), int(sys.argv[2])

def write(content):
    replace_together(path, content, {path.with_suffix(".txt"): hashlib.sha256(content).hexdigest().encode()})

def die(event, arguments):
    global calls
    if event in {"open", "os.chmod", "os.remove", "os.rename"}:
        calls -= 1
        if calls < 0:
            os.kill(os.getpid(), signal.SIGKILL)

write(b"old" * 5000)
sys.addaudithook(die)
write(b"new" * 5000)
"""


def test_a_killed_writer_never_leaves_a_description_of_another_file(tmp_path):
    path, seen = tmp_path / "model.bin", []
    for calls in range(40):  # killed before its first call that touches a file, before its second, …
        died = subprocess.run([sys.executable, "-c", WRITER, str(path), str(calls)], check=False).returncode
        content, described = path.read_bytes(), path.with_suffix(".txt").exists()
        assert content in {b"old" * 5000, b"new" * 5000}
        if described:
            assert path.with_suffix(".txt").read_text() == hashlib.sha256(content).hexdigest()
        if not died:
            break
        seen.append((content[:3], described))
    assert (content[:3], described) == (b"new", True)
    assert list(dict.fromkeys(seen)) == [(b"old", True), (b"old", False), (b"new", False), (b"new", True)]
