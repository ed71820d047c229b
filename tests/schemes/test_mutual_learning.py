"""Mutual learning: its loss by hand; each student is trained on its own loss alone; optimizers of their own."""

import keras
import numpy as np
import pytest
from scipy import special
from small import EAGER, X, Y, close, cross_entropy, divergence, layers_of, net, task, unchanged

import kdkeras
from kdkeras.schemes import MutualLearning, Within

PAIR = kdkeras.losses.SoftTargets


def fit(model, **arguments):
    return model.fit(X, Y, batch_size=32, shuffle=False, verbose=0, **arguments).history


def test_the_loss_is_the_one_by_hand():
    students = [net("a"), net("b", 8), net("c", 5)]
    z = {student.name: layers_of(student.get_weights())[2] for student in students}
    model = MutualLearning(students).compile(keras.optimizers.SGD(0.0), task())
    logs = fit(model)
    total = 0.0
    for own in "abc":
        peers = {peer: divergence(z[peer], z[own]) for peer in "abc" if peer != own}
        for peer, value in peers.items():
            np.testing.assert_allclose(logs[f"{own}_from_{peer}"][0], value, rtol=1e-4)
        total += cross_entropy(z[own]) + np.mean(list(peers.values()))
    np.testing.assert_allclose(logs["loss"][0], total, rtol=1e-4)
    np.testing.assert_allclose(logs["task_loss"][0], sum(map(cross_entropy, z.values())), rtol=1e-4)
    predictions = model(X)
    for own in "abc":
        np.testing.assert_allclose(keras.ops.convert_to_numpy(predictions[own]), z[own], rtol=1e-3, atol=1e-4)
    assert not any(loss.trainable_variables for loss in model.distillation_losses)


def test_a_step_trains_each_student_as_a_distiller_with_its_peer_as_teacher():
    students = [net("a"), net("b", 8)]
    alone = []
    for own, peer in (("a", "b"), ("b", "a")):
        twins = {name: net(name, 6 if name == "a" else 8) for name in "ab"}
        distiller = kdkeras.Distiller(student=twins[own], teacher=twins[peer])
        distiller.compile(
            keras.optimizers.Adam(0.1), task(), distillation_loss=PAIR(2.0, 0.5), task_weight=0.3, **EAGER
        )
        fit(distiller)
        alone.append(twins[own])
    model = MutualLearning(students)
    model.compile(keras.optimizers.Adam(0.1), task(), distillation_loss=PAIR(2.0, 0.5), task_weight=0.3, **EAGER)
    fit(model)
    for student, other in zip(students, alone, strict=True):
        close(student, other)


def test_each_student_may_have_its_own_optimizer_and_all_is_saved(tmp_path):
    students = [net("a"), net("b", 8)]
    before = [student.get_weights() for student in students]
    model = MutualLearning(students)
    optimizers = [keras.optimizers.SGD(0.0), keras.optimizers.SGD(0.1, momentum=0.9)]
    model.compile(optimizers, task(), metrics=["accuracy"], **EAGER)
    logs = fit(model, epochs=2)
    z = layers_of(before[1])[2]
    np.testing.assert_allclose(logs["b_accuracy"][0], (z.argmax(axis=1) == Y).mean(), rtol=1e-5)
    assert unchanged(students[0], before[0]) and not unchanged(students[1], before[1])
    model.save(tmp_path / "peers.keras")
    loaded = kdkeras.load_model(tmp_path / "peers.keras")
    assert [loss.get_config() for loss in loaded.distillation_losses] == [
        loss.get_config() for loss in model.distillation_losses
    ]
    fit(model)
    fit(loaded)  # with the momentum of before
    for ours, theirs in zip(loaded.students, students, strict=True):
        close(ours, theirs, rtol=1e-5)
    students[1].save(tmp_path / "b.keras")
    alone = keras.saving.load_model(tmp_path / "b.keras")
    np.testing.assert_array_equal(alone.predict(X, verbose=0), students[1].predict(X, verbose=0))


def test_weights_and_missing_labels_count_as_in_a_distiller():
    students = [net("a"), net("b", 8)]
    weight = np.linspace(0, 2, 32).astype("float32")
    labels = np.where(np.arange(32) % 2, Y, -1)
    model = MutualLearning(students).compile(keras.optimizers.SGD(0.0), task(), **EAGER)
    logs = model.evaluate(X, labels, sample_weight=weight, batch_size=32, verbose=0, return_dict=True)
    log_p, log_q = (special.log_softmax(layers_of(student.get_weights())[2], axis=1) for student in students)
    np.testing.assert_allclose(
        logs["b_from_a"], ((np.exp(log_p) * (log_p - log_q)).sum(axis=1) * weight).mean(), rtol=1e-4
    )
    known = labels >= 0
    own = sum(-(log[known, labels[known]] * weight[known]).sum() for log in (log_p, log_q))
    np.testing.assert_allclose(logs["task_loss"], own / known.sum(), rtol=0.05)


class Unknown(keras.Model):
    """A student whose inputs only data can tell."""

    def __init__(self, name):
        super().__init__(name=name)
        self.head = keras.layers.Dense(3)

    def call(self, inputs):
        return self.head(inputs)


def test_students_that_only_data_can_build_learn_from_each_other_alone():
    model = MutualLearning([Unknown("a"), Unknown("b")])
    model.compile([keras.optimizers.SGD(0.05), keras.optimizers.SGD(0.05)])
    logs = model.fit(X, batch_size=32, epochs=8, verbose=0).history
    assert logs["a_from_b"][-1] < 0.5 * logs["a_from_b"][0]
    assert logs["b_from_a"][-1] < 0.5 * logs["b_from_a"][0]


def same_weights():
    inner = net("inner")
    return MutualLearning([inner, keras.Sequential([keras.Input((4,)), inner], name="outer")])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MutualLearning([net("a")]), "two models or more"),
        (lambda: MutualLearning([net("a"), net("a", 8)]), "different names"),
        (same_weights, "common weights"),
        (lambda: MutualLearning([net("a"), 3]), "needs Keras models"),
        (
            lambda: MutualLearning([net("a"), keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)], name="b")]),
            "same inputs",
        ),
        (lambda: MutualLearning([net("a"), net("b", units=4)]).compile(), "equal shape"),
        (lambda: MutualLearning([net("a"), net("b")]).compile(["sgd"]), "one of its own for each of 2 students"),
        (
            lambda: MutualLearning([net("a"), net("b")]).compile(distillation_loss=kdkeras.losses.Hints("h1", "h1")),
            "between outputs",
        ),
        (lambda: Within("soft_targets"), "needs a `DistillationLoss`"),
        (lambda: Within(kdkeras.losses.ExplanationMatching("h1", "h2")), "compares explanations"),
    ],
)
def test_what_cannot_be_said(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
