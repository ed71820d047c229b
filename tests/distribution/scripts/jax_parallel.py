"""One JAX device, then DataParallel over two, and what is refused there."""

import keras
import numpy as np
from workload import X, Y, distiller, network, refusal, report, results

one = results(distiller())
keras.utils.set_random_seed(0)
early = network(6, "teacher")
keras.distribution.set_distribution(keras.distribution.DataParallel(devices=keras.distribution.list_devices("cpu")))
model = distiller()
two = results(model)
kernel = model.student.get_layer("conv").kernel.value
few = {"x": X[:59], "batch_size": 16, "verbose": 0}
accumulating = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
report(
    {
        "one": one,
        "two": two,
        "devices": len(kernel.sharding.device_set),
        "accumulated": results(distiller(optimizer=accumulating, steps_per_execution=2), epochs=1)["history"],
        "refused": {
            "fit": refusal(model.fit, y=Y[:59], **few),
            "evaluate": refusal(model.evaluate, y=Y[:59], **few),
            "predict": refusal(model.predict, **few),
            "teacher": refusal(lambda: distiller(teacher=early).fit(X, Y, verbose=0)),
        },
        "finite": bool(np.isfinite(two["predict"]).all()),
    }
)
