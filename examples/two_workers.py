"""Two workers distil one student: MultiWorkerMirroredStrategy, here as two processes on this machine.

On a cluster each machine runs the same program with its own TF_CONFIG, as it stands in `docs/distribution.md`.
"""

import json
import os
import socket
import subprocess
import sys

BATCH = 64  # of all workers together


def start_workers(count=2):
    """Start this file once per worker; each one learns from TF_CONFIG who it is and where the others are."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    workers = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    processes = []
    for index in range(count):
        config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(config), "CUDA_VISIBLE_DEVICES": ""}
        processes.append(subprocess.Popen([sys.executable, __file__, *sys.argv[1:]], env=environment))
    try:
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(codes):
        sys.exit("A worker failed.")


def work(quick):
    """Train as one of the workers."""
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # first of all: it connects the workers

    import keras

    import kdkeras

    def network(width, name):
        layers = [keras.layers.Flatten(), keras.layers.Dense(width, "relu"), keras.layers.Dense(data.num_classes)]
        return keras.Sequential([keras.Input(data.input_shape), *layers], name=name)

    keras.utils.set_random_seed(0)
    data = kdkeras.datasets.digits()
    images, labels = data.arrays("train")  # each worker takes one half of every batch
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    epochs = 3 if quick else 30

    teacher = network(256, "teacher")  # each worker has its own: the seed, or a file, makes them the same
    teacher.compile("adam", loss)
    teacher.fit(images, labels, batch_size=BATCH, epochs=epochs, verbose=0)
    with strategy.scope():
        student = network(16, "student")
        distiller = kdkeras.Distiller(student=student, teacher=teacher).compile(
            "adam", loss, distillation_loss=kdkeras.losses.SoftTargets(4.0, weight=0.9)
        )
    distiller.fit(images, labels, batch_size=BATCH, epochs=epochs, verbose=0)
    if strategy.cluster_resolver.task_id == 0:  # all workers hold the same student
        images, labels = data.arrays("test")
        accuracy = (keras.ops.convert_to_numpy(student(images)).argmax(axis=1) == labels).mean()
        print(f"{strategy.num_replicas_in_sync} workers trained one student: test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    work("--quick" in sys.argv) if "TF_CONFIG" in os.environ else start_workers()
