"""Schedules: their values by hand; what a compiled step sees of them; what stands in the history."""

import keras
import numpy as np
import pytest

import kdkeras
from kdkeras.callbacks import Anneal, Resume, cosine, linear, stages, warm_up

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")


class Seen(keras.callbacks.Callback):
    """Keeps the loss of each batch, which is the mean of the epoch's batches so far."""

    def __init__(self):
        super().__init__()
        self.means = []

    def on_train_batch_end(self, batch, logs=None):
        self.means.append(logs["loss"])


def distiller(loss):
    """Student and teacher that do not learn, so that the loss moves by its weight alone."""
    keras.utils.set_random_seed(0)
    student, teacher = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]) for _ in range(2))
    model = kdkeras.Distiller(student=student, teacher=teacher)
    return model.compile(keras.optimizers.SGD(0.0), distillation_loss=loss)


def fit(model, *callbacks, **options):
    return model.fit(X, batch_size=4, shuffle=False, verbose=0, callbacks=list(callbacks), **options).history


def test_values():
    assert [linear(2, 6, epochs=4, delay=1)(t) for t in (0, 1, 2, 4.5, 5, 90)] == [2, 2, 3, 5.5, 6, 6]
    np.testing.assert_allclose(
        [cosine(4, 0, epochs=3)(t) for t in (0, 1, 1.5, 2, 3, 9)], [4, 3, 2, 1, 0, 0], atol=1e-12
    )
    assert [warm_up(3, epochs=2, delay=1)(t) for t in (0, 1, 2, 3)] == [0, 0, 1.5, 3]
    assert [stages({2: 5, 0: 1, 3.5: 0})(t) for t in (0, 1.9, 2, 3, 3.5)] == [1, 1, 5, 5, 0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: linear(1, 2, epochs=0),
        lambda: cosine(1, 2, epochs=1, delay=-1),
        lambda: warm_up(float("nan"), epochs=1),
        lambda: stages({1: 1.0}),
        lambda: stages({0: float("inf")}),
    ],
)
def test_schedules_that_make_no_sense(make):
    with pytest.raises(ValueError, match="Received"):
        make()


def test_a_compiled_step_sees_the_weight_of_the_epoch():
    loss = kdkeras.losses.SoftTargets(weight=1.0)
    model = distiller(loss)
    once = fit(model)["loss"][0]
    history = fit(model, Anneal(loss, "weight", linear(4, 1, epochs=3)), epochs=5)
    np.testing.assert_allclose(history["loss"], np.array([4, 3, 2, 1, 1]) * once, rtol=1e-6)
    assert history["soft_targets_weight"] == [4, 3, 2, 1, 1]
    assert loss.weight == 1


def test_a_compiled_step_sees_the_weight_of_the_batch():
    loss = kdkeras.losses.SoftTargets(weight=1.0)
    model = distiller(loss)
    means = Seen()
    fit(model, means)
    single = np.diff(np.array(means.means) * [1, 2, 3], prepend=0)  # the loss of each batch at weight 1
    seen = Seen()
    history = fit(model, Anneal(loss, "weight", linear(6, 0, epochs=2), per="batch", name="w"), seen, epochs=2)
    weights = np.array([6, 5, 4, 3, 2, 1])
    expected = np.concatenate([np.cumsum(part) / [1, 2, 3] for part in np.split(weights * np.tile(single, 2), 2)])
    np.testing.assert_allclose(seen.means, expected, rtol=1e-5)
    np.testing.assert_allclose(history["w"], [4, 1])


def test_the_learning_rate_of_an_optimizer():
    model = distiller(kdkeras.losses.SoftTargets())
    history = fit(model, Anneal(model.optimizer, "learning_rate", stages({0: 0.0, 1: 0.5})), epochs=2)
    assert history["learning_rate"] == [0, 0.5]
    assert float(model.optimizer.learning_rate) == 0.5


def test_the_value_is_right_after_resumption(tmp_path):
    class Crash(Exception):
        pass

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if len(self.model.history.epoch) == 1 and batch == 1:
                raise Crash

    def run(folder, *more):
        loss = kdkeras.losses.SoftTargets()
        anneal = Anneal(loss, "weight", linear(6, 0, epochs=3), per="batch")
        return fit(distiller(loss), anneal, Resume(tmp_path / folder, every=1), *more, epochs=3)

    expected = run("whole")
    with pytest.raises(Crash):
        run("killed", Stop())
    assert run("killed") == expected


@pytest.mark.parametrize(
    ("setting", "error"),
    [("weihgt", "'weihgt' of `SoftTargets`"), ("trainable_weights", "'trainable_weights'"), ("name", "'name'")],
)
def test_settings_that_cannot_be_moved(setting, error):
    with pytest.raises(TypeError, match=error):
        Anneal(kdkeras.losses.SoftTargets(), setting, linear(1, 0, epochs=1))


def test_what_else_is_refused():
    loss = kdkeras.losses.SoftTargets()
    with pytest.raises(ValueError, match='`per` "epoch" or "batch"'):
        Anneal(loss, "weight", linear(1, 0, epochs=1), per="step")
    with pytest.raises(TypeError, match="a function from the epoch to a value"):
        Anneal(loss, "weight", 0.5)
    anneal = Anneal(loss, "weight", linear(1, 0, epochs=1), per="batch")
    anneal.set_params({"steps": None})
    with pytest.raises(ValueError, match="Give `steps_per_epoch`"):
        anneal.on_train_begin()
