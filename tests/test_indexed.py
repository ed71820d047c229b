"""Losses that need more than signals: the numbers of the samples, their weights, and whether this is training."""

import keras
import numpy as np
import pytest

import kdkeras
from kdkeras import losses

rng = np.random.default_rng(0)
X = rng.random((12, 4)).astype("float32")
Y = (rng.random((12, 4)) * 3).astype("float32")
NUMBERS = np.arange(12)[::-1].copy()


class NumberOfSample(losses.DistillationLoss):
    """The number of each sample, and minus that outside of training."""

    needs = ("index", "training")

    def call(self, student, teacher, labels=None, index=None, training=None):
        if index is None:
            raise ValueError("no index")
        sign = 1.0 if training else -1.0
        return sign * keras.ops.cast(index, "float32") + 0 * keras.ops.mean(student.logits, axis=-1)


class SumOfWeights(losses.DistillationLoss):
    """A single value for the batch: how much its samples weigh."""

    batch_wise = True
    needs = ("sample_weight",)

    def call(self, student, teacher, labels=None, sample_weight=None):
        weights = keras.ops.ones_like(student.logits[:, 0]) if sample_weight is None else sample_weight
        return keras.ops.sum(weights) + 0 * keras.ops.sum(student.logits)


def network(name, width=4):
    return keras.Sequential([keras.Input((width,)), keras.layers.Dense(3)], name=name)


def distiller(loss, width=4):
    model = kdkeras.Distiller(student=network("student"), teacher=network("teacher", width))
    return model.compile("sgd", None, distillation_loss=loss, task_weight=0)


def stream(x):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x,)).batch(4)


@pytest.mark.parametrize("form", ["arrays", "tf.data"])
def test_numbers_reach_the_loss_in_every_form(form):
    model = distiller(NumberOfSample())
    x = kdkeras.Indexed(X, NUMBERS)
    data = x if form == "arrays" else stream(x)
    size = 4 if form == "arrays" else None
    history = model.fit(data, batch_size=size, validation_data=x, shuffle=False, verbose=0).history
    assert history["number_of_sample"][-1] == pytest.approx(5.5)
    assert history["val_number_of_sample"][-1] == pytest.approx(-5.5)


def test_numbers_come_with_different_inputs_for_each_model():
    model = distiller(NumberOfSample(), width=2)
    history = model.fit(kdkeras.Indexed(kdkeras.Paired(X, X[:, :2]), NUMBERS), verbose=0).history
    assert history["number_of_sample"][-1] == pytest.approx(5.5)
    assert model.predict(kdkeras.Indexed(X, NUMBERS), verbose=0).shape == (12, 3)


@pytest.mark.parametrize("index", [NUMBERS / 2, NUMBERS - 1, NUMBERS[:, None]])
def test_numbers_that_are_none_are_refused(index):
    with pytest.raises(ValueError, match=r"whole numbers from 0, one per sample. .*np.arange"):
        distiller(NumberOfSample()).fit(kdkeras.Indexed(X, index), verbose=0)


def test_as_many_numbers_as_samples():
    with pytest.raises(ValueError, match=r"same number of samples. Received: \[8, 12\]"):
        distiller(NumberOfSample()).fit(kdkeras.Indexed(X, NUMBERS[:8]), verbose=0)


def test_a_loss_for_the_batch_gets_the_weights_of_its_samples():
    model = distiller(SumOfWeights())
    model.compile("sgd", "mse", distillation_loss=model.distillation_losses[0], task_weight=0)
    weights = np.linspace(0, 1, 12).astype("float32")
    history = model.fit(X, Y[:, :3], sample_weight=weights, batch_size=12, verbose=0).history
    assert history["sum_of_weights"][-1] == pytest.approx(6.0)
    assert model.fit(X, Y[:, :3], batch_size=12, verbose=0).history["sum_of_weights"][-1] == pytest.approx(12.0)


def test_a_batch_of_one_has_no_pairs():
    with pytest.raises(ValueError, match=r"`SumOfWeights` compares the samples .* Take a larger batch_size"):
        distiller(SumOfWeights()).fit(X, batch_size=1, verbose=0)


def test_a_last_batch_of_one_is_no_fault():
    relation = losses.SimilarityPreserving("dense", "dense")
    models = [keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense")], name=n) for n in "ab"]
    model = kdkeras.Distiller(student=models[0], teacher=models[1])
    model.compile("sgd", None, distillation_loss=relation, task_weight=0)
    history = model.fit(X[:9], batch_size=4, shuffle=False, verbose=0).history
    assert history["similarity_preserving"][-1] > 0
