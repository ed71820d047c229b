"""The mean of several heads: by hand, at any size of logits, and as a plain Keras model."""

import json
import zipfile

import keras
import numpy as np
import pytest
from scipy import special
from small import EAGER, X, Y, net, task

import kdkeras
from kdkeras.schemes import averaged_heads
from kdkeras.signals import Extractor, predict


def two_headed(activation=None, units=(3, 3), scale=1.0, as_list=False):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(6, "relu")(inputs)
    start = keras.initializers.RandomNormal(stddev=scale)
    heads = [
        keras.layers.Dense(size, activation, kernel_initializer=start, name=name)(hidden)
        for name, size in zip(("label", "teacher"), units, strict=True)
    ]
    return keras.Model(inputs, heads if as_list else dict(zip(("label", "teacher"), heads, strict=True)), name="deit")


def heads_of(model):
    hidden, label, teacher = (layer.get_weights() for layer in model.layers if layer.get_weights())
    features = np.maximum(X.astype("float64") @ hidden[0] + hidden[1], 0)
    return [features @ kernel + bias for kernel, bias in (label, teacher)]


@pytest.mark.parametrize("as_list", [False, True])
def test_the_mean_of_probabilities_by_hand(as_list):
    model = two_headed(as_list=as_list)
    expected = np.mean([special.softmax(z, axis=1) for z in heads_of(model)], axis=0)
    np.testing.assert_allclose(averaged_heads(model).predict(X, verbose=0), np.log(expected), rtol=1e-4, atol=1e-5)
    ending = two_headed("softmax", as_list=as_list)
    np.testing.assert_allclose(averaged_heads(ending).predict(X, verbose=0), expected, rtol=1e-4, atol=1e-6)


def test_the_mean_of_logits_by_hand():
    model = two_headed()
    z = np.mean(heads_of(model), axis=0)
    np.testing.assert_allclose(averaged_heads(model, of="logits").predict(X, verbose=0), z, rtol=1e-4, atol=1e-5)
    ending = averaged_heads(two_headed("softmax"), of="logits").predict(X, verbose=0)
    np.testing.assert_allclose(ending, special.softmax(z, axis=1), rtol=1e-4, atol=1e-6)


def test_independent_classes():
    p = np.mean([special.expit(z) for z in heads_of(two_headed("sigmoid"))], axis=0)
    plain = averaged_heads(two_headed("sigmoid"))
    np.testing.assert_allclose(plain.predict(X, verbose=0), p, rtol=1e-4, atol=1e-6)
    assert predict(plain, X).logits.shape == (32, 3)


def test_large_logits_stay_finite_and_the_end_is_known():
    for activation in (None, "softmax"):
        plain = averaged_heads(two_headed(activation, scale=300.0))
        answers = predict(plain, X)
        assert np.isfinite(answers.logits).all() and np.isfinite(answers.predictions).all()
        extractor = Extractor(plain)
        extractor.spec(plain.input)
        assert extractor.head == activation


def test_the_file_is_a_plain_keras_model(tmp_path):
    plain = averaged_heads(two_headed("softmax"))
    plain.save(tmp_path / "plain.keras")
    with zipfile.ZipFile(tmp_path / "plain.keras") as archive:
        assert "kdkeras" not in json.dumps(json.loads(archive.read("config.json")))
    loaded = keras.saving.load_model(tmp_path / "plain.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), plain.predict(X, verbose=0))


def test_a_student_with_a_head_for_labels_and_one_for_its_teacher():
    student, teacher = two_headed(), net("guide")
    plain = averaged_heads(student)
    distiller = kdkeras.Distiller(student=student, teacher=teacher)
    distiller.compile(
        keras.optimizers.Adam(0.05),
        loss={"label": task(), "teacher": None},
        distillation_loss=kdkeras.losses.HardTargets(weight=0.5, output=("teacher", None)),
        task_weight=0.5,
        **EAGER,
    )
    logs = distiller.fit(X, {"label": Y, "teacher": Y}, batch_size=32, epochs=8, verbose=0).history
    assert logs["hard_targets_teacher"][-1] < logs["hard_targets_teacher"][0]
    assert logs["task_loss"][-1] < logs["task_loss"][0]
    expected = np.mean([special.softmax(z, axis=1) for z in heads_of(student)], axis=0)
    np.testing.assert_allclose(np.exp(plain.predict(X, verbose=0)), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: averaged_heads(net("one")), "two or more outputs"),
        (lambda: averaged_heads(two_headed(), ["label", "third"]), "two or more outputs"),
        (lambda: averaged_heads(two_headed(), ["label", "label"]), "two or more outputs"),
        (lambda: averaged_heads(two_headed(), of="votes"), "of='probabilities' or"),
        (lambda: averaged_heads(two_headed(units=(3, 4))), "one shape"),
        (lambda: averaged_heads(two_headed(units=(1, 1))), "of='logits'"),
        (lambda: averaged_heads("model"), "needs a Keras model"),
    ],
)
def test_what_cannot_be_said(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
