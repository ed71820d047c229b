"""Keeping what C++ code prints off the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Send everything printed in the block, from Python and from C++, to a file that is thrown away.

    The converter and the LiteRT runtime write their log lines to file descriptors 1 and 2 directly, past
    `sys.stdout` and `sys.stderr`, so the descriptors themselves are redirected. This holds for the whole process:
    what another thread prints meanwhile is lost too. Keep the block short.

    Yields:
        Nothing.

    Example:
        >>> import os
        >>> from kdkeras.export._silence import silenced
        >>> with silenced():
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
        # In a notebook or under a test runner `sys.stdout` is not descriptor 1.
        stack.enter_context(contextlib.redirect_stdout(sink))
        stack.enter_context(contextlib.redirect_stderr(sink))
        yield
