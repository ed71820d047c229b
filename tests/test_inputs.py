"""Bad data is refused in one sentence."""

import keras
import numpy as np
import pytest

from kdkeras.inputs import check_arrays, check_same_inputs, input_specs
from kdkeras.testing import tiny_cnn


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((0, 8, 8, 1), "float32"), "x has no samples"),
        (np.full((2, 8, 8, 1), np.nan, "float32"), "x contains 128 NaN or infinite values of 128"),
        (np.full((2, 8, 8, 1), np.inf, "float32"), "Remove or impute them first"),
        (np.zeros((2, 8, 8), "float32"), r"takes inputs of shape \(None, 8, 8, 1\). Received: x of shape \(2, 8, 8\)"),
        (np.zeros((2, 9, 8, 1), "float32"), "Reshape or resize"),
        (np.full((2, 8, 8, 1), 255, "uint8"), r"uint8 with values up to 255.*Divide by 255"),
        ([np.zeros((2, 8, 8, 1))] * 2, "takes 1 inputs. Received: 2"),
    ],
)
def test_arrays_that_do_not_fit(x, message):
    with pytest.raises(ValueError, match=message):
        check_arrays(tiny_cnn(), x)


def test_uint8_passes_where_the_model_scales():
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), tiny_cnn()])
    check_arrays(model, np.full((2, 8, 8, 1), 255, "uint8"))


def test_inputs_of_two_models_must_agree():
    other = keras.Sequential([keras.Input((9, 9, 1)), keras.layers.Flatten()], name="other")
    with pytest.raises(ValueError, match=r"student 'small' \[\(8, 8, 1\)\], teacher 'other' \[\(9, 9, 1\)\]"):
        check_same_inputs(input_specs(tiny_cnn()), other, student_name="small")


def test_open_dimensions_agree_with_any():
    open_model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.GlobalAveragePooling2D()])
    check_same_inputs(input_specs(tiny_cnn()), open_model, student_name="small")


def test_unbuilt_models_have_no_specs():
    assert input_specs(keras.Sequential([keras.layers.Dense(1)])) is None
