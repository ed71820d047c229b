"""Which models convert, how their inputs are found, and what the converter's refusals say."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from kdkeras import export
from kdkeras.export import _converter_process
from kdkeras.export.conversion import _sentence
from kdkeras.export.precision import float32_model
from kdkeras.export.signature import signature_of

layers = keras.layers


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def data():
    return np.random.default_rng(0).normal(size=(40, 6, 4)).astype("float32")


def two_inputs(as_dict):
    left, right = keras.Input((4,), name="left side"), keras.Input((3,), name="right")
    joined = layers.Concatenate()([left, right])
    outputs = {"cls/b": layers.Dense(3)(joined), "a": layers.Dense(1)(left)}
    if as_dict:
        return keras.Model({"left side": left, "right": right}, outputs)
    return keras.Model([left, right], list(outputs.values()))


@pytest.mark.parametrize("as_dict", [True, False])
def test_several_inputs_and_outputs_are_found_by_name(as_dict, tmp_path):
    model = two_inputs(as_dict)
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=(33, 4)), generator.normal(size=(33, 3))
    data = {"left side": left, "right": right} if as_dict else [left, right]
    result = export.tflite(model, tmp_path / "a.tflite", calibration=data)
    assert sorted(result.input_dtypes) == ["left_side", "right"]
    received = export.load(result.path)({"left_side": left, "right": right})
    expected = model.predict(data, verbose=0)
    pairs = {"cls_b": "cls/b", "a": "a"} if as_dict else {"output_0": 0, "output_1": 1}
    for name, key in pairs.items():
        np.testing.assert_allclose(received[name], expected[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", [layers.GRU, layers.LSTM])
def test_recurrent_layers_convert_in_float32(layer, data, tmp_path):
    model = keras.Sequential([keras.Input((None, 4)), layer(5), layers.Dense(3)])
    result = export.tflite(model, tmp_path / "a.tflite", calibration=data)
    assert result.max_rel_error < 1e-5
    assert export.load(result.path)(data).shape == (40, 3)


def test_recurrent_int8_is_refused_instead_of_killing_python(data, tmp_path):
    model = keras.Sequential([keras.Input((6, 4)), layers.GRU(5), layers.Dense(3)])
    with pytest.raises(export.ConversionError, match=r"crashed .* unroll=True, or use quantize='dynamic'"):
        export.tflite(model, tmp_path / "a.tflite", quantize="int8", calibration=data)
    assert list(tmp_path.iterdir()) == []
    assert export.tflite(model, tmp_path / "a.tflite", calibration=data).bytes > 0  # a new process took over


def test_a_converter_that_was_killed_is_replaced(data, tmp_path):
    model = keras.Sequential([keras.Input((6, 4)), layers.Flatten(), layers.Dense(3)])
    export.tflite(model, tmp_path / "a.tflite", calibration=data)
    process = _converter_process._process
    process.send_signal(signal.SIGTERM)
    process.wait()
    export.tflite(model, tmp_path / "b.tflite", calibration=data)
    assert _converter_process._process.pid != process.pid


@pytest.mark.parametrize(
    ("bad", "allowed", "calls", "floats"),
    [(1, (), 2, False), (9, (), 3, True), (9, ("FULLY_CONNECTED", "RESHAPE", "TANH"), 1, True)],
)
def test_a_file_in_which_floats_were_left_is_converted_again(bad, allowed, calls, floats, data, tmp_path, monkeypatch):
    """The converter leaves ops in float now and then; here it is asked for a float file to the same end."""
    model = keras.Sequential(
        [keras.Input((6, 4)), layers.Flatten(), layers.Dense(5, activation="tanh"), layers.Dense(3)]
    )
    asked = []

    def ask(task, say, **request):
        asked.append(task)
        if len(asked) <= bad:
            request |= {"quantize": "dynamic", "samples": None, "io_dtype": None}
        return real(task, say, **request)

    real = _converter_process.ask
    monkeypatch.setattr(_converter_process, "ask", ask)
    options = {"quantize": "int8", "calibration": data, "float_ops": allowed, "on_parity_failure": "keep"}
    result = export.tflite(model, tmp_path / "a.tflite", **options)
    assert asked[:calls] == ["convert"] * calls
    assert (asked.count("convert"), result.float_tensors > 0) == (calls, floats)


def test_the_converter_ends_with_its_parent(tmp_path):
    script = (
        "import os, signal; from kdkeras.export import _converter_process as c; c.start(); "
        "print(c._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    child = int(done.stdout)
    for _ in range(300):  # it is still importing TensorFlow
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
        if pathlib.Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break  # nobody waits for it here
        time.sleep(0.2)
    else:
        pytest.fail("the converter still runs a minute after its parent was killed")


def test_unknown_sizes_need_calibration(tmp_path):
    model = keras.Sequential([keras.Input((None, 4)), layers.GlobalAveragePooling1D(), layers.Dense(3)])
    with pytest.raises(ValueError, match=r"fixed input sizes. Received: input 'input_0' of shape \(None, None, 4\)"):
        export.tflite(model, tmp_path / "a.tflite")


def test_an_op_that_tflite_lacks_is_named(tmp_path):
    class InverseErf(layers.Layer):
        def call(self, inputs):
            return keras.ops.erfinv(inputs)

    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="tanh"), InverseErf()])
    with pytest.raises(export.ConversionError, match="no builtin op for Erfinv"):
        export.tflite(model, tmp_path / "a.tflite")


def test_words_have_no_sixteen_bits(tmp_path):
    words = keras.Input((6,), dtype="int32")
    model = keras.Model(words, layers.Dense(3)(layers.Flatten()(layers.Embedding(9, 4)(words))))
    data = np.random.default_rng(0).integers(0, 9, (40, 6))
    with pytest.raises(export.ConversionError, match="no 16-bit form for integer inputs, such as words"):
        export.tflite(model, tmp_path / "a.tflite", quantize="int16x8", calibration=data)


def test_other_refusals_are_cut_to_their_last_error():
    page = "Traceback (most recent call last):\n  File\nRuntimeError: tensor rank 9 is too high\nmore\nlines"
    assert "quantize='int8': RuntimeError: tensor rank 9 is too high. Try" in _sentence("int8", page)
    assert "no message" in _sentence(None, "")


class Subclassed(keras.Model):
    """Like the trees: no graph, built by data."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3)

    def call(self, inputs):
        parts = list(inputs.values()) if isinstance(inputs, dict) else inputs
        return self.dense(keras.ops.concatenate(parts, -1) if isinstance(parts, (list, tuple)) else parts)


def test_subclassed_model_built_by_data(tmp_path):
    model, data = Subclassed(), np.random.default_rng(0).normal(size=(40, 5))
    with pytest.raises(ValueError, match="Call it once on a batch of data"):
        export.tflite(model, tmp_path / "a.tflite", calibration=data)
    model(data)
    assert signature_of(model).inputs[0].shape == (None, 5)
    result = export.tflite(model, tmp_path / "a.tflite", calibration=data)
    np.testing.assert_allclose(export.load(result.path)(data), model.predict(data, verbose=0), rtol=1e-5, atol=1e-6)


def test_subclassed_models_with_dict_and_list_inputs():
    left, right = np.zeros((2, 4)), np.zeros((2, 3))
    by_name, by_place = Subclassed(), Subclassed()
    by_name({"a": left, "b": right})
    by_place([left, right])
    assert [(item.name, item.shape) for item in signature_of(by_name).inputs] == [("a", (None, 4)), ("b", (None, 3))]
    assert [item.name for item in signature_of(by_place).inputs] == ["input_0", "input_1"]


def test_fixed_batch_is_refused():
    model = keras.Sequential([keras.Input(batch_shape=(8, 4)), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"free batch size. Received: .*\(8, 4\)"):
        signature_of(model)


def test_name_clashes_fall_back_to_places():
    first, second = keras.Input((2,), name="a b"), keras.Input((2,), name="a_b")
    model = keras.Model([first, second], layers.Add()([first, second]))
    assert [item.name for item in signature_of(model).inputs] == ["input_0", "input_1"]


def test_mixed_precision_is_exported_from_a_float32_copy(data, tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        block = keras.Sequential([keras.Input((6, 4)), layers.Conv1D(4, 3), layers.BatchNormalization(), layers.ReLU()])
        inputs = keras.Input((6, 4))
        hidden = layers.TimeDistributed(layers.Dense(5))(block(inputs))
        model = keras.Model(inputs, layers.Dense(3, dtype="float32")(layers.Flatten()(hidden)))
    finally:
        keras.config.set_dtype_policy("float32")
    copy = float32_model(model)
    assert {layer.compute_dtype for layer in copy.layers} == {"float32"}
    assert copy.layers[2].layer.compute_dtype == "float32"
    assert model.layers[2].compute_dtype == "float16"
    result = export.tflite(model, tmp_path / "a.tflite", calibration=data)
    half = model.predict(data, verbose=0)
    np.testing.assert_allclose(export.load(result.path)(data), half, atol=0.02 * np.abs(half).max())


def test_what_a_normalization_has_adapted_to_comes_along(data):
    normalization = layers.Normalization(dtype="mixed_float16")
    normalization.adapt(5 * data + 3)
    model = keras.Sequential([keras.Input((6, 4)), normalization, layers.Flatten(), layers.Dense(2, dtype="float32")])
    expected = model.predict(data, verbose=0)
    np.testing.assert_allclose(float32_model(model).predict(data, verbose=0), expected, atol=1e-2)
    assert np.abs(expected).max() > 0.1


def test_float32_model_is_returned_as_it_is():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    assert float32_model(model) is model


def test_half_precision_that_cannot_be_cloned_is_refused():
    with pytest.raises(ValueError, match=r"subclassed and cannot be cloned. Build it again under"):
        float32_model(Subclassed(dtype="mixed_float16"))
    half = keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x * 2, dtype="mixed_float16")])
    with pytest.raises(ValueError, match="cannot be rebuilt from its config"):
        float32_model(half)
