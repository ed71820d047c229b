"""Which columns of a table a model relies on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kdkeras.inputs import check_arrays
from kdkeras.labels import class_labels, class_logits, refuse_hidden_sigmoid
from kdkeras.ops import log_soften
from kdkeras.signals import Extractor, Signals, refuse_probabilities
from kdkeras.students import Student

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class FeatureImportance:
    """How much worse a model gets when one column is shuffled.

    Attributes:
        model: Name of the model.
        names: Name of each column.
        importances: Mean loss of score over the repeats, shape `(features,)`. About 0 for a column that the model does
            not use; below 0 where chance helped.
        std: Standard deviation over the repeats, shape `(features,)`.
        score: What gets worse: `"log-likelihood"`, in nats per sample, for classes, `"R²"` for numbers.
        baseline: The score with nothing shuffled.
    """

    model: str
    names: tuple[str, ...]
    importances: np.ndarray = field(repr=False)
    std: np.ndarray = field(repr=False)
    score: str
    baseline: float

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain Python values, ready for JSON."""
        return {
            "model": self.model,
            "score": self.score,
            "baseline": self.baseline,
            "names": list(self.names),
            "importances": self.importances.tolist(),
            "std": self.std.tolist(),
        }

    def __str__(self) -> str:
        from tabulate import tabulate

        rows = [
            (self.names[i], f"{self.importances[i]:.4f}", f"{self.std[i]:.4f}") for i in np.argsort(-self.importances)
        ]
        table = tabulate(
            rows, ("feature", "importance", "sd"), disable_numparse=True, colalign=("left", "right", "right")
        )
        return f"{self.model}: loss of {self.score} (from {self.baseline:.4f}) when a column is shuffled\n{table}"

    def plot(self, n: int = 12) -> Figure:
        """Draw the most important columns as bars, with the standard deviation over the repeats.

        Args:
            n: Number of columns, fewer where there are fewer. 12 can be read at a glance.

        Returns:
            A matplotlib `Figure`, not registered with pyplot.

        Raises:
            ValueError: `n` is below 1.
        """
        from kdkeras.explain.importance_pictures import importance_bars

        return importance_bars([("", self)], n)


def feature_importance(
    model: keras.Model | Student,
    x: Any,
    y: Any,
    *,
    feature_names: Sequence[str] = (),
    repeats: int = 30,
    seed: int = 0,
) -> FeatureImportance:
    """Measure how much a model's score falls when one column is shuffled (permutation importance).

        importance_j = score(x, y) − mean over repeats of score(x with column j shuffled, y)

    The score of a classifier is the mean log-likelihood log p(y | x): it also moves where no prediction flips, so
    that it ranks the columns of small data sets more stably than accuracy does. The score of a regression is R².

    Columns that carry the same information share it: shuffling one of them costs little, because the other remains.

    Args:
        model: A Keras model from `(batch, features)` to `(batch, units)`, or a student of `kdkeras.students`.
        x: Table, scaled as in training, shape `(n, features)`; held-out data, unless you want to see overfitting.
        y: Class labels `(n,)` or one-hot `(n, units)`; 0 and 1 for a single sigmoid unit, or for a single linear unit
            if they are integers; numbers `(n,)` otherwise.
        feature_names: Name of each column; by default `"feature 0"` and so on.
        repeats: Number of shuffles of each column. 30: on the breast-cancer data the rank correlation between two
            seeds was then 0.94 to 0.98, against 0.81 to 0.98 with 10.
        seed: Seed of the shuffles: with the same seed, two models see the same shuffled tables.

    Returns:
        The `FeatureImportance`.

    Raises:
        TypeError: `model` is no Keras model and no student.
        ValueError: x, y or the names do not fit the model or one another, or `repeats` is below 1.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        >>> model.set_weights([np.array([[1.0], [0.0]])])  # copies the first column, ignores the second
        >>> x = np.random.default_rng(0).normal(size=(100, 2))
        >>> explain.feature_importance(model, x, x[:, 0]).importances.round(1)
        array([2., 0.])

    Reference:
        Breiman, "Random forests", 2001; scikit-learn's `permutation_importance`.
    """
    from sklearn.inspection import permutation_importance

    ask = _Answers(model)
    x, names = _table(model, x, feature_names)
    if repeats < 1:
        raise ValueError(f"`repeats` must be at least 1. Received: repeats={repeats}.")
    signals = ask(x)
    if ask.head is None:
        refuse_probabilities(np.asarray(signals.predictions, dtype="float32"), ask.name)
    score, targets, name = _score(np.asarray(y), signals, ask.head, ask.name)

    def scoring(_: Any, shuffled: np.ndarray, __: np.ndarray) -> float:
        return score(ask(shuffled), targets)

    # scikit-learn asks of an estimator only that it has `fit`, which a Keras model has; it never calls it.
    estimator = model.estimator if isinstance(model, Student) else model
    result = permutation_importance(estimator, x, targets, scoring=scoring, n_repeats=repeats, random_state=seed)
    return FeatureImportance(
        ask.name, names, result.importances_mean, result.importances_std, name, score(signals, targets)
    )


class _Answers:
    """What a model says of a table, whichever kind it is."""

    def __init__(self, model: keras.Model | Student) -> None:
        self._student = model if isinstance(model, Student) else None
        self._extractor = Extractor(model) if self._student is None else None
        self.name = model.kind.replace("_", " ") if isinstance(model, Student) else model.name

    @property
    def head(self) -> str | None:
        return self._extractor.head if self._student is None else self._student.head

    def __call__(self, x: np.ndarray) -> Signals:
        if self._student is None:
            return self._extractor(keras.ops.convert_to_tensor(x))
        logits = self._student.logits(x)
        return Signals(logits, logits, {})


def _table(model: keras.Model | Student, x: Any, feature_names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    x = np.asarray(x, dtype="float32")
    if x.ndim != 2:
        raise ValueError(
            f"Feature importance needs a table of shape (n, features). Received: x of shape {x.shape}. "
            "For images use `kdkeras.explain.attribute`."
        )
    if isinstance(model, keras.Model):
        check_arrays(model, x)
    names = tuple(feature_names) or tuple(f"feature {column}" for column in range(x.shape[1]))
    if len(names) != x.shape[1]:
        raise ValueError(f"`feature_names` must name all {x.shape[1]} columns of x. Received: {len(names)} names.")
    return x, names


def _score(
    y: np.ndarray, signals: Signals, head: str | None, name: str
) -> tuple[Callable[[Signals, np.ndarray], float], np.ndarray, str]:
    """Return the score that fits the model's output, the targets as it takes them, and its name."""
    shape = tuple(signals.logits.shape)
    if len(shape) != 2 or (head == "sigmoid" and shape[1] > 1):
        raise ValueError(
            "Feature importance needs a model with one number or one set of exclusive classes per sample. "
            f"Received: model '{name}', whose output is {shape} of {head or 'linear'} units."
        )
    labels = class_labels(y, shape, head)
    if labels is None and shape[1] == 1:
        return _r_squared, y.reshape(-1).astype("float64"), "R²"
    if labels is None:
        raise ValueError(f"Feature importance of a regression needs one output. Received: model '{name}' {shape}.")
    refuse_hidden_sigmoid(np.asarray(signals.predictions, dtype="float32"), head, name)
    return _log_likelihood, labels, "log-likelihood"


def _log_likelihood(signals: Signals, labels: np.ndarray) -> float:
    """Mean of log p(label)."""
    logits = class_logits(np.asarray(signals.logits, dtype="float32"))
    log_p = np.asarray(log_soften(logits))
    return float(log_p[np.arange(len(labels)), labels].mean())


def _r_squared(signals: Signals, y: np.ndarray) -> float:
    """1 − Σ(y − f)² / Σ(y − ȳ)²."""
    from sklearn.metrics import r2_score

    return float(r2_score(y, np.asarray(signals.predictions, dtype="float64")[:, 0]))
