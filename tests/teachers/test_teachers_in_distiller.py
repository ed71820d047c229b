"""Teachers made of other models, in the distiller: the logged loss by hand, and a student that learns."""

import keras
import numpy as np
import pytest
from scipy import special

import kdkeras
from kdkeras.teachers import ClassMap, Ensemble

rng = np.random.default_rng(0)
X = rng.normal(0, 2, (64, 4)).astype("float32")
Y = rng.integers(0, 3, 64).astype("int32")
T = 2.0


def net(name, activation="softmax", units=3, width=8):
    keras.utils.set_random_seed(sum(map(ord, name)))
    hidden = [keras.layers.Dense(width, "relu", name="hidden"), keras.layers.Dropout(0.5)]
    head = keras.layers.Dense(units, activation, name="head", kernel_initializer=keras.initializers.RandomNormal())
    model = keras.Sequential([keras.Input((4,)), *hidden, head], name=name)
    model.set_weights([weight * 20 if weight.shape == (width, units) else weight for weight in model.get_weights()])
    return model


def logits_of(model, x=X):
    kernel, bias, head, offset = (weight.astype("float64") for weight in model.get_weights())
    return np.maximum(x @ kernel + bias, 0) @ head + offset


def divergence(teacher, student):
    """T² KL(softmax(z_t / T) ‖ softmax(z_s / T)), the mean over samples."""
    log_p, log_q = (special.log_softmax(z / T, axis=1) for z in (teacher, student))
    return T**2 * (np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()


def distiller(teacher, **compile_arguments):
    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")], name="student")
    arguments = {"distillation_loss": kdkeras.losses.SoftTargets(temperature=T, weight=1.0), **compile_arguments}
    return kdkeras.Distiller(student=student, teacher=teacher).compile(keras.optimizers.SGD(0.02), **arguments)


def student_logits(model):
    kernel, bias = model.student.get_weights()
    return X.astype("float64") @ kernel + bias


def mean_of_two():
    models = [net("a"), net("b")]
    return Ensemble(models), (logits_of(models[0]) + logits_of(models[1])) / 2


def mixture_of_two():
    models = [net("a"), net("b")]
    p = sum(special.softmax(logits_of(model), axis=1) for model in models) / 2
    return Ensemble(models, of="probabilities"), np.log(p)


def mapped():
    teacher = net("t", units=5)
    z = logits_of(teacher)
    return ClassMap(teacher, [4, [0, 1], 2]), np.stack([z[:, 4], special.logsumexp(z[:, :2], axis=1), z[:, 2]], axis=1)


@pytest.mark.parametrize("make", [mean_of_two, mixture_of_two, mapped])
def test_a_student_learns_and_the_log_is_the_value_by_hand(make):
    teacher, z = make()
    model = distiller(teacher)
    before = [weight.copy() for weight in teacher.get_weights()]
    expected = divergence(z, student_logits(model))
    first = model.fit(X, batch_size=64, verbose=0).history["soft_targets"][0]
    np.testing.assert_allclose(first, expected, rtol=1e-4)
    model.fit(X, batch_size=16, epochs=20, verbose=0)
    last = model.evaluate(X, batch_size=64, verbose=0, return_dict=True)["soft_targets"]
    np.testing.assert_allclose(last, divergence(z, student_logits(model)), rtol=1e-4)
    assert last < 0.6 * first
    for ours, theirs in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_hints_from_one_member():
    teacher = mean_of_two()[0]
    model = distiller(teacher, distillation_loss=kdkeras.losses.Hints("head", "b/hidden"))
    assert model.fit(X, verbose=0).history["hints"][0] > 0


def test_a_random_member_teaches_each_step_and_the_mean_evaluates():
    models = [net("a"), net("b")]
    z = np.stack([logits_of(member) for member in models])
    model = distiller(Ensemble(models, "random", seed=1))
    model.optimizer.learning_rate = 0.0
    logged = np.array(model.fit(X, batch_size=64, epochs=20, verbose=0).history["soft_targets"])
    expected = np.array([divergence(member, student_logits(model)) for member in z])
    errors = np.abs(logged[:, np.newaxis] / expected - 1)
    assert errors.min(axis=1).max() < 1e-4
    assert set(errors.argmin(axis=1)) == {0, 1}
    value = model.evaluate(X, batch_size=64, verbose=0, return_dict=True)["soft_targets"]
    np.testing.assert_allclose(value, divergence(z.mean(axis=0), student_logits(model)), rtol=1e-4)


def test_a_saved_distiller_brings_its_teacher_back(tmp_path):
    model = distiller(Ensemble([ClassMap(net("a", units=4), [0, 1, [2, 3]]), net("b")], "confidence"))
    model.fit(X, verbose=0)
    model.save(tmp_path / "distiller.keras")
    loaded = kdkeras.load_model(tmp_path / "distiller.keras")
    np.testing.assert_array_equal(loaded.teacher.predict(X, verbose=0), model.teacher.predict(X, verbose=0))
    np.testing.assert_allclose(
        loaded.evaluate(X, verbose=0, return_dict=True)["soft_targets"],
        model.evaluate(X, verbose=0, return_dict=True)["soft_targets"],
        rtol=1e-6,
    )
