"""`kdkeras feedback`: what people said of explanations."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("feedback", help="export what people said of explanations on the page of `explore`")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    export = actions.add_parser("export", help="write all marks into a CSV or a JSON file")
    export.add_argument("file", metavar="FILE", help="where `kdkeras explore` kept the feedback")
    export.add_argument("--to", required=True, metavar="FILE", help="a name that ends in .csv or .json")
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from kdkeras.feedback import FeedbackStore

    count = FeedbackStore(options.file).export(options.to)
    print(f"{count} {'mark' if count == 1 else 'marks'} written to {options.to}")
