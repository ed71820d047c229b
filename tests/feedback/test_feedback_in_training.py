"""What people said of explanations reaches the explanation loss, and that loss alone."""

import keras
import numpy as np
import pytest

import kdkeras
from kdkeras import feedback, losses

RNG = np.random.default_rng(0)
X = RNG.random((24, 6, 6, 1)).astype("float32")
Y = RNG.integers(0, 3, 24)


def network(name, seed):
    keras.utils.set_random_seed(seed)
    conv = keras.layers.Conv2D(6, 3, activation="relu", name="conv")
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((6, 6, 1)), conv, *head], name=name)


def distiller(weights, rate=0.0, **loss):
    loss = losses.ExplanationMatching(method="input_gradient", sample_weights=weights, **loss)
    made = kdkeras.Distiller(student=network("student", 1), teacher=network("teacher", 2))
    task = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return made.compile(keras.optimizers.SGD(rate), task, distillation_loss=loss)


def value(made, rows):
    return made.evaluate(X[rows], Y[rows], batch_size=24, verbose=0, return_dict=True)["explanation_matching"]


@pytest.fixture
def store(tmp_path):
    store = feedback.FeedbackStore(tmp_path / "feedback.db")
    for number in (3, 17):
        store.add(feedback.Mark(feedback.sample_id(X[number]), "student", "saliency", 0, "wrong"))
    store.add(feedback.Mark(feedback.sample_id(X[5]), "teacher", "saliency", 0, "wrong"))
    return store


def test_weights_by_what_was_said(store):
    expected = np.ones(24, "float32")
    expected[[3, 17]], expected[5] = 4, 0
    np.testing.assert_array_equal(feedback.explanation_weights(store, X, wrong=4), expected)
    order = RNG.permutation(24)  # found by content: in any order, dtype and split
    np.testing.assert_array_equal(
        feedback.explanation_weights(store.path, X[order].astype("float64"), wrong=4), expected[order]
    )


def test_the_latest_mark_counts(store):
    store.add(feedback.Mark(feedback.sample_id(X[3]), "student", "saliency", 0, "right"))
    store.add(feedback.Mark(feedback.sample_id(X[17]), "student", "grad_cam", 0, "unclear"))
    assert feedback.explanation_weights(store, X)[[3, 17]].tolist() == [1, 1]
    assert feedback.explanation_weights(store, X, method="saliency")[[3, 17]].tolist() == [1, 3]


def test_where_both_are_wrong_nothing_is_copied(store):
    store.add(feedback.Mark(feedback.sample_id(X[3]), "teacher", "saliency", 0, "wrong"))
    assert feedback.explanation_weights(store, X)[3] == 0
    assert feedback.explanation_weights(store, X, teacher_wrong=2)[3] == 2


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_weights_that_cannot_be(store, value):
    with pytest.raises(ValueError, match="`wrong` must be a number of at least 0"):
        feedback.explanation_weights(store, X, wrong=value)


def test_they_weigh_the_explanation_and_nothing_else(store):
    """Without a learning rate, the mean in the log is the weighted mean of the values that evaluation finds."""
    made = distiller(feedback.explanation_weights(store, X))
    history = made.fit(kdkeras.Indexed(X, np.arange(24)), Y, batch_size=24, verbose=0).history
    marked, teacher_wrong = [3, 17], [5]
    others = [number for number in range(24) if number not in (3, 5, 17)]
    values = [value(made, rows) for rows in (others, marked, teacher_wrong)]
    assert history["explanation_matching"][0] == pytest.approx((21 * values[0] + 3 * 2 * values[1]) / 24, rel=1e-4)
    whole = made.evaluate(X, Y, batch_size=24, verbose=0, return_dict=True)  # where all samples weigh 1
    assert whole["explanation_matching"] == pytest.approx((21 * values[0] + 2 * values[1] + values[2]) / 24, rel=1e-4)
    assert whole["task_loss"] == pytest.approx(history["task_loss"][0], rel=1e-5)
    assert abs(history["explanation_matching"][0] - whole["explanation_matching"]) > 0.01


def test_marked_samples_are_learnt_better(store):
    """Real training: the more a sample weighs, the nearer the student's explanation of it comes to the teacher's."""
    indexed = kdkeras.Indexed(X, np.arange(24))
    distances = []
    for weights in (np.ones(24), feedback.explanation_weights(store, X, wrong=30)):
        made = distiller(weights, rate=0.02, weight=2)
        made.fit(indexed, Y, batch_size=24, epochs=30, verbose=0)
        distances.append(value(made, [3, 17]))
    assert distances[1] < 0.8 * distances[0]


def test_data_without_numbers_are_refused(store):
    with pytest.raises(ValueError, match=r"Pass x=kdkeras\.Indexed\(x, np\.arange\(len\(x\)\)\)"):
        distiller(np.ones(24)).fit(X, Y, verbose=0)


@pytest.mark.parametrize("weights", [[], [[1.0]], [-1.0], [float("nan")]])
def test_weights_of_no_use_are_refused(weights):
    with pytest.raises(ValueError, match="needs sample_weights of one finite number >= 0"):
        losses.ExplanationMatching(method="input_gradient", sample_weights=weights)


def test_they_come_back_from_the_configuration():
    loss = losses.ExplanationMatching(method="input_gradient", sample_weights=np.array([1, 3.5]))
    again = losses.ExplanationMatching.from_config(loss.get_config())
    assert again.sample_weights.tolist() == [1, 3.5]
    assert again.needs == ("training", "index")


def test_a_number_beyond_the_weights_undoes_the_step():
    loss = losses.ExplanationMatching(method="input_gradient", sample_weights=[1, 2])
    assert np.isnan(np.asarray(loss._weights(np.array([0, 1, 2])))).tolist() == [False, False, True]
