"""The same 20 steps of SGD, on whatever devices a script sets up."""

import json
import sys

import keras
import numpy as np

import kdkeras

BATCH = 16
rng = np.random.default_rng(0)
X = rng.random((64, 8, 8, 1)).astype("float32")
Y = rng.integers(0, 3, 64).astype("int32")
WEIGHTS = rng.random(64).astype("float32")
WEIGHTS[:8] = 0


def network(width, name):
    # JAX sees the whole batch in any case.
    settings = {"synchronized": True} if keras.backend.backend() == "tensorflow" else {}
    layers = [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(width, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(0.01), name="conv"),
        keras.layers.BatchNormalization(name="norm", **settings),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, name="head"),
    ]
    return keras.Sequential(layers, name=name)


def distiller(*, student=None, teacher=None, optimizer=None, **arguments):
    keras.utils.set_random_seed(0)
    made = network(6, "teacher"), network(4, "student")  # always both, so that the student's weights are the same
    losses = [kdkeras.losses.SoftTargets(4.0, weight=0.9), kdkeras.losses.Hints("conv", "conv", weight=0.5)]
    return kdkeras.Distiller(student=student or made[1], teacher=teacher or made[0]).compile(
        optimizer=optimizer or keras.optimizers.SGD(0.1),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        distillation_loss=losses,
        task_weight=0.3,
        **arguments,
    )


def results(model, epochs=5):
    """Return all that must be the same on one device and on several, after four steps per epoch."""
    options = {"batch_size": BATCH, "verbose": 0}
    history = model.fit(
        X, Y, sample_weight=WEIGHTS, validation_data=(X, Y, WEIGHTS), epochs=epochs, shuffle=False, **options
    ).history
    return {
        "history": history,
        "evaluate": model.evaluate(X, Y, return_dict=True, **options),
        "predict": model.predict(X, **options).tolist(),
        "weights": [array.tolist() for array in model.student.get_weights()],
    }


def refusal(function, *args, **kwargs):
    """Return the message of the error that a call raises."""
    try:
        function(*args, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def report(value):
    """Hand results to the test: the last line of stdout."""
    sys.stdout.write("\n" + json.dumps(value, default=float) + "\n")
