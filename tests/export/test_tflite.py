"""`tflite`: every mode against figures computed here, and refusals that leave nothing behind."""

import dataclasses
import errno
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from kdkeras import export

MODES = [None, "float16", "dynamic", "int8", "int16x8", "int4"]


@pytest.fixture(scope="module")
def exported(cnn, digits, tmp_path_factory):
    """Every mode of the digits model, exported once."""
    folder = tmp_path_factory.mktemp("exports")
    return {
        mode: export.tflite(cnn, folder / f"{mode}.tflite", quantize=mode, calibration=digits[0][:300])
        for mode in MODES
    }


def positional_run(path, images):
    """Run a one-input, one-output file by the interpreter's lowest calls: shares no code with the package."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    outputs = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return np.concatenate(outputs)


@pytest.mark.parametrize("mode", MODES)
def test_figures_are_those_of_a_fresh_interpreter(exported, cnn, digits, mode):
    result = exported[mode]
    images = digits[0][:300]
    expected, received = cnn.predict(images, verbose=0), positional_run(result.path, images)
    assert result.parity_samples == 300
    assert result.parity_data == "calibration"
    assert result.agreement == np.mean(expected.argmax(1) == received.argmax(1))
    assert result.max_abs_error == pytest.approx(np.abs(expected - received).max(), rel=1e-2, abs=1e-6)
    assert result.max_rel_error == pytest.approx(result.max_abs_error / expected.max(), rel=1e-2, abs=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_size_dtypes_and_latency(exported, mode):
    result = exported[mode]
    assert result.bytes == result.path.stat().st_size
    assert result.input_dtypes == {"image": "float32"}
    assert result.output_dtypes == {"output_0": "float32"}
    assert result.latency_1_thread.median > 0
    assert result.latency_2_threads.median > 0
    assert result.failures == ()


def test_modes_differ_as_promised(exported):
    assert exported[None].max_rel_error < 1e-4
    assert exported["float16"].max_rel_error < 5e-2
    assert exported["float16"].bytes < 0.7 * exported[None].bytes
    assert exported["dynamic"].bytes < 0.5 * exported[None].bytes
    assert exported["int8"].bytes < 0.5 * exported[None].bytes
    assert exported["int8"].float_tensors == 0
    assert exported["dynamic"].float_tensors is None
    assert exported["int16x8"].float_tensors == 0
    assert exported["int16x8"].max_abs_error < exported["int8"].max_abs_error
    assert exported["int4"].bytes < 0.75 * exported["dynamic"].bytes
    assert min(result.agreement for result in exported.values()) > 0.95


def test_accuracy_of_the_int8_file_on_unseen_digits(exported, cnn, digits):
    images, labels = digits[0][1400:], digits[1][1400:]
    keras_accuracy = np.mean(cnn.predict(images, verbose=0).argmax(1) == labels)
    file_accuracy = np.mean(export.load(exported["int8"].path)(images).argmax(1) == labels)
    assert keras_accuracy > 0.8
    assert file_accuracy > keras_accuracy - 0.03


@pytest.mark.parametrize(("mode", "dtype"), [("int8", "int8"), ("int8", "uint8"), ("int16x8", "int16")])
def test_integers_at_the_border_are_called_with_floats_all_the_same(cnn, digits, tmp_path, mode, dtype):
    path = tmp_path / "a.tflite"
    result = export.tflite(cnn, path, quantize=mode, calibration=digits[0][:300], io_dtype=dtype)
    assert (result.input_dtypes, result.output_dtypes) == ({"image": dtype}, {"output_0": dtype})
    lite = export.load(path)
    images = digits[0][1400:1500]
    scale, zero_point = lite.quantization["image"]
    integers = np.clip(np.round(images / scale) + zero_point, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)
    by_hand = positional_run(path, integers)
    assert by_hand.dtype == dtype
    scale, zero_point = lite.quantization["output_0"]
    expected = scale * (by_hand.astype("float64") - zero_point)
    np.testing.assert_allclose(lite(images), expected, atol=1e-6)
    np.testing.assert_array_equal(lite(integers), lite(images))
    assert np.mean(lite(images).argmax(1) == cnn.predict(images, verbose=0).argmax(1)) > 0.95


@pytest.mark.parametrize("mode", [None, "int8"])
def test_a_file_for_batches_takes_any_number_of_samples(cnn, digits, tmp_path, mode):
    result = export.tflite(cnn, tmp_path / "a.tflite", quantize=mode, calibration=digits[0][:50], batch_size=8)
    lite = export.load(result.path)
    assert (result.batch_size, lite.batch_size) == (8, 8)
    single = export.load(export.tflite(cnn, tmp_path / "b.tflite", quantize=mode, calibration=digits[0][:50]).path)
    for count in (1, 8, 19):
        np.testing.assert_allclose(lite(digits[0][:count]), single(digits[0][:count]), atol=5e-3 if mode else 1e-6)


def test_weights_of_int4_are_four_bits_wide(exported):
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAs(exported["int4"].path.read_bytes()).Subgraphs(0)
    kinds = [graph.Tensors(index).Type() for index in range(graph.TensorsLength())]
    assert kinds.count(schema.TensorType.INT4) >= 3  # two convolutions and the dense layer


def test_steps_are_told_when_asked_for(cnn, digits, tmp_path, capfd):
    export.tflite(cnn, tmp_path / "a.tflite", quantize="int8", calibration=digits[0][:40], verbose=1)
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(": ")[1].split(",")[0] for line in lines] == [
        "saving",
        "converting",
        "calibrating 1/40",
        "calibrating 40/40",
        "converting",
    ]
    export.tflite(cnn, tmp_path / "a.tflite", calibration=digits[0][:40])
    assert capfd.readouterr().err == ""  # not a terminal


def test_record_is_plain_and_readable(exported):
    record = json.loads(json.dumps(exported["int8"].to_dict()))
    assert record["quantize"] == "int8"
    assert record["latency_1_thread"]["runs"] == exported["int8"].latency_1_thread.runs
    text = str(exported["int8"])
    assert "int8.tflite: int8" in text
    assert "0 float tensors left" in text
    with pytest.raises(dataclasses.FrozenInstanceError):
        exported["int8"].bytes = 0


def test_only_the_files_and_their_cards_are_left(exported):
    folder = exported[None].path.parent
    expected = sorted(f"{mode}.{kind}" for mode in MODES for kind in ("json", "md", "tflite"))
    assert sorted(path.name for path in folder.iterdir()) == expected


def test_without_calibration_parity_runs_on_random_samples(cnn, tmp_path):
    first = export.tflite(cnn, tmp_path / "new" / "a.tflite")
    again = export.tflite(cnn, tmp_path / "new" / "a.tflite")
    assert (first.parity_data, first.parity_samples) == ("random", 64)
    assert first.max_abs_error == again.max_abs_error


def test_outlier_calibration_is_refused_and_leaves_nothing(cnn, digits, tmp_path):
    images = digits[0][:64].copy()
    images[0] *= 10_000  # one broken image takes the whole int8 range
    message = r"agreement of 'output_0' is 0\.\d+, under min_agreement=0.95.*No layer loses more than rounding does"
    with pytest.raises(export.ExportParityError, match=message):
        export.tflite(cnn, tmp_path / "bad.tflite", quantize="int8", calibration=images)
    assert list(tmp_path.iterdir()) == []


def test_the_layer_where_the_error_starts_is_named(cnn, digits, tmp_path):
    model = keras.models.clone_model(cnn)
    model.set_weights(cnn.get_weights())
    depthwise = next(layer for layer in model.layers if isinstance(layer, keras.layers.DepthwiseConv2D))
    rest = model.layers[model.layers.index(depthwise) + 1]
    wide = np.ones(16)
    wide[3] = 300  # one channel takes the range of all; the next layer undoes it, so that floats see nothing
    kernel, bias = depthwise.get_weights()
    depthwise.set_weights([kernel * wide[:, None], bias])
    kernel, bias = rest.get_weights()
    rest.set_weights([kernel / wide[:, None], bias])
    with pytest.raises(
        export.ExportParityError, match=rf"The error starts at layer '{rest.name}' \(CONV_2D\): it is off by"
    ):
        export.tflite(model, tmp_path / "a.tflite", quantize="int8", calibration=digits[0][:100], min_agreement=1)


def test_an_existing_file_stays_on_refusal_and_is_replaced_on_success(cnn, digits, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_text("the old file")
    mixed = (digits[0][:512] + digits[0][512:1024]) / 2  # ambiguous images: some decisions change
    strict = {"quantize": "dynamic", "calibration": mixed, "min_agreement": 1}
    kept = export.tflite(cnn, tmp_path / "kept.tflite", on_parity_failure="keep", **strict)
    assert kept.agreement < 1
    assert kept.path.exists()
    assert "min_agreement=1" in kept.failures[0]
    assert "FAILED" in str(kept)
    with pytest.raises(export.ExportParityError, match="on_parity_failure='keep'"):
        export.tflite(cnn, path, **strict)
    assert path.read_text() == "the old file"
    result = export.tflite(cnn, path, quantize="dynamic", calibration=digits[0])
    assert path.stat().st_size == result.bytes
    assert result.parity_samples == 512


def test_constant_outputs_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="zeros")])
    with pytest.raises(export.ExportParityError, match="output_0' of Keras is the same for all 64 samples"):
        export.tflite(model, tmp_path / "a.tflite")


def test_nan_outputs_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.set_weights([np.full((3, 2), np.nan), np.zeros(2)])
    with pytest.raises(export.ExportParityError, match="of Keras is not finite"):
        export.tflite(model, tmp_path / "a.tflite")


def test_float_ops_left_in_int8_are_refused_by_name(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.LayerNormalization()])
    data = np.random.default_rng(0).normal(size=(40, 6))
    with pytest.raises(export.ExportParityError, match="float tensors are left in an int8 file, at NEG"):
        export.tflite(
            model, tmp_path / "a.tflite", quantize="int8", calibration=data, min_agreement=0, float_ops=["ADD"]
        )
    kept = export.tflite(
        model, tmp_path / "a.tflite", quantize="int8", calibration=data, min_agreement=0, float_ops=["NEG"]
    )
    assert (kept.failures, kept.float_tensors > 0) == ((), True)


def test_integer_inputs_keep_their_dtype_in_int8(tmp_path):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((6,), dtype="uint8"), layers.Rescaling(1 / 255), layers.Dense(4)])
    data = np.random.default_rng(0).integers(0, 256, (40, 6), dtype="uint8")
    result = export.tflite(model, tmp_path / "a.tflite", quantize="int8", calibration=data, min_agreement=0)
    assert result.input_dtypes == {"input_0": "uint8"}
    assert result.float_tensors == 0
    expected = model.predict(data, verbose=0)
    np.testing.assert_allclose(export.load(result.path)(data), expected, atol=0.03 * np.abs(expected).max())


def test_write_errors_name_the_path(cnn, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"could not write .*file/a.tflite"):
        export.tflite(cnn, tmp_path / "file" / "a.tflite")

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        export.tflite(cnn, tmp_path / "a.tflite")
    assert caught.value.errno == errno.ENOSPC
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"quantize": "int5"}, ValueError, r"`quantize` must be one of .* Received: 'int5'"),
        ({"quantize": "int8"}, ValueError, r"needs `calibration` data"),
        ({"quantize": "int16x8"}, ValueError, r"quantize='int16x8' needs `calibration` data"),
        ({"io_dtype": "int8"}, ValueError, r"`io_dtype` can be .*'int8'.* Received: io_dtype='int8' for quantize=None"),
        ({"batch_size": 0}, ValueError, r"`batch_size`.* Received: batch_size=0"),
        ({"min_agreement": 95}, ValueError, r"share from 0 to 1. Received: 95"),
        ({"on_parity_failure": "ignore"}, ValueError, r"'raise' or 'keep'. Received: 'ignore'"),
    ],
)
def test_option_errors(cnn, tmp_path, options, error, match):
    with pytest.raises(error, match=match):
        export.tflite(cnn, tmp_path / "a.tflite", **options)


def test_argument_errors(cnn, tmp_path):
    with pytest.raises(TypeError, match=r"expects a keras.Model. Received: str"):
        export.tflite("model.keras", tmp_path / "a.tflite")
    with pytest.raises(IsADirectoryError, match="Received: the folder"):
        export.tflite(cnn, tmp_path)


SCRIPT = """
import os, sys
import keras, numpy as np, tensorflow as tf
from kdkeras import export

model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(3)])
data = np.random.default_rng(0).random((32, 8))
tf.constant(1.0)
for descriptor, name in ((1, "out"), (2, "err")):  # from here on: the start of TensorFlow itself is not ours
    os.dup2(os.open(os.path.join(sys.argv[1], name), os.O_WRONLY | os.O_CREAT), descriptor)
for mode in (None, "dynamic", "int8"):
    export.tflite(model, os.path.join(sys.argv[1], "m.tflite"), quantize=mode, calibration=data, min_agreement=0)
"""


LATER = """
import logging
import keras, numpy as np
from kdkeras import export

model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
export.tflite(model, "m.tflite", card=None)
import tensorflow as tf
tf.get_logger().warning("a later word")
"""


def test_loggers_outlive_the_silence(tmp_path):
    done = subprocess.run([sys.executable, "-c", LATER], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "a later word" in done.stderr
    assert "Logging error" not in done.stderr


def test_nothing_is_printed(tmp_path):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    printed = (tmp_path / "out").read_text() + (tmp_path / "err").read_text()
    assert done.returncode == 0, done.stderr + printed
    assert printed == ""
    assert (tmp_path / "m.tflite").exists()
