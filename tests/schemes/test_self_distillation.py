"""Self-distillation: its loss by hand; what learns from what; the caller's model stays what it is."""

import keras
import numpy as np
import pytest
from small import EAGER, X, Y, cross_entropy, divergence, layers_of, net, task

import kdkeras
from kdkeras.schemes import SelfDistillation
from kdkeras.testing import tiny_stages


def test_the_loss_is_the_one_by_hand():
    model = net("model", 6)
    teaching = SelfDistillation(model, ["h1"], feature="h2")
    teaching.compile(keras.optimizers.SGD(0.0), task(), metrics=["accuracy"], hint_weight=0.5)
    logs = teaching.fit(X, Y, batch_size=32, verbose=0).history
    h1, h2, z = layers_of(model.get_weights())
    w, b = (np.asarray(v, "float64") for v in teaching.student.get_layer("h1_bottleneck").get_weights())
    v, c = (np.asarray(v, "float64") for v in teaching.student.get_layer("h1_exit").get_weights())
    embedding = np.maximum(h1 @ w + b, 0)
    shallow = embedding @ v + c
    soft, hint = divergence(z, shallow, 3.0), ((embedding - h2) ** 2).mean()
    both = cross_entropy(z) + cross_entropy(shallow)
    np.testing.assert_allclose(logs["h1_from_final"][0], soft, rtol=1e-4)
    np.testing.assert_allclose(logs["h1_hint"][0], hint, rtol=1e-4)
    np.testing.assert_allclose(logs["task_loss"][0], both, rtol=1e-4)
    np.testing.assert_allclose(logs["loss"][0], 0.9 * both + 0.1 * soft + 0.5 * hint, rtol=1e-4)
    np.testing.assert_allclose(logs["final_accuracy"][0], (z.argmax(axis=1) == Y).mean(), rtol=1e-5)
    np.testing.assert_allclose(teaching.exit_model("h1").predict(X, verbose=0), shallow, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # Keras' word for it, on TensorFlow
def test_the_end_teaches_and_learns_nothing_from_the_exits():
    model = net("model")
    structure, before = model.get_config(), model.get_weights()
    teaching = SelfDistillation(model, ["h1"], feature="h2")
    weights = teaching.student.get_layer("h1_exit").get_weights()
    teaching.compile(keras.optimizers.SGD(0.1), **EAGER).fit(X, batch_size=32, verbose=0)
    after = model.get_weights()
    assert not np.array_equal(before[0], after[0])  # h1 carries the exit
    for ours, theirs in zip(before[2:], after[2:], strict=True):  # h2 and head only teach
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(weights[0], teaching.student.get_layer("h1_exit").get_weights()[0])
    assert model.get_config() == structure and len(model.layers) == 3


def test_a_network_with_images_is_trained_saved_and_loaded(tmp_path):
    images, labels = np.random.default_rng(0).random((16, 8, 8, 1)).astype("float32"), np.arange(16) % 3
    keras.utils.set_random_seed(0)
    model = tiny_stages(width=4)
    teaching = SelfDistillation(model, ["relu1"], feature="pool").compile("adam", task(), **EAGER)
    teaching.fit(images, labels, verbose=0)
    teaching.save(tmp_path / "teaching.keras")
    loaded = kdkeras.load_model(tmp_path / "teaching.keras")
    ours, theirs = (each.evaluate(images, labels, verbose=0, return_dict=True) for each in (loaded, teaching))
    assert ours.keys() == theirs.keys() >= {"relu1_hint", "relu1_from_final", "final_loss", "relu1_loss"}
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-5)
    np.testing.assert_array_equal(loaded.model.predict(images, verbose=0), model.predict(images, verbose=0))
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").count_params() == model.count_params()


def test_a_bottleneck_of_ones_own():
    model = tiny_stages()
    convolution = [keras.layers.Conv2D(8, 3, strides=2), keras.layers.GlobalAveragePooling2D()]
    teaching = SelfDistillation(model, ["relu1"], feature="pool", bottleneck=lambda name: keras.Sequential(convolution))
    assert teaching.student.get_layer("relu1_embedding").output.shape == (None, 8)


def nested():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, name="deep")], name="inner")
    return keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(3)], name="outer")


def twice():
    inputs, layer = keras.Input((4,)), keras.layers.Dense(4, name="again")
    return keras.Model(inputs, keras.layers.Dense(3)(layer(layer(inputs))), name="loop")


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SelfDistillation(net("m"), []), "one or more different layers"),
        (lambda: SelfDistillation(net("m"), ["h1", "h1"]), "one or more different layers"),
        (lambda: SelfDistillation(net("m"), ["h7"]), "nearest names"),
        (lambda: SelfDistillation(nested(), ["inner/deep"]), "inside another model"),
        (lambda: SelfDistillation(twice(), ["again"]), "used once"),
        (lambda: SelfDistillation(tiny_stages(), ["relu1"], feature="relu2"), "after pooling"),
        (lambda: SelfDistillation(Subclassed(), ["h1"]), "Functional"),
        (lambda: SelfDistillation("m", ["h1"]), "needs a Keras model"),
        (lambda: SelfDistillation(net("m", activation="tanh"), ["h1"]), "known activation"),
        (lambda: SelfDistillation(net("m"), ["h1"]).exit_model("h2"), "has the exits"),
        (
            lambda: SelfDistillation(net("m"), ["h1"]).compile(distillation_loss=kdkeras.losses.Hints("h1", "h2")),
            "between outputs",
        ),
    ],
)
def test_what_cannot_be_said(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
