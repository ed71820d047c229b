"""The process that converts, seen from this one: started once, used again, and replaced when it crashed."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from kdkeras.export import _convert

Say = Callable[[str, int, int], None]
_LOCK = threading.Lock()
_process: subprocess.Popen[bytes] | None = None


class ConverterError(Exception):
    """The converter raised; the message is its traceback."""


class ConverterCrashError(Exception):
    """The process that converts ended without an answer.

    Attributes:
        signal: The signal that ended it, 0 where there was none.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"signal {signal}")
        self.signal = signal


def start() -> None:
    """Start the process unless it runs, so that it imports TensorFlow while this one does something else."""
    global _process
    with _LOCK:
        if _process is None or _process.poll() is not None:
            if _process is not None:
                _end(_process)
            # -P keeps this package's folder off the script's module path.
            command = [sys.executable, "-P", _convert.__file__]
            quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            _process = subprocess.Popen(command, env=quiet, **pipes)


def ask(task: str, say: Say, **arguments: Any) -> Any:
    """Let the process do something, and wait for it.

    Args:
        task: Name of a function of `_convert`.
        say: Is told each step: its name, and how much of how much is done.
        **arguments: Its other arguments.

    Returns:
        Its result.

    Raises:
        ConverterError: The converter raised.
        ConverterCrashError: The process died.
    """
    line = json.dumps({"task": task} | arguments).encode() + b"\n"
    for last_try in (False, True):
        start()
        with _LOCK:
            process = _process
            try:
                process.stdin.write(line)
                process.stdin.flush()
                answer = _answer(process, say)
            except BrokenPipeError:  # it had ended because nothing came for a while
                answer = None
            except BaseException:  # an interrupt: what it answers later must not be taken for another's answer
                _end(process)
                raise
            if answer is None:
                process.wait()
                if process.returncode != 0 or last_try:
                    raise ConverterCrashError(max(-process.returncode, 0))
                continue
        if "error" in answer:
            raise ConverterError(answer["error"])
        return answer["result"]
    raise AssertionError("the loop ends by itself")


def _answer(process: subprocess.Popen[bytes], say: Say) -> dict[str, Any] | None:
    while reply := process.stdout.readline():
        message = json.loads(reply)
        if "step" not in message:
            return message
        say(message["step"], message["done"], message["of"])
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


@atexit.register
def _end_with_this_process() -> None:
    if _process is not None:  # where this one is killed, its end of the pipe closes, and that one ends too
        _end(_process)


def _forget() -> None:
    """A forked process must not talk into its parent's pipes."""
    global _process
    _process = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
