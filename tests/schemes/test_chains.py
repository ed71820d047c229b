"""Chains of distillers: who learns from whom, in which order, and what stays as it was."""

import itertools

import keras
import numpy as np
import pytest
from scipy import special
from small import EAGER, X, Y, divergence, layers_of, net, task, unchanged

import kdkeras
from kdkeras.callbacks import Resume
from kdkeras.schemes import born_again, teacher_assistants

SETTINGS = {
    "loss": task(),
    "distillation_loss": kdkeras.losses.SoftTargets(temperature=2.0, weight=1.0),
    "task_weight": 0.0,
    **EAGER,
}


class Witness(keras.callbacks.Callback):
    """Notes who learned from whom, and the weights before and after."""

    def __init__(self, notes):
        super().__init__()
        self.notes = notes

    def on_train_begin(self, logs=None):
        student, teacher = self.model.student, self.model.teacher
        self.notes.append([student.name, teacher.name, student.get_weights(), teacher.get_weights()])

    def on_train_end(self, logs=None):
        self.notes[-1] += [self.model.student.get_weights(), self.model.teacher.get_weights()]


def test_assistants_learn_in_order_each_from_the_trained_one_before(capsys):
    teacher, first, second, student = net("teacher", 12), net("first", 9), net("second", 7), net("student", 5)
    before, optimizer, notes = teacher.get_weights(), keras.optimizers.SGD(0.05), []
    trained = teacher_assistants(
        teacher,
        [first, second],
        student,
        X,
        Y,
        compile={"optimizer": optimizer, **SETTINGS},
        fit=lambda stage: {"batch_size": 32, "epochs": 1 + stage, "verbose": 2, "callbacks": [Witness(notes)]},
    )
    assert [note[:2] for note in notes] == [["first", "teacher"], ["second", "first"], ["student", "second"]]
    assert [model.name for model in trained.models] == ["first", "second", "student"] and trained.student is student
    assert [len(history["loss"]) for history in trained.histories] == [1, 2, 3]
    assert unchanged(teacher, before) and not optimizer.built
    for note, later in itertools.pairwise(notes):
        for ours, theirs in zip(note[4], later[3], strict=True):  # what was trained is what teaches, unchanged
            np.testing.assert_array_equal(ours, theirs)
    for (_, _, begin, theirs, *_), history in zip(notes, trained.histories, strict=True):
        expected = divergence(layers_of(theirs)[2], layers_of(begin)[2], temperature=2.0)
        np.testing.assert_allclose(history["soft_targets"][0], expected, rtol=1e-4)
    printed = capsys.readouterr().out
    assert "Stage 2 of 3: 'second' learns from 'first'" in printed


def test_nothing_is_trained_where_a_later_stage_cannot_be():
    assistant = net("assistant")
    before = assistant.get_weights()
    with pytest.raises(ValueError, match="equal shape"):
        teacher_assistants(net("teacher"), [assistant], net("student", units=5), X, compile={"optimizer": "sgd"})
    assert unchanged(assistant, before)


def test_born_again_generations_and_their_ensemble():
    teacher, notes = net("teacher"), []
    before = teacher.get_weights()
    trained = born_again(
        teacher,
        lambda number: net(f"generation_{number}"),
        3,
        X,
        Y,
        compile=lambda stage: {
            "optimizer": keras.optimizers.SGD(0.05),
            **({} if stage else {"metrics": ["acc"]}),
            **EAGER,
            "loss": task(),
            "distillation_loss": kdkeras.losses.SoftTargets(1.0, 1.0),
        },
        fit=lambda stage: {"verbose": 0, "callbacks": [Witness(notes)]},
    )
    names = [f"generation_{number}" for number in (1, 2, 3)]
    assert [note[:2] for note in notes] == [list(pair) for pair in zip(names, ["teacher", *names], strict=False)]
    assert unchanged(teacher, before)
    assert ["acc" in history for history in trained.histories] == [True, False, False]
    probabilities = [special.softmax(layers_of(model.get_weights())[2], axis=1) for model in trained.models]
    answer = special.softmax(trained.ensemble.predict(X, verbose=0), axis=1)
    np.testing.assert_allclose(answer, np.mean(probabilities, axis=0), rtol=1e-4, atol=1e-6)


class Killed(keras.callbacks.Callback):
    def __init__(self, student, epoch):
        super().__init__()
        self.student, self.epoch = student, epoch

    def on_epoch_begin(self, epoch, logs=None):
        if self.model.student.name == self.student and epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tests/callbacks does so for every backend")
def test_the_same_command_goes_on_after_a_crash(tmp_path):
    def run(folder, *callbacks):
        assistant, student = net("assistant"), net("student", 4)
        keras.utils.set_random_seed(1)
        return teacher_assistants(
            net("teacher", 9),
            [assistant],
            student,
            X,
            Y,
            compile={"optimizer": "adam", "loss": task()},
            fit=lambda stage: {"epochs": 3, "verbose": 0, "callbacks": [*callbacks, Resume(folder / str(stage))]},
        ).models

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", Killed("student", 1))
    for ours, theirs in zip(run(tmp_path / "killed"), whole, strict=True):
        assert unchanged(ours, theirs.get_weights())


def shared():
    model = net("one")
    return teacher_assistants(net("teacher"), [model], model, X, compile={})


TEACHER = net("teacher")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: teacher_assistants(TEACHER, [], net("s"), X, compile={}), "one assistant or more"),
        (lambda: teacher_assistants(TEACHER, ["a"], net("s"), X, compile={}), "needs Keras models"),
        (shared, "common weights"),
        (lambda: teacher_assistants(TEACHER, [net("a")], net("s"), iter([]), compile={}), "only once"),
        (lambda: teacher_assistants(TEACHER, [net("a")], net("s"), kdkeras.Cached(X, X), compile={}), "plain inputs"),
        (
            lambda: born_again(TEACHER, net, 2, kdkeras.Indexed(kdkeras.Cached(X, X), np.arange(32)), compile={}),
            "plain inputs",
        ),
        (lambda: teacher_assistants(TEACHER, [net("a")], net("s"), X, compile=[1]), "dict of arguments"),
        (lambda: teacher_assistants(TEACHER, [net("a")], net("s"), X, compile={}, fit={"y": Y}), "sets \\['y'\\]"),
        (lambda: born_again(TEACHER, TEACHER, 2, X, compile={}), "needs a function"),
        (lambda: born_again(TEACHER, net, 1, X, compile={}), "two generations"),
        (lambda: born_again(TEACHER, lambda number: net("same"), 2, X, compile={}), "different names"),
        (lambda: born_again(TEACHER, lambda number: TEACHER, 2, X, compile={}), "common weights"),
    ],
)
def test_what_cannot_be_said(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
