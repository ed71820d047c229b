"""Resumption: the same bits as without a crash, whatever was going on; what is refused; full disks."""

import resource
import warnings

import keras
import numpy as np
import pytest
import resumable
from resumable import Crash, CrashAt, train

import kdkeras
from kdkeras.callbacks import Resume
from kdkeras.callbacks._state_file import read_state

KINDS = ("unshuffled", "shuffled", "dataset", "unknown_length", "endless_dataset", "generator", "sequence")
# Keras says so whenever data of unknown length end.
pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")


def assert_same(left, right):
    (variables, history), (others, other_history) = left, right
    for one, other in zip(variables, others, strict=True):
        np.testing.assert_array_equal(one, other)
    assert history == other_history


def crash(folder, *place, **options):
    with pytest.raises(Crash):
        train(folder, crash=CrashAt(*place), **options)


def compiled(**options):
    model = resumable.plain()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), resumable.CROSSENTROPY, **options)
    return model


class Count(keras.callbacks.Callback):
    """Counts the epochs that are trained."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(epoch)


# --- the same bits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_bit_identical_to_an_uninterrupted_run(tmp_path, kind):
    expected = train(tmp_path / "whole", kind, every=3)
    crash(tmp_path / "killed", 1, 4, kind=kind, every=3)
    if kind in ("shuffled", "endless_dataset", "generator"):  # from the beginning of an epoch, too
        crash(tmp_path / "killed", 2, 1, kind=kind, every=3)
    assert_same(train(tmp_path / "killed", kind, every=3), expected)


def test_the_comparison_can_fail(tmp_path, monkeypatch):
    """Without `advance`, the dataset begins its orders anew."""
    expected = train(tmp_path / "whole", "dataset")
    crash(tmp_path / "killed", 1, 3, kind="dataset")
    monkeypatch.setattr(Resume, "advance", lambda self, data: data)
    variables, _ = train(tmp_path / "killed", "dataset")
    assert any((one != other).any() for one, other in zip(variables, expected[0], strict=True))


def test_a_distillation(tmp_path):
    """Augmentation, dropout, Adam with averaged weights, BatchNorm, a metric; crashes within epochs and between."""
    options = {"every": 2, "model": resumable.distiller}
    expected = train(tmp_path / "whole", **options)
    for place in ((0, 5), (1, 0), (2, 6)):
        crash(tmp_path / "killed", *place, **options)
    assert_same(train(tmp_path / "killed", **options), expected)


def test_crash_between_the_last_batch_and_the_end_of_its_epoch(tmp_path):
    """The state is that of batch 7 of 7: all are passed by, and the epoch's metrics are those from before."""

    class CrashInValidation(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            if len(self.model.history.epoch) == 1:
                raise Crash

    expected = train(tmp_path / "whole", every=7)
    with pytest.raises(Crash):
        train(tmp_path / "killed", every=7, crash=CrashInValidation())
    assert read_state(tmp_path / "killed" / "state-0.kdkeras").record["batch"] == 7
    assert_same(train(tmp_path / "killed", every=7), expected)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras refuses it on torch")
def test_steps_per_execution(tmp_path):
    """7 batches in executions of 3, so that the last one is short."""
    options = {"every": 3, "model": lambda: compiled(steps_per_execution=3)}
    expected = train(tmp_path / "whole", **options)
    crash(tmp_path / "killed", 1, 6, **options)
    with pytest.raises(ValueError, match=r"its batch 6 is no multiple of model\.steps_per_execution=4"):
        train(tmp_path / "killed", model=lambda: compiled(steps_per_execution=4))
    assert_same(train(tmp_path / "killed", **options), expected)


def test_keras_global_seed_generator(tmp_path):
    """A random operation without a seed of its own."""

    @keras.saving.register_keras_serializable("tests")
    class Noise(keras.layers.Layer):
        def call(self, x):
            return x + keras.random.normal(keras.ops.shape(x))

    def model():
        model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), Noise(), keras.layers.Dense(3)])
        model.compile("sgd", resumable.CROSSENTROPY)
        return model

    if keras.backend.backend() == "jax":
        pytest.skip("Keras refuses such operations on JAX")
    expected = train(tmp_path / "whole", every=2, model=model)
    crash(tmp_path / "killed", 1, 3, every=2, model=model)
    assert_same(train(tmp_path / "killed", every=2, model=model), expected)


def test_state_of_other_callbacks(tmp_path):
    """The patience of the one and the cooled rate of the other are what they were; the first stops both runs."""

    def stopping():
        return keras.callbacks.EarlyStopping("loss", min_delta=10, patience=4, restore_best_weights=True)

    def plateau():
        return keras.callbacks.ReduceLROnPlateau("loss", min_delta=10, patience=2, cooldown=1, factor=0.5)

    options = {"callbacks": [stopping, plateau], "epochs": 9}
    expected = train(tmp_path / "whole", **options)
    assert len(expected[1]["loss"]) == 5
    assert len(set(expected[1]["learning_rate"])) > 1
    crash(tmp_path / "killed", 1, 3, **options)
    crash(tmp_path / "killed", 3, 3, **options)
    assert_same(train(tmp_path / "killed", **options), expected)
    assert_same(train(tmp_path / "killed", **options), expected)  # it was stopped, and stays so


# --- the end ---------------------------------------------------------------------------------------------------------


def test_a_finished_training_is_not_repeated_and_can_be_prolonged(tmp_path, caplog):
    def model():  # averages replace the weights after the last epoch, and must not do so before
        model = resumable.plain()
        model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9), resumable.CROSSENTROPY)
        return model

    longer = train(tmp_path / "longer", epochs=4, model=model)
    expected = train(tmp_path / "once", epochs=2, model=model)
    counts = [Count(), Count()]
    assert_same(train(tmp_path / "once", epochs=2, model=model, crash=counts[0]), expected)
    assert "was finished" in caplog.text
    assert_same(train(tmp_path / "once", epochs=4, model=model, crash=counts[1]), longer)
    assert [count.epochs for count in counts] == [[], [2, 3]]


def test_a_state_that_is_not_kept(tmp_path):
    expected = train(tmp_path / "run", keep=False)
    assert not (tmp_path / "run").exists()
    crash(tmp_path / "run", 1, 3, keep=False)
    assert_same(train(tmp_path / "run", keep=False), expected)
    assert not (tmp_path / "run").exists()


def test_a_later_fit_of_the_same_model_is_its_own(tmp_path):
    model = compiled()
    x, y = resumable.arrays()
    model.fit(x, y, epochs=2, verbose=0, callbacks=[Resume(tmp_path / "first")])
    model.fit(x, y, epochs=2, verbose=0, callbacks=[Resume(tmp_path / "first")])
    assert len(model.fit(x, y, epochs=3, verbose=0).history["loss"]) == 3


def test_a_resumption_that_is_interrupted_while_batches_are_passed_by(tmp_path):
    """The function that passes them by must not act in a later `fit`."""
    crash(tmp_path / "run", 1, 6, every=5)
    model, data = compiled(), resumable.arrays()
    arguments = {"batch_size": 8, "epochs": 2, "verbose": 0}
    with pytest.raises(Crash):
        model.fit(*data, callbacks=[CrashAt(1, 3), Resume(tmp_path / "run", every=5)], **arguments)
    assert read_state(tmp_path / "run" / "state-0.kdkeras").record["batch"] == 5
    steps = int(model.optimizer.iterations.numpy())
    model.fit(*data, initial_epoch=1, **arguments)
    assert int(model.optimizer.iterations.numpy()) == steps + 7


# --- what is refused -------------------------------------------------------------------------------------------------


def wider():
    model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(4)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), resumable.CROSSENTROPY)
    return model


def with_adam():
    model = resumable.plain()
    model.compile("adam", resumable.CROSSENTROPY)
    return model


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model": wider}, "variable"),
        ({"model": with_adam}, "its optimizer is SGD, here Adam"),
        ({"rows": 90}, "its steps is 7, here 12"),
        ({"callbacks": [Count]}, "its also is 0, here 1"),
    ],
)
def test_a_state_of_another_training(tmp_path, options, reason):
    crash(tmp_path / "run", 1, 3, every=2)
    files = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(ValueError, match=f"is of another training: .*{reason}"):
        train(tmp_path / "run", **options)
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == files


def test_other_metrics_within_an_epoch(tmp_path):
    crash(tmp_path / "run", 1, 3, every=2)
    with pytest.raises(ValueError, match="it has 2 metrics variables, this training 4"):
        train(tmp_path / "run", model=lambda: compiled(metrics=["accuracy"]))


def test_what_cannot_be_resumed(tmp_path):
    unbuilt = keras.Sequential([keras.layers.Dense(1)])
    unbuilt.compile("sgd", "mse")
    if keras.backend.backend() == "tensorflow":  # elsewhere, `fit` builds the model first
        with pytest.raises(ValueError, match="knows its input shape"):
            unbuilt.fit(np.ones((2, 2)), np.ones(2), verbose=0, callbacks=[Resume(tmp_path)])
    with pytest.raises(ValueError, match="`every` of 1 batch or more, or None"):
        Resume(tmp_path, every=0)
    with pytest.raises(TypeError, match="needs `also` as a list"):
        Resume(tmp_path, also=keras.callbacks.EarlyStopping())


def test_a_constant_teacher_is_compared_and_not_saved(tmp_path):
    def run(folder, teacher_seed=0, constant=True, **fit):
        keras.utils.set_random_seed(teacher_seed)
        teacher = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
        keras.utils.set_random_seed(0)
        student = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
        model = kdkeras.Distiller(student=student, teacher=teacher).compile("adam")
        resume = Resume(tmp_path / folder, constant=[teacher] if constant else ())
        model.fit(*resumable.arrays(), verbose=0, callbacks=[resume], **fit)
        return model.student.get_weights()

    run("all", constant=False)
    run("some")
    sizes = [(tmp_path / folder / "state-0.kdkeras").stat().st_size for folder in ("all", "some")]
    assert sizes[0] - sizes[1] == pytest.approx((36 + 1) * 3 * 4, abs=60)  # the header differs a little
    with pytest.raises(ValueError, match="constant model variable 'sequential/dense/kernel' has another value now"):
        run("some", teacher_seed=1)
    resumed, whole = run("some", epochs=2), run("whole", epochs=2)
    for one, other in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(one, other)


# --- damaged files and full disks ------------------------------------------------------------------------------------


def test_a_damaged_state_falls_back_to_the_one_before(tmp_path):
    expected = train(tmp_path / "whole", every=3)
    crash(tmp_path / "killed", 1, 6, every=3)
    newest = max((tmp_path / "killed").iterdir(), key=lambda path: read_state(path).record["count"])
    newest.write_bytes(newest.read_bytes()[:-9])
    with pytest.warns(RuntimeWarning, match=f"cannot use '.*{newest.name}' .*continues from epoch 2, batch 4"):
        assert_same(train(tmp_path / "killed", every=3), expected)


def test_two_damaged_states_start_anew(tmp_path):
    expected = train(tmp_path / "whole")
    crash(tmp_path / "killed", 2, 3)
    for path in (tmp_path / "killed").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    count = Count()
    with pytest.warns(RuntimeWarning, match="state-0.kdkeras.* and .*state-1.kdkeras.*: training starts anew"):
        assert_same(train(tmp_path / "killed", crash=count), expected)
    assert count.epochs == [0, 1, 2]


def test_a_full_disk(tmp_path):
    """Files may not grow beyond 1000 bytes in the second epoch: training goes on, the state of the first one stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Full(CrashAt):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000 if epoch == 1 else soft, hard))

    expected = train(tmp_path / "whole")
    saying = "could not save the beginning of epoch 3 .* Training goes on"
    try:
        with pytest.warns(RuntimeWarning, match=saying) as caught:
            assert_same(train(tmp_path / "full", crash=Full(None, None)), expected)
        assert len([warning for warning in caught if warning.category is RuntimeWarning]) == 1
        assert sorted(path.name for path in (tmp_path / "full").iterdir()) == ["state-0.kdkeras", "state-1.kdkeras"]
        # And when the process dies before there is room again, the state before is there.
        with pytest.raises(Crash), pytest.warns(RuntimeWarning, match=saying):
            train(tmp_path / "killed", crash=Full(2, 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        count = Count()
        assert_same(train(tmp_path / "killed", crash=count), expected)
    assert count.epochs == [1, 2]
