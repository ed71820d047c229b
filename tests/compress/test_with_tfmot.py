"""The bridge to tensorflow-model-optimization: both ends of it, and what it refuses."""

import importlib
import json

import keras
import numpy as np
import pytest
from keras import layers

from kdkeras import compress, export
from kdkeras.compress._legacy_plan import Plan
from kdkeras.export._flatbuffer import float_parts

rng = np.random.default_rng(0)
X = rng.normal(size=(256, 6, 6, 2)).astype("float32")
Y = (X[:, :3].sum(axis=(1, 2, 3)) > X[:, 3:].sum(axis=(1, 2, 3))).astype(int)


@pytest.fixture(scope="module")
def model():
    """A CNN with a nested part, a shared layer, an addition and a BatchNormalization that has seen data."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2), name="image")
    block = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()],
        name="block",
    )
    again = layers.Conv2D(4, 3, padding="same", activation="relu", name="again")
    hidden = block(inputs)
    hidden = again(again(hidden)) + hidden
    hidden = layers.LeakyReLU(0.2)(layers.Flatten()(hidden))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax", name="head")(hidden), name="student")
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(X, Y, epochs=8, verbose=0)
    return model


def accuracy(answers):
    return np.mean(answers.argmax(axis=1) == Y)


def test_a_pruned_model_comes_back_with_zeros_and_the_same_layers(model, capfd):
    before = [weight.copy() for weight in model.get_weights()]
    result = compress.with_tfmot(model, "prune", X, Y, teacher=model, sparsity=0.6, epochs=4, verbose=1)
    assert max(result.rebuilt_error, result.returned_error) < 1e-5
    assert [layer.name for layer in result.model.layers] == [layer.name for layer in model.layers]
    found = compress.sparsity(result.model)
    assert all(row.zeros == pytest.approx(0.6 * row.weights, abs=2) for row in found.rows)
    assert accuracy(result.model.predict(X, verbose=0)) > accuracy(model.predict(X, verbose=0)) - 0.05
    assert len(result.losses) == 4
    assert "tfmot prune: epoch 4/4" in capfd.readouterr().out
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_model_that_forgot_what_it_knew_is_warned_of_and_one_that_comes_back_wrong_is_refused(monkeypatch):
    keras.utils.set_random_seed(0)
    x = rng.normal(size=(200, 6)).astype("float32")
    y = x[:, :5].argmax(axis=1)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(32, activation="relu"), layers.Dense(5)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=40, verbose=0)
    with pytest.warns(UserWarning, match="'prune' took the accuracy on the first 200 training samples from 0"):
        compress.with_tfmot(model, "prune", x, y, epochs=1, sparsity=0.97)
    module = importlib.import_module("kdkeras.compress.with_tfmot")  # the package has the function by this name
    monkeypatch.setattr(module, "_brought_back", lambda model, *_: model)
    with pytest.raises(compress.TfmotError, match="came back from 'prune' answers otherwise"):
        compress.with_tfmot(model, "prune", x, y, epochs=1, sparsity=0.5)


def test_a_quantization_aware_model_comes_back_as_a_file_of_integers(model, tmp_path):
    result = compress.with_tfmot(model, "qat", X, Y, teacher=model, epochs=1)
    path = tmp_path / "student.tflite"
    result.save(path)
    assert (result.model, result.agreement >= 0.95) == (None, True)
    assert accuracy(export.load(path)(X)) > accuracy(model.predict(X, verbose=0)) - 0.05
    assert float_parts(path.read_bytes()).tensors == 0


@pytest.mark.slow
@pytest.mark.parametrize("technique", ["cluster", "pqat", "cqat", "pcqat"])
def test_the_other_techniques(model, technique):
    result = compress.with_tfmot(model, technique, X, Y, teacher=model, epochs=2, clusters=8)
    if technique == "cluster":
        assert all(row.unique <= 8 for row in compress.sparsity(result.model).rows)
        assert accuracy(result.model.predict(X, verbose=0)) > accuracy(model.predict(X, verbose=0)) - 0.1
    else:
        assert result.agreement >= 0.95


def test_the_plan_is_plain_and_knows_a_shared_layer_once(model):
    plan = Plan(model)
    record = json.loads(json.dumps(plan.record))
    paths = [layer["path"] for layer in record["layers"]]
    assert [path for path in paths if "again" in path] == ["again"]
    assert any(path.startswith("block_") for path in paths)
    place = paths.index("again")
    assert sum(call["layer"] == place for call in record["calls"]) == 2
    np.testing.assert_array_equal(plan.weights[f"{place}/0"], model.get_layer("again").kernel)


@keras.saving.register_keras_serializable("tests")
class Twice(layers.Layer):
    """A layer of a user's own."""

    def call(self, x):
        return 2 * x


def own():
    return keras.Sequential([keras.Input((6,)), layers.Dense(4, name="a"), Twice(name="twice"), layers.Dense(2)])


def own_in_tf_keras():
    """The same made of tf_keras layers; its file is run in the other process."""
    import tf_keras

    stack = [tf_keras.layers.Dense(4), tf_keras.layers.Lambda(lambda x: 2 * x), tf_keras.layers.Dense(2)]
    return tf_keras.Sequential([tf_keras.Input((6,)), *stack])


def test_what_cannot_be_rebuilt_is_named_and_can_be_built_by_a_function():
    model, x = own(), rng.normal(size=(64, 6)).astype("float32")
    with pytest.raises(ValueError, match=r"layer 'twice' \(Twice\) cannot be rebuilt in tf_keras.*`build_fn`"):
        compress.with_tfmot(model, "prune", x, Y[:64])
    result = compress.with_tfmot(model, "prune", x, Y[:64], build_fn=own_in_tf_keras, epochs=2)
    assert result.model.get_layer("twice")
    assert all(row.zeros >= 0.4 * row.weights for row in compress.sparsity(result.model).rows)


def wrong_in_tf_keras():
    """Another activation."""
    import tf_keras

    stack = [tf_keras.layers.Dense(4, "relu"), tf_keras.layers.Lambda(lambda x: 2 * x), tf_keras.layers.Dense(2)]
    return tf_keras.Sequential([tf_keras.Input((6,)), *stack])


def test_a_rebuilt_model_that_answers_otherwise_is_refused():
    x = rng.normal(size=(64, 6)).astype("float32")
    with pytest.raises(compress.TfmotError, match="answers otherwise than the Keras model"):
        compress.with_tfmot(own(), "prune", x, Y[:64], build_fn=wrong_in_tf_keras)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"technique": "shrink"}, "`technique` must be one of"),
        ({"sparsity": 1.0}, "`sparsity` must be a share between"),
        ({"temperature": 0.0}, "`temperature` must be finite and above 0"),
        ({"alpha": 1.5}, "`alpha` must be a share"),
        ({"epochs": 0}, "`epochs`"),
        ({"y": Y[:5]}, "5"),
    ],
)
def test_bad_arguments(model, options, match):
    arguments = {"technique": "prune", "x": X, "y": Y} | options
    with pytest.raises(ValueError, match=match):
        compress.with_tfmot(model, **arguments)


def test_models_that_are_no_classifiers_are_refused():
    sigmoid = keras.Sequential([keras.Input((6,)), layers.Dense(1, activation="sigmoid")])
    with pytest.raises(
        ValueError, match=r"ends in a softmax or logits over several classes. Received: .* sigmoid over 1"
    ):
        compress.with_tfmot(sigmoid, "qat", np.ones((4, 6)), np.array([0, 1, 0, 1]))


def test_models_of_several_inputs_or_outputs_are_refused():
    left, right = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([left, right], layers.Dense(2)(layers.Concatenate()([left, right])), name="pair")
    with pytest.raises(ValueError, match=r"one input and one output. Received: 'pair', with 2 and 1"):
        compress.with_tfmot(model, "prune", [np.ones((4, 3)), np.ones((4, 3))], np.array([0, 1, 0, 1]))
