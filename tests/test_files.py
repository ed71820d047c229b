"""A failed write leaves what was there."""

from pathlib import Path

import pytest

from kdkeras._files import atomic_path


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


def test_full_disk_leaves_the_old_file(tmp_path):
    target = tmp_path / "model.bin"
    target.write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"), atomic_path(target), Path("/dev/full").open("wb") as full:
        full.write(b"new" * 10_000)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
