"""Checkpoints of the student alone."""

import errno

import keras
import numpy as np
import pytest

import kdkeras
from kdkeras.callbacks import StudentCheckpoint

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(32, 4)).astype("float32"), rng.integers(0, 3, 32)


def network(units):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(3)])


def fit(*callbacks, learning_rate=0.1, **options):
    keras.utils.set_random_seed(0)
    model = kdkeras.Distiller(student=network(3), teacher=network(16)).compile(
        keras.optimizers.SGD(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(X, Y, batch_size=8, verbose=0, callbacks=list(callbacks), **options)
    return model, history.history


def test_the_stock_checkpoint_saves_the_teacher_too(tmp_path):
    model, _ = fit(keras.callbacks.ModelCheckpoint(tmp_path / "all.keras"), StudentCheckpoint(tmp_path / "one.keras"))
    loaded = keras.saving.load_model(tmp_path / "all.keras")
    assert isinstance(loaded, kdkeras.Distiller)
    student = keras.saving.load_model(tmp_path / "one.keras")
    assert type(student) is keras.Sequential
    assert student.count_params() == model.student.count_params() == 27
    for one in (loaded.student, student):
        np.testing.assert_array_equal(one.predict(X, verbose=0), model.student.predict(X, verbose=0))


def test_weights_alone(tmp_path):
    model, _ = fit(StudentCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True), epochs=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.weights.h5", "2.weights.h5"]
    student = network(3)
    student.load_weights(tmp_path / "2.weights.h5")
    for one, other in zip(student.get_weights(), model.student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_the_best_is_kept(tmp_path):
    """Steps that are far too large: the loss is not best at the end; accuracy is better when higher."""

    class Keep(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.students = []

        def on_epoch_end(self, epoch, logs=None):
            self.students.append(self.model.student.get_weights())

    keep = Keep()
    best = [
        StudentCheckpoint(tmp_path / f"{monitor}.weights.h5", monitor, save_best_only=True, save_weights_only=True)
        for monitor in ("loss", "accuracy")
    ]
    _, history = fit(keep, *best, learning_rate=3.0, epochs=6)
    chosen = {"loss": int(np.argmin(history["loss"])), "accuracy": int(np.argmax(history["accuracy"]))}
    assert chosen["loss"] != 5 or chosen["accuracy"] != 5
    for monitor, epoch in chosen.items():
        student = network(3)
        student.load_weights(tmp_path / f"{monitor}.weights.h5")
        for one, other in zip(student.get_weights(), keep.students[epoch], strict=True):
            np.testing.assert_array_equal(one, other)


def test_within_an_epoch(tmp_path):
    """On JAX, the weights of a running epoch have to be brought out of the step first."""
    model, _ = fit(StudentCheckpoint(tmp_path / "last.keras", save_freq=4))  # 4 batches
    student = keras.saving.load_model(tmp_path / "last.keras")
    np.testing.assert_array_equal(student.predict(X, verbose=0), model.student.predict(X, verbose=0))


def test_a_failed_write_leaves_the_last_file(tmp_path, monkeypatch):
    path = tmp_path / "student.keras"
    fit(StudentCheckpoint(path))
    before = path.read_bytes()

    def full(self, filepath, **kwargs):
        filepath.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(keras.Sequential, "save", full)
    with pytest.raises(OSError, match="No space left"):
        fit(StudentCheckpoint(path))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_needs_a_distiller(tmp_path):
    model = network(2)
    model.compile("sgd", "mse")
    with pytest.raises(TypeError, match="a Sequential without a student"):
        model.fit(X, np.zeros((32, 3)), verbose=0, callbacks=[StudentCheckpoint(tmp_path / "x.keras")])
