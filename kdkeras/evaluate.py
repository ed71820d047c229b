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
from kdkeras.counting import count_macs
from kdkeras.inputs import check_arrays, check_finite, is_array_like
from kdkeras.latency import Latency, measure
from kdkeras.scores import ClassificationScores, RegressionScores, classification_scores, regression_scores

_LABELS = {
    "top_k": "top-{k}",
    "f1": "F1",
    "log_loss": "log-loss",
    "calibration_error": "calibration error",
    "kl_to_teacher": "KL to teacher",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "r2_to_teacher": "R² to teacher",
}


@dataclass(frozen=True)
class Cost:
    """What a model costs to keep and to run.

    Attributes:
        parameters: Number of weights, trainable or not.
        macs: Multiply-accumulates of one sample; `None` where the model cannot be counted.
        file_bytes: Size of its weights in one HDF5 file, without optimizer state.
        compression: The teacher's `file_bytes` over this model's.
        latency: Time of one sample through a compiled `tf.function`, in milliseconds; `None` where not measured.
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
    """Teacher and students on the same samples; prints as an aligned table.

    Attributes:
        task: `"classification"` or `"regression"`.
        samples: Number of samples.
        k: How many classes count for top-k.
        rows: The teacher first, then the students.
    """

    task: Literal["classification", "regression"]
    samples: int
    k: int
    rows: tuple[Row, ...]

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"No model '{name}' in this comparison. Its models are {[row.name for row in self.rows]}.")

    def table(self) -> list[tuple[str, ...]]:
        """Return the figures as text: a header, then one line per figure and one column per model."""
        header = ("", *(row.name for row in self.rows))
        lines = [
            (_LABELS.get(name, name).format(k=self.k), *(_figure(getattr(row.scores, name)) for row in self.rows))
            for name in asdict(self.rows[0].scores)
            if any(getattr(row.scores, name) is not None for row in self.rows)
        ]
        costs = [row.cost for row in self.rows]
        lines += [
            ("parameters", *(f"{cost.parameters:,}" for cost in costs)),
            ("MACs", *("unknown" if cost.macs is None else f"{cost.macs:,}" for cost in costs)),
            ("file size", *(f"{cost.file_bytes / 1000:,.1f} kB" for cost in costs)),
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
    student: keras.Model | Mapping[str, keras.Model],
    data: Any,
    *,
    k: int = 5,
    latency: bool = True,
    batch_size: int = 256,
) -> Comparison:
    """Compare a teacher with one student, or several, on held-out data.

    Labels of an integer type make it a classification, where the teacher has two outputs or more or ends in one
    sigmoid; anything else is a regression.

    Args:
        teacher: The teacher.
        student: The student, or several by name.
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
    x, y = _arrays(data)
    for model in models.values():
        check_arrays(model, x) if isinstance(model, keras.Model) else None
    outputs = {name: _logits(model, x, batch_size) for name, model in models.items()}
    _check_outputs(outputs)
    task = _task(y, outputs["teacher"])
    labels = _class_indices(y, outputs["teacher"].shape[1]) if task == "classification" else y.reshape(len(y), -1)
    if task == "regression" and labels.shape != outputs["teacher"].shape:
        raise ValueError(
            f"Regression targets need the shape of the outputs. Received: targets {labels.shape}, outputs "
            f"{outputs['teacher'].shape}. Pass integer labels if the models are classifiers."
        )
    sizes = {name: _file_bytes(model) for name, model in models.items()}
    rows = []
    for name, model in models.items():
        if task == "classification":
            scores = classification_scores(labels, outputs[name], outputs["teacher"], k=k)
        else:
            scores = regression_scores(labels, outputs[name], outputs["teacher"])
        timed = _latency(model, x) if latency else None
        cost = Cost(model.count_params(), _macs(model), sizes[name], sizes["teacher"] / sizes[name], timed)
        rows.append(Row(name, scores, cost))
    return Comparison(task, len(labels), k, tuple(rows))


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


def _logits(model: keras.Model, x: Any, batch_size: int) -> np.ndarray:
    """Return two-column logits for one sigmoid, and the model's own otherwise."""
    reader = signals.predict(model, x, batch_size=batch_size)
    logits = reader.logits.reshape(len(reader.logits), -1)
    if logits.shape[1] == 1 and not np.array_equal(reader.logits, reader.predictions):
        return np.concatenate([np.zeros_like(logits), logits], axis=1)  # σ(z) = softmax([0, z])[1]
    return logits


def _check_outputs(outputs: dict[str, np.ndarray]) -> None:
    widths = {name: values.shape[1] for name, values in outputs.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"Models need equally many outputs to be compared. Received: {widths}.")
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise ValueError(f"Model '{name}' returns NaN or infinite values. Check its weights: did training diverge?")


def _task(y: np.ndarray, outputs: np.ndarray) -> Literal["classification", "regression"]:
    one_hot = (
        y.ndim == 2 and y.shape[1] == outputs.shape[1] > 1 and np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()
    )
    integer = np.issubdtype(y.dtype, np.integer) or y.dtype == bool
    return "classification" if outputs.shape[1] > 1 and (integer or one_hot) else "regression"


def _class_indices(y: np.ndarray, classes: int) -> np.ndarray:
    labels = y.argmax(axis=1) if y.ndim == 2 and y.shape[1] == classes else y.reshape(len(y), -1)
    if labels.ndim == 2 and labels.shape[1] != 1:
        raise ValueError(f"Labels need shape (n,), or (n, {classes}) one-hot. Received: {y.shape}.")
    labels = labels.reshape(-1).astype(int)
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"Labels must be in 0…{classes - 1}. Received: {labels.min()}…{labels.max()}.")
    return labels


def _macs(model: keras.Model) -> int | None:
    try:
        return count_macs(model)
    except ValueError:  # documented: a layer of unknown arithmetic; the table says "unknown"
        return None


def _file_bytes(model: keras.Model) -> int:
    """Return the size of the weights as one file. Keras' own files hold the optimizer's state too."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for index, variable in enumerate(model.weights):
            file.create_dataset(str(index), data=keras.ops.convert_to_numpy(variable))
    return buffer.getbuffer().nbytes


def _latency(model: keras.Model, x: Any) -> Latency:
    sample = keras.tree.map_structure(lambda array: tf.convert_to_tensor(array[:1]), x)
    call = tf.function(lambda inputs: model(inputs, training=False))
    return measure(lambda: keras.tree.map_structure(lambda output: output.numpy(), call(sample)))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _row_dict(row: Row) -> dict[str, Any]:
    latency = None if row.cost.latency is None else row.cost.latency._asdict()
    return {"name": row.name, "scores": asdict(row.scores), "cost": asdict(row.cost) | {"latency": latency}}
