"""The reference on one TensorFlow device, with a teacher that was made on its own."""

import keras
from workload import distiller, network, report, results

keras.utils.set_random_seed(0)
report(results(distiller(teacher=network(6, "teacher")), epochs=2))
