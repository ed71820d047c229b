"""Teacher and students side by side: task figures, closeness to the teacher, size, arithmetic and latency."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from kdkeras import signals
from kdkeras.comparable import Comparable
from kdkeras.counting import count as count
from kdkeras.counting import count_macs
from kdkeras.inputs import check_arrays, check_finite, is_array_like
from kdkeras.labels import class_labels, class_logits, refuse_hidden_sigmoid
from kdkeras.latency import Latency, measure
from kdkeras.scores import ClassificationScores, RegressionScores, classification_scores, regression_scores

_LABELS = {
    "top_k": "top-{k}",
    "f1": "F1",
    "log_loss": "log-loss",
    "calibration_error": "calibration error",
    "kl_to_teacher": "KL to {reference}",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "r2_to_teacher": "R² to {reference}",
}


@dataclass(frozen=True)
class Cost:
    """What a model costs to keep and to run.

    Attributes:
        parameters: Number of weights, trainable or not; of a `Comparable` the numbers that it keeps.
        macs: Multiply-accumulates of one sample; `None` where the model cannot be counted.
        file_bytes: Size of its weights in one HDF5 file, without optimizer state; of a scikit-learn student, pickled;
            of a TFLite file, the file.
        compression: The `file_bytes` of the first model over this one's.
        latency: Time of one sample through a compiled `tf.function`, through scikit-learn or through LiteRT, in
            milliseconds; `None` where not measured.
    """

    parameters: int
    macs: int | None
    file_bytes: int
    compression: float
    latency: Latency | None


@dataclass(frozen=True)
class Row:
    """One model of a comparison."""

    name: str
    scores: ClassificationScores | RegressionScores
    cost: Cost


@dataclass(frozen=True)
class Comparison:
    """Models on the same samples; prints as an aligned table.

    Attributes:
        task: `"classification"` or `"regression"`.
        samples: Number of samples.
        k: How many classes count for top-k.
        rows: One per model, the reference first.
        reference: Name of the model that the others are measured against, mostly `"teacher"`; `None` without one.
    """

    task: Literal["classification", "regression"]
    samples: int
    k: int
    rows: tuple[Row, ...]
    reference: str | None = "teacher"

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"No model '{name}' in this comparison. Its models are {[row.name for row in self.rows]}.")

    def table(self) -> list[tuple[str, ...]]:
        """Return the figures as text: a header, then one line per figure and one column per model."""
        header = ("", *(row.name for row in self.rows))
        labels = {name: text.format(k=self.k, reference=self.reference) for name, text in _LABELS.items()}
        lines = [
            (labels.get(name, name), *(_figure(getattr(row.scores, name)) for row in self.rows))
            for name in asdict(self.rows[0].scores)
            if any(getattr(row.scores, name) is not None for row in self.rows)
        ]
        costs = [row.cost for row in self.rows]
        lines += [
            ("parameters", *(f"{cost.parameters:,}" for cost in costs)),
            ("MACs", *("unknown" if cost.macs is None else f"{cost.macs:,}" for cost in costs)),
            ("weights file", *(f"{cost.file_bytes / 1000:,.1f} kB" for cost in costs)),
            ("compression", *(f"{cost.compression:.1f}×" for cost in costs)),
        ]
        if all(cost.latency is not None for cost in costs):
            lines.append(("latency", *(f"{cost.latency.median:.2f} ms" for cost in costs)))
        return [header, *lines]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain numbers and strings, ready for JSON."""
        return asdict(self) | {"rows": [_row_dict(row) for row in self.rows]}

    def __str__(self) -> str:
        from tabulate import tabulate

        header, *lines = self.table()
        aligned = ("left", *["right"] * len(self.rows))
        return tabulate(lines, headers=header, colalign=aligned, disable_numparse=True)


def compare(
    teacher: keras.Model,
    student: keras.Model | Comparable | Mapping[str, keras.Model | Comparable],
    data: Any,
    *,
    k: int = 5,
    latency: bool = True,
    batch_size: int = 256,
) -> Comparison:
    """Compare a teacher with one student, or several, on held-out data.

    Labels decide the task, as `kdkeras.labels.class_labels` says: one whole number or one-hot row per sample makes it a
    classification, other numbers a regression.

    Args:
        teacher: The teacher.
        student: The student, or several by name: Keras models, students of `kdkeras.students`, TFLite files that
            `kdkeras.export.load` has opened, and any `kdkeras.comparable.Comparable`.
        data: `(x, y)` arrays, or a `tf.data.Dataset` of batches `(x, y)`. Labels are class indices, one-hot rows, or
            regression targets.
        k: How many classes count for top-k accuracy. Default 5, as for ImageNet.
        latency: Whether to time each model (50 runs of one sample after 10 warm-ups).
        batch_size: Samples per forward pass.

    Returns:
        A `Comparison`; print it to see the table.

    Raises:
        TypeError: A model is not a Keras model, or `data` is of another kind.
        ValueError: Data are empty, not finite or of the wrong shape; labels are out of range; the outputs of the
            models differ.

    Example:
        >>> import keras, kdkeras
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, kernel_initializer="identity")])
        >>> x = np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
        >>> kdkeras.evaluate.compare(model, model, (x, np.array([0, 1])), latency=False)["student"].scores.accuracy
        1.0
    """
    students = dict(student) if isinstance(student, Mapping) else {"student": student}
    models = {"teacher": teacher, **students}
    if len(models) != 1 + len(students):
        raise ValueError("A student cannot be named 'teacher' in a comparison. Give it another name.")
    return compare_all(models, data, reference="teacher", k=k, latency=latency, batch_size=batch_size)


def compare_all(
    models: Mapping[str, keras.Model | Comparable],
    data: Any,
    *,
    reference: str | None = None,
    k: int = 5,
    latency: bool = True,
    batch_size: int = 256,
) -> Comparison:
    """Compare any models on held-out data, with a reference or without one.

    Args:
        models: The models by name, as `compare` takes them.
        data: As for `compare`.
        reference: Name of the model whose agreement, KL divergence or R² with the others is told. Default: none is.
        k: How many classes count for top-k accuracy.
        latency: Whether to time each model.
        batch_size: Samples per forward pass.

    Returns:
        A `Comparison` with one row per model, in their order.

    Raises:
        TypeError: As for `compare`.
        ValueError: As for `compare`; or there are no models, or none named `reference`.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import evaluate
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, kernel_initializer="identity")])
        >>> data = np.eye(2, dtype="float32"), np.array([0, 1])
        >>> evaluate.compare_all({"a": model}, data, latency=False)["a"].scores.agreement is None
        True
    """
    if not models or reference not in (None, *models):
        raise ValueError(f"`reference` must be the name of a model: one of {list(models)}. Received: {reference!r}.")
    x, y = _arrays(data)
    outputs, heads = {}, {}
    for name, model in models.items():
        outputs[name], heads[name] = _answers(model, x, batch_size)
    first = reference or next(iter(models))
    shape = _common_shape(outputs, first)
    labels = class_labels(y, shape, "sigmoid" if "sigmoid" in heads.values() else heads[first])
    sizes = {name: _file_bytes(model) for name, model in models.items()}
    rows = []
    for name, model in models.items():
        pair = (outputs[name], outputs[reference] if reference else None)
        if labels is None:
            values = [None if found is None else found.predictions.reshape(shape) for found in pair]
            scores = regression_scores(_targets(y, shape), *values)
        else:
            refuse_hidden_sigmoid(outputs[name].predictions.reshape(shape), heads[name], name)
            logits = [None if found is None else class_logits(found.logits.reshape(shape)) for found in pair]
            scores = classification_scores(labels, *logits, k=k)
        timed = _latency(model, x) if latency else None
        kept = model.parameters if isinstance(model, Comparable) else model.count_params()
        cost = Cost(kept, _macs(model), sizes[name], sizes[first] / sizes[name], timed)
        rows.append(Row(name, scores, cost))
    task = "regression" if labels is None else "classification"
    return Comparison(task, len(y), k, tuple(rows), reference)


def _answers(model: Any, x: Any, batch_size: int) -> tuple[signals.Signals, str | None]:
    if isinstance(model, Comparable):
        return model.answers(x, batch_size=batch_size), model.head
    if isinstance(model, keras.Model):  # anything else is refused where it is read
        check_arrays(model, x)
    return signals.predict_with_head(model, x, batch_size=batch_size)


def _arrays(data: Any) -> tuple[Any, np.ndarray]:
    """Return inputs and labels at rest."""
    if isinstance(data, tf.data.Dataset):
        batches = [(x, y) for x, y, *_ in data.as_numpy_iterator()]
        if not batches:
            raise ValueError("The dataset has no batches. Check its filters, or that it was not used up before.")
        joined = [
            keras.tree.map_structure(lambda *parts: np.concatenate(parts), *column)
            for column in zip(*batches, strict=True)
        ]
        x, y = joined
    elif isinstance(data, (tuple, list)) and len(data) == 2 and is_array_like(data):
        x, y = keras.tree.map_structure(np.asarray, tuple(data))
    else:
        raise TypeError(
            f"`compare` needs data as `(x, y)` arrays or a `tf.data.Dataset`. Received: {type(data).__name__}. "
            "Pass `(x_test, y_test)`."
        )
    check_finite(y, "y")
    rows = len(keras.tree.flatten(x)[0])
    if rows != len(y):
        raise ValueError(f"x and y need the same number of samples. Received: {rows} and {len(y)}.")
    return x, y


def _common_shape(outputs: dict[str, signals.Signals], first: str) -> tuple[int, int]:
    """Return the shape (samples, units) that all outputs have."""
    widths = {name: int(np.prod(found.predictions.shape[1:])) for name, found in outputs.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"Models need equally many outputs to be compared. Received: {widths}.")
    for name, found in outputs.items():
        if not np.isfinite(found.predictions).all():
            raise ValueError(f"Model '{name}' returns NaN or infinite values. Check its weights: did training diverge?")
    return len(outputs[first].predictions), widths[first]


def _targets(y: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    targets = y.reshape(len(y), -1)
    if targets.shape != shape:
        raise ValueError(
            f"Regression targets need the shape of the outputs. Received: targets {targets.shape}, outputs {shape}. "
            "Pass integer labels if the models are classifiers."
        )
    return targets


def _macs(model: keras.Model | Comparable) -> int | None:
    if isinstance(model, Comparable):
        return model.macs
    try:
        return count_macs(model)
    except ValueError:  # documented: a layer of unknown arithmetic; the table says "unknown"
        return None


def _file_bytes(model: keras.Model | Comparable) -> int:
    """Return the size of the weights as one file. Keras' own files hold the optimizer's state too."""
    import h5py

    if isinstance(model, Comparable):
        return model.file_bytes

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for index, variable in enumerate(model.weights):
            file.create_dataset(str(index), data=keras.ops.convert_to_numpy(variable))
    return buffer.getbuffer().nbytes


def _latency(model: keras.Model | Comparable, x: Any) -> Latency:
    sample = keras.tree.map_structure(lambda array: array[:1], x)
    if isinstance(model, Comparable):
        return measure(lambda: model.predict(sample))
    return keras_latency(model, sample)


def keras_latency(model: keras.Model, sample: Any) -> Latency:
    """Time a Keras model as it is deployed: through a compiled `tf.function`.

    `predict` would add the cost of a data pipeline to every call.

    Args:
        model: The model.
        sample: What one call takes, in any nest.

    Returns:
        A `Latency`, in milliseconds.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.evaluate import keras_latency
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> keras_latency(model, np.ones((1, 4), "float32")).median > 0
        True
    """
    inputs = keras.tree.map_structure(tf.convert_to_tensor, sample)
    call = tf.function(lambda given: model(given, training=False))
    return measure(lambda: keras.tree.map_structure(lambda output: output.numpy(), call(inputs)))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:z.4f}"


def _row_dict(row: Row) -> dict[str, Any]:
    latency = None if row.cost.latency is None else row.cost.latency._asdict()
    return {"name": row.name, "scores": asdict(row.scores), "cost": asdict(row.cost) | {"latency": latency}}
