"""Which models can be compressed in which way while they are distilled, natively and by tfmot over its bridge.

    python benchmarks/compression_zoo.py            all models, writes compression_zoo.json and docs/compression_zoo.md
    python benchmarks/compression_zoo.py --only mlp gru   those anew, the rest of the record stays

The models of export_zoo.py, trained on digits; each is its own teacher and trains for two more epochs under every
technique. What is recorded is the accuracy on 397 test digits: of the int8 TFLite file for quantization-aware
techniques, of the plain Keras model for the others.
"""

import os
import re
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from export_zoo import CALIBRATION, SEED, ZOO, Subclassed, accuracy, accuracy_of_file, again, targets, trained, write

from kdkeras import Distiller, compress, export, losses

EPOCHS, RATE, SPARSITY, CLUSTERS = 2, 1e-3, 0.5, 16
LOWER_RATES = {("resnet50v2", "cluster"): 1e-4}  # of tfmot
NATIVE = ("quantize_aware, 8 bits", "quantize_aware, 4 bits", "PruneLowMagnitude", "ClusterWeights")
TFMOT = ("prune", "cluster", "qat", "pqat", "cqat", "pcqat")
RECORD = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[1] / "docs" / "compression_zoo.md"


def distilled(student, teacher, x, y, losses_of_task, callbacks=()):
    """Train a student on labels and its teacher."""
    output = "digit" if isinstance(losses_of_task, dict) else None
    distiller = Distiller(student=student, teacher=teacher).compile(
        optimizer=keras.optimizers.Adam(RATE),
        loss=losses_of_task,
        distillation_loss=losses.SoftTargets(temperature=4.0, weight=0.5, output=output),
        task_weight=0.5,
    )
    distiller.fit(x, y, epochs=EPOCHS, batch_size=50, verbose=0, callbacks=list(callbacks))


def native(technique, model, data, rest, labels):
    """Return the test accuracy of a technique of ours."""
    x, *_ = data
    calibration = keras.tree.map_structure(lambda array: array[:CALIBRATION], x)
    if technique.startswith("quantize_aware"):
        bits = 8 if "8" in technique else 4
        student = compress.quantize_aware(model, weight_bits=bits, calibration=calibration)
        distilled(student, model, *data)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            export.tflite(student, path, quantize="int8", calibration=calibration, verbose=0)
            return accuracy_of_file(path, rest, labels)
    student = copy_of(model, x)
    if technique == "PruneLowMagnitude":
        callback = compress.PruneLowMagnitude(student, compress.polynomial(SPARSITY, epochs=EPOCHS - 1))
    else:
        callback = compress.ClusterWeights(student, clusters=CLUSTERS)
    distilled(student, model, *data, [callback])
    return accuracy(student.predict(rest, verbose=0), labels)


def copy_of(model, x):
    """Return the model again, also where it is subclassed and cannot be cloned."""
    copy = type(model)() if type(model) is Subclassed else keras.models.clone_model(model)
    copy.predict(x, verbose=0)  # builds it
    copy.set_weights(model.get_weights())
    return copy


def bridged(technique, model, data, rest, labels):
    """Return the test accuracy of a technique of tfmot."""
    x, y, _ = data
    rate = LOWER_RATES.get((model.name, technique), RATE)
    options = {"epochs": EPOCHS, "batch_size": 50, "learning_rate": rate, "sparsity": SPARSITY, "clusters": CLUSTERS}
    result = compress.with_tfmot(model, technique, x, y, teacher=model, seed=SEED, **options)
    if result.model is not None:
        return accuracy(result.model.predict(rest, verbose=0), labels)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        result.save(path)
        return accuracy_of_file(path, rest, labels)


def measure(name):
    """Yield one record per technique of one model."""
    model, x, rest, labels = trained(name)
    data = (x, *targets(name))
    of_keras = accuracy(model.predict(rest, verbose=0), labels)
    jobs = [(f"native: {each}", native, each) for each in NATIVE] + [
        (f"tfmot: {each}", bridged, each) for each in TFMOT
    ]
    for title, run, technique in jobs:
        record = {"model": name, "technique": title, "keras_accuracy": of_keras}
        keras.utils.set_random_seed(SEED)
        try:
            yield record | {"accuracy": run(technique, model, data, rest, labels)}
        except (compress.TfmotError, export.ConversionError, export.ExportParityError, TypeError, ValueError) as error:
            yield record | {"refused": type(error).__name__, "message": _without_paths(str(error))}


def _without_paths(message):
    return " ".join("FILE" if word.startswith("/") else word for word in message.split())


def table(records):
    """Return the records as Markdown."""
    techniques = list(dict.fromkeys(record["technique"] for record in records))
    lines = [f"| | Keras | {' | '.join(techniques)} |", "|" + "---|" * (len(techniques) + 2)]
    notes = {}
    for name in dict.fromkeys(record["model"] for record in records):
        mine = {record["technique"]: record for record in records if record["model"] == name}
        cells = [f"{100 * next(iter(mine.values()))['keras_accuracy']:.1f}"]
        for technique in techniques:
            record = mine[technique]
            refused = "refused" in record
            if refused:
                message = re.sub(r"(?<=by )'\w+'", "TECHNIQUE", record["message"])
                message = re.sub(r"(lstm|gru)_\d+", r"\1", message)  # how often Keras has made such a layer before
                number = notes.setdefault(message, len(notes) + 1)
            cells.append(f"refused [{number}]" if refused else f"{100 * record['accuracy']:.1f}")
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{number}. {message}" for message, number in notes.items())])


def page(records):
    """Return the page of the documentation."""
    measured = {record["model"] for record in records}
    missing = [name.replace("_", " ") for name in ZOO if name not in measured]
    left_out = f" Not measured yet, for they take half an hour each: {', '.join(missing)}." if missing else ""
    lower = LOWER_RATES["resnet50v2", "cluster"]
    return f"""# Which models can be compressed in which way

Accuracy on 397 test digits after {EPOCHS} epochs of distillation from the model itself: of the int8 TFLite file for
quantization-aware techniques (the 4-bit one has INT4 kernels), of the plain Keras model for the others
({SPARSITY:.0%} pruned, {CLUSTERS} clusters). In the first column the model as it was. Else the sentence that the user
gets. One seed: the page is about what works on which architecture, not about which technique is better.

`python benchmarks/compression_zoo.py` (seed {SEED}) wrote this page and
[its record](../benchmarks/compression_zoo.json).{left_out}

All learn at a rate of {RATE:g}, but for tfmot's clustering of ResNet50V2, at {lower:g}. At {RATE:g} that fell to chance
(empty the script's `LOWER_RATES` to see it): each step moves all weights of a cluster together. `with_tfmot` warns of
that.

{table(records)}
"""


def main():
    """Measure, write the record and the page."""
    packages = ("kdkeras", "keras", "tensorflow", "tf_keras", "tensorflow-model-optimization")
    for runs in again(__doc__, RECORD, measure, table):
        write(RECORD, runs, packages, PAGE, page(runs))


if __name__ == "__main__":
    main()
