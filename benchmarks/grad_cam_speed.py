"""How long a warm Grad-CAM takes: the compiled engine of kdkeras beside tf-keras-vis, in one run, interleaved.

Run: python benchmarks/grad_cam_speed.py [--rounds 7]
MobileNetV2 at 96×96, random weights, one batch of 32. Wall time, median over the rounds; writes grad_cam_speed.json.
The library rows are tf-keras-vis alone on a model that it can take, and through `explain.GradCAM("tf_keras_vis")`.
"""

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from kdkeras import explain

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tf_keras_vis.gradcam import Gradcam

SEED, BATCH, SIZE = 0, 32, 96


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    keras.utils.set_random_seed(SEED)
    model = keras.applications.MobileNetV2(
        weights=None, input_shape=(SIZE, SIZE, 3), classes=10, classifier_activation=None
    )
    x = np.random.default_rng(SEED).normal(size=(BATCH, SIZE, SIZE, 3)).astype("float32")
    target = model.predict(x, verbose=0).argmax(axis=1)
    native = explain.Explainer(model, explain.GradCAM(), "out_relu")
    frozen = explain.Explainer(model, explain.GradCAM(), "out_relu", freeze=True)
    through = explain.Explainer(model, explain.GradCAM("tf_keras_vis"), "out_relu")

    def library() -> np.ndarray:
        return Gradcam(model)(
            lambda logits: tf.gather(logits, target, batch_dims=1),
            x,
            penultimate_layer="out_relu",
            seek_penultimate_conv_layer=False,
            expand_cam=False,
            normalize_cam=False,
        )

    cases = {
        "kdkeras, compiled": lambda: native(x, target).raw,
        "kdkeras, compiled, frozen": lambda: frozen(x, target).raw,
        "kdkeras through tf-keras-vis": lambda: through(x, target).raw,
        "tf-keras-vis": library,
    }
    maps = {name: np.asarray(run()) for name, run in cases.items()}  # compiles what can be
    for name in cases:
        np.testing.assert_allclose(maps[name], maps["tf-keras-vis"], atol=1e-6, rtol=1e-3)
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(options.rounds):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    record = {
        "command": "python benchmarks/grad_cam_speed.py",
        "seed": SEED,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("kdkeras", "keras", "tensorflow", "tf-keras-vis", "numpy")},
        "rounds": options.rounds,
        "seconds": medians,
        "times as fast as tf-keras-vis": {name: medians["tf-keras-vis"] / median for name, median in medians.items()},
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, median in medians.items():
        print(f"{name:30} {1000 * median:8.0f} ms  {median / medians['tf-keras-vis']:.3f} × tf-keras-vis")


if __name__ == "__main__":
    main()
