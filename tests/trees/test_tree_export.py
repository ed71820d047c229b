"""Soft trees as TFLite files, each checked against Keras by the exporter's own gate, and once more here."""

import keras
import numpy as np
import pytest

import kdkeras


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
    return x, np.stack([x[:, 0], np.tanh(x[:, 1])], axis=1)


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_a_tree_with_all_options_is_exported(quantize, data, tmp_path):
    x, values = data
    y = (values.sum(axis=1) > 0).astype(int)
    keras.utils.set_random_seed(0)
    tree = kdkeras.SoftDecisionTree(4, 2, beta="learned", max_features=3)
    tree.fit(x, y, epochs=10, verbose=0)
    exported = kdkeras.export.tflite(tree, tmp_path / "tree.tflite", quantize=quantize, calibration=x)
    assert exported.agreement >= (0.95 if quantize else 1.0)
    assert exported.max_abs_error < (0.15 if quantize else 1e-5)
    assert exported.float_tensors == (0 if quantize else None)


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_a_regression_tree_is_exported(quantize, data, tmp_path):
    x, values = data
    keras.utils.set_random_seed(0)
    tree = kdkeras.SoftRegressionTree(3)
    tree.fit(x, values[:, 0], epochs=10, verbose=0)
    exported = kdkeras.export.tflite(tree, tmp_path / "tree.tflite", quantize=quantize, calibration=x)
    assert exported.max_rel_error < (0.1 if quantize else 1e-5)
