"""A small training in which everything has a state: for the tests, and as a program that they kill.

`python resumable.py FOLDER RESULT DATA EPOCHS EVERY [ROWS]` writes the final variables and the history to RESULT.
"""

import json
import pathlib
import sys

import keras
import numpy as np

import kdkeras
from kdkeras.callbacks import Resume

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Crash(BaseException):
    """Stands for the end of the process."""


class CrashAt(keras.callbacks.Callback):
    """Ends the training before a batch."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.place, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.place:
            raise Crash


class Sequence(keras.utils.PyDataset):
    """Shuffles itself after each epoch, with a generator of its own."""

    def __init__(self, x, y, batch_size):
        super().__init__()
        self.x, self.y, self.batch_size = x, y, batch_size
        self.rng = np.random.default_rng(5)
        self.order = np.arange(len(x))

    def __len__(self):
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index):
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.x[rows] + self.rng.normal(size=(len(rows), 1, 1, 1)).astype("float32"), self.y[rows]

    def on_epoch_end(self):
        self.order = self.rng.permutation(len(self.x))


def batches(x, y, batch_size):
    """Draws batches without end, with numpy's global generator."""
    while True:
        rows = np.random.permutation(len(x))[:batch_size]
        yield x[rows], y[rows]


def network(width, name, random=False):
    """A small CNN, with augmentation and dropout if `random`."""
    augmentation = [keras.layers.RandomFlip("horizontal"), keras.layers.RandomTranslation(0.1, 0.1)]
    layers = [
        keras.Input((6, 6, 1)),
        *(augmentation if random else []),
        keras.layers.Conv2D(width, 3, activation="relu"),
        keras.layers.BatchNormalization(),
        *([keras.layers.Dropout(0.3)] if random else []),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3),
    ]
    return keras.Sequential(layers, name=name)


def distiller(**options):
    """Adam with averaged weights, dropout, augmentation, BatchNorm, a metric."""
    model = kdkeras.Distiller(student=network(4, "student", random=True), teacher=network(8, "teacher"))
    return model.compile(
        optimizer=keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=7),
        loss=CROSSENTROPY,
        metrics=["accuracy"],
        distillation_loss=kdkeras.losses.SoftTargets(temperature=4, weight=0.9),
        **options,
    )


def plain():
    """A dense network that is quick to compile, with dropout and momentum."""
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dropout(0.3), keras.layers.Dense(3)]
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), CROSSENTROPY)
    return model


def arrays(rows=50):
    """Noise with labels."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 6, 6, 1)).astype("float32"), rng.integers(0, 3, rows)


def data_of_kind(kind, x, y, resume):
    """Return the arguments of `fit` that give the data in one of its forms, 8 in a batch."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=3, reshuffle_each_iteration=True)
    if kind == "dataset":
        return {"x": resume.advance(dataset.batch(8))}
    if kind == "unknown_length":
        return {"x": resume.advance(dataset.batch(8).filter(lambda x, y: True))}
    if kind == "endless_dataset":
        return {"x": resume.advance(dataset.repeat().batch(8)), "steps_per_epoch": 5}
    if kind == "generator":
        return {"x": resume.advance(batches(x, y, 8)), "steps_per_epoch": 5}
    if kind == "sequence":
        return {"x": resume.also[-1]}
    return {"x": x, "y": y, "batch_size": 8}


def train(folder, kind="shuffled", *, epochs=3, crash=None, callbacks=(), rows=50, model=plain, fit=None, **options):
    """Do what a command does that is started again and again: make all from the seed, `Resume` does the rest.

    Args:
        folder: Where `Resume` keeps its state.
        kind: Form of the data.
        epochs: Epochs.
        crash: A callback that ends the training.
        callbacks: Functions that make other callbacks; their state is saved too.
        rows: Number of samples.
        model: Function that makes the model.
        fit: Further arguments of `fit`.
        **options: Further arguments of `Resume`.

    Returns:
        The final variables, and the history.
    """
    keras.utils.clear_session()
    keras.utils.set_random_seed(11)
    model = model()
    x, y = arrays(rows)
    callbacks = [make() for make in callbacks]
    also = [*callbacks, *([Sequence(x, y, 8)] if kind == "sequence" else [])]
    resume = Resume(folder, also=also, **options)
    history = model.fit(
        **data_of_kind(kind, x, y, resume),
        validation_data=arrays(20),
        epochs=epochs,
        verbose=0,
        shuffle=kind == "shuffled",
        callbacks=[*([crash] if crash else []), *callbacks, resume],
        **(fit or {}),
    )
    variables = [keras.ops.convert_to_numpy(variable) for variable in [*model.variables, *model.optimizer.variables]]
    return variables, history.history


class Begin(keras.callbacks.Callback):
    """Tells whoever started this program that the training begins."""

    def on_train_begin(self, logs=None):
        sys.stderr.write("begin\n")
        sys.stderr.flush()


if __name__ == "__main__":
    folder, result, kind, epochs, every, *rows = sys.argv[1:]
    variables, history = train(
        folder,
        kind,
        epochs=int(epochs),
        every=int(every),
        rows=int(rows[0]) if rows else 50,
        model=distiller,
        crash=Begin(),
    )
    np.savez(result, **{str(position): value for position, value in enumerate(variables)})
    pathlib.Path(result).with_suffix(".json").write_text(json.dumps(history))
