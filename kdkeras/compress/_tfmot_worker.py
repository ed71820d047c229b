"""Compression by tfmot, in a process of its own: plan and data in, weights or a TFLite file out.

tfmot needs tf_keras, and importing it switches `tf.keras` to that for the whole process. Run as a script:

    python -P _tfmot_worker.py FOLDER

FOLDER holds `job.json` and `data.npz`, and gets `result.npz`, and `model.tflite` of quantized models. Every line on
standard output is JSON: `{"epoch": ..., "of": ..., "loss": ...}`, or `{"error": text}` as the last.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class RefusedError(Exception):
    """Something that the user can change; the message says it."""


def main(folder: Path, replies: Any) -> None:
    """Do one job.

    Args:
        folder: Where it lies.
        replies: The stream of replies.
    """
    import numpy as np
    import tf_keras

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    with np.load(folder / "data.npz", allow_pickle=False) as stored:
        data = dict(stored)
    tf_keras.utils.set_random_seed(job["seed"])
    model = _built(job, data)
    worst = relative_difference(_answers(model, data["samples"]), data["expected"])
    if not worst <= job["limit"]:
        raise RefusedError(
            f"the model rebuilt in tf_keras answers otherwise than the Keras model (relative difference {worst:.3g}, "
            f"over {job['limit']:g})"
        )
    trained = _Training(job, data, replies)
    result = {"rebuilt_error": np.float64(worst)}
    technique = job["technique"]
    if "p" in technique.removesuffix("qat"):
        model = trained.pruned(model)
    if "c" in technique.removesuffix("qat"):
        model = trained.clustered(model, keep_zeros=technique == "pcqat")
    if technique.endswith("qat"):
        model = trained.quantization_aware(model, technique)
        (folder / "model.tflite").write_bytes(_tflite(model))
    else:
        result |= _weights(model, job)
    result["answers"] = _answers(model, data["samples"])
    np.savez(folder / "result.npz", **result)


def relative_difference(answers: Any, expected: Any) -> float:
    """Return the largest difference, over the largest of the expected numbers; used on both sides of the bridge."""
    return float(abs(answers - expected).max() / max(float(abs(expected).max()), 1e-12))


def _built(job: dict[str, Any], data: dict[str, Any]) -> Any:
    """Return the tf_keras model with the Keras model's weights."""
    if job["build_fn"] is not None:
        path, name = job["build_fn"]
        spec = importlib.util.spec_from_file_location("build_fn_module", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = getattr(module, name)()
        arrays = [data[f"whole/{place}"] for place in range(job["arrays"])]
        try:
            model.set_weights(arrays)
        except ValueError as error:
            raise RefusedError(f"the model of `build_fn` has other weights than the Keras model ({error})") from error
        return model
    return _from_plan(job["plan"], data)


def _from_plan(plan: dict[str, Any], data: dict[str, Any]) -> Any:
    import tf_keras

    layers = [_layer(record) for record in plan["layers"]]
    tensors = {
        item["number"]: tf_keras.Input(tuple(item["shape"]), dtype=item["dtype"], name=f"input_{place}")
        for place, item in enumerate(plan["inputs"])
    }
    inputs = list(tensors.values())
    for call in plan["calls"]:
        given = [tensors[number] for number in call["inputs"]]
        record = plan["layers"][call["layer"]]
        try:
            outputs = layers[call["layer"]](given if call["as_list"] else given[0])
        except (TypeError, ValueError) as error:
            raise RefusedError(
                f"layer '{record['path']}' ({record['kind']}) cannot be called in tf_keras ({error})"
            ) from error
        tensors |= dict(zip(call["outputs"], outputs if isinstance(outputs, (list, tuple)) else [outputs], strict=True))
    for place, (layer, record) in enumerate(zip(layers, plan["layers"], strict=True)):
        arrays = []
        while f"{place}/{len(arrays)}" in data:
            arrays.append(data[f"{place}/{len(arrays)}"])
        if [array.shape for array in arrays] != [weight.shape for weight in layer.get_weights()]:
            raise RefusedError(f"layer '{record['path']}' ({record['kind']}) has other weights in tf_keras")
        layer.set_weights(arrays)
    outputs = [tensors[number] for number in plan["outputs"]]
    return tf_keras.Model(inputs[0] if len(inputs) == 1 else inputs, outputs[0] if len(outputs) == 1 else outputs)


def _layer(record: dict[str, Any]) -> Any:
    """Return the tf_keras layer of a record, with a name that is only its own."""
    import tf_keras

    kind, config = record["kind"], dict(record["config"])
    found = getattr(tf_keras.layers, kind, None)
    if found is None:
        raise RefusedError(f"layer '{record['path']}' ({kind}) does not exist in tf_keras")
    if kind == "LeakyReLU":
        config["alpha"] = config.pop("negative_slope")
    if kind == "BatchNormalization" and isinstance(config.get("axis"), list):
        config["axis"] = config["axis"][0]
    known = {"name", "dtype", "trainable"}
    for base in found.__mro__:
        known |= set(inspect.signature(base.__init__).parameters) if "__init__" in vars(base) else set()
    unknown = [name for name in config if name not in known]
    if strange := [name for name in unknown if name not in record["usual"]]:
        raise RefusedError(f"layer '{record['path']}' ({kind}) has settings that tf_keras does not know: {strange}")
    settings = {name: value for name, value in config.items() if name not in unknown}
    return found.from_config(settings | {"name": record["path"].replace("/", "_")})


class _Training:
    """Trains on labels and on what the teacher said, in whatever a technique wraps the model into."""

    def __init__(self, job: dict[str, Any], data: dict[str, Any], replies: Any) -> None:
        import numpy as np

        self._job, self._replies = job, replies
        self._x = data["x"]
        self._y = np.concatenate([data["targets"], data["soft"]], axis=1)  # (n, 2 · classes)

    def pruned(self, model: Any) -> Any:
        """Return the model with the smallest weights at 0, plain again."""
        import tensorflow_model_optimization as tfmot

        tool, steps = tfmot.sparsity.keras, -(-len(self._x) // self._job["batch_size"]) * self._job["epochs"]
        end = max(steps * 3 // 4, 1)  # the last quarter recovers
        schedule = tool.PolynomialDecay(0.0, self._job["sparsity"], 0, end, frequency=max(1, min(100, end // 10)))
        wrapped = self._wrapped(lambda: tool.prune_low_magnitude(model, pruning_schedule=schedule))
        self._fit(wrapped, [tool.UpdatePruningStep()])
        return tool.strip_pruning(wrapped)

    def clustered(self, model: Any, *, keep_zeros: bool) -> Any:
        """Return the model with few different weights, plain again."""
        import tensorflow_model_optimization as tfmot

        tool = tfmot.clustering.keras
        options = {
            "number_of_clusters": self._job["clusters"],
            "cluster_centroids_init": tool.CentroidInitialization.KMEANS_PLUS_PLUS,
        }
        if keep_zeros:
            from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster

            wrapped = self._wrapped(lambda: cluster.cluster_weights(model, preserve_sparsity=True, **options))
        else:
            wrapped = self._wrapped(lambda: tool.cluster_weights(model, **options))
        self._fit(wrapped)
        return tool.strip_clustering(wrapped)

    def quantization_aware(self, model: Any, technique: str) -> Any:
        """Return the model as tfmot trains it for 8 bits; zeros and clusters stay where the technique has them."""
        import tensorflow_model_optimization as tfmot

        tool, combine = tfmot.quantization.keras, tfmot.experimental.combine
        schemes = {
            "pqat": combine.Default8BitPrunePreserveQuantizeScheme,
            "cqat": functools.partial(combine.Default8BitClusterPreserveQuantizeScheme, preserve_sparsity=False),
            "pcqat": functools.partial(combine.Default8BitClusterPreserveQuantizeScheme, preserve_sparsity=True),
        }

        def wrap() -> Any:
            if technique == "qat":
                return tool.quantize_model(model)
            return tool.quantize_apply(tool.quantize_annotate_model(model), schemes[technique]())

        wrapped = self._wrapped(wrap)
        self._fit(wrapped)
        return wrapped

    def _wrapped(self, wrap: Callable[[], Any]) -> Any:
        try:
            return wrap()
        except (RuntimeError, ValueError) as error:
            raise RefusedError(f"tfmot cannot take the model ({' '.join(str(error).split())[:300]})") from error

    def _fit(self, model: Any, callbacks: Any = ()) -> None:
        import tf_keras

        job, replies = self._job, self._replies

        class Says(tf_keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
                reply = {"epoch": epoch + 1, "of": job["epochs"], "loss": float(logs["loss"])}
                replies.write(json.dumps(reply) + "\n")
                replies.flush()

        model.compile(tf_keras.optimizers.Adam(job["learning_rate"]), _distillation(job))
        options = {"batch_size": job["batch_size"], "epochs": job["epochs"], "verbose": 0}
        model.fit(self._x, self._y, callbacks=[*callbacks, Says()], **options)


def _distillation(job: dict[str, Any]) -> Any:
    """Return (1 − α) · CE(labels) + α · T² · KL(teacher's softened distribution)."""
    import tensorflow as tf

    alpha, temperature, head = job["alpha"], job["temperature"], job["head"]

    def loss(y: Any, outputs: Any) -> Any:
        labels, soft = tf.split(tf.cast(y, outputs.dtype), 2, axis=-1)
        # Up to a constant of each row, which a softmax does not see, these are the logits.
        logits = tf.math.log(tf.maximum(outputs, 1e-12)) if head == "softmax" else outputs
        on_labels = tf.nn.softmax_cross_entropy_with_logits(labels, logits)
        on_teacher = tf.nn.softmax_cross_entropy_with_logits(soft, logits / temperature)
        on_teacher += tf.reduce_sum(tf.math.xlogy(soft, soft), axis=-1)  # the divergence: 0 where both say the same
        return (1 - alpha) * on_labels + alpha * temperature**2 * on_teacher

    return loss


def _answers(model: Any, samples: Any) -> Any:
    return model.predict(samples, batch_size=64, verbose=0)


def _weights(model: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Return the weights under the keys that they came with."""
    if job["build_fn"] is not None:
        return {f"whole/{place}": array for place, array in enumerate(model.get_weights())}
    layers = {layer.name: layer for layer in model.layers}
    found = {}
    for place, record in enumerate(job["plan"]["layers"]):
        layer = layers[record["path"].replace("/", "_")]
        found |= {f"{place}/{number}": array for number, array in enumerate(layer.get_weights())}
    return found


def _tflite(model: Any) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


if __name__ == "__main__":
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with Path(os.devnull).open("w", encoding="utf-8") as sink:  # TensorFlow prints, from Python and from C++
        os.dup2(sink.fileno(), 1)
    try:
        main(Path(sys.argv[1]), stream)
    except RefusedError as refused:
        stream.write(json.dumps({"error": str(refused)}) + "\n")
        stream.flush()
        sys.exit(3)
