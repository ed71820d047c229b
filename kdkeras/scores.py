"""How good predictions are, and how close to the teacher's: figures of one model on one data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kdkeras.ops import kl_divergence, log_soften

_BINS = 15  # of the calibration error, as in Guo et al. 2017


@dataclass(frozen=True)
class ClassificationScores:
    """Figures of a classifier. Fractions are in [0, 1], divergences in nats.

    Attributes:
        accuracy: Share of samples whose top class is the label.
        top_k: Share of samples whose label is among the k most probable classes; `None` with k classes or fewer.
        precision: Macro-averaged precision over the classes that occur; one that is never predicted counts 0.
        recall: Macro-averaged recall.
        f1: Macro-averaged F1.
        log_loss: Mean negative log-probability of the label.
        calibration_error: Expected calibration error over 15 equal bins of the top probability.
        agreement: Share of samples on which the model's top class is the teacher's; `None` without a teacher.
        kl_to_teacher: Mean `KL(teacher ‖ model)` at temperature 1; `None` without a teacher.
    """

    accuracy: float
    top_k: float | None
    precision: float
    recall: float
    f1: float
    log_loss: float
    calibration_error: float
    agreement: float | None
    kl_to_teacher: float | None


@dataclass(frozen=True)
class RegressionScores:
    """Figures of a regressor, in the units of its target.

    Attributes:
        mae: Mean absolute error.
        rmse: Root of the mean squared error.
        r2: Coefficient of determination.
        r2_to_teacher: The same against the teacher's predictions: how well the model stands in for the teacher;
            `None` without a teacher.
    """

    mae: float
    rmse: float
    r2: float
    r2_to_teacher: float | None


def classification_scores(
    labels: np.ndarray, logits: np.ndarray, teacher: np.ndarray | None, *, k: int = 5
) -> ClassificationScores:
    """Return the figures of a classifier.

    Args:
        labels: Class indices, shape `(n,)`.
        logits: The model's logits, shape `(n, classes)`.
        teacher: The teacher's logits, same shape, or `None`.
        k: How many classes count for `top_k`.

    Returns:
        The `ClassificationScores`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.scores import classification_scores
        >>> logits = np.array([[4.0, 0.0], [0.0, 4.0], [4.0, 0.0], [4.0, 0.0]])
        >>> scores = classification_scores(np.array([0, 1, 0, 1]), logits, logits)
        >>> scores.accuracy, scores.agreement, round(scores.f1, 3)
        (0.75, 1.0, 0.733)
    """
    from sklearn import metrics

    if k < 1:
        raise ValueError(f"top-k needs k of at least 1. Received: {k}.")
    log_probabilities = _log_softmax(logits)
    predicted = logits.argmax(axis=1)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, predicted, average="macro", zero_division=0
    )
    # The label's place; of equal logits the first counts as higher, as for `argmax`.
    ranks = (np.argsort(-logits, axis=1, kind="stable") == labels[:, None]).argmax(axis=1)
    return ClassificationScores(
        accuracy=float((predicted == labels).mean()),
        top_k=float((ranks < k).mean()) if logits.shape[1] > k else None,
        precision=float(precision),
        recall=float(recall),
        f1=float(f1),
        log_loss=float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        calibration_error=calibration_error(labels, np.exp(log_probabilities)),
        agreement=None if teacher is None else float((predicted == teacher.argmax(axis=1)).mean()),
        kl_to_teacher=None if teacher is None else _mean_kl(_log_softmax(teacher), log_probabilities),
    )


def regression_scores(targets: np.ndarray, predictions: np.ndarray, teacher: np.ndarray | None) -> RegressionScores:
    """Return the figures of a regressor.

    Args:
        targets: True values, shape `(n, outputs)`.
        predictions: The model's, same shape.
        teacher: The teacher's, same shape, or `None`.

    Returns:
        The `RegressionScores`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.scores import regression_scores
        >>> regression_scores(np.array([[0.0], [2.0]]), np.array([[1.0], [1.0]]), np.array([[0.0], [2.0]]))
        RegressionScores(mae=1.0, rmse=1.0, r2=0.0, r2_to_teacher=0.0)
    """
    from sklearn import metrics

    return RegressionScores(
        mae=float(metrics.mean_absolute_error(targets, predictions)),
        rmse=float(metrics.root_mean_squared_error(targets, predictions)),
        r2=float(metrics.r2_score(targets, predictions)),
        r2_to_teacher=None if teacher is None else float(metrics.r2_score(teacher, predictions)),
    )


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the expected calibration error: `Σ_b n_b / n · |accuracy_b − confidence_b|` over 15 bins.

    Args:
        labels: Class indices, shape `(n,)`.
        probabilities: Class probabilities, shape `(n, classes)`.

    Returns:
        The error in [0, 1].

    Example:
        >>> import numpy as np
        >>> from kdkeras.scores import calibration_error
        >>> round(calibration_error(np.array([0, 1]), np.array([[0.9, 0.1], [0.9, 0.1]])), 3)
        0.4

    Reference:
        Guo et al.: On Calibration of Modern Neural Networks, 2017, arXiv:1706.04599.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    return _numbers(log_soften(logits.astype("float64")))


def _mean_kl(log_p: np.ndarray, log_q: np.ndarray) -> float:
    return float(_numbers(kl_divergence(log_p, log_q)).mean())


def _numbers(values: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(values))
