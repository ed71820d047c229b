"""Which kinds of model reach a TFLite file, in every mode of `export.tflite`: a file that passed, or a refusal.

    python benchmarks/export_zoo.py                 all models, writes export_zoo.json and docs/export_zoo.md
    python benchmarks/export_zoo.py --only lstm gru   those anew, the rest of the record stays

Every model is trained for a few epochs on scikit-learn's digits (1,400 images), because agreement means nothing on a
model that has learned nothing; 256 of the images calibrate and are compared, 397 others are classified by file and by
Keras.
"""

import argparse
import json
import os
import platform
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits

import kdkeras
from kdkeras import export

SEED, TRAIN, CALIBRATION = 0, 1400, 256
MODES = (None, "float16", "dynamic", "int8", "int16x8", "int4")
RECORD = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[1] / "docs" / "export_zoo.md"
layers = keras.layers


class Entry(NamedTuple):
    """One model of the zoo.

    Attributes:
        build: Returns the model, not trained.
        view: Turns images `(n, 8, 8)` in 0…1 into its inputs.
        epochs: How long it is trained.
        slow: Whether it takes more than a few seconds.
    """

    build: Callable[[], keras.Model]
    view: Callable[[np.ndarray], Any]
    epochs: int = 8
    slow: bool = False


def images(x):
    """8×8×1."""
    return x[..., None]


def large(x):
    """32×32×3, every pixel 4×4 times."""
    return np.repeat(np.kron(x, np.ones((1, 4, 4), "float32"))[..., None], 3, axis=-1)


def rows(x):
    """Eight steps of eight values."""
    return x


def flat(x):
    """64 features."""
    return x.reshape(len(x), -1)


def words(x):
    """64 words of a vocabulary of 17."""
    return (flat(x) * 16).astype("int32")


def raw(x):
    """Raw pixels, 0…255."""
    return 255 * images(x)


def picture_and_table(x):
    """The upper half as a picture, the lower half as a table."""
    return {"picture": images(x)[:, :4], "table": flat(x)[:, 32:]}


def application(make, **options):
    """Return a builder of one of Keras' applications for 32×32 images and ten classes."""
    return lambda: make(weights=None, input_shape=(32, 32, 3), classes=10, **options)


def sequential(shape, *parts, dtype="float32"):
    """Return a Sequential that ends in ten classes."""
    inputs = keras.Input(shape, dtype=dtype, name="x")
    return keras.Sequential([inputs, *parts, layers.Dense(10, activation="softmax", dtype="float32")])


def cnn():
    """Convolutions with batch normalisation."""
    norm = [layers.Conv2D(16, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU()]
    return sequential((8, 8, 1), *norm, layers.Conv2D(24, 3, activation="relu"), layers.GlobalAveragePooling2D())


def depthwise():
    """A small MobileNet."""
    blocks = []
    for filters in (16, 32):
        blocks += [layers.DepthwiseConv2D(3, padding="same", use_bias=False), layers.BatchNormalization()]
        blocks += [layers.ReLU(6), layers.Conv2D(filters, 1, activation="relu")]
    return sequential((8, 8, 1), layers.Conv2D(8, 3, padding="same"), *blocks, layers.Flatten())


def mlp():
    """Two hidden layers."""
    return sequential((64,), layers.Dense(64, "relu"), layers.Dropout(0.1), layers.Dense(32, "gelu"))


def transformer():
    """Words with positions, one block."""
    inputs = keras.Input((64,), dtype="int32", name="words")
    positions = layers.Embedding(64, 16)(keras.ops.arange(64)[None])
    hidden = layers.Embedding(17, 16)(inputs) + positions
    hidden = layers.LayerNormalization()(hidden + layers.MultiHeadAttention(2, 8)(hidden, hidden))
    hidden = layers.LayerNormalization()(hidden + layers.Dense(16)(layers.Dense(32, "gelu")(hidden)))
    pooled = layers.Flatten()(hidden)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(pooled))


def several():
    """Two inputs, two outputs, both by name."""
    picture, table = keras.Input((4, 8, 1), name="picture"), keras.Input((32,), name="table")
    hidden = layers.Concatenate()([layers.Flatten()(layers.Conv2D(8, 3, activation="relu")(picture)), table])
    hidden = layers.Dense(32, "relu")(hidden)
    digit = layers.Dense(10, activation="softmax", name="digit")(hidden)
    odd = layers.Dense(1, activation="sigmoid", name="odd")(hidden)
    return keras.Model({"picture": picture, "table": table}, {"digit": digit, "odd": odd})


def preprocessing():
    """Raw pixels in; rescaled, resized and standardised inside."""
    standard = layers.Normalization(mean=0.3, variance=0.1)
    parts = [layers.Rescaling(1 / 255), layers.Resizing(10, 10), standard, layers.Conv2D(16, 3, activation="relu")]
    return sequential((8, 8, 1), *parts, layers.Flatten())


class Subclassed(keras.Model):
    """A `call` of its own."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.hidden, self.head = layers.Dense(48, "relu"), layers.Dense(10, activation="softmax")

    def call(self, x):
        """Return class probabilities."""
        return self.head(keras.ops.concatenate([self.hidden(x), x], axis=-1))


def half():
    """A CNN in mixed_float16."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return cnn()
    finally:
        keras.config.set_dtype_policy(previous)


def recurrent(layer):
    """Return a builder of a recurrent network."""
    return lambda: sequential((8, 8), layer())


def raw_large(x):
    """32×32×3, 0…255, for models that rescale inside."""
    return 255 * large(x)


applications = keras.applications
ZOO = {
    "mobilenet_v2": Entry(application(applications.MobileNetV2, alpha=0.35), large, 6, slow=True),
    "mobilenet_v3_small": Entry(application(applications.MobileNetV3Small), raw_large, 6, True),
    "efficientnet_b0": Entry(application(applications.EfficientNetB0), raw_large, 4, slow=True),
    "resnet50_v2": Entry(application(applications.ResNet50V2), large, 3, slow=True),
    "cnn_batch_norm": Entry(cnn, images, 12),
    "depthwise_cnn": Entry(depthwise, images),
    "mlp": Entry(mlp, flat),
    "lstm": Entry(recurrent(lambda: layers.LSTM(24)), rows),
    "lstm_unrolled": Entry(recurrent(lambda: layers.LSTM(24, unroll=True)), rows),
    "gru": Entry(recurrent(lambda: layers.GRU(24)), rows),
    "bidirectional_lstm": Entry(recurrent(lambda: layers.Bidirectional(layers.LSTM(16))), rows),
    "transformer": Entry(transformer, words, 10),
    "several_inputs_and_outputs": Entry(several, picture_and_table),
    "preprocessing": Entry(preprocessing, raw),
    "subclassed": Entry(Subclassed, flat),
    "mixed_float16": Entry(half, images, 12),
    "soft_decision_tree": Entry(lambda: kdkeras.SoftDecisionTree(depth=5, num_classes=10), flat, 20),
}


def trained(name):
    """Return a model of the zoo with its training inputs, test inputs and test labels."""
    entry = ZOO[name]
    pixels, labels = load_digits(return_X_y=True)
    x = (pixels / 16).astype("float32").reshape(-1, 8, 8)
    first, rest = entry.view(x[:TRAIN]), entry.view(x[TRAIN:])
    keras.utils.set_random_seed(SEED)
    model = entry.build()
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.9  # Keras' applications have 0.999, whose averages a few hundred steps do not fill
    y, losses = targets(name)
    if name == "soft_decision_tree":
        model.fit(first, y, epochs=entry.epochs, verbose=0)
    else:
        model.compile(keras.optimizers.Adam(3e-3), losses)
        model.fit(first, y, epochs=entry.epochs, batch_size=50, verbose=0)
    return model, first, rest, labels[TRAIN:]


def targets(name):
    """Return the training targets of a model of the zoo, and its losses."""
    y = load_digits().target[:TRAIN]
    if name == "several_inputs_and_outputs":
        return {"digit": y, "odd": y % 2}, {"digit": "sparse_categorical_crossentropy", "odd": "binary_crossentropy"}
    return y, "sparse_categorical_crossentropy"


def accuracy_of_file(path, x, labels):
    """Return the share of right classes that a TFLite file names."""
    lite = export.load(path)
    given = x if len(lite.input_dtypes) > 1 else {next(iter(lite.input_dtypes)): x}
    outputs = lite.run(given)
    return accuracy(next(values for values in outputs.values() if values.shape[-1] == 10), labels)


def accuracy(outputs, labels):
    """Return the share of right classes, also where they are one of several outputs."""
    outputs = outputs["digit"] if isinstance(outputs, dict) else outputs
    return float((np.asarray(outputs).argmax(axis=-1) == labels).mean())


def measure(name):
    """Return one record per mode of one model."""
    model, first, rest, labels = trained(name)
    calibration = keras.tree.map_structure(lambda array: array[:CALIBRATION], first)
    of_keras = accuracy(model.predict(rest, verbose=0), labels)
    with tempfile.TemporaryDirectory() as folder:
        for mode in MODES:
            path = Path(folder) / "model.tflite"
            record = {"model": name, "mode": mode, "keras_accuracy": of_keras}
            try:
                result = export.tflite(model, path, quantize=mode, calibration=calibration, verbose=0)
            except (export.ConversionError, export.ExportParityError, ValueError) as error:
                yield record | {"refused": type(error).__name__, "message": str(error).replace(str(path), "FILE")}
                continue
            yield record | {
                "bytes": result.bytes,
                "agreement": result.agreement,
                "max_rel_error": result.max_rel_error,
                "accuracy": accuracy_of_file(path, rest, labels),
                "latency_ms": result.latency_1_thread.median,
            }


def table(records):
    """Return the records as Markdown: test accuracy and size of each file, or why there is none."""
    titles = ["Keras", *(mode or "float32" for mode in MODES)]
    lines = [f"| | {' | '.join(titles)} |", "|" + "---|" * (len(titles) + 1)]
    notes: dict[str, int] = {}
    for name in dict.fromkeys(record["model"] for record in records):
        mine = {record["mode"]: record for record in records if record["model"] == name}
        cells = [f"{100 * mine[None]['keras_accuracy']:.1f}"]
        for mode in MODES:
            record = mine[mode]
            if "refused" in record:
                number = notes.setdefault(record["message"], len(notes) + 1)
                cells.append(f"refused [{number}]")
            else:
                cells.append(f"{100 * record['accuracy']:.1f}, {record['bytes'] / 1000:.0f} kB")
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{number}. {message}" for message, number in notes.items())])


def page(records):
    """Return the page of the documentation."""
    return f"""# Which models reach a TFLite file

Accuracy on 397 test digits and size of the file, for every mode of `export.tflite`; Keras' own accuracy in the first
column. A file is only there where it passed the parity gate; else the sentence that the user gets. Nothing is skipped.
The models are trained for a few epochs on digits (those of `keras.applications` on enlarged digits, from random
weights): the page is about what converts, not about how good the models are.

`python benchmarks/export_zoo.py` (seed {SEED}) wrote this page and [its record](../benchmarks/export_zoo.json).

{table(records)}
"""


def write(path, runs, packages, page_path, text):
    """Write the record of a script of this folder, and the page of the documentation that is made of it."""
    record = {
        "command": f"python benchmarks/{path.stem}.py",
        "seed": SEED,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {each: version(each) for each in packages},
        "runs": runs,
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    page_path.write_text(text, encoding="utf-8")


def again(description, path, measure, table):
    """Measure the models that the command line names anew, and yield the whole record after each of them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ZOO, default=list(ZOO))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    kept = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
    for name in options.only:
        found = list(measure(name))
        print(table(found), flush=True)
        kept = [record for record in kept if record["model"] != name] + found
        kept.sort(key=lambda record: list(ZOO).index(record["model"]))  # stable: modes stay as measured
        yield kept


def main():
    """Measure, write the record and the page."""
    for runs in again(__doc__, RECORD, measure, table):
        write(RECORD, runs, ("kdkeras", "keras", "tensorflow", "ai-edge-litert"), PAGE, page(runs))


if __name__ == "__main__":
    main()
