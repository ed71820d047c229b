"""`kdkeras compress`: a smaller model out of a model file, trained on while it learns from a teacher."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from kdkeras._files import check_place
from kdkeras.cli import _data, _models

_BY = ("quantize", "prune", "cluster", "channels")
_TEMPERATURE = 4.0  # as in RepDistiller


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "compress",
        help="make a .keras classifier smaller while it learns from a teacher",
        description="Make a classifier smaller, train it on labels and a teacher, and write it: fewer bits per weight, "
        "fewer weights, fewer different weights, or fewer channels. The model file is not changed.",
    )
    parser.add_argument("model", metavar="FILE", help="a .keras file")
    parser.add_argument("--by", choices=_BY, required=True, help="what to reduce")
    parser.add_argument("--train", metavar="DATA", required=True, help=f"{_data.HELP}; of a data set the training part")
    parser.add_argument("--test", metavar="DATA", help="labelled data to score on; of a data set the test part")
    parser.add_argument("--teacher", metavar="FILE", help="the teacher, a .keras file (the model itself)")
    parser.add_argument("-o", "--out", metavar="PATH", help="what to write (FILE-BY.keras); .tflite of quantize only")
    parser.add_argument("--bits", type=int, choices=(8, 4), default=8, help="quantize: bits of a weight (8)")
    parser.add_argument("--share", type=float, default=0.5, help="prune, channels: share that goes (0.5)")
    parser.add_argument("--clusters", type=int, default=16, metavar="N", help="cluster: values per layer (16)")
    parser.add_argument("--epochs", type=int, default=5, metavar="N", help="epochs of training (5)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="samples per step (32)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, metavar="R", help="Adam's (0.001)")
    parser.add_argument("--alpha", type=float, default=0.9, help="share of the teacher in the loss, 0 to 1 (0.9)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (0)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and progress as messages")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    source = _models.check_file(options.model)
    out = source.with_name(f"{source.stem}-{options.by}.keras") if options.out is None else Path(options.out)
    _check(options, out)
    check_place(out)
    _models.quiet_tensorflow()
    import keras

    from kdkeras import compress, evaluate, export

    x, y, _ = _data.labelled(options.train, "train")
    model = _models.load(source)
    teacher = model if options.teacher is None else _models.load(_models.check_file(options.teacher))
    keras.utils.set_random_seed(options.seed)
    from_logits = _ends_in_logits(model, x)
    smaller, callbacks = _smaller(options, model, x)
    _train(options, smaller, teacher, (x, y), callbacks, from_logits)
    plain = smaller if options.by == "quantize" else compress.strip(smaller)
    if out.suffix == ".tflite":
        written = export.tflite(smaller, out, quantize="int8", calibration=x)
        files = {"file": export.load(out)}
    else:
        _models.save(plain, out)
        written, files = None, {"compressed": plain}
    record = {"written": str(out), "bytes": out.stat().st_size, "by": options.by}
    _say(options, str(written) if written is not None else f"{out}: {record['bytes'] / 1000:.1f} kB")
    if options.by != "quantize":
        record["sparsity"] = compress.sparsity(plain).share
        _say(options, str(compress.sparsity(plain)))
    if options.test is not None:
        x_test, y_test, _ = _data.labelled(options.test, "test")
        table = evaluate.compare_all({"before": model, **files}, (x_test, y_test), reference="before")
        record["comparison"] = table.to_dict()
        _say(options, str(table))
    if options.json:
        print(json.dumps(record, indent=2, ensure_ascii=False))


def _check(options: argparse.Namespace, out: Path) -> None:
    suffixes = (".keras", ".tflite") if options.by == "quantize" else (".keras",)
    if out.suffix not in suffixes:
        raise ValueError(
            f"--by {options.by} writes a file that ends in {' or '.join(suffixes)}. Received: '{out}'. "
            "`kdkeras export` makes other formats of a .keras file."
        )
    if out.resolve() == Path(options.model).resolve():
        raise ValueError(f"The compressed model needs a file of its own. Received: --out {out}, which is the model.")
    for name, least in {"epochs": 1, "batch_size": 1, "clusters": 2}.items():
        if getattr(options, name) < least:
            raise ValueError(
                f"--{name.replace('_', '-')} must be at least {least}. Received: {getattr(options, name)}."
            )
    if not 0 < options.share < 1:
        raise ValueError(f"--share must lie between 0 and 1. Received: {options.share}.")
    if not 0 <= options.alpha <= 1:
        raise ValueError(f"--alpha must lie in 0…1. Received: {options.alpha}.")


def _smaller(options: argparse.Namespace, model: Any, x: Any) -> tuple[Any, list[Any]]:
    """Return what is trained, and what keeps it small."""
    import keras

    from kdkeras import compress

    if options.by == "quantize":
        return compress.quantize_aware(model, weight_bits=options.bits, calibration=x), []
    if options.by == "channels":
        found = compress.remove_channels(model, options.share)
        _say(options, str(found))
        return found.model, []
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    if options.by == "prune":
        return copy, [compress.PruneLowMagnitude(copy, _schedule(options))]
    return copy, [compress.ClusterWeights(copy, options.clusters, seed=options.seed)]


def _schedule(options: argparse.Namespace) -> Any:
    """Return shares that are reached when three quarters are over, at the latest when the last epoch begins."""
    from kdkeras import compress

    if options.epochs == 1:
        return compress.constant(options.share)
    return compress.polynomial(options.share, epochs=min(0.75 * options.epochs, options.epochs - 1))


def _ends_in_logits(model: Any, x: Any) -> bool:
    import keras

    from kdkeras.signals import Extractor

    extractor = Extractor(model)
    logits = extractor(keras.tree.map_structure(lambda array: keras.ops.convert_to_tensor(array[:2]), x)).logits
    if extractor.head not in ("softmax", "linear") or len(logits.shape) != 2 or logits.shape[-1] < 2:
        raise ValueError(
            f"`kdkeras compress` needs a classifier that ends in a softmax or logits over several classes. Received: "
            f"'{model.name}', which ends in {extractor.head or 'no known activation'} over {logits.shape[-1]}. Use "
            "the parts of `kdkeras.compress` in Python."
        )
    return extractor.head == "linear"


def _train(
    options: argparse.Namespace,
    student: Any,
    teacher: Any,
    data: tuple[Any, Any],
    callbacks: list[Any],
    from_logits: bool,
) -> None:
    import keras

    from kdkeras import Distiller, losses

    distiller = Distiller(student=student, teacher=teacher).compile(
        optimizer=keras.optimizers.Adam(options.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits),
        metrics=["accuracy"],
        distillation_loss=losses.SoftTargets(temperature=_TEMPERATURE, weight=options.alpha),
        task_weight=1 - options.alpha,
    )
    progress = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: _say(
            options, f"epoch {epoch + 1}/{options.epochs}: loss {logs['loss']:.4f}, accuracy {logs['accuracy']:.4f}"
        )
    )
    settings = {"epochs": options.epochs, "batch_size": options.batch_size, "verbose": 0}
    distiller.fit(*data, callbacks=[*callbacks, progress], **settings)


def _say(options: argparse.Namespace, text: str) -> None:
    print(text, file=sys.stderr if options.json else sys.stdout, flush=True)
