"""keras.distribution.DataParallel on two virtual JAX devices."""

import pytest

pytest.importorskip("jax")


@pytest.fixture(scope="module")
def report(run):
    return run("jax_parallel", KERAS_BACKEND="jax", XLA_FLAGS="--xla_force_host_platform_device_count=2")


def test_twenty_steps_equal_one_device(report, assert_same):
    assert report["devices"] == 2
    assert_same(report["one"], report["two"])


def test_accumulation_and_several_steps_per_execution_run(report):
    # Two of four steps change the weights: the first epoch's loss lies above the one of four.
    assert report["accumulated"]["val_loss"][0] > report["one"]["history"]["val_loss"][0]


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_uneven_batches_are_refused(report, method):
    assert "JAX splits a batch only into 2 equal parts. Received: 59 samples" in report["refused"][method]


def test_models_made_before_the_distribution_are_refused(report):
    assert "must be made after `keras.distribution.set_distribution(...)`" in report["refused"]["teacher"]
    assert "'teacher/conv/kernel'" in report["refused"]["teacher"]
