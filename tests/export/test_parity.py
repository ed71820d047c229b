"""The parity gate's arithmetic, by hand."""

from pathlib import Path

import numpy as np
import pytest

from kdkeras.export import parity
from kdkeras.export._flatbuffer import FloatParts


def test_errors_and_agreement_by_hand():
    expected = np.array([[1.0, 3.0], [2.0, -4.0]])
    received = np.array([[1.5, 3.0], [2.0, -3.8]])
    result = parity.compare(expected, received)
    assert result.max_abs_error == pytest.approx(0.5)
    assert result.max_rel_error == pytest.approx(0.5 / 4)
    assert result.agreement == 1.0


def test_agreement_of_one_sigmoid_is_the_side_of_one_half():
    expected, received = np.array([[0.1], [0.6], [0.9], [0.4]]), np.array([[0.2], [0.4], [0.8], [0.45]])
    assert parity.agreement(expected, received) == 0.75


def test_agreement_over_positions_of_a_segmentation():
    expected = np.zeros((1, 2, 2, 3))
    expected[..., 1] = 1
    received = expected.copy()
    received[0, 0, 0] = [2, 1, 0]
    assert parity.agreement(expected, received) == 0.75


def test_regression_has_no_agreement():
    assert parity.agreement(np.array([[1.0], [-2.0]]), np.array([[1.0], [-2.0]])) is None


def test_worst_joins_outputs():
    joined = parity.worst([parity.Parity(0.1, 0.2, None), parity.Parity(0.3, 0.1, 0.9), parity.Parity(0.0, 0.0, 0.8)])
    assert joined == parity.Parity(0.3, 0.2, 0.8)


@pytest.mark.parametrize(
    ("quantize", "error", "agreement", "limit", "broken"),
    [
        (None, 0.9e-4, 1.0, 0.95, False),
        (None, 1.1e-4, 1.0, 0.95, True),
        ("float16", 4e-2, 0.5, 0.95, False),
        ("float16", 6e-2, 1.0, 0.95, True),
        ("int8", 0.5, 31 / 32, 0.95, False),
        ("int8", 0.0, 30 / 32, 0.95, True),
        ("dynamic", 0.11, 1.0, None, True),
        ("dynamic", 0.09, 0.5, None, False),
        ("int8", 0.11, None, 0.95, True),
        ("int8", 0.09, None, 0.95, False),
    ],
)
def test_limits(quantize, error, agreement, limit, broken):
    results = {"output_0": parity.Parity(error, error, agreement)}
    assert bool(parity.limit_failures(results, quantize, limit, None)) is broken


def test_a_regression_output_is_held_to_its_error_beside_a_good_classifier():
    results = {"cls": parity.Parity(0.0, 0.0, 1.0), "reg": parity.Parity(5.0, 0.5, None)}
    assert parity.limit_failures(results, "int8", 0.95, None) == ["relative error of 'reg' is 0.5, over 0.1"]


def test_float_tensors_are_a_failure():
    failures = parity.limit_failures({}, "int8", 0.95, FloatParts(3, ("NEG", "SIN")))
    assert failures == ["3 float tensors are left in an int8 file, at NEG, SIN"]
    assert parity.limit_failures({}, "int8", 0.95, FloatParts(0, ())) == []


def test_broken_outputs():
    fine, constant = np.array([[1.0], [2.0]]), np.array([[1.0], [1.0]])
    nan = np.array([[1.0], [np.nan]])
    assert parity.broken_outputs({"y": fine}, {"y": fine}) == []
    assert parity.broken_outputs({"y": fine}, {"y": constant}) == [
        "output 'y' of the file is the same for all 2 samples"
    ]
    assert parity.broken_outputs({"y": fine}, {"y": nan}) == ["output 'y' of the file is not finite"]
    assert parity.broken_outputs({"y": nan}, {"y": nan}) == ["output 'y' of Keras is not finite"]


@pytest.mark.parametrize(
    ("failure", "quantize", "samples", "step"),
    [
        ("output 'y' of Keras is not finite", None, "64 random samples", "Look at `model.predict`"),
        ("2 float tensors are left", "int8", "64 calibration samples", "Use quantize='dynamic'"),
        ("relative error", "dynamic", "64 random samples", "Pass `calibration` data"),
        ("agreement", "int8", "64 calibration samples", "Calibrate on real data"),
        ("agreement", "dynamic", "64 calibration samples", "Use a milder"),
        ("relative error", None, "64 calibration samples", "behaves differently at batch 1"),
    ],
)
def test_errors_say_what_to_do(failure, quantize, samples, step):
    with pytest.raises(parity.ExportParityError, match=step):
        parity.raise_for([failure], quantize, samples, Path("a.tflite"))


def test_no_failures_no_error():
    parity.raise_for([], None, "64 random samples", Path("a.tflite"))
