"""Loading a file as a function of NumPy batches."""

import keras
import numpy as np
import pytest

from kdkeras import export


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2)])
    path = tmp_path_factory.mktemp("runtime") / "a.tflite"
    export.tflite(model, path)
    return model, path


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_equals_keras(file, threads):
    model, path = file
    data = np.random.default_rng(0).normal(size=(5, 4))
    lite = export.load(path, threads=threads)
    np.testing.assert_allclose(lite(data), model.predict(data, verbose=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(lite(data), lite({"x": data}))
    assert (lite.threads, lite.input_dtypes) == (threads, {"x": "float32"})


def test_results_stay_when_the_model_is_called_again(file):
    lite = export.load(file[1])
    first = lite(np.ones((1, 4)))
    copy = first.copy()
    lite(np.zeros((1, 4)))
    np.testing.assert_array_equal(first, copy)


@pytest.mark.parametrize(
    ("inputs", "error", "match"),
    [
        (np.ones((3, 5)), ValueError, r"shape \(batch, 4\). Received: \(3, 5\)"),
        (np.ones(4), ValueError, r"Received: \(4,\)"),
        (np.ones((0, 4)), ValueError, "one batch size, at least 1"),
        ({"y": np.ones((3, 4))}, ValueError, r"inputs named \['x'\]. Received: \['y'\]"),
        (np.ones((3, 4), complex), TypeError, "as float32. Received: complex128"),
    ],
)
def test_input_errors(file, inputs, error, match):
    with pytest.raises(error, match=match):
        export.load(file[1])(inputs)


def test_file_errors(tmp_path, file):
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        export.load(tmp_path / "none.tflite")
    (tmp_path / "bad.tflite").write_bytes(b"not a model at all")
    with pytest.raises(ValueError, match="needs a TFLite file"):
        export.load(tmp_path / "bad.tflite")
    with pytest.raises(ValueError, match=r"threads >= 1. Received: threads=0"):
        export.load(file[1], threads=0)


def test_a_file_with_ops_of_tensorflow_is_refused_by_their_name(tmp_path):
    import tensorflow as tf

    module = tf.Module()
    module.serve = tf.function(tf.linalg.inv, input_signature=[tf.TensorSpec((1, 2, 2))])
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.serve.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    (tmp_path / "flex.tflite").write_bytes(converter.convert())
    with pytest.raises(ValueError, match=r"file of builtin ops. Received: .*\(FlexMatrixInverse\)"):
        export.load(tmp_path / "flex.tflite")
