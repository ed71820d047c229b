"""The command line: `kdkeras COMMAND`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

import kdkeras
from kdkeras.cli import benchmark, compress, demo, explore, export, feedback

_BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, or 2 for input that cannot be used.

    Args:
        arguments: Words of the command line; by default the process's own.

    Returns:
        The exit status.

    Example:
        >>> from kdkeras.cli import main
        >>> main(["demo", "--seed", "-1"])
        2
    """
    parser = argparse.ArgumentParser(
        prog="kdkeras", description="Knowledge distillation and model interpretability for Keras 3."
    )
    parser.add_argument("--version", action="version", version=f"kdkeras {kdkeras.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (demo, benchmark, compress, export, explore, feedback):
        command.add_parser(commands)
    options = parser.parse_args(arguments)
    with _Interrupts() as interrupts:
        try:
            options.run(options)
        except (KeyboardInterrupt, Exception) as error:
            if interrupts.seen or isinstance(error, KeyboardInterrupt):
                return _complain("interrupted. Start the same command again.")
            if not _is_bad_input(error):  # a defect: show where
                raise
            return _complain(_sentence(error) if isinstance(error, OSError) else str(error))
    return 0


class _Interrupts:
    """Remembers that Ctrl-C was pressed: C++ code may hand the exception on as one of its own."""

    def __init__(self) -> None:
        self.seen = False
        self._before: Any = None

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        signal.default_int_handler(number, frame)


def _is_bad_input(error: BaseException) -> bool:
    """Whether an error is about what the user gave, in a sentence that says so."""
    ours = isinstance(error, (RuntimeError, ImportError)) and type(error).__module__.startswith("kdkeras.")
    return ours or isinstance(error, (OSError, ValueError))


def _sentence(error: OSError) -> str:
    if error.strerror is None:  # raised by this library, in a sentence of its own
        return str(error)
    place = f"'{error.filename}': " if error.filename else ""
    step = "Free some space" if error.errno == errno.ENOSPC else "Check the path"
    return f"{place}{error.strerror}. Nothing was written. {step}, or choose another folder with --out."


def _complain(message: str) -> int:
    print(f"kdkeras: {message}", file=sys.stderr)
    return _BAD_INPUT
