"""tensorflow-model-optimization for Keras 3 models: over a bridge to tf_keras, in a process of its own."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from kdkeras._files import atomic_path
from kdkeras._shared_vectors import share_repeated
from kdkeras.compress import _calls, _tfmot_worker
from kdkeras.compress._legacy_plan import Plan
from kdkeras.inputs import check_arrays, check_count
from kdkeras.labels import class_labels
from kdkeras.ops import log_soften
from kdkeras.signals import Extractor, predict_logits

Technique = Literal["qat", "prune", "cluster", "pqat", "cqat", "pcqat"]
_TECHNIQUES = ("qat", "prune", "cluster", "pqat", "cqat", "pcqat")
_REBUILT_LIMIT = 1e-4  # relative difference of the rebuilt model; 2e-6 was measured on 22 architectures
_SAMPLES = 256  # on which both ends of the bridge are compared


class TfmotError(RuntimeError):
    """tfmot, or the bridge to it, cannot take the model; nothing was changed."""


@dataclass(frozen=True)
class TfmotResult:
    """What tfmot made of a model.

    Attributes:
        technique: Which technique.
        model: The plain Keras 3 model with the compressed weights; `None` for quantization-aware techniques.
        tflite: Of these the bytes of the int8 TFLite file; `None` for the others, whose model `export.tflite` takes.
        rebuilt_error: Largest difference of the model rebuilt in tf_keras, over the largest output.
        returned_error: The same of `model`, which came back, to the model that tfmot made; `None` without one.
        agreement: Share of samples for which the file names the class that tfmot's own model names; `None` without one.
        losses: The loss of every epoch, of each training that the technique takes.
    """

    technique: Technique
    model: keras.Model | None
    tflite: bytes | None
    rebuilt_error: float
    returned_error: float | None
    agreement: float | None
    losses: tuple[float, ...]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as `.keras`, or the TFLite file.

        Args:
            path: The file. What stood there is replaced when the new one is whole.

        Raises:
            OSError: It cannot be written.
        """
        with atomic_path(path) as temporary:
            if self.tflite is not None:
                temporary.write_bytes(self.tflite)
            else:
                self.model.save(temporary)


def with_tfmot(
    model: keras.Model,
    technique: Technique,
    x: Any,
    y: Any,
    *,
    teacher: keras.Model | None = None,
    temperature: float = 4.0,
    alpha: float = 0.5,
    epochs: int = 3,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    sparsity: float = 0.5,
    clusters: int = 16,
    build_fn: Callable[[], Any] | None = None,
    min_agreement: float = 0.95,
    seed: int = 0,
    verbose: int = 0,
) -> TfmotResult:
    """Compress a classifier by tfmot while it learns from labels and a teacher.

    tfmot refuses Keras 3 models. So the model is written down call by call, rebuilt in tf_keras in a process of its
    own (importing tfmot switches a whole process to tf_keras), checked there against this one, compressed, and brought
    back. Both ends are held to a limit: the rebuilt model to 1e-4 of the largest output, and a TFLite file to
    `min_agreement` with the model that tfmot trained.

    | technique | what it is | comes back as |
    |---|---|---|
    | `"prune"` | the smallest weights become 0, along a cubic schedule | a Keras model |
    | `"cluster"` | few different weights in each layer | a Keras model |
    | `"qat"` | quantization-aware training, 8 bits | a TFLite file |
    | `"pqat"` | pruned, then quantization-aware with the zeros kept | a TFLite file |
    | `"cqat"` | clustered, then quantization-aware with the clusters kept | a TFLite file |
    | `"pcqat"` | pruned, clustered and quantization-aware, both kept | a TFLite file |

    `compress.quantize_aware`, `PruneLowMagnitude` and `ClusterWeights` do the same without tfmot, under any loss.

    Args:
        model: A built Functional or Sequential classifier with one output that ends in a softmax or logits. It is not
            changed. Nested models are rebuilt as the calls in them.
        technique: Which technique.
        x: Training inputs, an array `(n, ...)`.
        y: Labels: integers `(n,)` or `(n, 1)`, or one-hot `(n, classes)`.
        teacher: A Keras classifier of the same classes; it is asked once for all of `x`. Default: none, labels alone.
        temperature: Temperature T of the soft targets. Default 4, as in RepDistiller.
        alpha: Share of the distillation term α · T² · KL in the loss; ignored without a teacher. Default 0.5.
        epochs: Epochs of each training: `"pcqat"` takes three.
        batch_size: Samples per step.
        learning_rate: Adam's. Default 1e-3. Clusters of a deep network need less, since a step moves all weights of a
            cluster together: ResNet50V2 was lost at 1e-3 and kept its accuracy at 1e-4.
        sparsity: Share of weights that are pruned, in (0, 1).
        clusters: Different weights per layer.
        build_fn: A function without arguments that returns the same architecture made of `tf_keras.layers`, for layers
            that the bridge cannot rebuild. The file that it stands in is run in the other process.
        min_agreement: Least agreement of a TFLite file.
        seed: Seed of the other process.
        verbose: 1 prints a line per epoch.

    Returns:
        A `TfmotResult`.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: An argument is out of range, the data do not fit, or a layer cannot be rebuilt, which is named.
        TfmotError: The rebuilt model answers otherwise, tfmot refuses it, or what comes back does not agree with what
            tfmot trained.

    Warns:
        UserWarning: The model lost more than half of its accuracy on the first 256 training samples.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import compress
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(3)])
        >>> x, y = np.random.default_rng(0).normal(size=(64, 8)), np.arange(64) % 3
        >>> result = compress.with_tfmot(model, "prune", x, y, epochs=1)
        >>> all(row.zeros == row.weights // 2 for row in compress.sparsity(result.model).rows)
        True

    Reference:
        Zhu & Gupta: To prune, or not to prune, 2017, arXiv:1710.01878; Jacob et al., 2018, arXiv:1712.05877.
    """
    _calls.check_graph(model, "with_tfmot")
    if len(model.inputs) > 1 or len(model.outputs) > 1:
        raise ValueError(
            f"`with_tfmot` needs a model of one input and one output. Received: '{model.name}', with "
            f"{len(model.inputs)} and {len(model.outputs)}. Use `compress.quantize_aware`, `PruneLowMagnitude` or "
            "`ClusterWeights`, which take any number."
        )
    _check(technique, temperature, alpha, sparsity, min_agreement)
    for name, value in {"epochs": epochs, "batch_size": batch_size, "clusters": clusters}.items():
        check_count(name, value)
    x = np.asarray(x)
    check_arrays(model, x)
    samples = x[:_SAMPLES].astype("float32")
    head, classes = _head(model, samples[:2])
    labels = class_labels(np.asarray(y), (len(x), classes), head)
    if labels is None:
        raise ValueError("`with_tfmot` needs labels of classes. Received: numbers of a regression.")
    targets = np.eye(classes, dtype="float32")[labels]
    job = {
        "technique": technique,
        "temperature": temperature,
        "alpha": alpha if teacher is not None else 0.0,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "sparsity": sparsity,
        "clusters": clusters,
        "seed": seed,
        "head": head,
        "limit": _REBUILT_LIMIT,
        "build_fn": None if build_fn is None else [inspect.getsourcefile(build_fn), build_fn.__name__],
    }
    data = {
        "x": x.astype("float32"),
        "targets": targets,
        "soft": targets if teacher is None else _softened(teacher, x, temperature, classes),
        "samples": samples,
        "expected": model.predict(samples, verbose=0),
    }
    if build_fn is None:
        plan = Plan(model)
        job["plan"], weights = plan.record, plan.weights
    else:
        weights = {f"whole/{place}": array for place, array in enumerate(model.get_weights())}
        job["arrays"] = len(weights)
    result, content, losses = _run(job, data | weights, verbose)
    _warn_of_collapse(technique, labels[: len(samples)], data["expected"], result["answers"])
    rebuilt_error = float(result["rebuilt_error"])
    if content is None:
        compressed = _brought_back(model, result, None if build_fn else plan)
        worst = _tfmot_worker.relative_difference(compressed.predict(samples, verbose=0), result["answers"])
        if not worst <= _REBUILT_LIMIT:
            raise TfmotError(
                f"The model that came back from {technique!r} answers otherwise than the one that tfmot trained "
                f"(relative difference {worst:.3g}, over {_REBUILT_LIMIT:g}). Use `PruneLowMagnitude` or "
                "`ClusterWeights`, which need no tfmot."
            )
        return TfmotResult(technique, compressed, None, rebuilt_error, worst, None, losses)
    agreement = _agreement(content, samples, result["answers"])
    if agreement < min_agreement:
        raise TfmotError(
            f"The TFLite file of {technique!r} does not answer as the model that tfmot trained: agreement is "
            f"{agreement:.4g}, under min_agreement={min_agreement:g}. Train for more epochs, or use another technique."
        )
    return TfmotResult(technique, None, content, rebuilt_error, None, agreement, losses)


def _check(technique: Any, temperature: float, alpha: float, sparsity: float, min_agreement: float) -> None:
    if technique not in _TECHNIQUES:
        raise ValueError(f"`technique` must be one of {_TECHNIQUES}. Received: {technique!r}.")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"`temperature` must be finite and above 0. Received: {temperature}.")
    for name, value in {"alpha": alpha, "min_agreement": min_agreement}.items():
        if not 0 <= value <= 1:
            raise ValueError(f"`{name}` must be a share in 0…1. Received: {value}.")
    if not 0 < sparsity < 1:
        raise ValueError(f"`sparsity` must be a share between 0 and 1. Received: {sparsity}.")


def _head(model: keras.Model, samples: np.ndarray) -> tuple[str, int]:
    extractor = Extractor(model)
    logits = extractor(ops.convert_to_tensor(samples)).logits
    if extractor.head not in ("softmax", "linear") or len(logits.shape) != 2 or logits.shape[-1] < 2:
        raise ValueError(
            f"`with_tfmot` needs a classifier that ends in a softmax or logits over several classes. Received: "
            f"'{model.name}', which ends in {extractor.head or 'no known activation'} over {logits.shape[-1]}."
        )
    return extractor.head, int(logits.shape[-1])


def _softened(teacher: keras.Model, x: np.ndarray, temperature: float, classes: int) -> np.ndarray:
    logits = predict_logits(teacher, x)
    if logits.shape != (len(x), classes):
        raise ValueError(
            f"Teacher '{teacher.name}' must have the model's {classes} classes. Received: outputs {logits.shape}."
        )
    return ops.convert_to_numpy(ops.exp(log_soften(logits, temperature)))


def _run(
    job: dict[str, Any], data: dict[str, np.ndarray], verbose: int
) -> tuple[dict[str, np.ndarray], bytes | None, tuple[float, ...]]:
    """Let the other process do the job."""
    losses: list[float] = []
    with tempfile.TemporaryDirectory(prefix="kdkeras-") as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        np.savez(folder / "data.npz", **data)
        command = [sys.executable, "-P", _tfmot_worker.__file__, name]
        with (folder / "log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8")
            with process:
                try:
                    refusal = _follow(process, job["technique"], losses, verbose)
                except BaseException:  # an interrupt ends both
                    process.kill()
                    raise
        if refusal is not None:
            raise TfmotError(
                f"`with_tfmot` cannot compress the model by {job['technique']!r}: {refusal}. Pass `build_fn`, or use "
                "`compress.quantize_aware`, `PruneLowMagnitude` or `ClusterWeights`, which need no tfmot."
            )
        if process.returncode:
            lines = (folder / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = lines[-1][:400] if lines else f"exit status {process.returncode}"
            raise TfmotError(f"tfmot failed on the model for {job['technique']!r}: {last}.")
        with np.load(folder / "result.npz", allow_pickle=False) as stored:
            result = dict(stored)
        file = folder / "model.tflite"
        return result, share_repeated(file.read_bytes()) if file.exists() else None, tuple(losses)


def _follow(process: subprocess.Popen[str], technique: str, losses: list[float], verbose: int) -> str | None:
    """Read what the process says until it ends; return why it refused, if it did."""
    for line in process.stdout:
        reply = json.loads(line)
        if "error" in reply:
            return reply["error"]
        losses.append(reply["loss"])
        if verbose:
            sys.stdout.write(f"tfmot {technique}: epoch {reply['epoch']}/{reply['of']}, loss {reply['loss']:.4f}\n")
    return None


def _brought_back(model: keras.Model, result: dict[str, np.ndarray], plan: Plan | None) -> keras.Model:
    """Return a copy of the model with other weights."""
    copy = keras.models.clone_model(model)
    if plan is None:
        copy.set_weights([result[f"whole/{place}"] for place in range(len(model.get_weights()))])
        return copy
    layers = Plan(copy).layers
    for place, layer in enumerate(layers):
        count = sum(key.startswith(f"{place}/") for key in plan.weights)
        if count:
            layer.set_weights([result[f"{place}/{number}"] for number in range(count)])
    return copy


def _warn_of_collapse(technique: str, labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
    """Say so where the model forgot what it knew of the samples that it was trained on."""
    knew, knows = (float(np.mean(answers.argmax(axis=1) == labels)) for answers in (before, after))
    if knows < knew / 2:
        warnings.warn(
            f"{technique!r} took the accuracy on the first {len(labels)} training samples from {knew:.3f} to "
            f"{knows:.3f}. Train at a lower learning_rate or for more epochs, or use `PruneLowMagnitude`, "
            "`ClusterWeights` or `quantize_aware`.",
            stacklevel=3,
        )


def _agreement(content: bytes, samples: np.ndarray, answers: np.ndarray) -> float:
    from ai_edge_litert.interpreter import Interpreter

    from kdkeras._silence import silenced

    with silenced():
        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
    given, returned = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    classes = []
    for sample in samples:
        interpreter.set_tensor(given, sample[None])
        interpreter.invoke()
        classes.append(interpreter.get_tensor(returned)[0].argmax())
    return float(np.mean(np.asarray(classes) == answers.argmax(axis=1)))
