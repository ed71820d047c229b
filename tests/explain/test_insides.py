"""Inside of teacher and student: layers side by side, linear CKA, class selectivity."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import kdkeras
from kdkeras import explain
from kdkeras.explain.insides.pictures import fold


def rows(n=64, width=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width)).astype("float32")


def identity(width=6, kernel=None, name="model"):
    """A model of one linear layer, the identity or a given kernel."""
    model = keras.Sequential([keras.Input((width,)), layers.Dense(width, use_bias=False, name="linear")], name=name)
    model.set_weights([np.eye(width) if kernel is None else kernel])
    return model


def unbiased_cka(x, y):
    """The estimate of Song et al. (2012), written with matrices."""

    def hsic(first, second):
        n = len(first)
        first, second = first - np.diag(np.diag(first)), second - np.diag(np.diag(second))
        ones = np.ones(n)
        whole = (ones @ first @ ones) * (ones @ second @ ones) / ((n - 1) * (n - 2))
        return (np.trace(first @ second) + whole - 2 / (n - 2) * ones @ first @ second @ ones) / (n * (n - 3))

    ours, theirs = x @ x.T, y @ y.T
    return hsic(ours, theirs) / np.sqrt(hsic(ours, ours) * hsic(theirs, theirs))


def test_cka_agrees_with_the_definition():
    random = np.random.default_rng(1)
    kernel = random.normal(size=(6, 6))
    x = rows(40)
    found = explain.layer_similarity(identity(), identity(kernel=kernel), x, batch_size=40)
    np.testing.assert_allclose(found.values, [[unbiased_cka(x.astype("float64"), x @ kernel)]], atol=1e-6)


def test_cka_averages_hsic_over_batches_before_it_divides():
    """With all batches equal, batches change nothing."""
    x = np.tile(rows(16), (3, 1))
    kernel = np.random.default_rng(1).normal(size=(6, 6))
    found = explain.layer_similarity(identity(), identity(kernel=kernel), x, batch_size=16)
    np.testing.assert_allclose(found.values, [[unbiased_cka(x[:16].astype("float64"), x[:16] @ kernel)]], atol=1e-6)


def test_cka_is_blind_to_rotation_scale_and_shift_and_knows_what_is_unrelated():
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0]
    model = keras.Sequential([keras.Input((6,)), layers.Dense(6, name="turned")])
    model.set_weights([5 * turn, np.full(6, 100.0)])
    x = rows(256)
    np.testing.assert_allclose(explain.layer_similarity(identity(), model, x).values, 1, atol=1e-4)
    first, second = np.diag([1.0] * 3 + [0] * 3), np.diag([0.0] * 3 + [1] * 3)  # halves that have nothing in common
    unrelated = explain.layer_similarity(identity(kernel=first), identity(kernel=second), rows(2000), batch_size=500)
    assert abs(unrelated.values[0, 0]) < 0.02


def test_the_nearest_layer_is_found_in_convolutions_of_other_sizes():
    keras.utils.set_random_seed(0)
    early = layers.Conv2D(8, 3, name="early")
    late = layers.Conv2D(8, 3, strides=2, activation="relu", name="late")
    teacher = keras.Sequential([keras.Input((8, 8, 1)), early, late, layers.Flatten(), layers.Dense(3, name="out")])
    part = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(8, 3, name="copy"), layers.Flatten(), layers.Dense(3)]
    )
    part.get_layer("copy").set_weights(early.get_weights())
    found = explain.layer_similarity(teacher, part, np.random.default_rng(0).random((32, 8, 8, 1)))
    assert found.teacher_layers == ("early", "late", "out")
    assert found.nearest["copy"][0] == "early"
    np.testing.assert_allclose(found.nearest["copy"][1], 1, atol=1e-4)
    assert json.loads(json.dumps(found.to_dict()))["teacher_layers"] == ["early", "late", "out"]
    assert "copy" in str(found)
    found.plot().canvas.draw()


def test_a_constant_layer_is_like_nothing():
    found = explain.layer_similarity(identity(), identity(kernel=np.zeros((6, 6))), rows())
    assert np.isnan(found.values).all() and found.nearest == {}
    assert found.to_dict()["values"] == [[None]]
    found.plot().canvas.draw()


def test_what_is_left_of_the_last_batch_is_enough_or_left_out():
    kernel = np.random.default_rng(1).normal(size=(6, 6))
    whole, more = (
        explain.layer_similarity(identity(), identity(kernel=kernel), rows(32)[:n], batch_size=16).values
        for n in (16, 18)
    )
    np.testing.assert_allclose(whole, more)


def test_bad_questions_about_layers():
    with pytest.raises(ValueError, match=r"at least 4 samples in a batch. Received: 3 samples"):
        explain.layer_similarity(identity(), identity(), rows(3))
    with pytest.raises(ValueError, match=r"no layer 'linaer'. The nearest names are"):
        explain.layer_similarity(identity(), identity(), rows(), student_layers=["linaer"])
    relu = keras.Sequential([keras.Input((6,)), layers.ReLU()], name="bare")
    with pytest.raises(ValueError, match="'bare' has no layer with a kernel"):
        explain.layer_similarity(relu, identity(), rows())


def test_selectivity_by_hand():
    model = keras.Sequential([keras.Input((4,)), layers.ReLU(name="units"), layers.Dense(3)])
    x = np.array([[4, 1, -1, 0], [2, 1, -1, 0], [0, 1, -3, 3], [0, 1, 0, 1]], "float32")
    found = explain.class_selectivity(model, x, [0, 0, 1, 2], "units")
    np.testing.assert_allclose(found.means, [[3, 1, 0, 0], [0, 1, 0, 3], [0, 1, 0, 1]])
    # (3 − 0) / 3; all alike; silent; (3 − 0.5) / 3.5
    np.testing.assert_allclose(found.index, [1, 0, np.nan, 2.5 / 3.5])
    assert found.preferred.tolist() == [0, 0, -1, 1] and found.silent == 1
    assert found.table(["ant", "bee", "cow"])[1:] == [
        ("ant", "2", "0.500", "0"),
        ("bee", "1", "0.714", "3"),
        ("cow", "0", "–", "–"),
    ]
    assert json.loads(json.dumps(found.to_dict()))["index"][2] is None
    found.plot(class_names=["ant", "bee", "cow"]).canvas.draw()


def test_selectivity_is_the_same_in_batches_and_over_positions():
    keras.utils.set_random_seed(0)
    convolution = layers.Conv2D(5, 3, activation="relu", name="conv")
    model = keras.Sequential([keras.Input((6, 6, 1)), convolution, layers.GlobalAveragePooling2D(), layers.Dense(2)])
    x, y = np.random.default_rng(0).normal(size=(10, 6, 6, 1)), np.arange(10) % 2
    found = explain.class_selectivity(model, x, y, batch_size=3)
    assert found.layer == "conv"
    maps = np.asarray(convolution(x.astype("float32"))).mean(axis=(1, 2))
    np.testing.assert_allclose(found.means, [maps[y == label].mean(axis=0) for label in (0, 1)], rtol=1e-5)


def test_a_class_without_samples_is_left_out_of_the_index():
    model = keras.Sequential([keras.Input((1,)), layers.ReLU(name="units"), layers.Dense(3)])
    found = explain.class_selectivity(model, [[3.0], [1.0]], [0, 2], "units")
    np.testing.assert_allclose(found.index, [0.5])


def test_bad_labels_for_selectivity():
    model = identity()
    with pytest.raises(ValueError, match=r"integers of shape \(64,\). Received: shape \(64, 2\)"):
        explain.class_selectivity(model, rows(), np.zeros((64, 2), int))
    with pytest.raises(ValueError, match="two classes or more"):
        explain.class_selectivity(model, rows(), np.zeros(64, int))


def cnn(name, blocks=1):
    body = [
        layer
        for block in range(blocks)
        for layer in (
            layers.Conv2D(4, 3, padding="same", name=f"conv{block}"),
            layers.BatchNormalization(),
            layers.ReLU(),
        )
    ]
    head = [layers.GlobalAveragePooling2D(name="pool"), layers.Dense(3, name="logits")]
    return keras.Sequential([keras.Input((8, 8, 1)), *body, *head], name=name)


def test_structure_counts_every_weight_once_and_marks_what_is_compared():
    teacher, student = cnn("big", 3), cnn("small")
    losses = [
        kdkeras.losses.SoftTargets(),
        kdkeras.losses.Hints("conv0", "conv2"),
        kdkeras.losses.ExplanationMatching("conv0", "conv1"),
    ]
    found = explain.compare_structure(teacher, student, np.zeros((1, 8, 8, 1)), losses)
    for model, structure in ((teacher, found.teacher), (student, found.student)):
        assert sum(layer.parameters for layer in structure.layers) == structure.parameters == model.count_params()
    assert found.links == (
        ("soft_targets", "", ""),
        ("hints", "conv0", "conv2"),
        ("explanation_matching", "conv0", "conv1"),
    )
    assert found.student.layers[0].shape == (8, 8, 4)
    text = str(found)
    assert "hints, explanation_matching" in text and "teacher 'big'" in text
    assert json.loads(json.dumps(found.to_dict()))["links"][1] == {
        "loss": "hints",
        "student": "conv0",
        "teacher": "conv2",
    }
    figure = found.plot()
    figure.canvas.draw()
    words = [text.get_text() for text in figure.axes[0].texts]
    assert "hints" in words and "logits" in words


def test_structure_of_a_shared_layer_and_a_nested_subclassed_model():
    class Body(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="body")
            self.dense = layers.Dense(4, name="shared")
            self.scale = self.add_weight(shape=(4,), name="scale")

        def call(self, x):
            return self.dense(self.dense(x)) * self.scale

    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, name="logits")(Body()(inputs)), name="nested")
    found = explain.compare_structure(model, model, rows(1, 4))
    assert {layer.path: layer.parameters for layer in found.student.layers} == {
        "body/shared": 20,
        "body": 4,
        "logits": 10,
    }
    assert found.student.parameters == model.count_params()


def test_deep_models_are_folded_without_losing_parameters_or_what_is_compared():
    deep = cnn("deep", 20)
    found = explain.compare_structure(
        deep, cnn("small"), np.zeros((1, 8, 8, 1)), [kdkeras.losses.Hints("conv0", "conv7")]
    )
    for most in (62, 45, 10):
        folded = fold(found.teacher, {"conv7"}, most)
        assert len(folded) <= most
        assert sum(layer.parameters for layer in folded) == deep.count_params()
        assert "conv7" in [layer.path for layer in folded] and folded[-1].path == "logits"
    found.plot(rows=10).canvas.draw()
    with pytest.raises(ValueError, match="`rows` must be at least 4"):
        found.plot(rows=2)


def test_structure_names_what_does_not_fit():
    with pytest.raises(TypeError, match=r"must be a `keras.Model`"):
        explain.compare_structure(None, identity(), rows(1))
    with pytest.raises(ValueError, match="no layer 'conv9'"):
        explain.compare_structure(cnn("a"), cnn("b"), np.zeros((1, 8, 8, 1)), [kdkeras.losses.Hints("conv9", "conv0")])
