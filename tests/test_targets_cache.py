"""`targets.cache`: what it keeps, and that training on it is training with the teacher."""

import keras
import numpy as np
import pytest
from scipy import special

import kdkeras
from kdkeras import targets
from kdkeras.testing import tiny_cnn

rng = np.random.default_rng(0)
X = rng.random((40, 8, 8, 1)).astype("float32")
Y = rng.integers(0, 3, 40).astype("int32")
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def cnn(name, width, **options):
    keras.utils.set_random_seed(width)
    return tiny_cnn(width=width, name=name, **options)


def trained(teacher, x):
    student = cnn("student", 3)
    terms = [kdkeras.losses.SoftTargets(), kdkeras.losses.Hints("conv", "conv")]
    keras.utils.set_random_seed(7)  # the projector of the hints
    distiller = kdkeras.Distiller(student=student, teacher=teacher)
    distiller.compile(keras.optimizers.SGD(0.1), CROSSENTROPY, distillation_loss=terms)
    history = distiller.fit(x, Y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    return student.get_weights(), history


def test_training_on_a_cache_is_training_with_the_teacher():
    teacher = cnn("teacher", 6, activation="softmax")
    cached = targets.cache(teacher, X, layers=["conv"], batch_size=16)
    assert cached.logits.shape == (40, 3)
    assert cached.features["conv"].shape == (40, 6, 6, 6)
    with_teacher, without = trained(teacher, X), trained(None, cached)
    for ours, theirs in zip(without[0], with_teacher[0], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    for name in ("loss", "soft_targets", "hints"):
        np.testing.assert_allclose(without[1][name], with_teacher[1][name], rtol=1e-5)


def test_any_teacher_is_cached():
    from sklearn.ensemble import RandomForestClassifier

    flat = X.reshape(40, -1)
    forest = RandomForestClassifier(10, random_state=0).fit(flat, Y)
    cached = targets.cache(forest, flat)._replace(inputs=X)
    np.testing.assert_allclose(cached.logits, np.log(np.maximum(forest.predict_proba(flat), 1e-7)), rtol=1e-6)
    student = cnn("student", 3)
    expected = _soft_targets(np.asarray(student(X)), cached.logits, temperature=2)
    distiller = kdkeras.Distiller(student=student, teacher=None)
    distiller.compile("sgd", CROSSENTROPY, distillation_loss=kdkeras.losses.SoftTargets(temperature=2))
    history = distiller.fit(cached, Y, batch_size=40, verbose=0).history
    np.testing.assert_allclose(history["soft_targets"], [expected], rtol=1e-5)


def _soft_targets(student, teacher, temperature):
    log_p, log_q = (special.log_softmax(z.astype("float64") / temperature, axis=1) for z in (teacher, student))
    return temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()


@pytest.mark.parametrize("units", [10, 1])  # one unit is a sigmoid
@pytest.mark.parametrize("scale", [1.0, 10.0, 60.0])
def test_half_precision_costs_less_than_a_thousandth_of_a_nat_below_logits_of_128(scale, units):
    z = np.clip(rng.normal(0, scale, (5000, units)), -127.9, 127.9).astype("float32")
    cached = targets.cache(lambda x: x, z, dtype="float16")
    assert cached.logits.dtype == np.float16
    rounded = cached.logits.astype("float64")
    if units == 1:
        z, rounded = (np.concatenate([a, np.zeros_like(a)], axis=1) for a in (z, rounded))
    log_p, log_q = (special.log_softmax(a.astype("float64"), axis=1) for a in (z, rounded))
    assert (np.exp(log_p) * (log_p - log_q)).sum(axis=1).max() < 1e-3


def test_half_precision_is_refused_where_it_costs_more():
    ties = np.array([[4001.0, 4000.0]], "float32")  # float16 steps by 4 there: 1 nat apart becomes 0
    with pytest.raises(ValueError, match=r"more than 0.001 nats. Received: 0\.\d+.*dtype='float32'"):
        targets.cache(lambda x: x, ties, dtype="float16")
    with pytest.raises(ValueError, match="up to 1e\\+05 as float16, which ends at 65504"):
        targets.cache(lambda x: x, np.array([[1e5, 0.0]], "float32"), dtype="float16")


def test_features_follow_in_half_precision():
    teacher = cnn("teacher", 6)
    whole, half = (targets.cache(teacher, X, layers=["conv"], dtype=dtype) for dtype in ("float32", "float16"))
    assert half.features["conv"].dtype == np.float16
    np.testing.assert_allclose(half.features["conv"], whole.features["conv"], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(half.logits, whole.logits, rtol=1e-3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: targets.cache(len, X, dtype="int8"), ValueError, "'float32' or 'float16'. Received: dtype='int8'"),
        (lambda: targets.cache(lambda x: x, iter([X])), TypeError, "needs arrays.*make the pairs yourself"),
        (lambda: targets.cache(len, X, layers=["conv"]), ValueError, "Keras models only.*layers=\\['conv'\\]"),
        (lambda: targets.cache(cnn("t", 3), X, layers=["no"]), ValueError, "has no layer 'no'"),
        (lambda: targets.cache(cnn("t", 3), X, head="linear"), ValueError, "shows its own head"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
