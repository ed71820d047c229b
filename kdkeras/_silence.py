"""Keeping what C++ code prints off the terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Send everything printed in the block, from Python and from C++, to a file that is thrown away.

    This holds for the whole process: what another thread prints meanwhile is lost too. Keep the block short.

    Yields:
        Nothing.

    Example:
        >>> from kdkeras._silence import silenced
        >>> with silenced():
        ...     print("noise")
    """
    # In a notebook or under a test runner `sys.stdout` is not descriptor 1, so both need redirecting.
    with contextlib.ExitStack() as stack:
        stack.enter_context(silenced_descriptors())
        sink = stack.enter_context(tempfile.TemporaryFile("w"))
        stack.enter_context(contextlib.redirect_stdout(sink))
        stack.enter_context(contextlib.redirect_stderr(sink))
        stack.callback(_let_go, sink)
        yield


def _let_go(sink: IO[str]) -> None:
    """Take away log handlers that were made meanwhile: they would go on writing to a file that is closed."""
    named = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    for logger in [logging.root, *named]:
        for handler in [each for each in logger.handlers if getattr(each, "stream", None) is sink]:
            logger.removeHandler(handler)


@contextlib.contextmanager
def silenced_descriptors() -> Iterator[None]:
    """Discard what is written to file descriptors 1 and 2, as C++ log lines are, and leave Python's streams in place.

    For an import: a logger that is made in the block must not keep a stream that ends with it.

    Yields:
        Nothing.

    Example:
        >>> import os
        >>> from kdkeras._silence import silenced_descriptors
        >>> with silenced_descriptors():
        ...     _ = os.write(2, b"noise")
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(tempfile.TemporaryFile("w"))
        for descriptor in (1, 2):
            saved = os.dup(descriptor)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, descriptor)
            os.dup2(sink.fileno(), descriptor)
        yield
