"""Writing files so that an interrupted or failed write never damages what was there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
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
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
