"""A line on the terminal that says what long work is doing."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Literal

_PATIENCE = 2.0  # seconds before anything is shown

Verbose = Literal["auto", 0, 1]


class Progress:
    """Shows a step and the seconds since the start, on standard error, while a block runs.

    Args:
        title: What is being done.
        verbose: 0 shows nothing; 1 shows every step in a line of its own; `"auto"` rewrites one line, on a terminal, of
            what takes over two seconds.
    """

    def __init__(self, title: str, verbose: Verbose) -> None:
        self._title, self._verbose = title, verbose
        self._step, self._start = "", time.monotonic()
        self._shown = 0  # length of the line that stands on the terminal
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Progress:
        if self._verbose == "auto" and sys.stderr.isatty():
            self._thread = threading.Thread(target=self._rewrite, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            sys.stderr.write("\r" + " " * self._shown + "\r" if self._shown else "")
            sys.stderr.flush()

    def __call__(self, step: str, done: int = 0, of: int = 0) -> None:
        """Say what is being done now, and how far it is.

        Args:
            step: Its name.
            done: How many samples are through.
            of: Of how many; 0 where they are not counted.
        """
        news = step != self._step.split(" ")[0]
        self._step = f"{step} {done}/{of}" if of else step
        if self._verbose == 1 and (news or done == of):
            sys.stderr.write(f"{self._line()}\n")

    def _rewrite(self) -> None:
        wait = _PATIENCE
        while not self._over.wait(wait):
            line = self._line()
            sys.stderr.write("\r" + line.ljust(self._shown))
            sys.stderr.flush()
            self._shown, wait = len(line), 0.5

    def _line(self) -> str:
        return f"{self._title}: {self._step}, {time.monotonic() - self._start:.0f} s"
