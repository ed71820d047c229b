"""One of two workers under MultiWorkerMirroredStrategy; who it is stands in TF_CONFIG."""

import sys
import tempfile
from pathlib import Path

import keras
import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else is run

from workload import WEIGHTS, X, Y, distiller, network, refusal, report, results  # noqa: E402

case = sys.argv[1]
first = strategy.cluster_resolver.task_id == 0
if case == "stock":
    with strategy.scope():
        model = network(4, "plain")
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    report(refusal(model.fit, X, Y, batch_size=16, verbose=0))
    sys.exit()
if case == "outside":
    keras.utils.set_random_seed(0)
    teacher = network(6, "teacher")
    with strategy.scope():
        model = distiller(teacher=teacher)
    report(results(model, epochs=2))
    sys.exit()
with strategy.scope():
    model = distiller()
answer = results(model)
# Only one worker writes: nothing in `save` may wait for the others.
with tempfile.TemporaryDirectory() as folder:
    if first:
        model.save(Path(folder) / "distiller.keras")
        model.student.save(Path(folder) / "student.keras")
    history = model.fit(X, Y, sample_weight=WEIGHTS, batch_size=16, verbose=0).history
answer["after"] = history["loss"]
answer["refused"] = [
    refusal(lambda: model.compile("sgd", "mse", steps_per_execution=2)),
    refusal(model.fit, X[:49], Y[:49], batch_size=16, verbose=0),
]
report(answer)
