"""Class maps: numbers against numpy and scipy in float64, and what is refused."""

import keras
import numpy as np
import pytest
from scipy import special

from kdkeras.signals import Extractor, predict_with_head
from kdkeras.teachers import ClassMap, Ensemble

rng = np.random.default_rng(0)
X = rng.normal(0, 2, (30, 4)).astype("float32")


def net(name="teacher", activation="softmax", units=6):
    keras.utils.set_random_seed(sum(map(ord, name)))
    layers = [keras.Input((4,)), keras.layers.Dense(units, activation, name="head", kernel_initializer="normal")]
    model = keras.Sequential(layers, name=name)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def logits_of(model, x=X):
    return x.astype("float64") @ model.get_weights()[0] + model.get_weights()[1]


def test_groups_add_up_and_the_rest_is_renormalised():
    teacher = net()
    p = special.softmax(logits_of(teacher), axis=1)
    kept = np.stack([p[:, 4], p[:, 0] + p[:, 5] + p[:, 2], p[:, 1]], axis=1)  # class 3 is dropped
    signals, head = predict_with_head(ClassMap(teacher, [4, [0, 5, 2], 1]), X)
    assert head == "softmax"
    np.testing.assert_allclose(signals.predictions, kept / kept.sum(axis=1, keepdims=True), atol=1e-6)
    z = logits_of(teacher)
    merged = np.stack([z[:, 4], special.logsumexp(z[:, [0, 5, 2]], axis=1), z[:, 1]], axis=1)
    np.testing.assert_allclose(signals.logits, merged, atol=1e-5)


def test_plain_selection_and_reordering():
    for activation in ("softmax", "sigmoid", None):
        teacher = net(activation=activation)
        signals, head = predict_with_head(ClassMap(teacher, np.array([5, 0, 3])), X)
        z = logits_of(teacher)[:, [5, 0, 3]]
        assert head == (activation or "linear")
        np.testing.assert_allclose(signals.logits, z, atol=1e-5)
        end = {"softmax": lambda z: special.softmax(z, axis=1), "sigmoid": special.expit, None: lambda z: z}
        np.testing.assert_allclose(signals.predictions, end[activation](z), atol=1e-5)


def test_large_logits_do_not_overflow():
    teacher = net(activation=None, units=4)
    teacher.set_weights([np.zeros((4, 4)), np.array([900.0, 899.0, -900.0, -901.0])])
    logits = predict_with_head(ClassMap(teacher, [[0, 1], [2, 3]]), X[:1])[0].logits
    more = np.log1p(np.exp(-1))
    np.testing.assert_allclose(logits, [[900 + more, -900 + more]], rtol=1e-6)


def test_the_identity_map_changes_nothing_and_layers_stay_tappable():
    teacher = net()
    mapped = ClassMap(teacher, range(6))
    signals = Extractor(mapped, ["teacher/head"])(X)
    np.testing.assert_array_equal(signals.logits, Extractor(teacher)(X).logits)
    np.testing.assert_array_equal(signals.features["teacher/head"], teacher(X))
    assert mapped.name == "teacher_mapped"


def test_on_an_ensemble_and_inside_one():
    first, second = net("first", units=3), net("second", units=5)
    maps = [[0, 1], [[0, 4], 2]]
    together = Ensemble([ClassMap(m, c) for m, c in zip([first, second], maps, strict=True)], of="probabilities")
    one = special.softmax(logits_of(first)[:, :2], axis=1)
    p = special.softmax(logits_of(second), axis=1)
    two = np.stack([p[:, 0] + p[:, 4], p[:, 2]], axis=1)
    two /= two.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(together.predict(X, verbose=0), (one + two) / 2, atol=1e-6)
    assert "first_mapped/first/head" in Extractor(together, ["first_mapped/first/head"])(X).features
    again = ClassMap(Ensemble([net("third"), net("fourth")], of="probabilities"), [[0, 1, 2], [3, 4, 5]])
    mean = np.mean([special.softmax(logits_of(member), axis=1) for member in again.model.models], axis=0)
    np.testing.assert_allclose(again.predict(X, verbose=0), mean.reshape(-1, 2, 3).sum(axis=2), atol=1e-6)


def test_save_and_load(tmp_path):
    mapped = ClassMap(net(), [4, [0, 5, 2], 1])
    mapped.save(tmp_path / "map.keras")
    loaded = keras.saving.load_model(tmp_path / "map.keras")
    assert (loaded.classes, loaded.name) == (mapped.classes, "teacher_mapped")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), mapped.predict(X, verbose=0))


@pytest.mark.parametrize(
    ("classes", "activation", "error", "message"),
    [
        ([0, 6], "softmax", ValueError, r"below 6.*model 'teacher'. Received: \[6\]"),
        ([0, -1], "softmax", ValueError, r"from 0 up.*\[-1\] below 0"),
        ([0, [1, 0]], "softmax", ValueError, r"at most once.*\[0\] more than once"),
        ([0, []], "softmax", ValueError, r"none for classes \[1\] of 2"),
        ([], "softmax", ValueError, "at least one class"),
        ([[0, 1, 2]], "softmax", ValueError, "two classes or more.*ends in a softmax"),
        ([0, [1, 2]], "sigmoid", ValueError, r"cannot merge units.*groups \[\[1, 2\]\].*single units"),
        ([0, 1.0], "softmax", TypeError, r"integers as class indices. Received: \[1.0\]"),
        ([0, True], "softmax", TypeError, r"Received: \[True\]"),
        (["cat", "dog"], "softmax", TypeError, "integers"),
    ],
)
def test_refusals(classes, activation, error, message):
    with pytest.raises(error, match=message):
        ClassMap(net(activation=activation), classes)


def test_the_teacher_must_be_a_keras_model():
    with pytest.raises(TypeError, match=r"needs a Keras model. Received: .* of type str"):
        ClassMap("teacher.keras", [0, 1])
