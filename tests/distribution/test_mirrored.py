"""MirroredStrategy on two virtual CPU devices: what one device computes, and refusals where Keras computes nothing."""

import numpy as np
import pytest


@pytest.fixture
def report(mirrored):
    return mirrored


def test_twenty_steps_equal_one_device(report, assert_same):
    assert len(report["one"]["history"]["loss"]) == 5  # of four steps each
    assert_same(report["one"], report["two"])
    losses = report["two"]["history"]["loss"]
    assert losses[-1] < losses[0] - 0.02


def test_a_weight_that_is_set_takes_effect_on_every_replica(report):
    before, after = report["task_weight"]
    np.testing.assert_allclose(before["loss"] - after["loss"], 0.3 * before["task_loss"], atol=1e-5)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("jit_compile", "`jit_compile=True` does not run under `MirroredStrategy`"),
        ("steps_per_execution", "HierarchicalCopyAllReduce"),
        ("accumulation", "have no gradient_accumulation_steps under `MirroredStrategy`"),
        ("ema_overwrite", "have no ema_overwrite_frequency under `MirroredStrategy`"),
        ("optimizer", "The optimizer must be made under the scope"),
        ("student", "'foreign/conv/kernel' and 5 other variables made outside"),
        ("distiller", "'distiller', made outside of the scope of `MirroredStrategy`"),
        ("fit", "49 samples in batches of 16, of which one has 1"),
        ("validation_split", "1 samples in batches of 16, of which one has 1"),
        ("validation_data", "49 samples in batches of 16, of which one has 1"),
        ("evaluate", "49 samples in batches of 16, of which one has 1"),
        ("predict", "49 samples in batches of 16, of which one has 1"),
        ("static", "Each of the 2 replicas needs a sample of every batch"),
    ],
)
def test_refused_before_training(report, case, words):
    assert report["refused"][case].startswith("ValueError: ")
    assert words in report["refused"][case]


def test_a_dataset_whose_last_batch_is_too_small_says_so(report):
    assert "drop_remainder=True" in report["refused"]["dynamic"]


def test_clipping_per_replica_is_told(report):
    (message,) = report["clipping"]
    assert "global_clipnorm=1.0 lets pass up to 2 times as much" in message


def test_steps_that_are_not_finite_are_counted_and_stop_training(report):
    assert report["guard"].startswith("FloatingPointError: ")
    assert "steps in a row were skipped" in report["guard"]


@pytest.fixture(scope="module")
def more(run):
    return run("mirrored_more")


@pytest.mark.slow
def test_saved_models_go_on_anywhere(more, assert_same):
    assert more["saved"]["student"] < 1e-6
    assert_same(more["saved"]["on_one"], more["saved"]["on_two"])


@pytest.mark.slow
def test_only_the_student_must_be_made_in_the_scope(more, assert_same):
    assert_same(*more["outside"])


@pytest.mark.slow
def test_adam_and_several_steps_per_execution_with_a_copying_reduction(more, assert_same):
    assert_same(*more["adam"])


@pytest.mark.slow
def test_half_precision(more):
    for name, values in more["half"][0].items():
        np.testing.assert_allclose(more["half"][1][name], values, atol=2e-3, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["jit_compile", "steps_per_execution", "accumulation", "ema_overwrite"])
def test_keras_alone_still_fails(run, case):
    # Once it does not, the refusal in `check_compile` can go.
    assert run("plain_keras", case).startswith(("InvalidArgumentError", "RuntimeError", "UnimplementedError"))


@pytest.mark.slow
def test_central_storage_still_computes_something_else(run):
    one, two = run("plain_keras", "central_storage")
    assert abs(one - two) > 1e-4  # where a sound strategy differs by 1e-7


@pytest.mark.slow
def test_parameter_servers_are_refused(run):
    message = run("parameter_server")
    assert message.startswith("ValueError: Models are trained under one of MirroredStrategy")
    assert "Received: ParameterServerStrategy" in message
