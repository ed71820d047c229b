"""Writing files so that an interrupted or failed write never damages what was there."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to `path` when the block succeeds.

    When the block raises (a full disk, an interrupt), the temporary file is removed and whatever stood at
    `path` before is untouched. The temporary name keeps the suffix of `path`, because Keras reads the format
    from it.

    Args:
        path: The file to write. Its folder is made if it is missing.

    Yields:
        The path to write to.

    Raises:
        OSError: The folder cannot be written, or the disk is full.

    Example:
        >>> import pathlib, tempfile
        >>> from kdkeras._files import atomic_path
        >>> target = pathlib.Path(tempfile.mkdtemp()) / "record.json"
        >>> with atomic_path(target) as temporary:
        ...     _ = temporary.write_text("{}")
        >>> target.read_text()
        '{}'
    """
    target = Path(path)
    temporary = _beside(target)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def check_place(path: str | os.PathLike[str]) -> None:
    """Raise what writing a file would raise, before the work whose result it will hold.

    Args:
        path: The file that will be written. Its folder is made if it is missing; what stands there stays.

    Raises:
        OSError: The folder cannot be written, or `path` is a folder.

    Example:
        >>> from kdkeras._files import check_place
        >>> check_place("/dev/null/model.keras")
        Traceback (most recent call last):
        FileExistsError: [Errno 17] File exists: '/dev/null/model.keras'
    """
    target = Path(path)
    _beside(target).unlink()
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))


def replace_together(path: Path, content: bytes, companions: Mapping[Path, bytes | None]) -> None:
    """Write a file and the files that describe it, so that a file never stands beside another one's description.

    All are written under temporary names first, so a full disk leaves everything as it was. Then the old companions
    are removed, `path` is renamed, and the new companions are renamed, the last in the mapping first. A process that is
    killed leaves the old files, the new ones, or for a moment in between a file without companions; never a companion
    of another file.

    Args:
        path: The file.
        content: What it holds.
        companions: What the files beside it hold; `None` for one that shall not be there.

    Raises:
        OSError: The folder cannot be written, or the disk is full.

    Example:
        >>> import pathlib, tempfile
        >>> from kdkeras._files import replace_together
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> replace_together(folder / "a.bin", b"1", {folder / "a.txt": b"one"})
        >>> replace_together(folder / "a.bin", b"2", {folder / "a.txt": None})
        >>> [file.name for file in folder.iterdir()]
        ['a.bin']
    """
    with contextlib.ExitStack() as stack:  # ends, and so renames, in the opposite order
        for companion, text in companions.items():
            if text is not None:
                stack.enter_context(atomic_path(companion)).write_bytes(text)
        stack.enter_context(atomic_path(path)).write_bytes(content)
        for companion in companions:
            companion.unlink(missing_ok=True)


def _beside(target: Path) -> Path:
    """Make an empty file beside `target`; an error names `target`, the path that the user knows."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    os.close(handle)
    return Path(name)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
