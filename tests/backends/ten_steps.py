"""Ten SGD steps of a distiller from fixed weights on fixed data, on the backend that KERAS_BACKEND names.

`python ten_steps.py OUT.npz` writes the student's and the projector's weights, and what `evaluate` says.
"""

import sys

import keras
import numpy as np

import kdkeras
from kdkeras import losses


def network(width, name):
    layers = [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(width, 3, activation="relu", name="conv"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, activation="softmax", name="head"),
    ]
    return keras.Sequential(layers, name=name)


def set_weights(layer, seed):
    rng = np.random.default_rng(seed)
    for variable in layer.weights:
        values = rng.random(variable.shape) if "variance" in variable.path else rng.standard_normal(variable.shape)
        variable.assign(0.5 * values.astype("float32"))


def run():
    rng = np.random.default_rng(0)
    x = rng.random((40, 8, 8, 1)).astype("float32")
    y = rng.integers(-1, 3, 40).astype("int32")  # some not labelled
    sample_weight = rng.random(40).astype("float32")
    student, teacher = network(2, "student"), network(5, "teacher")
    set_weights(student, 1)
    set_weights(teacher, 2)
    hint = losses.Hints("norm", "norm", weight=0.5)
    distiller = kdkeras.Distiller(student=student, teacher=teacher).compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        "sparse_categorical_crossentropy",
        distillation_loss=[losses.SoftTargets(2.0), hint],
        task_weight=0.3,
        metrics=["accuracy"],
    )
    set_weights(hint.projectors[0], 3)
    history = distiller.fit(x, y, sample_weight=sample_weight, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    logs = distiller.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
    results = {f"weight{i}": np.asarray(value) for i, value in enumerate([*student.get_weights(), *hint.get_weights()])}
    results |= {f"history_{name}": np.asarray(values) for name, values in history.items()}
    return results | {f"evaluate_{name}": np.asarray(value) for name, value in logs.items()}


if __name__ == "__main__":
    np.savez(sys.argv[1], **run())
