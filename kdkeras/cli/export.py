"""`kdkeras export`: Keras models as files for the phone, each checked against Keras."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdkeras.cli import _data, _models

_SUFFIXES = {"tflite": ".tflite", "onnx": ".onnx", "saved_model": ""}
_QUANTIZE = ("float32", "float16", "dynamic", "int8", "int16x8", "int4")


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "export",
        help="write .keras models as TFLite, ONNX or SavedModel, each checked against Keras",
        description="Write each model in another format, run it there, and compare it with Keras. What does not answer "
        "as Keras does is not kept, and what stood there stays. Beside a TFLite file stands its card, as JSON and as a "
        "page.",
    )
    parser.add_argument("models", nargs="+", metavar="FILE", help=".keras files")
    parser.add_argument(
        "-o", "--out", metavar="PATH", help="what to write; of several models the folder (beside each model)"
    )
    parser.add_argument("--format", choices=_SUFFIXES, help="what to write (onnx where --out ends so, else tflite)")
    parser.add_argument("--quantize", choices=_QUANTIZE, default="float32", help="numbers of a TFLite file (float32)")
    parser.add_argument(
        "--calibration", metavar="DATA", help=f"representative inputs: {_data.HELP}; of a data set the training part"
    )
    parser.add_argument(
        "--io-dtype", choices=("float32", "int8", "uint8", "int16"), help="inputs and outputs of the file"
    )
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="samples in one run of a TFLite file (1)"
    )
    parser.add_argument(
        "--min-agreement", type=float, default=0.95, metavar="SHARE", help="least share of equal decisions (0.95)"
    )
    parser.add_argument(
        "--float-ops", default="", metavar="NAMES", help="TFLite ops that may stay in float, with commas"
    )
    parser.add_argument(
        "--class-names", metavar="NAMES", help="for the card: names of the classes, with commas (those of --test)"
    )
    parser.add_argument("--preprocessing", metavar="TEXT", help="for the card: what is done to data before the call")
    parser.add_argument("--teacher", metavar="FILE", help="for the card: the teacher, a .keras file")
    parser.add_argument(
        "--test", metavar="DATA", help="for the card: labelled data to score on; of a data set the test part"
    )
    parser.add_argument("--no-card", action="store_true", help="write no card beside a TFLite file")
    parser.add_argument("--json", action="store_true", help="print the results as JSON, and progress as messages")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    if options.format is None:
        options.format = "onnx" if (options.out or "").endswith(".onnx") else "tflite"
    plan = _plan(options)
    write = _writer(options)
    done, failed = [], []
    for number, (source, target) in enumerate(plan, start=1):
        _say(options, f"[{number}/{len(plan)}] {source} → {target}")
        try:
            done.append(write(source, target))
        except (ValueError, OSError, RuntimeError) as error:
            if len(plan) == 1 or (
                isinstance(error, RuntimeError) and not type(error).__module__.startswith("kdkeras.")
            ):
                raise
            failed.append(f"{source}: {error}")
            _say(options, f"  not exported: {error}")
            continue
        _say(options, str(done[-1]))
    if options.json:
        print(json.dumps([result.to_dict() for result in done], indent=2, ensure_ascii=False))
    if failed:
        raise ValueError(f"{len(failed)} of {len(plan)} models were not exported. {' '.join(failed)}")


def _say(options: argparse.Namespace, line: str) -> None:
    print(line, file=sys.stderr if options.json else sys.stdout, flush=True)


def _plan(options: argparse.Namespace) -> list[tuple[Path, Path]]:
    """What goes where, refused as a whole before anything is loaded."""
    sources = [_models.check_file(name) for name in options.models]
    suffix = _SUFFIXES[options.format]
    out = None if options.out is None else Path(options.out)
    folder = out is not None and (len(sources) > 1 or (bool(suffix) and out.is_dir()))
    targets = []
    for source in sources:
        name = source.stem + suffix
        targets.append(source.with_name(name) if out is None else out / name if folder else out)
    if len(set(targets)) < len(targets):
        raise ValueError(
            f"The models need names of their own. Received: {', '.join(map(str, sources))}, of which several would be "
            f"written to one place. Export them one by one with -o."
        )
    return list(zip(sources, targets, strict=True))


def _writer(options: argparse.Namespace) -> Callable[[Path, Path], Any]:
    """Read what all models share, and return what exports one of them."""
    _models.quiet_tensorflow()
    from kdkeras import export

    calibration = None if options.calibration is None else _data.inputs_of(options.calibration, "train")
    if options.format != "tflite":
        _refuse_tflite_options(options)
        write = {"onnx": export.onnx, "saved_model": export.saved_model}[options.format]
        return lambda source, target: write(_models.load(source), target, calibration=calibration)
    settings = {
        "quantize": None if options.quantize == "float32" else options.quantize,
        "calibration": calibration,
        "io_dtype": options.io_dtype,
        "batch_size": options.batch_size,
        "min_agreement": options.min_agreement,
        "float_ops": _split(options.float_ops),
        "card": None if options.no_card else _card(options),
    }
    return lambda source, target: export.tflite(_models.load(source), target, **settings)


def _refuse_tflite_options(options: argparse.Namespace) -> None:
    given = {
        "--quantize": options.quantize != "float32",
        "--io-dtype": options.io_dtype is not None,
        "--batch-size": options.batch_size != 1,
    }
    if names := [name for name, is_given in given.items() if is_given]:
        raise ValueError(f"{', '.join(names)} is of TFLite files. Received: --format {options.format}. Leave it out.")


def _card(options: argparse.Namespace) -> Any:
    from kdkeras import export

    x, y, names = (None, None, None) if options.test is None else _data.labelled(options.test, "test")
    return export.Card(
        class_names=names if options.class_names is None else _split(options.class_names),
        preprocessing=options.preprocessing,
        teacher=None if options.teacher is None else _models.load(Path(options.teacher)),
        test_data=None if options.test is None else (x, y),
    )


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
