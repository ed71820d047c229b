"""`kdkeras demo`: the main job on real data."""

from __future__ import annotations

import argparse
import os
from typing import Any

_DATA = ("digits", "fashion_mnist", "breast_cancer")


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "demo",
        help="teacher, distilled student, TFLite files, explanations and a report",
        description="Train a teacher, a student alone and the same student distilled; export four TFLite files, distil "
        "a soft decision tree, compare explanations, and write models, record and report into one folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", choices=_DATA, default="digits", help="data set")
    parser.add_argument("--out", default="kdkeras-demo", metavar="DIR", help="output folder")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of weights, batches and dropout")
    parser.add_argument("--quick", action="store_true", help="shorten every stage; the figures then mean nothing")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run in DIR")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from kdkeras._silence import silenced_descriptors

    with silenced_descriptors():  # TensorFlow logs its first lines before any setting of its own works
        import tensorflow as tf

        tf.config.list_physical_devices()
        tf.get_logger().setLevel("ERROR")  # it warns that several models are traced, which is what a comparison does
        from kdkeras import demo

    result = demo.run(
        options.data,
        options.out,
        seed=options.seed,
        quick=options.quick,
        overwrite=options.overwrite,
        progress=lambda line: print(line, flush=True),
    )
    print(f"\n{result.comparison}\n")
    for table in (result.export_table(), result.tree_table()):
        print(f"{_aligned(table)}\n")
    print(f"Report: {result.out / 'report.html'}")


def _aligned(table: list[tuple[str, ...]]) -> str:
    from tabulate import tabulate

    header, *lines = table
    return tabulate(lines, headers=header, colalign=("left", *["right"] * (len(header) - 1)), disable_numparse=True)
