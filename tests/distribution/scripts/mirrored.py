"""One device, then two CPU devices under MirroredStrategy, and all that is refused there."""

import warnings

import keras
import numpy as np
import tensorflow as tf
from workload import BATCH, X, Y, distiller, network, refusal, report, results

CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(CPU, [tf.config.LogicalDeviceConfiguration()] * 2)

one = results(distiller())
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = distiller()
two = results(model)
before = model.evaluate(X, Y, batch_size=BATCH, verbose=0, return_dict=True)
model.task_weight = 0.0
after = model.evaluate(X, Y, batch_size=BATCH, verbose=0, return_dict=True)
model.task_weight = 0.3


def make(optimizer=None, **arguments):
    with strategy.scope():
        return distiller(optimizer=optimizer(0.1) if optimizer else None, **arguments)


def sgd(**settings):
    def made(rate):
        return keras.optimizers.SGD(rate, **settings)

    return made


def in_scope(function, *args, **kwargs):
    with strategy.scope():
        return function(*args, **kwargs)


stray = keras.optimizers.Adam()
alone = distiller()
foreign = network(4, "foreign")
fresh = make()
few = {"x": X[:49], "batch_size": BATCH, "verbose": 0}
dataset = tf.data.Dataset.from_tensor_slices((X[:49], Y[:49]))
refused = {
    "jit_compile": refusal(make, jit_compile=True),
    "steps_per_execution": refusal(make, steps_per_execution=2),
    "accumulation": refusal(make, sgd(gradient_accumulation_steps=2)),
    "ema_overwrite": refusal(make, sgd(use_ema=True, ema_overwrite_frequency=2)),
    "optimizer": refusal(lambda: in_scope(distiller, optimizer=stray)),
    "student": refusal(lambda: in_scope(distiller, student=foreign).fit(X, Y, verbose=0)),
    "distiller": refusal(lambda: in_scope(alone.fit, X, Y, verbose=0)),
    "fit": refusal(fresh.fit, y=Y[:49], **few),
    "validation_split": refusal(fresh.fit, X, Y, batch_size=BATCH, validation_split=1 / 64, verbose=0),
    "validation_data": refusal(fresh.fit, X, Y, batch_size=BATCH, validation_data=(X[:49], Y[:49]), verbose=0),
    "evaluate": refusal(fresh.evaluate, y=Y[:49], **few),
    "predict": refusal(fresh.predict, **few),
    "static": refusal(fresh.fit, dataset.batch(1, drop_remainder=True), verbose=0),
    "dynamic": refusal(fresh.fit, dataset.batch(BATCH), verbose=0),
}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    make(sgd(global_clipnorm=1.0))
clipping = [str(warning.message) for warning in caught if "clips" in str(warning.message)]

model.fit(dataset.batch(BATCH, drop_remainder=True), epochs=1, verbose=0)  # after a refusal, training goes on
broken = tf.data.Dataset.from_tensors((np.full_like(X[:8], np.nan), Y[:8])).repeat(20)
guard = refusal(make(max_skipped_steps=3).fit, broken, epochs=1, verbose=0)

report(
    {
        "one": one,
        "two": two,
        "task_weight": [before, after],
        "refused": refused,
        "clipping": clipping,
        "guard": guard,
    }
)
