"""Parts of a teacher: group targets by hand, sub-models, specialists side by side, branches."""

import keras
import numpy as np
import pytest
from scipy import special
from small import EAGER, X, Y, layers_of, net, task, unchanged

import kdkeras
from kdkeras.schemes import GroupTargets, SideBySide, branches, class_groups, group_logits, group_targets
from kdkeras.testing import check_gradient, check_loss

rng = np.random.default_rng(2)
Z, W = rng.normal(0, 3, (7, 5)).astype("float32"), rng.normal(0, 3, (7, 5)).astype("float32")


def merged(z, group):
    """Return log(Σ exp) over the rest behind the group's own logits, class by class."""
    rest = [k for k in range(z.shape[1]) if k not in group]
    columns = [z[:, k].astype("float64") for k in group]
    return np.stack([*columns, np.log(sum(np.exp(z[:, k].astype("float64")) for k in rest))], axis=1)


def by_hand(student, teacher, group, temperature):
    log_q, log_p = (special.log_softmax(merged(z, group) / temperature, axis=1) for z in (student, teacher))
    return temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(axis=1)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_values_by_hand(temperature):
    values = keras.ops.convert_to_numpy(group_targets(Z, W, group=[3, 0], temperature=temperature))
    np.testing.assert_allclose(values, by_hand(Z, W, [3, 0], temperature), rtol=1e-4, atol=1e-6)
    specialist = merged(W, [3, 0]).astype("float32")
    theirs = keras.ops.convert_to_numpy(group_targets(Z, specialist, group=[3, 0], temperature=temperature))
    np.testing.assert_allclose(theirs, values, rtol=1e-4, atol=1e-6)
    assert np.abs(keras.ops.convert_to_numpy(group_targets(Z, Z + 2, group=[1], temperature=temperature))).max() < 1e-5


def test_at_temperature_1_the_rest_has_the_sum_of_the_others_probabilities():
    p = special.softmax(Z, axis=1)
    q = special.softmax(keras.ops.convert_to_numpy(group_logits(Z, [4, 1])), axis=1)
    np.testing.assert_allclose(q, np.stack([p[:, 4], p[:, 1], p[:, [0, 2, 3]].sum(axis=1)], axis=1), rtol=1e-5)
    assert group_logits(Z, range(5)).shape == (7, 5)


def test_gradients_are_slopes_and_survive_large_logits():
    check_gradient(lambda z, w: group_targets(z, w, group=[2, 0], temperature=2.0), Z.astype("float64"), W)
    values = keras.ops.convert_to_numpy(group_targets(Z * 100, W * 100, group=[2]))
    assert np.isfinite(values).all()


def test_the_contract_of_a_loss():
    check_loss(lambda: GroupTargets([2, 0], temperature=2.0))


def test_parts_of_a_teacher_by_classes():
    teacher, student = net("teacher", 9, units=5), net("student", units=5)
    before = teacher.get_weights()
    parts = class_groups(teacher, {"low": [0, 1, 2], "high ones": [4, 3]}, temperature=2.0, weight=0.5)
    z, ours = layers_of(before)[2], layers_of(student.get_weights())[2]
    for model, group in zip(parts.models, ([0, 1, 2], [4, 3]), strict=True):
        answer = special.softmax(model.predict(X, verbose=0), axis=1)
        np.testing.assert_allclose(answer, special.softmax(merged(z, group), axis=1), rtol=1e-3, atol=1e-6)
    distiller = kdkeras.Distiller(student=student, teacher=parts.teacher)
    distiller.compile(keras.optimizers.SGD(0.0), distillation_loss=parts.losses, **EAGER)
    logs = distiller.fit(X, batch_size=32, verbose=0).history
    values = {name: by_hand(ours, z, group, 2.0).mean() for name, group in (("low", [0, 1, 2]), ("high_ones", [4, 3]))}
    for name, value in values.items():
        np.testing.assert_allclose(logs[name][0], value, rtol=1e-3)
    np.testing.assert_allclose(logs["loss"][0], 0.5 * sum(values.values()), rtol=1e-3)
    assert unchanged(teacher, before)


def test_specialists_side_by_side_teach_one_student(tmp_path):
    low, high, student = net("low", units=3), net("high", 8, units=4, activation="softmax"), net("student", units=5)
    council = SideBySide([low, high], name="council")
    losses = [
        GroupTargets([0, 1], 1.0, output=(None, "low")),
        GroupTargets([2, 3, 4], 1.0, output=(None, "high")),
    ]
    assert [loss.name for loss in losses] == ["group_targets_low", "group_targets_high"]
    distiller = kdkeras.Distiller(student=student, teacher=council)
    distiller.compile(keras.optimizers.Adam(0.1), distillation_loss=losses, **EAGER)
    ours = layers_of(student.get_weights())[2]
    logs = distiller.fit(X, batch_size=32, epochs=6, verbose=0).history
    for model, group in ((low, [0, 1]), (high, [2, 3, 4])):
        log_p = special.log_softmax(layers_of(model.get_weights())[2], axis=1)
        log_q = special.log_softmax(merged(ours, group), axis=1)
        value = (np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()
        np.testing.assert_allclose(logs[f"group_targets_{model.name}"][0], value, rtol=1e-4)
    assert logs["loss"][-1] < 0.7 * logs["loss"][0]
    distiller.save(tmp_path / "merged.keras")
    loaded = kdkeras.load_model(tmp_path / "merged.keras")
    values = [each.evaluate(X, batch_size=32, verbose=0) for each in (distiller, loaded)]
    np.testing.assert_allclose(values[1], values[0], rtol=1e-6)


def two_branches(width, name):
    inputs = keras.Input((4,))
    sides = [keras.layers.Dense(width, "relu", name=side)(inputs) for side in ("left", "right")]
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(keras.layers.concatenate(sides)), name=name)


def test_parts_of_a_teacher_by_branches():
    keras.utils.set_random_seed(0)
    teacher, student = two_branches(6, "teacher"), two_branches(6, "student")
    parts = branches(teacher, {"left": "right", "right": "left"})
    for model, name in zip(parts.models, ("right", "left"), strict=True):
        kernel, bias = teacher.get_layer(name).get_weights()
        np.testing.assert_allclose(model.predict(X, verbose=0), np.maximum(X @ kernel + bias, 0), rtol=1e-4, atol=1e-5)
    distiller = kdkeras.Distiller(student=student, teacher=parts.teacher)
    distiller.compile(keras.optimizers.Adam(0.05), task(), distillation_loss=parts.losses, task_weight=0.0, **EAGER)
    logs = distiller.fit(X, Y, batch_size=32, epochs=10, verbose=0).history
    assert [loss.name for loss in parts.losses] == ["left", "right"]
    assert all(logs[name][-1] < 0.7 * logs[name][0] for name in ("left", "right"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GroupTargets([]), "one class index or more"),
        (lambda: GroupTargets([1, 1]), "each once"),
        (lambda: GroupTargets([True]), "class indices"),
        (lambda: GroupTargets("ab"), "class indices"),
        (lambda: connect(GroupTargets([7])), "below 5"),
        (lambda: connect(GroupTargets([0]), units=3), "the group's 1 and one for the rest"),
        (lambda: connect(GroupTargets([0]), activation="sigmoid"), "exclusive classes"),
        (lambda: class_groups(net("t", units=5), [[0, 1]]), "by name"),
        (lambda: class_groups(net("t", units=5), {"a": [0, 1], "b": [2]}), r"without \[3, 4\]"),
        (lambda: class_groups(net("t", units=3), {"a": [0, 1], "b": [2, 3]}), r"beyond \[3\]"),
        (lambda: class_groups(net("t", activation="sigmoid"), {"a": [0], "b": [1, 2]}), "exclusive classes"),
        (lambda: branches(net("t"), {}), "by student's layer"),
        (lambda: branches(net("t"), {"h1": "h7"}), "nearest names"),
        (lambda: branches("t", {"h1": "h1"}), "needs a Keras model"),
        (lambda: SideBySide([net("t")]), "two models or more"),
    ],
)
def test_what_cannot_be_said(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def connect(loss, units=5, activation=None):
    teacher = net("teacher", units=units, activation=activation)
    student = net("student", units=5, activation=activation)
    kdkeras.Distiller(student=student, teacher=teacher).compile(distillation_loss=loss)
