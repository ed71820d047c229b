"""Reading predictions, logits and features from models of every kind."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdkeras import signals
from kdkeras.layer_paths import find_layer
from kdkeras.signals import Extractor

LAYERS = keras.layers
IMAGES = np.random.default_rng(0).random((4, 8, 8, 1)).astype("float32")


def sequential(*head, name="body"):
    body = [keras.Input((8, 8, 1)), LAYERS.Conv2D(4, 3, activation="relu", name="conv"), LAYERS.Flatten(name="flat")]
    return keras.Sequential([*body, *head], name=name)


def functional(head):
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, head(LAYERS.Flatten()(inputs)))


def nested():
    inputs = keras.Input((8, 8, 1))
    body = sequential(LAYERS.Dense(3, activation="softmax"))
    return keras.Model(inputs, body(inputs), name="outer")


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.body = sequential(LAYERS.Dense(3, activation="softmax"))

    def call(self, inputs):
        return self.body(inputs)


class HiddenSoftmax(keras.Model):
    def __init__(self):
        super().__init__()
        self.body = sequential(LAYERS.Dense(3))

    def call(self, inputs):
        scores = self.body(inputs)
        return keras.ops.exp(scores) / keras.ops.sum(keras.ops.exp(scores), axis=-1, keepdims=True)


MODELS = {
    "dense softmax": (lambda: sequential(LAYERS.Dense(3, activation="softmax")), "softmax"),
    "dense sigmoid": (lambda: sequential(LAYERS.Dense(3, activation="sigmoid")), "sigmoid"),
    "softmax layer": (lambda: sequential(LAYERS.Dense(3), LAYERS.Softmax()), "softmax"),
    "activation layer": (lambda: sequential(LAYERS.Dense(3), LAYERS.Activation("softmax", dtype="float32")), "softmax"),
    "linear": (lambda: sequential(LAYERS.Dense(3)), "linear"),
    "softmax, then cast": (
        lambda: sequential(LAYERS.Dense(3, activation="softmax"), LAYERS.Activation("linear", dtype="float32")),
        "softmax",
    ),
    "ops.softmax": (lambda: functional(lambda x: keras.ops.softmax(LAYERS.Dense(3)(x))), "softmax"),
    "ops.sigmoid": (lambda: functional(lambda x: keras.ops.sigmoid(LAYERS.Dense(3)(x))), "sigmoid"),
    "nested": (nested, "softmax"),
    "subclassed": (Subclassed, "softmax"),
    "inner softmax only": (lambda: sequential(LAYERS.Dense(4, activation="softmax"), LAYERS.Dense(3)), "linear"),
}


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_the_models_own(name):
    keras.utils.set_random_seed(0)
    make, head = MODELS[name]
    model = make()
    extractor = Extractor(model)
    read = extractor(IMAGES)
    assert extractor.head == head
    again = {"softmax": keras.ops.softmax, "sigmoid": keras.ops.sigmoid, "linear": lambda x: x}[head](read.logits)
    np.testing.assert_array_equal(again, read.predictions)
    np.testing.assert_allclose(read.predictions, model(IMAGES), rtol=1e-6)
    assert extractor.spec(keras.KerasTensor((None, 8, 8, 1))).head == head


def test_logits_survive_a_saturated_softmax():
    model = sequential(LAYERS.Dense(3, activation="softmax", kernel_initializer="zeros", name="head"))
    model.get_layer("head").bias.assign([0.0, 50.0, 200.0])
    np.testing.assert_array_equal(signals.predict_logits(model, IMAGES)[0], [0, 50, 200])


def test_half_precision_models_give_their_logits():
    model = sequential(LAYERS.Dense(3, dtype="mixed_bfloat16"), LAYERS.Activation("softmax", dtype="float32"))
    assert Extractor(model)(IMAGES).logits.dtype == tf.float32


def test_features_of_a_nested_layer_by_path_and_by_name():
    keras.utils.set_random_seed(0)
    model = nested()
    by_path = signals.predict(model, IMAGES, layers=["body/conv", "conv"])
    expected = model.get_layer("body").get_layer("conv")(IMAGES)
    np.testing.assert_allclose(by_path.features["body/conv"], expected, rtol=1e-6)
    np.testing.assert_array_equal(by_path.features["conv"], by_path.features["body/conv"])


def test_reading_leaves_the_model_as_it_was():
    model = sequential(LAYERS.Dense(3, activation="softmax", name="head"))
    before = {layer: set(layer.__dict__) for layer in model.layers}
    Extractor(model, ["conv"])(IMAGES)
    assert {layer: set(layer.__dict__) for layer in model.layers} == before
    assert model.get_layer("head").activation is keras.activations.softmax


def test_a_failing_model_is_left_as_it_was():
    model = sequential(LAYERS.Dense(3, activation="softmax"))
    with pytest.raises(ValueError):
        Extractor(model, ["conv"])(np.zeros((1, 5, 5, 1), "float32"))
    assert "call" not in model.get_layer("conv").__dict__


def test_threads_read_one_model_without_mixing():
    model = sequential(LAYERS.Dense(3, activation="softmax"))
    extractor = Extractor(model, ["conv"])
    results = {}

    def read(key):
        for _ in range(20):
            results[key] = extractor(IMAGES[key : key + 1]).features["conv"]

    threads = [threading.Thread(target=read, args=(key,)) for key in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = model.get_layer("conv")(IMAGES)
    for key, value in results.items():
        np.testing.assert_allclose(value[0], expected[key], rtol=1e-5, atol=1e-6)


def test_gradient_flows_from_logits_to_features():
    extractor = Extractor(nested(), ["conv"])
    with tf.GradientTape() as tape:
        read = extractor(tf.Variable(IMAGES))
    assert tape.gradient(read.logits, read.features["conv"]) is not None


def test_predict_takes_datasets():
    model = sequential(LAYERS.Dense(3))
    dataset = tf.data.Dataset.from_tensor_slices(IMAGES).batch(3)
    np.testing.assert_allclose(signals.predict_logits(model, dataset), model(IMAGES), rtol=1e-5)


def test_hidden_probabilities_are_refused():
    with pytest.raises(ValueError, match=r"returns probabilities \(rows sum to 1\)"):
        signals.predict_logits(HiddenSoftmax(), IMAGES)
    with pytest.raises(ValueError, match="last operation is not a softmax that Keras knows"):
        Extractor(HiddenSoftmax()).refuse_hidden_probabilities(keras.KerasTensor((None, 8, 8, 1)))


def test_missing_layer_names_the_nearest():
    with pytest.raises(ValueError, match=r"no layer 'convv'. The nearest names are \['conv'"):
        find_layer(sequential(LAYERS.Dense(3)), "convv")


def test_ambiguous_layer_lists_the_paths():
    inputs = keras.Input((8, 8, 1))
    left, right = sequential(LAYERS.Dense(3), name="left"), sequential(LAYERS.Dense(3), name="right")
    model = keras.Model(inputs, left(inputs) + right(inputs))
    with pytest.raises(ValueError, match=r"ambiguous .* \['left/conv', 'right/conv'\]"):
        find_layer(model, "conv")


def test_several_outputs_are_refused():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [LAYERS.Dense(2)(inputs), LAYERS.Dense(3)(inputs)])
    with pytest.raises(ValueError, match=r"exactly one output. Received: 2"):
        Extractor(model).spec(keras.KerasTensor((None, 4)))


def test_uncalled_layer_is_refused():
    class Idle(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.idle = LAYERS.Dense(2, name="used"), LAYERS.Dense(2, name="idle")

        def build(self, shape):
            self.used.build(shape)
            self.idle.build(shape)

        def call(self, inputs):
            return self.used(inputs)

    with pytest.raises(ValueError, match=r"Layers \['idle'\] of model 'idle.*' are not called"):
        Extractor(Idle(), ["idle"])(np.zeros((1, 3), "float32"))


def test_not_a_model():
    with pytest.raises(TypeError, match=r"must be a `keras.Model`. Received: 3 of type int"):
        Extractor(3)


class HiddenSigmoid(HiddenSoftmax):
    def call(self, inputs):
        return 1 / (1 + keras.ops.exp(-self.body(inputs)))


def test_hidden_sigmoids_are_refused():
    extractor = Extractor(HiddenSigmoid())
    extractor(IMAGES)
    with pytest.raises(ValueError, match=r"returns values in \(0, 1\) only"):
        extractor.refuse_hidden_probabilities(keras.KerasTensor((None, 8, 8, 1)))


def test_half_precision_softmax_behind_a_cast_is_refused():
    half = LAYERS.Dense(3, activation="softmax", dtype="mixed_bfloat16")
    model = sequential(half, LAYERS.Activation("linear", dtype="float32"))
    with pytest.raises(ValueError, match="returns probabilities"):
        signals.predict_logits(model, IMAGES)


def test_activations_of_tensorflow_are_known():
    assert Extractor(sequential(LAYERS.Dense(3, activation=tf.nn.softmax))).spec(
        keras.KerasTensor((None, 8, 8, 1))
    ).head == ("softmax")


def test_a_call_set_on_an_instance_stays():
    model = sequential(LAYERS.Dense(3))
    layer = model.get_layer("conv")
    own = layer.call
    layer.__dict__["call"] = own
    Extractor(model, ["conv"])(IMAGES)
    assert layer.__dict__["call"] is own


def test_logits_of_independent_outputs_are_no_classes():
    with pytest.raises(ValueError, match="Exclusive classes are needed"):
        signals.predict_logits(sequential(LAYERS.Dense(3, activation="sigmoid")), IMAGES)


def test_masks_of_hidden_states_outlast_the_attention_that_takes_them():
    inputs = keras.Input((None,), dtype="int32")
    hidden = keras.layers.Embedding(5, 4, mask_zero=True, name="embed")(inputs)
    attended = keras.layers.MultiHeadAttention(2, 2, name="attention")(hidden, hidden)
    hidden = keras.layers.LayerNormalization(name="hidden")(attended)
    attended = keras.layers.MultiHeadAttention(2, 2)(hidden, hidden)
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(attended))
    tokens = np.array([[1, 2, 0], [3, 0, 0]])
    signals = Extractor(keras.Model(inputs, outputs), ["embed", "hidden"])(tokens)
    for path in ("embed", "hidden"):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(signals.masks[path]), tokens != 0)
