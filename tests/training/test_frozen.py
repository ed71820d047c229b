"""A frozen teacher says what the live one says, holds no variable, and is refused where that is not safe."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kdkeras._frozen import FreezeError, freeze
from kdkeras.inputs import input_specs
from kdkeras.signals import Extractor


def convolutional(dtype=None):
    stack = [layers.Conv2D(8, 3), layers.BatchNormalization(), layers.ReLU(name="map"), layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((8, 8, 3)), *stack, layers.Dropout(0.5), layers.Dense(4, "softmax")])
    if dtype is not None:
        model = keras.models.clone_model(
            model, clone_function=lambda layer: type(layer).from_config(layer.get_config() | {"dtype": dtype})
        )
    random = np.random.default_rng(0)
    for variable in model.variables:
        if variable.dtype == "float32":  # moving statistics of 0 and 1 would hide a wrong folding
            variable.assign(random.uniform(0.2, 1.5, variable.shape))
    return model


def attention():
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(11, 8, mask_zero=True)(tokens)
    x = layers.LayerNormalization(name="map")(x + layers.MultiHeadAttention(2, 4)(x, x))
    return keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def recurrent():
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(11, 8, mask_zero=True, name="map")(tokens)
    return keras.Model(tokens, layers.Dense(3)(layers.Bidirectional(layers.LSTM(4))(x)))


def nested():
    left, right = keras.Input((4,), name="left"), keras.Input((6,), name="right")
    both = layers.Concatenate()([layers.Dense(5, name="map")(left), right])
    outputs = {"classes": layers.Dense(3, "softmax")(both), "value": layers.Dense(1)(both)}
    return keras.Model({"left": left, "right": right}, outputs)


def around(layer):
    return keras.Sequential([keras.Input((4,)), layers.Dense(3), layer, layers.Dense(2)])


def frozen_of(model, tapped=(), **options):
    extractor = Extractor(model, tapped, several_outputs=True)
    return freeze(extractor, input_specs(model), **options)


def batch_for(model, size=5):
    random = np.random.default_rng(1)

    def sample(spec):
        shape = (size, *(7 if axis is None else axis for axis in spec.shape[1:]))
        values = random.integers(0, 11, shape) if "int" in spec.dtype else random.normal(size=shape)
        return tf.constant(values, spec.dtype)

    return keras.tree.map_structure(sample, input_specs(model))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("make", [convolutional, attention, recurrent, nested])
def test_the_signals_are_the_live_ones_and_no_variable_is_read(make, jit_compile):
    model = make()
    frozen = frozen_of(model, ["map"])
    batch = batch_for(model)
    step = tf.function(lambda x: frozen(x)._asdict(), jit_compile=jit_compile, autograph=False)
    received, expected = step(batch), frozen.extractor(batch, training=False)._asdict()
    keras.tree.assert_same_structure(received, expected)
    for ours, live in zip(keras.tree.flatten(received), keras.tree.flatten(expected), strict=True):
        assert ours.dtype == live.dtype
        np.testing.assert_allclose(ours, live, rtol=1e-5, atol=1e-6)
    assert step.get_concrete_function(batch).variables == ()
    assert step.get_concrete_function(batch).captured_inputs == []


def test_the_bytes_are_those_of_the_weights():
    # A 3·3·3·8 kernel and 8 biases, 4·8 of BatchNorm, 8·4 and 4 of the head in float32; two int64 of
    # dropout's seed.
    assert frozen_of(convolutional()).bytes == 4 * (216 + 8 + 32 + 32 + 4) + 2 * 8


@pytest.mark.parametrize(("dtype", "tolerance"), [("mixed_float16", 2e-3), ("mixed_bfloat16", 2e-2)])
def test_half_precision(dtype, tolerance):
    model = convolutional(dtype)
    frozen = frozen_of(model)
    batch = batch_for(model)
    received = tf.function(lambda x: frozen(x).logits)(batch)
    live = frozen.extractor(batch).logits
    assert received.dtype == live.dtype == tf.as_dtype(dtype.removeprefix("mixed_"))
    assert np.abs(np.float32(received) - np.float32(live)).max() <= tolerance * np.abs(np.float32(live)).max()


def test_changed_weights_need_a_new_trace():
    model = convolutional()
    frozen = frozen_of(model)
    batch = batch_for(model)
    step = tf.function(lambda x: frozen(x).logits)
    before = step(batch).numpy()
    assert frozen.is_current()
    model.layers[0].kernel.assign_add(np.ones((3, 3, 3, 8)))  # in place: the constants must be a copy
    assert not frozen.is_current()
    np.testing.assert_array_equal(step(batch), before)
    again = frozen_of(model)
    expected = again.extractor(batch).logits
    np.testing.assert_allclose(tf.function(lambda x: again(x).logits)(batch), expected, rtol=1e-5)
    assert np.abs(expected - before).max() > 0.1


def test_eager_calls_run_the_teacher_itself():
    model = convolutional()
    frozen = frozen_of(model)
    batch = batch_for(model)
    model.layers[-1].bias.assign([0.0, 1.0, 2.0, 3.0])
    np.testing.assert_array_equal(frozen(batch).logits, frozen.extractor(batch).logits)


def test_it_can_be_made_while_a_step_is_traced():
    model = convolutional()
    made = []

    @tf.function
    def step(x):
        made.append(frozen_of(model))
        return made[-1](x).predictions

    batch = batch_for(model)
    np.testing.assert_allclose(step(batch), model(batch), rtol=1e-5, atol=1e-6)
    assert len(made) == 1


def test_no_gradient_and_no_change_of_the_teacher():
    model = convolutional()
    before = [variable.numpy() for variable in model.variables]
    frozen = frozen_of(model)

    @tf.function
    def gradients(x):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(frozen(x).logits ** 2)
        return tape.gradient(total, [variable.value for variable in model.trainable_variables])

    assert gradients(batch_for(model)) == [None] * 6
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_memory_is_stated(caplog):
    with caplog.at_level(logging.INFO, logger="kdkeras"):
        frozen_of(keras.Sequential([keras.Input((500,)), layers.Dense(500, use_bias=False)], name="wide"))
    assert "Model 'wide' is frozen: 1.0 MB of weights become constants (about 16 MB while" in caplog.text


class Length(layers.Layer):
    def call(self, x):
        return tf.cast(tf.strings.length(x), "float32")[:, None]

    def compute_output_spec(self, x):
        return keras.KerasTensor((x.shape[0], 1))


class Noise(layers.Layer):
    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


class SeededNoise(layers.Layer):
    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed)


class Counter(layers.Layer):
    def build(self, _):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.count.assign_add(1.0)
        return x + self.count


class Python(layers.Layer):
    def call(self, x):
        return tf.ensure_shape(tf.numpy_function(np.tanh, [x], tf.float32), x.shape)


class Function(layers.Layer):
    def build(self, _):
        self.factor = self.add_weight(shape=(), initializer="ones")

    @tf.function
    def call(self, x):
        return self.factor * x


class Hidden(layers.Layer):
    """Says another thing at each trace."""

    calls = 0

    def call(self, x):
        self.calls += 1
        return x * self.calls


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Noise, r"has the operations \['RandomStandardNormal'\], which keep state or draw at random"),
        (SeededNoise, r"has the operations \['Assign"),
        (Counter, r"has the operations \['Assign"),
        (Python, r"has the operations \['PyFunc'\]"),
        (Function, r"calls a `tf.function`"),
        (Hidden, r"an output differs by .* with constants, of a largest .*; 1e-04 of it is allowed"),
    ],
)
def test_an_unsafe_teacher_is_refused(layer, reason):
    model = around(layer())
    with pytest.raises(FreezeError, match=reason):
        frozen_of(model)
    assert model(np.ones((2, 4), "float32")).shape == (2, 2)  # it still runs


def test_a_teacher_that_calls_a_function_still_runs_compiled_after_the_refusal():
    model = around(Function())
    spec = tf.TensorSpec((None, 4))
    with pytest.raises(FreezeError):
        frozen_of(model)
    compiled = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    np.testing.assert_allclose(compiled(tf.ones((3, 4))), model(tf.ones((3, 4))), rtol=1e-6)


def test_too_many_bytes_are_refused():
    with pytest.raises(FreezeError, match=r"weights are 0\.0 MB, more than the 0\.0 MB allowed"):
        frozen_of(convolutional(), limit=100)


def test_a_strategy_is_refused():
    model = convolutional()
    with (
        tf.distribute.OneDeviceStrategy("/cpu:0").scope(),
        pytest.raises(FreezeError, match=r"under a `tf.distribute`"),
    ):
        frozen_of(model)


def test_weights_made_under_a_strategy_are_refused():
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        model = convolutional()
    with pytest.raises(FreezeError, match=r"under a `tf.distribute`"):
        frozen_of(model)


def test_inputs_without_samples_need_a_probe():
    text = keras.Input((), dtype="string")
    model = keras.Model(text, layers.Dense(2)(Length()(text)))
    with pytest.raises(FreezeError, match="dtype string, for which no samples"):
        frozen_of(model)
    frozen = frozen_of(model, probe=np.array(["a", "bcd"]))
    received = tf.function(lambda x: frozen(x).logits)(tf.constant(["ab"]))
    np.testing.assert_allclose(received, 2 * model.layers[-1].kernel.numpy() + model.layers[-1].bias.numpy(), rtol=1e-6)


def test_a_teacher_that_fails_on_the_probe_is_refused():
    tokens = keras.Input((3,), dtype="int32")
    model = keras.Model(tokens, layers.Dense(2)(layers.Flatten()(layers.Embedding(1, 4)(tokens))))
    with pytest.raises(FreezeError, match=r"failed on a probe \(InvalidArgumentError"):
        frozen_of(model)
    assert frozen_of(model, probe=np.zeros((2, 3))).bytes == 4 * (4 + 24 + 2)


def test_infinite_outputs_on_the_probe_are_no_difference():
    model = keras.Sequential([keras.Input((4,)), layers.Lambda(keras.ops.log), layers.Dense(3)])
    frozen = frozen_of(model)  # the logarithm of a negative number
    received = tf.function(lambda x: frozen(x).logits)(tf.ones((1, 4)))
    np.testing.assert_allclose(received, np.zeros((1, 3)), atol=1e-6)
