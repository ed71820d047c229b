"""The demo's output folder: all of it or nothing, and nothing lost that stood there."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_STAGING = ".unfinished-"


@contextlib.contextmanager
def output_folder(path: str | Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a staging folder beside `path`; its files move to `path` when the block succeeds.

    Args:
        path: The output folder.
        overwrite: Whether files of the same name at `path` may be replaced. Others are never touched.

    Yields:
        The staging folder.

    Raises:
        FileExistsError: `path` has files and `overwrite` is off.
        NotADirectoryError: `path` is a file.
        OSError: The folder cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> from kdkeras.demo.output import output_folder
        >>> target = pathlib.Path(tempfile.mkdtemp()) / "out"
        >>> with output_folder(target, overwrite=False) as staging:
        ...     _ = (staging / "record.json").write_text("{}")
        >>> [file.name for file in target.iterdir()]
        ['record.json']
    """
    target = Path(path)
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"Output '{target}' is a file, not a folder. Choose another folder.")
    existed = target.exists()
    if existed and _has_files(target) and not overwrite:
        raise FileExistsError(
            f"Output folder '{target}' is not empty. Choose another folder, or allow overwriting (--overwrite)."
        )
    target.mkdir(parents=True, exist_ok=True)
    # Inside the target: if that can be written, so can the result, and a rename never crosses a file system.
    staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=target))
    try:
        yield staging
        _move(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not existed and not any(target.iterdir()):
            target.rmdir()


def _has_files(folder: Path) -> bool:
    """Whether a folder holds anything but what a killed run left."""
    return any(not entry.name.startswith(_STAGING) for entry in folder.iterdir())


def _move(source: Path, target: Path) -> None:
    for entry in sorted(source.iterdir()):
        if entry.is_dir():
            (target / entry.name).mkdir(exist_ok=True)
            _move(entry, target / entry.name)
        else:
            entry.replace(target / entry.name)
