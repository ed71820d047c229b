"""A TFLite file in which repeated vectors stand once: the same answers, fewer bytes, weights aligned."""

import warnings

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from kdkeras._shared_vectors import share_repeated


def converted(model, quantize):
    """The bytes as the converter writes them."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    x = np.random.default_rng(0).random((16, *model.input_shape[1:]), "float32")
    if quantize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([each[None]] for each in x)
    with warnings.catch_warnings(action="ignore"):  # it says of every file that nobody gave statistics
        return converter.convert(), x


def answers(content, x):
    runtime = Interpreter(model_content=content)
    runtime.allocate_tensors()
    (given,), (made,) = runtime.get_input_details(), runtime.get_output_details()
    results = []
    for each in x:
        runtime.set_tensor(given["index"], each[None])
        runtime.invoke()
        results.append(runtime.get_tensor(made["index"]))
    return np.concatenate(results)


@pytest.fixture(scope="module")
def convolutions():
    keras.utils.set_random_seed(0)
    parts = [keras.layers.Conv2D(48, 3, padding="same", activation="relu") for _ in range(4)]
    return keras.Sequential([keras.Input((8, 8, 3)), *parts, keras.layers.Flatten(), keras.layers.Dense(5)])


@pytest.mark.parametrize("quantize", [False, True])
def test_the_answers_are_bit_for_bit_the_same(convolutions, quantize):
    content, x = converted(convolutions, quantize)
    shared = share_repeated(content)
    np.testing.assert_array_equal(answers(shared, x), answers(content, x))


def test_an_integer_file_gets_smaller_and_keeps_its_tables(convolutions):
    content, _ = converted(convolutions, True)
    shared = share_repeated(content)
    per_channel = 8 * (48 * 4 * 2 - 48)  # zero points of kernels and biases, all but one vector
    assert len(content) - len(shared) > 0.9 * per_channel
    before, after = (schema.ModelT.InitFromObj(schema.Model.GetRootAs(each)) for each in (content, shared))
    for old, new in zip(before.subgraphs[0].tensors, after.subgraphs[0].tensors, strict=True):
        assert (old.name, old.type, old.shape.tolist()) == (new.name, new.type, new.shape.tolist())
        for figures in ("scale", "zeroPoint"):
            np.testing.assert_array_equal(getattr(old.quantization, figures), getattr(new.quantization, figures))


def test_weights_are_aligned_as_the_schema_asks(convolutions):
    content, _ = converted(convolutions, True)
    shared = share_repeated(content)
    model, whole = schema.Model.GetRootAs(shared), np.frombuffer(shared, "uint8")
    start = whole.__array_interface__["data"][0]
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    places = [each.DataAsNumpy().__array_interface__["data"][0] - start for each in buffers if each.DataLength()]
    assert len(places) > 8
    assert all(place % 16 == 0 for place in places)


def test_a_second_time_changes_nothing(convolutions):
    shared = share_repeated(converted(convolutions, True)[0])
    assert share_repeated(shared) is shared
