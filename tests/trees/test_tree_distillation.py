import keras
import numpy as np
import pytest

from kdkeras.trees import SoftDecisionTree
from kdkeras.trees.transfer import teacher_targets


def _x(n=200):
    return np.random.default_rng(0).normal(size=(n, 4)).astype("float32")


def _teacher(activation=None):
    keras.utils.set_random_seed(1)
    initializer = keras.initializers.RandomNormal(stddev=2.0, seed=3)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation, kernel_initializer=initializer)])


def _softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("activation", [None, "softmax"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_targets_are_the_softened_logits(activation, temperature):
    teacher, x = _teacher(activation), _x()
    kernel, bias = teacher.get_weights()
    targets = teacher_targets(teacher, x, 3, temperature)
    np.testing.assert_allclose(targets, _softmax((x @ kernel + bias) / temperature), atol=1e-5)


def test_a_function_and_a_model_give_the_same_targets():
    teacher, x = _teacher("softmax"), _x()
    by_function = teacher_targets(lambda x: teacher.predict(x, verbose=0), x, 3, 2.0)
    np.testing.assert_allclose(by_function, teacher_targets(teacher, x, 3, 2.0), atol=1e-5)


def test_probabilities_of_zero_stay_finite():
    np.testing.assert_allclose(teacher_targets(lambda x: np.eye(3), np.zeros((3, 1)), 3, 1.0), np.eye(3), atol=1e-6)


def test_distill_returns_the_tree_and_follows_the_teacher():
    teacher, x = _teacher("softmax"), _x()
    keras.utils.set_random_seed(0)
    tree = SoftDecisionTree(3, 3)
    assert tree.distill(teacher, x, epochs=30, batch_size=16, verbose=0) is tree
    said = teacher.predict(x, verbose=0).argmax(axis=1)
    fidelity = (tree.predict(x, verbose=0).argmax(axis=1) == said).mean()
    assert fidelity > 0.93
    assert len(tree.history.history["loss"]) == 30


def test_the_teacher_runs_once():
    calls = []

    def teacher(x):
        calls.append(len(x))
        return np.full((len(x), 3), 1 / 3)

    SoftDecisionTree(2, 3).distill(teacher, _x(50), epochs=3, batch_size=10, verbose=0)
    assert calls == [50]


def test_validation_data_holds_true_labels():
    teacher, x = _teacher("softmax"), _x()
    labels = teacher.predict(x, verbose=0).argmax(axis=1)
    tree = SoftDecisionTree(2, 3).distill(teacher, x, epochs=2, verbose=0, validation_data=(x, labels))
    accuracy = (tree.predict(x, verbose=0).argmax(axis=1) == labels).mean()
    assert tree.history.history["val_accuracy"][-1] == pytest.approx(accuracy, abs=1e-6)


def test_distillation_follows_a_training_on_labels():
    teacher, x = _teacher("softmax"), _x()
    labels = teacher.predict(x, verbose=0).argmax(axis=1)
    tree = SoftDecisionTree(2, 3)
    tree.fit(x, labels, epochs=1, verbose=0)
    tree.distill(teacher, x, epochs=1, verbose=0)
    assert set(tree.history.history) == {"loss", "accuracy"}


def test_a_tree_teaches_a_tree():
    teacher, x = _teacher("softmax"), _x()
    big = SoftDecisionTree(4, 3).distill(teacher, x, epochs=2, verbose=0)
    targets = teacher_targets(big, x, 3, 1.0)
    np.testing.assert_allclose(targets, big.predict(x, verbose=0), atol=1e-5)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (lambda x: np.full((len(x), 4), 0.25), r"teacher's output must have shape \(200, 3\)"),
        (lambda x: np.ones((len(x), 3)), "rows sum to 1. Received: row sums from 3 to 3"),
        (lambda x: np.full((len(x), 3), np.nan), "NaN or infinite"),
        (_teacher(), "must have 2 classes"),
    ],
)
def test_bad_teachers_are_refused(teacher, message):
    tree = SoftDecisionTree(2, 2 if isinstance(teacher, keras.Model) else 3)
    with pytest.raises(ValueError, match=message):
        tree.distill(teacher, _x(), epochs=1, verbose=0)
    assert not tree.built


def test_what_cannot_be_called_is_no_teacher():
    with pytest.raises(TypeError, match="Keras model or a function"):
        SoftDecisionTree(2, 3).distill(np.zeros((200, 3)), _x())


def test_temperature_must_be_above_zero():
    with pytest.raises(ValueError, match="temperature"):
        SoftDecisionTree(2, 3).distill(_teacher(), _x(), temperature=0.0)
