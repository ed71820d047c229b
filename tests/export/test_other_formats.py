"""SavedModel and ONNX: run by their own runtimes, compared with Keras, and refused without a trace."""

import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdkeras import export

rng = np.random.default_rng(0)
layers = keras.layers


def two_inputs():
    """A model of a dict of inputs, whose outputs come in another order than their names."""
    inputs = {"left": keras.Input((4,), name="left"), "right-eye": keras.Input((3,), name="right-eye")}
    joined = layers.Concatenate()(list(inputs.values()))
    return keras.Model(inputs, {"z": layers.Dense(2)(joined), "a": layers.Dense(3)(joined)})


class Drift(layers.Layer):
    """Answers otherwise when it is called for a batch of unknown size, as every exported model is."""

    def call(self, inputs):
        return inputs if inputs.shape[0] else 2 * inputs


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def cnn():
    parts = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(), layers.Flatten()]
    return keras.Sequential([keras.Input((8, 8, 1), name="image"), *parts, layers.Dense(3, "softmax")])


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 4), "float32"))
    return model


# How each is made, and seven samples under the names of the export: neither the batch of the check nor of the build.
CASES = {
    "cnn": (cnn, {"image": rng.random((7, 8, 8, 1), "float32")}),
    "dict": (two_inputs, {"left": rng.random((7, 4), "float32"), "right_eye": rng.random((7, 3), "float32")}),
    "gru": (
        lambda: keras.Sequential([keras.Input((5, 3)), layers.GRU(4)]),
        {"input_0": rng.random((7, 5, 3), "float32")},
    ),
    "tokens": (
        lambda: keras.Sequential([keras.Input((6,), dtype="int32"), layers.Embedding(9, 4), layers.Flatten()]),
        {"input_0": rng.integers(0, 9, (7, 6), dtype="int32")},
    ),
    "mixed": (
        lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="mixed_float16")]),
        {"input_0": rng.random((7, 4), "float32")},
    ),
    "subclassed": (subclassed, {"input_0": rng.random((7, 4), "float32")}),
}


@pytest.fixture(params=CASES)
def case(request):
    """A model, its samples, its answers by output name, and how close a float32 export comes."""
    keras.utils.set_random_seed(0)
    build, x = CASES[request.param]
    model = build()
    answers = model({"left": x["left"], "right-eye": x["right_eye"]} if len(x) > 1 else next(iter(x.values())))
    answers = answers if isinstance(answers, dict) else {"output_0": answers}
    expected = {name: keras.ops.convert_to_numpy(value).astype("float32") for name, value in answers.items()}
    return model, x, expected, 1e-2 if request.param == "mixed" else 1e-5


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_saved_model_answers_as_keras_without_this_library(case, tmp_path):
    model, x, expected, tolerance = case
    result = export.saved_model(model, tmp_path / "m")
    assert result.max_rel_error < 1e-4
    assert result.bytes == sum(map(len, contents(tmp_path).values()))
    assert json.loads(json.dumps(result.to_dict()))["format"] == "SavedModel"
    loaded = tf.saved_model.load(str(tmp_path / "m"))
    answers = loaded.signatures["serve"](**{name: tf.constant(array) for name, array in x.items()})
    assert set(answers) == set(result.outputs) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(answers[name].numpy(), values, rtol=1e-4, atol=tolerance)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_an_onnx_file_answers_as_keras_in_its_runtime(case, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    model, x, expected, tolerance = case
    result = export.onnx(model, tmp_path / "m.onnx", opset=17)
    assert (result.format, result.bytes) == ("ONNX", (tmp_path / "m.onnx").stat().st_size)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    assert {item.name for item in session.get_inputs()} == set(x)
    assert set(result.outputs) == set(expected)
    answers = dict(zip(result.outputs, session.run(list(result.outputs), x), strict=True))
    for name, values in expected.items():
        np.testing.assert_allclose(answers[name], values, rtol=1e-4, atol=tolerance)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("name", ["saved_model", "onnx"])
def test_a_model_that_answers_otherwise_is_refused_and_what_stood_there_stays(name, tmp_path):
    if name == "onnx":
        pytest.importorskip("tf2onnx")
    write = getattr(export, name)
    write(cnn(), tmp_path / "m")
    before = contents(tmp_path)
    drifting = keras.Sequential([keras.Input((4,)), layers.Dense(3), Drift()])
    with pytest.raises(export.ExportParityError, match=r"does not match .* relative error of 'output_0' is 1,"):
        write(drifting, tmp_path / "m")
    assert contents(tmp_path) == before
    assert [each.name for each in tmp_path.iterdir()] == ["m"]
    kept = write(drifting, tmp_path / "m", on_parity_failure="keep")
    assert "relative error" in kept.failures[0]
    assert "FAILED" in str(kept)
    assert [each.name for each in tmp_path.iterdir()] == ["m"]
    assert contents(tmp_path) != before


def test_calibration_data_is_what_is_compared_on(tmp_path):
    data = rng.random((40, 8, 8, 1))
    result = export.saved_model(cnn(), tmp_path / "m", calibration=data)
    assert (result.parity_data, result.parity_samples, result.agreement) == ("calibration", 40, 1)
    assert "40 calibration samples" in str(result)


def test_folders_that_are_no_saved_model_are_never_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    (tmp_path / "file").write_text("text")
    for name in ("mine", "file"):
        with pytest.raises(FileExistsError, match="something else than a SavedModel"):
            export.saved_model(cnn(), tmp_path / name)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    (tmp_path / "empty").mkdir()
    export.saved_model(cnn(), tmp_path / "empty")
    assert (tmp_path / "empty" / "saved_model.pb").is_file()


def test_errors(tmp_path):
    with pytest.raises(TypeError, match=r"needs a keras.Model. Received: str"):
        export.saved_model("m.keras", tmp_path / "m")
    with pytest.raises(ValueError, match="'raise' or 'keep'"):
        export.saved_model(cnn(), tmp_path / "m", on_parity_failure="no")
    with pytest.raises(ValueError, match="at least 32 samples"):
        export.saved_model(cnn(), tmp_path / "m", calibration=np.zeros((3, 8, 8, 1)))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file"):
        export.saved_model(cnn(), tmp_path / "file" / "m")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_onnx_without_its_extra_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)  # what Python itself does for a package that is not there
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"`export.onnx` needs 'onnx'.*pip install 'kdkeras\[onnx\]'"):
        export.onnx(cnn(), tmp_path / "m.onnx")


def test_onnx_errors(tmp_path):
    pytest.importorskip("tf2onnx")
    with pytest.raises(IsADirectoryError, match="Received: the folder"):
        export.onnx(cnn(), tmp_path)
    with pytest.raises(ValueError, match="`opset` must be a whole number"):
        export.onnx(cnn(), tmp_path / "m.onnx", opset=0)
    inverse = keras.Sequential([keras.Input((3, 3)), layers.Lambda(keras.ops.inv)])
    with pytest.raises(export.ConversionError, match="could not be made an ONNX file"):
        export.onnx(inverse, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
