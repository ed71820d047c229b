"""Permutation importance of the columns of a table."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from kdkeras import datasets, explain


def linear(weights, activation=None, name="linear"):
    """A model whose logits are x · weights."""
    weights = np.asarray(weights, "float32")
    dense = layers.Dense(weights.shape[1], activation=activation)
    model = keras.Sequential([keras.Input((len(weights),)), dense], name=name)
    dense.set_weights([weights, np.zeros(weights.shape[1])])
    return model


def table(n=300, features=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, features)).astype("float32")


def log_likelihood(z, labels):
    return np.mean(np.take_along_axis(z - np.log(np.exp(z).sum(axis=1, keepdims=True)), labels[:, None], axis=1))


def test_regression_by_hand():
    x = table(2000)
    importance = explain.feature_importance(linear([[2.0], [1.0], [0.0]]), x, 2 * x[:, 0] + x[:, 1])
    # Shuffling column j adds an error of variance 2 w²; R² falls by that over the variance of y, 5.
    np.testing.assert_allclose(importance.importances, [8 / 5, 2 / 5, 0], atol=0.05)
    assert importance.importances[2] == importance.std[2] == 0
    assert importance.score == "R²"
    np.testing.assert_allclose(importance.baseline, 1, atol=1e-6)


def test_classes_against_a_loop_of_our_own():
    weights = np.array([[2.0, -1, 0], [0, 1, -1], [0, 0, 0]])
    x = table()
    labels = (x @ weights).argmax(axis=1)
    importance = explain.feature_importance(linear(weights, "softmax"), x, labels, repeats=200)
    random, expected = np.random.default_rng(1), []
    for column in range(3):
        losses = []
        for _ in range(200):
            shuffled = x.copy()
            shuffled[:, column] = random.permutation(x[:, column])
            losses.append(log_likelihood(x @ weights, labels) - log_likelihood(shuffled @ weights, labels))
        expected.append(np.mean(losses))
    assert importance.score == "log-likelihood"
    np.testing.assert_allclose(importance.baseline, log_likelihood(x @ weights, labels), atol=1e-5)
    np.testing.assert_allclose(importance.importances, expected, atol=0.02)
    assert importance.importances[2] == 0


def test_logits_softmax_and_one_hot_are_the_same():
    weights = np.random.default_rng(2).normal(size=(3, 4))
    x = table(60)
    labels = np.arange(60) % 4
    expected = explain.feature_importance(linear(weights), x, labels, repeats=3).importances
    for activation in (None, "softmax"):
        for y in (labels, labels[:, None], labels.astype("float32"), np.eye(4)[labels]):
            ours = explain.feature_importance(linear(weights, activation), x, y, repeats=3).importances
            np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_one_sigmoid_unit_is_two_classes():
    x = table(60)
    labels = (x[:, 0] > 0).astype("int32")
    two = explain.feature_importance(linear([[0, 3.0], [0, 1], [0, 0]], "softmax"), x, labels, repeats=3)
    weights = [[3.0], [1], [0]]
    for model, y in (
        (linear(weights, "sigmoid"), labels),
        (linear(weights, "sigmoid"), labels.astype("float32")),
        (linear(weights), labels),
    ):
        ours = explain.feature_importance(model, x, y, repeats=3)
        assert ours.score == "log-likelihood"
        np.testing.assert_allclose(ours.importances, two.importances, atol=1e-6)


def test_seeds_repeat_and_differ():
    model, x = linear([[2.0], [1.0], [0.5]]), table(50)
    first, again, other = (
        explain.feature_importance(model, x, x.sum(axis=1), repeats=2, seed=seed).importances for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_breast_cancer_rests_on_columns_that_matter():
    data = datasets.breast_cancer()
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(16, activation="relu"), layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    model.fit(data.x_train, data.y_train, epochs=20, verbose=0)
    importance = explain.feature_importance(
        model, data.x_valid, data.y_valid, feature_names=data.feature_names, repeats=5
    )
    assert importance.names == data.feature_names
    top = np.argsort(-importance.importances)[:5]
    # Independent check: without those five columns the loss rises more than without the five least important.
    rest = np.argsort(importance.importances)[:5]

    def loss_without(columns):
        x = data.x_valid.copy()
        x[:, columns] = 0  # the mean of a standardised column
        return float(loss(data.y_valid, model(x)))

    assert loss_without(top) > loss_without(rest) + 0.01


def test_the_record_prints_sorted_and_goes_to_json():
    x = table(50)
    importance = explain.feature_importance(
        linear([[0.0], [2.0], [1.0]]), x, 2 * x[:, 1] + x[:, 2], feature_names=["a", "b", "c"], repeats=3
    )
    lines = str(importance).splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["b", "c", "a"]
    assert json.loads(json.dumps(importance.to_dict()))["names"] == ["a", "b", "c"]


def test_the_picture_is_sorted_and_cut():
    x = table(50)
    figure = explain.feature_importance(linear([[0.0], [2.0], [1.0]]), x, x[:, 1], repeats=3).plot(2)
    figure.canvas.draw()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["feature 1", "feature 2"]


def test_a_model_compared_with_itself():
    model, x = linear([[3.0], [2.0], [1.0]], name="twin"), table(50)
    comparison = explain.compare_importance(model, model, x, x.sum(axis=1), repeats=3)
    assert comparison.spearman == pytest.approx(1)
    np.testing.assert_array_equal(comparison.teacher.importances, comparison.student.importances)


def test_a_student_that_relies_on_the_other_columns():
    x = table(200)
    teacher, student = linear([[3.0], [2.0], [1.0]], name="t"), linear([[1.0], [2.0], [3.0]], name="s")
    comparison = explain.compare_importance(teacher, student, x, x.sum(axis=1), feature_names=["a", "b", "c"])
    assert comparison.spearman == pytest.approx(-1)
    lines = str(comparison).splitlines()
    assert lines[3].split()[0] == "a"
    assert lines[3].split()[-2:] == ["1", "3"]
    assert lines[-1] == "Spearman rank correlation: -1.000"
    figure = comparison.plot()
    figure.canvas.draw()
    assert [axis.get_title() for axis in figure.axes] == ["Teacher t", "Student s"]


def test_constant_importances_have_no_rank_correlation():
    model = linear(np.zeros((3, 2)))
    comparison = explain.compare_importance(model, model, table(20), np.arange(20) % 2, repeats=2)
    assert np.isnan(comparison.spearman)
    assert comparison.to_dict()["spearman"] is None


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 8, 8, 1)), np.zeros(4), "explain.attribute"),
        (np.zeros((4, 2)), np.zeros(4, int), r"\(4, 2\)"),
        (np.full((4, 3), np.nan), np.zeros(4, int), "NaN"),
        (np.zeros((4, 3)), np.zeros(5, int), r"y must have shape \(4,\)"),
        (np.zeros((4, 3)), np.array([0, 1, 2, 1]), "whole numbers in 0…1"),
        (np.zeros((4, 3)), np.array([0, 0.5, 1, 1]), "whole numbers in 0…1"),
        (np.zeros((4, 3)), np.full(4, np.nan), "NaN"),
    ],
)
def test_data_that_do_not_fit_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        explain.feature_importance(linear(np.ones((3, 2))), x, y)


def test_other_arguments_are_checked():
    model, x, y = linear(np.ones((3, 2))), table(4), np.array([0, 1, 0, 1])
    with pytest.raises(ValueError, match="all 3 columns"):
        explain.feature_importance(model, x, y, feature_names=["a"])
    with pytest.raises(ValueError, match="repeats=0"):
        explain.feature_importance(model, x, y, repeats=0)
    with pytest.raises(TypeError, match=r"keras.Model"):
        explain.feature_importance(None, x, y)
    with pytest.raises(ValueError, match="n=0"):
        explain.feature_importance(model, x, y, repeats=1).plot(0)
    with pytest.raises(ValueError, match="exclusive classes"):
        explain.feature_importance(linear(np.ones((3, 2)), "sigmoid"), x, y)


def test_a_hidden_sigmoid_is_refused():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, 1 / (1 + keras.ops.exp(-layers.Dense(1)(inputs))))
    with pytest.raises(ValueError, match="probabilities"):
        explain.feature_importance(model, table(4), np.array([0, 1, 0, 1]))
