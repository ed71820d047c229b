"""The command line: `kdkeras COMMAND`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence

import kdkeras
from kdkeras.cli import benchmark, demo

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
    for command in (demo, benchmark):
        command.add_parser(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        return _complain("interrupted. Start the same command again.")
    except OSError as error:
        return _complain(_sentence(error))
    except ValueError as error:
        return _complain(str(error))
    except RuntimeError as error:
        if not type(error).__module__.startswith("kdkeras."):  # a defect, not bad input: show where
            raise
        return _complain(str(error))
    return 0


def _sentence(error: OSError) -> str:
    if error.strerror is None:  # raised by this library, in a sentence of its own
        return str(error)
    place = f"'{error.filename}': " if error.filename else ""
    step = "Free some space" if error.errno == errno.ENOSPC else "Check the path"
    return f"{place}{error.strerror}. Nothing was written. {step}, or choose another folder with --out."


def _complain(message: str) -> int:
    print(f"kdkeras: {message}", file=sys.stderr)
    return _BAD_INPUT
