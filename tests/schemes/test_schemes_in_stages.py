"""Stages: what counts when, what a new stage begins with, what is frozen, and that all flags are put back."""

import keras
import numpy as np
import pytest
from small import EAGER, X, Y, close, layers_of, net, task, unchanged

import kdkeras
from kdkeras.callbacks import Resume
from kdkeras.losses import Hints, SoftTargets
from kdkeras.schemes import LossStages, fitnets, progressive
from kdkeras.schemes._freezing import frozen
from kdkeras.testing import tiny_stages


class Notes(keras.callbacks.Callback):
    """Keeps the student's weights at the end of each epoch, and how far the optimizer is."""

    def __init__(self):
        super().__init__()
        self.weights, self.iterations, self.trainable = [], [], []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.student.get_weights())
        self.iterations.append(int(keras.ops.convert_to_numpy(self.model.optimizer.iterations)))
        self.trainable.append([layer.trainable for layer in self.model.student.layers])


def distiller(losses, optimizer=None, **arguments):
    model = kdkeras.Distiller(student=net("student"), teacher=net("teacher", 9))
    return model.compile(optimizer or keras.optimizers.Adam(0.05), task(), distillation_loss=losses, **arguments)


def fit(model, **arguments):
    return model.fit(X, Y, batch_size=32, shuffle=False, verbose=0, **arguments).history


def test_stages_of_one_fit_are_trainings_of_their_own():
    hint, soft = Hints("h1", "h1"), SoftTargets(2.0, 0.9)
    keras.utils.set_random_seed(0)
    whole = distiller([hint, soft], task_weight=0.2)
    notes = Notes()
    stages = LossStages({0: {"hints": 0.7}, 2: {"task_loss": 0.2, "soft_targets": 0.9}})
    logs = fit(whole, epochs=4, callbacks=[stages, notes])
    assert logs["stage"] == [1, 1, 2, 2] and notes.iterations == [1, 2, 1, 2]
    weighted = [
        0.7 * hints if stage == 1 else 0.2 * own + 0.9 * targets
        for stage, hints, own, targets in zip(
            logs["stage"], logs["hints"], logs["task_loss"], logs["soft_targets"], strict=True
        )
    ]
    np.testing.assert_allclose(logs["loss"], weighted, rtol=1e-5)

    keras.utils.set_random_seed(0)
    parts = distiller(Hints("h1", "h1", weight=0.7), task_weight=0.0, **EAGER)
    parts.distillation_losses[0].projectors[0].set_weights(_first_projector())
    fit(parts, epochs=2)
    close(parts.student, _Weights(notes.weights[1]))
    parts.compile(
        keras.optimizers.Adam(0.05), task(), distillation_loss=SoftTargets(2.0, 0.9), task_weight=0.2, **EAGER
    )
    fit(parts, epochs=2)
    close(parts.student, whole.student)


def _first_projector():
    """Return the projector that a loss gets after the same seed."""
    keras.utils.set_random_seed(0)
    return distiller([Hints("h1", "h1"), SoftTargets(2.0, 0.9)]).distillation_losses[0].projectors[0].get_weights()


class _Weights:
    def __init__(self, weights):
        self.weights = weights

    def get_weights(self):
        return self.weights


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_in_its_stage(tmp_path):
    class Killed(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if self.model.optimizer.built and batch == 2 and len(self.model.history.epoch) == 3:
                raise KeyboardInterrupt

    def run(folder, *callbacks):
        keras.utils.set_random_seed(3)
        model = distiller([Hints("h1", "h1"), SoftTargets()])
        stages = LossStages({0: {"hints": 1.0}, 2: {"soft_targets": 0.9, "task_loss": 1.0}})
        model.fit(X, Y, batch_size=8, epochs=5, verbose=0, callbacks=[stages, *callbacks, Resume(folder, every=1)])
        return model.student

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", Killed())
    assert unchanged(run(tmp_path / "killed"), whole.get_weights())


def test_fitnets_leaves_the_rest_of_the_student_alone_in_stage_1():
    student, teacher, notes = net("student"), net("teacher", 9), Notes()
    before, theirs = student.get_weights(), teacher.get_weights()
    hint, optimizer = Hints("h1", "h2", weight=2.0), keras.optimizers.SGD(0.1, momentum=0.9)
    trained = fitnets(
        student,
        teacher,
        X,
        Y,
        hint=hint,
        hint_epochs=2,
        kd_epochs=1,
        compile={"optimizer": optimizer, "loss": task(), "task_weight": 0.1, "metrics": ["accuracy"], **EAGER},
        fit={"batch_size": 32, "shuffle": False, "verbose": 0, "callbacks": notes},
    )
    (logs,) = trained.histories
    assert logs["stage"] == [1, 1, 2] and not hint.built and not optimizer.built
    np.testing.assert_allclose(logs["loss"][:2], 2.0 * np.array(logs["hints"][:2]), rtol=1e-5)
    np.testing.assert_allclose(logs["loss"][2], 0.1 * logs["task_loss"][2] + 0.9 * logs["soft_targets"][2], rtol=1e-5)
    guided, rest = slice(0, 2), slice(2, 6)
    for early in notes.weights[:2]:
        assert not np.array_equal(early[guided][0], before[guided][0])
        for ours, then in zip(early[rest], before[rest], strict=True):
            np.testing.assert_array_equal(ours, then)
    assert not any(np.array_equal(a, b) for a, b in zip(notes.weights[2][rest], before[rest], strict=True))
    assert logs["hints"][1] < logs["hints"][0] and unchanged(teacher, theirs)


def test_frozen_puts_every_flag_back_whatever_happens():
    model = tiny_stages()
    model.get_layer("norm1").trainable = False
    model.get_layer("conv2").bias.trainable = False
    flags = [(v.path, v.trainable) for v in model.variables], [layer.trainable for layer in model.layers]
    with pytest.raises(RuntimeError), frozen(model.layers):
        assert not model.trainable_variables
        raise RuntimeError
    assert flags == ([(v.path, v.trainable) for v in model.variables], [layer.trainable for layer in model.layers])


def test_progressive_trains_one_part_after_the_other():
    images, labels = np.random.default_rng(0).random((16, 8, 8, 1)).astype("float32"), np.arange(16) % 3
    keras.utils.set_random_seed(0)
    student, teacher, notes = tiny_stages(name="student"), tiny_stages(width=6, name="teacher"), Notes()
    weights = {}

    class Whole(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            weights[self.model.student.name] = {layer.name: layer.get_weights() for layer in student.layers}

    start = {layer.name: layer.get_weights() for layer in student.layers}
    trained = progressive(
        student,
        teacher,
        [("relu1", "relu1"), ("relu2", "relu2")],
        images,
        labels,
        compile={"optimizer": keras.optimizers.AdamW(0.05), "loss": task(), "metrics": ["accuracy"], **EAGER},
        fit={"verbose": 0, "callbacks": [notes, Whole()]},
    )
    first, second, last = (weights[name] for name in ("student_up_to_relu1", "student_up_to_relu2", "student"))

    def moved(before, after):
        return {
            name
            for name in before
            if any(not np.array_equal(a, b) for a, b in zip(before[name], after[name], strict=True))
        }

    assert moved(start, first) == {"conv1", "norm1"}
    assert moved(first, second) == {"conv2", "norm2"}  # BatchNorm's statistics of what is frozen stay, too
    assert moved(second, last) == {"conv1", "norm1", "conv2", "norm2", "head"}
    assert [sum(flags) for flags in notes.trainable] == [4, 3, 9]
    assert all(layer.trainable for layer in student.layers)
    assert [sorted(logs) for logs in trained.histories] == [
        ["hints", "loss"],
        ["hints", "loss"],
        ["accuracy", "loss", "soft_targets", "task_loss"],
    ]


def test_progressive_puts_flags_back_after_an_error():
    class Broken(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError(str([layer.trainable for layer in self.model.student.layers]))

    student = net("student")
    student.get_layer("h2").trainable = False
    with pytest.raises(RuntimeError, match=r"\[False, False, False, True\]"):
        progressive(
            student,
            net("teacher"),
            [("h1", "h1"), ("head", "head")],
            X,
            compile={"optimizer": "sgd", **EAGER},
            fit=lambda stage: {"verbose": 0, "callbacks": [Broken()] if stage else []},
        )
    assert [layer.trainable for layer in student.layers] == [True, False, True]


def test_progressive_learns_what_the_teacher_has_there():
    student, teacher = net("student", 9), net("teacher", 9)
    progressive(
        student,
        teacher,
        [("h1", "h1")],
        X,
        compile={"optimizer": keras.optimizers.Adam(0.1), **EAGER},
        fit=lambda stage: {"epochs": 1 if stage else 15, "batch_size": 32, "verbose": 0},
    )
    ours, theirs, start = (layers_of(each.get_weights())[0] for each in (student, teacher, net("student", 9)))
    assert ((ours - theirs) ** 2).mean() < 0.5 * ((start - theirs) ** 2).mean()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LossStages({1: {"hints": 1.0}}), "first of them at 0"),
        (lambda: LossStages({0: {"hints": -1.0}}), "at least 0"),
        (lambda: LossStages({0: {}}), "one or more"),
        (lambda: LossStages({0: 1.0}), "dict of weights"),
        (lambda: fit(distiller(None), callbacks=[LossStages({0: {"hint": 1.0}})]), "names of losses"),
        (lambda: fitnets(net("s"), net("t"), X, hint="h1", hint_epochs=1, kd_epochs=1, compile={}), "between layers"),
        (
            lambda: fitnets(net("s"), net("t"), X, hint=Hints("h1", "h1"), hint_epochs=0, kd_epochs=1, compile={}),
            "hint_epochs of 1",
        ),
        (
            lambda: fitnets(
                net("s"), net("t"), X, hint=Hints("h1", "h1"), hint_epochs=1, kd_epochs=1, compile={}, fit={"epochs": 3}
            ),
            "sets \\['epochs'\\]",
        ),
        (lambda: progressive(net("s"), net("t"), [], X, compile={}), "pairs of layers"),
        (lambda: progressive(net("s"), net("t"), [("h2", "h2"), ("h1", "h1")], X, compile={}), "input upwards"),
        (lambda: progressive(net("s"), net("t"), [("h9", "h2")], X, compile={}), "nearest names"),
        (lambda: progressive(net("s"), net("t"), [("h1", "h1")], iter([]), compile={}), "only once"),
        (
            lambda: progressive(net("s"), net("t", 9), [("h1", "h1")], X, compile={}, match=lambda a, b: "hint"),
            "instances",
        ),
    ],
)
def test_what_cannot_be_said(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_stages_need_a_distiller():
    model = net("plain")
    model.compile("sgd", task(), run_eagerly=True)
    with pytest.raises(TypeError, match="needs a `Distiller`"):
        model.fit(X, Y, verbose=0, callbacks=[LossStages({0: {"hints": 1.0}})])
