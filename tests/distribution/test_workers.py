"""MultiWorkerMirroredStrategy, two processes on loopback."""

import pytest


@pytest.fixture(scope="module")
def reports(run_workers):
    return run_workers("worker", "train")


def test_twenty_steps_equal_one_device(mirrored, reports, assert_same):
    for report in reports:
        assert_same(mirrored["one"], report)


def test_workers_agree_and_go_on_after_one_has_saved(reports):
    assert reports[0]["after"] == reports[1]["after"]
    assert reports[0]["after"][0] < reports[0]["history"]["loss"][-1]


def test_refused_before_training(reports):
    for report in reports:
        steps, batches = report["refused"]
        assert "`steps_per_execution` above 1 fails under `MultiWorkerMirroredStrategy`" in steps
        assert "49 samples in batches of 16, of which one has 1" in batches


@pytest.mark.slow
def test_a_teacher_may_be_made_outside_of_the_scope(run, run_workers, assert_same):
    one = run("one_device")
    for report in run_workers("worker", "outside"):
        assert_same(one, report)


@pytest.mark.slow
def test_keras_alone_still_fails(run_workers):
    # Once it does not, `AcrossDevices._maybe_symbolic_build` and `_joinable` can go: keras #20585.
    for message in run_workers("worker", "stock"):
        assert "PerReplica" in message
