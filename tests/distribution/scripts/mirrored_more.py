"""MirroredStrategy further: models saved and loaded, parts made outside of the scope, half precision."""

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from workload import BATCH, X, Y, distiller, network, report, results

CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(CPU, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(
    ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.HierarchicalCopyAllReduce()
)


def in_scope(function, *args, **kwargs):
    with strategy.scope():
        return function(*args, **kwargs)


adam = [distiller(optimizer="adam"), in_scope(distiller, optimizer="adam", steps_per_execution=2)]
adam = [results(model, epochs=2) for model in adam]
with strategy.scope():
    model = distiller(optimizer="adam")
two = results(model, epochs=1)

with tempfile.TemporaryDirectory() as folder:
    for part in (model, model.student):
        part.save(Path(folder) / f"{part.name}.keras")
    loaded = keras.saving.load_model(Path(folder) / "distiller.keras")
    student = keras.saving.load_model(Path(folder) / "student.keras")
    with strategy.scope():
        again = keras.saving.load_model(Path(folder) / "distiller.keras")
saved = {
    "student": float(np.abs(student.predict(X, verbose=0) - np.array(two["predict"])).max()),
    "on_one": results(loaded, epochs=1),
    "on_two": results(again, epochs=1),
}

# What may be made outside of the scope: teacher, losses, distiller; `compile` needs no scope either.
keras.utils.set_random_seed(0)
teacher = network(6, "teacher")
with strategy.scope():
    student = network(4, "student")
outside = results(distiller(teacher=teacher, student=student, optimizer="sgd"), epochs=1)
keras.utils.set_random_seed(0)
teacher, student = network(6, "teacher"), network(4, "student")
outside_on_one = results(distiller(teacher=teacher, student=student, optimizer="sgd"), epochs=1)

keras.mixed_precision.set_global_policy("mixed_float16")
half = [distiller().fit(X, Y, batch_size=BATCH, shuffle=False, verbose=0).history]
half.append(in_scope(distiller).fit(X, Y, batch_size=BATCH, shuffle=False, verbose=0).history)

report({"adam": adam, "saved": saved, "outside": [outside_on_one, outside], "half": half})
