"""Quantization-aware training: rounding by hand, where it is put, and what the file holds in the end."""

import keras
import numpy as np
import pytest
from keras import layers

import kdkeras
from kdkeras import compress, export
from kdkeras.compress import FakeQuantize, QuantizedKernel
from kdkeras.counting import count_macs


def small(softmax=False):
    """Convolution, BatchNormalization and ReLU; a depthwise convolution; a sum; a head."""
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(momentum=0.9, name="norm")(x))
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Dropout(0.1, name="drop")(layers.Add(name="sum")([x, y]))
    x = layers.Flatten(name="flat")(layers.MaxPooling2D(name="pool")(x))
    return keras.Model(inputs, layers.Dense(10, "softmax" if softmax else None, name="head")(x), name="small")


def quantizers(model):
    return [layer.name for layer in model.layers if isinstance(layer, FakeQuantize)]


@pytest.fixture(scope="module")
def digits():
    return kdkeras.datasets.digits()


@pytest.fixture(scope="module")
def trained(digits):
    keras.utils.set_random_seed(0)
    model = small()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
    model.fit(*digits.arrays("train"), epochs=4, verbose=0)
    return model


@pytest.fixture(scope="module")
def taught(trained, digits):
    """The model with 4-bit kernels, taught by itself."""
    student = compress.quantize_aware(trained, 4, calibration=digits.x_train)
    distiller = kdkeras.Distiller(student=student, teacher=trained)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.Adam(1e-3), loss, distillation_loss=[kdkeras.losses.SoftTargets()])
    distiller.fit(*digits.arrays("train"), epochs=2, verbose=0)
    return student


# --- the layers, by hand ---------------------------------------------------------------------------------------------


def test_a_dense_kernel_has_one_grid_and_a_convolution_one_per_filter():
    kernel = np.array([[7.0, 0.07], [0.6, 0.04], [-3.4, -0.012]], "float32")
    dense = QuantizedKernel(layers.Dense(2, use_bias=False), bits=4)
    dense.build((None, 3))
    dense.set_weights([kernel])
    np.testing.assert_allclose(dense.rounded_kernel(), [[7, 0], [1, 0], [-3, 0]], atol=1e-6)
    convolution = QuantizedKernel(layers.Conv2D(2, 1, use_bias=False), bits=4)
    convolution.build((None, 4, 4, 3))
    convolution.set_weights([kernel[None, None]])
    expected = [[7, 0.07], [1, 0.04], [-3, -0.01]]
    np.testing.assert_allclose(convolution.rounded_kernel()[0, 0], expected, atol=1e-6)
    np.testing.assert_allclose(convolution(np.eye(3).reshape(3, 1, 1, 3))[:, 0, 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Dense(3, "relu"), (6,)),
        (layers.Conv1D(3, 2), (5, 6)),
        (layers.Conv2D(4, 2, groups=2), (5, 5, 6)),
        (layers.Conv2DTranspose(3, 2), (5, 5, 6)),
        (layers.DepthwiseConv2D(2), (5, 5, 6)),
        (layers.DepthwiseConv2D(2, depth_multiplier=2), (5, 5, 6)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_eight_bits_change_little_and_macs_not_at_all(layer, shape):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    model = keras.Sequential([keras.Input(shape), layer])
    copy = compress.quantize_aware(model, calibration=x)
    np.testing.assert_allclose(copy(x), model(x), atol=0.02 * np.abs(model(x)).max())
    assert np.abs(copy(x) - model(x)).max() > 0
    assert count_macs(copy) == count_macs(model)


def test_the_gradient_passes_the_rounding_of_a_kernel():
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    wrapped = QuantizedKernel(layers.Dense(2), bits=4)
    x = tf.random.stateless_normal((5, 3), (0, 0))
    wrapped(x)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(wrapped(x))
    kernel, bias = tape.gradient(loss, wrapped.trainable_weights)
    np.testing.assert_allclose(kernel, np.repeat(x.numpy().sum(0)[:, None], 2, 1), rtol=1e-5)
    np.testing.assert_allclose(bias, [5, 5])


def test_a_range_is_that_of_the_first_batch_then_follows():
    layer = FakeQuantize(bits=8, momentum=0.75)
    layer(np.array([1.0, 3.0]), training=True)
    assert (float(layer.low), float(layer.high)) == (0, 3)  # zero lies in every range
    layer(np.array([-2.0, 1.0]), training=True)
    assert (float(layer.low), float(layer.high)) == (-0.5, 2.5)
    layer(np.array([np.inf, -5.0]), training=True)
    layer(np.array([9.0, -9.0]))
    assert (float(layer.low), float(layer.high)) == (-0.5, 2.5)


def test_what_a_layer_adds_to_the_loss_is_added_once():
    regularizers = {"kernel_regularizer": "l2", "activity_regularizer": keras.regularizers.L1(0.5)}
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, **regularizers)])
    copy = compress.quantize_aware(model)
    x = np.random.default_rng(0).random((4, 3)).astype("float32")
    outputs = keras.ops.convert_to_numpy(copy.get_layer(model.layers[0].name)(copy.layers[1](x)))
    copy(x)
    expected = 0.01 * np.square(model.layers[0].kernel).sum() + 0.5 * np.abs(outputs).sum() / 4
    assert float(sum(copy.losses)) == pytest.approx(expected, rel=1e-5)


# --- where they are put ----------------------------------------------------------------------------------------------


def test_nothing_is_rounded_that_the_converter_folds_or_that_was_rounded_already():
    copy = compress.quantize_aware(small(softmax=True))
    assert quantizers(copy) == ["input_range", "relu_range", "depthwise_range", "sum_range", "head_range"]
    assert [type(copy.get_layer(name)).__name__ for name in ("conv", "depthwise", "head")] == ["QuantizedKernel"] * 3
    assert copy.layers[-1].name == "head_activation"
    assert copy.get_layer("norm").input is copy.get_layer("conv").output
    assert copy.get_layer("relu").input is copy.get_layer("norm").output


def test_a_normalisation_that_nothing_can_take_in_reads_rounded_values():
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(3, 1, name="conv")(inputs)
    y = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))  # x is read twice
    copy = compress.quantize_aware(keras.Model(inputs, x + y))
    assert copy.get_layer("norm").input is copy.get_layer("conv_range").output
    assert copy.get_layer("relu").input is copy.get_layer("norm").output


def test_the_model_stays_and_the_copy_has_its_weights(trained, digits):
    before = trained.get_weights()
    copy = compress.quantize_aware(trained, calibration=digits.x_train)
    for old, new in zip(before, compress.strip(copy).get_weights(), strict=True):
        np.testing.assert_allclose(new, old, atol=np.abs(old).max() / 127)
    np.testing.assert_array_equal(copy.get_layer("conv").layer.kernel, trained.get_layer("conv").kernel)
    expected = trained.predict(digits.x_test, verbose=0)
    received = copy.predict(digits.x_test, verbose=0)
    assert np.mean(expected.argmax(1) == received.argmax(1)) > 0.98
    for old, new in zip(before, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_ranges_of_a_dataset_are_those_of_its_arrays(trained, digits):
    import tensorflow as tf

    x = digits.x_train[:128]
    data = tf.data.Dataset.from_tensor_slices((x, digits.y_train[:128])).batch(64)
    one, other = (compress.quantize_aware(trained, calibration=each) for each in (x, data))
    for first, second in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    assert float(one.get_layer("input_range").high) == np.mean([x[:64].max(), x[64:].max()])


def test_nested_models_shared_layers_and_separable_convolutions():
    keras.utils.set_random_seed(0)
    body = keras.Sequential([keras.Input((6, 6, 2)), layers.SeparableConv2D(4, 3, strides=2, name="sep")], name="body")
    inputs = {name: keras.Input((6, 6, 2), name=name) for name in ("left", "right")}
    shared = layers.Dense(3, "tanh", name="shared")
    sides = [shared(layers.GlobalAveragePooling2D()(body(inputs[name]))) for name in ("left", "right")]
    model = keras.Model(inputs, {"together": layers.Concatenate()(sides), "one": sides[0]})
    x = {name: np.random.default_rng(place).normal(size=(40, 6, 6, 2)) for place, name in enumerate(inputs)}
    copy = compress.quantize_aware(model, calibration=x)
    expected, received = model.predict(x, verbose=0), copy.predict(x, verbose=0)
    for name in ("together", "one"):
        np.testing.assert_allclose(received[name], expected[name], atol=0.05)
    assert [layer.name for layer in copy.get_layer("body").layers if isinstance(layer, QuantizedKernel)] == [
        "sep_depthwise",
        "sep",
    ]
    plain = compress.strip(copy).predict(x, verbose=0)
    np.testing.assert_allclose(plain["one"], expected["one"], atol=0.05)


# --- training, saving, exporting -------------------------------------------------------------------------------------


def test_half_precision_trains_in_batches_of_one():
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small()
    finally:
        keras.config.set_dtype_policy("float32")
    copy = compress.quantize_aware(model, 4)
    copy.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = copy.get_layer("conv").layer.kernel.numpy()
    history = copy.fit(np.random.default_rng(0).random((3, 8, 8, 1)), np.arange(3), batch_size=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert np.abs(copy.get_layer("conv").layer.kernel.numpy() - before).max() > 0
    assert 0 < float(copy.get_layer("input_range").high) <= 1


def test_saved_and_loaded_it_answers_the_same(taught, digits, tmp_path):
    taught.save(tmp_path / "student.keras")
    loaded = kdkeras.load_model(tmp_path / "student.keras")
    x = digits.x_test[:20]
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), taught.predict(x, verbose=0))


def kernel_types(path):
    """Type of the weights of each convolution and dense operation of a file."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes())
    graph = model.Subgraphs(0)
    kinds = {number: name for name, number in vars(schema.TensorType).items() if isinstance(number, int)}
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    steps = [graph.Operators(place) for place in range(graph.OperatorsLength())]
    named = [(names[model.OperatorCodes(step.OpcodeIndex()).BuiltinCode()], step) for step in steps]
    with_kernels = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    return [(name, kinds[graph.Tensors(step.Inputs(1)).Type()]) for name, step in named if name in with_kernels]


def test_the_file_holds_four_bit_kernels_and_the_trained_ranges(taught, trained, digits, tmp_path):
    path = tmp_path / "student.tflite"
    result = export.tflite(taught, path, quantize="int8", calibration=digits.x_train)
    assert kernel_types(path) == [("CONV_2D", "INT4"), ("DEPTHWISE_CONV_2D", "INT4"), ("FULLY_CONNECTED", "INT4")]
    assert result.float_tensors == 0
    assert result.agreement >= 0.98
    from ai_edge_litert.interpreter import Interpreter

    scales = [tensor["quantization"][0] for tensor in Interpreter(str(path)).get_tensor_details()]
    for name in ("relu_range", "sum_range", "head_range"):
        layer = taught.get_layer(name)
        step = float(layer.high - layer.low) / 255
        assert np.isclose(scales, step, rtol=1e-5).any(), name
    x, y = digits.arrays("test")
    assert np.mean(export.load(path)(x).argmax(1) == y) > trained.evaluate(x, y, verbose=0)[1] - 0.03


# --- refusals --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_rounded_is_named_and_may_be_left():
    model = keras.Sequential([keras.Input((4, 3)), layers.LSTM(2, name="memory"), layers.Dense(2, name="head")])
    with pytest.raises(ValueError, match=r"weights of 'memory' \(LSTM\).* skip=\['memory'\]"):
        compress.quantize_aware(model)
    copy = compress.quantize_aware(model, skip=["memory"])
    kinds = [type(layer).__name__ for layer in copy.layers[1:]]
    assert kinds == ["LSTM", "FakeQuantize", "QuantizedKernel", "FakeQuantize"]


class Own(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("model", "options", "error", "match"),
    [
        ("a path", {}, TypeError, "Received: str"),
        (Own(), {}, ValueError, "a Own with a `call` of its own"),
        (keras.Sequential([layers.Dense(2)]), {}, ValueError, "needs a built model"),
        (small(), {"weight_bits": 5}, ValueError, "8 or 4. Received: 5"),
        (small(), {"momentum": 1}, ValueError, r"\[0, 1\)"),
        (small(), {"calibration": iter([])}, ValueError, "must hold samples"),
        (small(), {"calibration": np.zeros((3, 8, 8, 2))}, ValueError, "calibration"),
        (small(), {"skip": ["cnv"]}, ValueError, "no layer 'cnv'"),
        (compress.quantize_aware(small()), {}, ValueError, "quantization-aware already"),
    ],
)
def test_bad_input_is_one_sentence(model, options, error, match):
    with pytest.raises(error, match=match):
        compress.quantize_aware(model, **options)


def test_a_file_that_no_runtime_runs_is_refused_in_a_sentence(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()])
    x = np.random.default_rng(0).random((64, 8, 8, 1))
    copy = compress.quantize_aware(model, weight_bits=4, calibration=x)
    with pytest.raises(export.ConversionError, match=r"that LiteRT cannot run .*`compress.quantize_aware`, 'int8'"):
        export.tflite(copy, tmp_path / "a.tflite", calibration=x)
    assert list(tmp_path.iterdir()) == []
