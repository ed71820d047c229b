"""A plain Keras model under two replicas, where `kdkeras` refuses."""

import sys

import keras
import tensorflow as tf
from workload import X, Y, network, refusal, report

case = sys.argv[1]
CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(CPU, [tf.config.LogicalDeviceConfiguration()] * 2)
devices = ["CPU:0", "CPU:1"]
settings = {
    "accumulation": {"gradient_accumulation_steps": 2},
    "ema_overwrite": {"use_ema": True, "ema_overwrite_frequency": 2},
}
arguments = {"jit_compile": {"jit_compile": True}, "steps_per_execution": {"steps_per_execution": 2}}


def model():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 1)), *network(4, "layers").layers]
    # Synchronised statistics cannot be reduced under CentralStorageStrategy at all.
    plain = keras.Sequential([layer for layer in layers if case != "central_storage" or layer.name != "norm"])
    plain.compile(
        keras.optimizers.SGD(0.1, **settings.get(case, {})),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **arguments.get(case, {}),
    )
    return plain


def losses(plain):
    return plain.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0).history["loss"]


if case == "central_storage":
    strategy = tf.distribute.experimental.CentralStorageStrategy(devices)
    one = losses(model())[-1]
    with strategy.scope():
        plain = model()
    report([one, losses(plain)[-1]])
else:
    with tf.distribute.MirroredStrategy(devices).scope():
        plain = model()
    report(refusal(losses, plain))
