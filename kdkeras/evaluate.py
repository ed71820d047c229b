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
from kdkeras.counting import count as count
from kdkeras.counting import count_macs
from kdkeras.inputs import check_arrays, check_finite, is_array_like
from kdkeras.labels import class_labels, class_logits, refuse_hidden_sigmoid
from kdkeras.latency import Latency, measure
from kdkeras.scores import ClassificationScores, RegressionScores, classification_scores, regression_scores
from kdkeras.students import Student

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
        parameters: Number of weights, trainable or not; of a scikit-learn student the numbers that it keeps.
        macs: Multiply-accumulates of one sample; `None` where the model cannot be counted.
        file_bytes: Size of its weights in one HDF5 file, without optimizer state; of a scikit-learn student, pickled.
        compression: The teacher's `file_bytes` over this model's.
        latency: Time of one sample through a compiled `tf.function`, or through scikit-learn, in milliseconds; `None`
            where not measured.
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
    student: keras.Model | Student | Mapping[str, keras.Model | Student],
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
        student: The student, or several by name: Keras models, and students of `kdkeras.students`.
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
    outputs, heads = {}, {}
    for name, model in models.items():
        outputs[name], heads[name] = _answers(model, x, batch_size)
    shape = _common_shape(outputs)
    labels = class_labels(y, shape, "sigmoid" if "sigmoid" in heads.values() else heads["teacher"])
    sizes = {name: _file_bytes(model) for name, model in models.items()}
    rows = []
    for name, model in models.items():
        if labels is None:
            predictions = [outputs[role].predictions.reshape(shape) for role in (name, "teacher")]
            scores = regression_scores(_targets(y, shape), *predictions)
        else:
            refuse_hidden_sigmoid(outputs[name].predictions.reshape(shape), heads[name], name)
            logits = [class_logits(outputs[role].logits.reshape(shape)) for role in (name, "teacher")]
            scores = classification_scores(labels, *logits, k=k)
        timed = _latency(model, x) if latency else None
        kept = model.parameters if isinstance(model, Student) else model.count_params()
        cost = Cost(kept, _macs(model), sizes[name], sizes["teacher"] / sizes[name], timed)
        rows.append(Row(name, scores, cost))
    task = "regression" if labels is None else "classification"
    return Comparison(task, len(y), k, tuple(rows))


def _answers(model: Any, x: Any, batch_size: int) -> tuple[signals.Signals, str | None]:
    if isinstance(model, Student):
        logits = model.logits(x)
        return signals.Signals(logits, logits, {}), model.head
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


def _common_shape(outputs: dict[str, signals.Signals]) -> tuple[int, int]:
    """Return the shape (samples, units) that all outputs have."""
    widths = {name: int(np.prod(found.predictions.shape[1:])) for name, found in outputs.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"Models need equally many outputs to be compared. Received: {widths}.")
    for name, found in outputs.items():
        if not np.isfinite(found.predictions).all():
            raise ValueError(f"Model '{name}' returns NaN or infinite values. Check its weights: did training diverge?")
    return len(outputs["teacher"].predictions), widths["teacher"]


def _targets(y: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    targets = y.reshape(len(y), -1)
    if targets.shape != shape:
        raise ValueError(
            f"Regression targets need the shape of the outputs. Received: targets {targets.shape}, outputs {shape}. "
            "Pass integer labels if the models are classifiers."
        )
    return targets


def _macs(model: keras.Model | Student) -> int | None:
    if isinstance(model, Student):
        return None
    try:
        return count_macs(model)
    except ValueError:  # documented: a layer of unknown arithmetic; the table says "unknown"
        return None


def _file_bytes(model: keras.Model | Student) -> int:
    """Return the size of the weights as one file. Keras' own files hold the optimizer's state too."""
    import h5py

    if isinstance(model, Student):
        return model.file_bytes

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for index, variable in enumerate(model.weights):
            file.create_dataset(str(index), data=keras.ops.convert_to_numpy(variable))
    return buffer.getbuffer().nbytes


def _latency(model: keras.Model | Student, x: Any) -> Latency:
    if isinstance(model, Student):
        return measure(lambda: model.predict(x[:1]))
    sample = keras.tree.map_structure(lambda array: tf.convert_to_tensor(array[:1]), x)
    call = tf.function(lambda inputs: model(inputs, training=False))
    return measure(lambda: keras.tree.map_structure(lambda output: output.numpy(), call(sample)))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _row_dict(row: Row) -> dict[str, Any]:
    latency = None if row.cost.latency is None else row.cost.latency._asdict()
    return {"name": row.name, "scores": asdict(row.scores), "cost": asdict(row.cost) | {"latency": latency}}
