"""The comparison table: every figure against an independent computation."""

import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax
from scipy.stats import entropy

from kdkeras import evaluate
from kdkeras.scores import calibration_error, classification_scores
from kdkeras.testing import tiny_cnn

rng = np.random.default_rng(0)
X = rng.random((50, 8, 8, 1)).astype("float32")
Y = rng.integers(0, 7, 50)


def models(units=7, activation=None):
    keras.utils.set_random_seed(0)
    return tiny_cnn(units, 8, activation=activation, name="t"), tiny_cnn(units, 2, activation=activation, name="s")


def test_scores_against_independent_figures():
    labels, logits, teacher = rng.integers(0, 4, 60), rng.normal(size=(60, 4)), rng.normal(size=(60, 4))
    scores = classification_scores(labels, logits, teacher, k=2)
    p, q = softmax(teacher, -1), softmax(logits, -1)
    predicted = q.argmax(-1)
    assert scores.accuracy == pytest.approx(np.mean(predicted == labels))
    assert scores.top_k == pytest.approx(
        np.mean([label in row.argsort()[-2:] for label, row in zip(labels, q, strict=True)])
    )
    assert scores.log_loss == pytest.approx(-np.log(q[np.arange(60), labels]).mean(), rel=1e-5)
    assert scores.kl_to_teacher == pytest.approx(entropy(p, q, axis=-1).mean(), rel=1e-5)
    assert scores.agreement == pytest.approx(np.mean(predicted == p.argmax(-1)))
    by_class = []
    for c in range(4):
        hits = np.sum((predicted == c) & (labels == c))
        by_class.append((hits / max(np.sum(predicted == c), 1), hits / np.sum(labels == c)))
    precision, recall = np.array(by_class).T
    assert scores.precision == pytest.approx(precision.mean())
    assert scores.recall == pytest.approx(recall.mean())
    f1 = np.where(precision + recall > 0, 2 * precision * recall / np.maximum(precision + recall, 1e-12), 0)
    assert scores.f1 == pytest.approx(f1.mean())


def test_calibration_error_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.94, 0.06], [0.6, 0.4], [1.0, 0.0]])
    # bins (14/15, 1]: three samples; (8/15, 9/15]: one
    expected = (abs((0 - 0.95) + (1 - 0.94) + (1 - 1.0)) + abs(1 - 0.6)) / 4
    assert calibration_error(np.array([1, 0, 0, 0]), probabilities) == pytest.approx(expected)
    perfect = np.eye(2)[[0, 1]]
    assert calibration_error(np.array([0, 1]), perfect) == 0


def test_compare_two_classifiers():
    teacher, student = models()
    result = evaluate.compare(teacher, student, (X, Y))
    assert [row.name for row in result.rows] == ["teacher", "student"]
    assert result["teacher"].scores.agreement == 1
    assert result["teacher"].scores.kl_to_teacher == pytest.approx(0, abs=1e-6)
    accuracy = (student.predict(X, verbose=0).argmax(-1) == Y).mean()
    assert result["student"].scores.accuracy == pytest.approx(accuracy)
    cost = result["student"].cost
    assert cost.parameters == student.count_params() == 2 * 9 + 2 + 2 * 7 + 7
    assert cost.macs == 36 * 9 * 2 + 2 * 7
    assert cost.file_bytes > 4 * cost.parameters
    assert cost.compression == pytest.approx(result["teacher"].cost.file_bytes / cost.file_bytes)
    assert 0 < cost.latency.median <= cost.latency.p90


def test_heads_make_no_difference():
    linear, _ = models()
    soft, _ = models(activation="softmax")
    soft.set_weights(linear.get_weights())
    result = evaluate.compare(linear, soft, (X, Y), latency=False)
    assert result["student"].scores.kl_to_teacher == pytest.approx(0, abs=1e-6)
    assert result["student"].scores.log_loss == pytest.approx(result["teacher"].scores.log_loss, rel=1e-5)


def test_binary_sigmoid():
    teacher, student = models(1, "sigmoid")
    labels = (Y > 3).astype(int)
    result = evaluate.compare(teacher, student, (X, labels), latency=False)
    p = student.predict(X, verbose=0)[:, 0]
    assert result.task == "classification"
    assert result["student"].scores.accuracy == pytest.approx(((p > 0.5) == labels).mean())
    assert result["student"].scores.log_loss == pytest.approx(-np.log(np.where(labels, p, 1 - p)).mean(), rel=1e-4)
    assert result["student"].scores.top_k is None


def test_regression():
    teacher, student = models(1)
    y = rng.normal(size=50).astype("float32")
    result = evaluate.compare(teacher, student, (X, y), latency=False)
    error = student.predict(X, verbose=0)[:, 0] - y
    assert result.task == "regression"
    assert result["student"].scores.mae == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert result["student"].scores.rmse == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    assert result["teacher"].scores.r2_to_teacher == 1
    assert "MAE" in str(result)


def test_datasets_and_one_hot_labels_give_the_same():
    teacher, student = models()
    arrays = evaluate.compare(teacher, student, (X, Y), latency=False)
    dataset = tf.data.Dataset.from_tensor_slices((X, np.eye(7)[Y])).batch(16)
    batches = evaluate.compare(teacher, student, dataset, latency=False)
    assert batches["student"].scores == arrays["student"].scores


def test_optimizer_state_is_not_counted_as_size():
    teacher, student = models()
    fresh = evaluate.compare(teacher, student, (X, Y), latency=False)["student"].cost.file_bytes
    student.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    student.fit(X, Y, verbose=0)
    assert evaluate.compare(teacher, student, (X, Y), latency=False)["student"].cost.file_bytes == fresh


def test_several_students_print_as_one_table():
    teacher, student = models()
    result = evaluate.compare(teacher, {"alone": student, "distilled": student}, (X, Y), latency=False)
    lines = str(result).splitlines()
    assert lines[0].split() == ["teacher", "alone", "distilled"]
    assert len({len(line.rstrip()) for line in lines[2:]}) == 1  # aligned
    assert json.loads(json.dumps(result.to_dict()))["rows"][2]["name"] == "distilled"
    with pytest.raises(KeyError, match="Its models are"):
        result["missing"]


def test_unknown_arithmetic_is_said():
    class Custom(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = tiny_cnn(7)

        def call(self, inputs):
            return self.inner(inputs)

    teacher, _ = models()
    result = evaluate.compare(teacher, Custom(), (X, Y), latency=False)
    assert result["student"].cost.macs is None
    assert "unknown" in str(result)


def test_no_warning_when_a_class_is_never_predicted():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = classification_scores(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]), np.eye(2))
    assert scores.precision == 0.25


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ((X[:0], Y[:0]), ValueError, "no samples"),
        ((X, Y[:5]), ValueError, "same number of samples. Received: 50 and 5"),
        ((X, Y + 5), ValueError, r"whole numbers in 0…6. Received"),
        ((X * np.nan, Y), ValueError, "NaN"),
        ((X, rng.normal(size=50)), ValueError, "whole numbers in 0…6"),
        ((X, rng.integers(0, 7, (50, 2))), ValueError, r"y must have shape \(50,\) or \(50, 7\)"),
        ((X.astype("uint8") + 200, Y), ValueError, "Divide by 255"),
        (X, TypeError, r"Pass `\(x_test, y_test\)`"),
        (tf.data.Dataset.from_tensor_slices((X, Y)).batch(9).take(0), ValueError, "no batches"),
    ],
)
def test_bad_data(data, error, message):
    with pytest.raises(error, match=message):
        evaluate.compare(*models(), data)


def test_bad_models():
    teacher, _ = models()
    with pytest.raises(ValueError, match="equally many outputs"):
        evaluate.compare(teacher, tiny_cnn(3), (X, Y))
    with pytest.raises(TypeError, match=r"must be a `keras.Model`"):
        evaluate.compare(teacher, "student", (X, Y))
    broken = tiny_cnn(7)
    broken.set_weights([weight * np.nan for weight in broken.get_weights()])
    with pytest.raises(ValueError, match="Model 'student' returns NaN"):
        evaluate.compare(teacher, broken, (X, Y))


def test_multi_label_is_refused():
    teacher, student = models(3, "sigmoid")
    with pytest.raises(ValueError, match="multi-label"):
        evaluate.compare(teacher, student, (X, rng.integers(0, 2, (50, 3)) | [1, 1, 0]))


def test_bounded_regression_is_scored_on_predictions():
    teacher, student = models(2, "sigmoid")
    result = evaluate.compare(teacher, student, (X, student.predict(X, verbose=0)), latency=False)
    assert result["student"].scores.mae == pytest.approx(0, abs=1e-6)
    assert result["student"].scores.r2 == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("labels", [(Y > 3).astype(int), (Y > 3).astype("float32")])
def test_binary_models_of_both_kinds_compare(labels):
    teacher, _ = models(1, "sigmoid")
    _, student = models(1)
    result = evaluate.compare(teacher, student, (X, labels), latency=False)
    accuracy = ((student.predict(X, verbose=0)[:, 0] > 0) == labels).mean()
    assert result["student"].scores.accuracy == pytest.approx(accuracy)


def test_ties_count_as_argmax_does():
    scores = classification_scores(np.array([0, 1, 2, 3]), np.zeros((4, 4)), np.zeros((4, 4)), k=2)
    assert (scores.accuracy, scores.top_k) == (0.25, 0.5)


def test_absent_classes_do_not_lower_the_macro_average():
    scores = classification_scores(np.array([0, 1]), np.eye(10)[:2], np.eye(10)[:2])
    assert scores.f1 == 1
    with pytest.raises(ValueError, match="k of at least 1"):
        classification_scores(np.array([0]), np.eye(2)[:1], np.eye(2)[:1], k=0)
