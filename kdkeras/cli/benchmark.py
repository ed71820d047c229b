"""`kdkeras benchmark`: every distillation loss beside the others."""

from __future__ import annotations

import argparse
import os
from typing import Any

_DATA = ("fashion_mnist", "digits")


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "benchmark",
        help="every distillation loss beside the others, on real data",
        description="Train one student per loss, network pair and seed, and write a CSV file and an HTML page with "
        "accuracy, agreement, KL, explanation agreement and step cost. Stopped, the same command goes on.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", choices=_DATA, default="fashion_mnist", help="data set")
    parser.add_argument("--losses", default="all", metavar="NAMES", help="names with commas between, or all")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="number of seeds")
    parser.add_argument(
        "--pairs", metavar="NAMES", help="of same family, different family, transformer, with commas; by default all"
    )
    parser.add_argument(
        "--factors", default="1", metavar="NUMBERS", help="on the weight of each loss, tried side by side"
    )
    parser.add_argument("--epochs", type=int, default=8, metavar="N", help="epochs of each student")
    parser.add_argument("--learning-rate", type=float, default=5e-3, metavar="R", help="Adam's, for students")
    parser.add_argument("--images", type=int, default=10_000, metavar="N", help="number of training images")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="number of processes")
    parser.add_argument("--out", default="kdkeras-benchmark", metavar="DIR", help="folder of the results")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from kdkeras._silence import silenced_descriptors

    with silenced_descriptors():  # TensorFlow logs its first lines before any setting of its own works
        import tensorflow as tf

        tf.config.list_physical_devices()
        tf.get_logger().setLevel("ERROR")  # it warns that several models are traced, which is what a comparison does
        from kdkeras import benchmark

    names = "all" if options.losses == "all" else _split(options.losses)
    result = benchmark.run(
        options.data,
        names,
        options.out,
        seeds=options.seeds,
        pairs=_split(options.pairs) if options.pairs else None,
        factors=_numbers(options.factors),
        settings=benchmark.Settings(
            options.data, images=options.images, epochs=options.epochs, learning_rate=options.learning_rate
        ),
        jobs=options.jobs,
        progress=lambda line: print(line, flush=True),
    )
    from tabulate import tabulate

    for pair in dict.fromkeys(row.pair for row in result.rows):
        header, *lines = result.table(pair)
        print(f"\n{pair}\n{tabulate(lines, headers=header, disable_numparse=True)}")
    print(f"\nReport: {result.out / 'report.html'}")


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in _split(text)]
    except ValueError:
        raise ValueError(f"--factors takes numbers with commas between, such as 1,0.1. Received: {text}.") from None
