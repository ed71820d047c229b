"""Function matching: the views, that both models see the same pixels, and the schedule."""

import keras
import numpy as np
import pytest
from small import EAGER, X, net

from kdkeras.schemes import SameViews, function_matching
from kdkeras.testing import tiny_cnn

IMAGES = np.random.default_rng(1).random((20, 10, 10, 1)).astype("float32")


def test_views_hold_every_sample_once_an_epoch_in_an_order_of_their_own():
    numbers = np.arange(10, dtype="float32")[:, np.newaxis]
    views = SameViews(numbers, 4, mixup=False, seed=3)
    epochs = []
    for _ in range(2):
        epochs.append(np.concatenate([views[index][0] for index in range(len(views))]).ravel())
        views.on_epoch_end()
    assert len(views) == 3 and [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert list(epochs[0]) != list(epochs[1])
    again = SameViews(numbers, 4, mixup=False, seed=3)
    again.epoch = 1
    np.testing.assert_array_equal(again[2][0].ravel(), epochs[1][8:])


def test_mixup_is_one_share_per_batch_with_the_neighbour():
    plain, mixed = (SameViews(IMAGES, 5, mixup=mixup) for mixup in (False, True))
    shares = []
    for index in range(len(plain)):
        own, view = plain[index][0], mixed[index][0]
        other = np.roll(own, 1, axis=0)
        share = ((view - other) * (own - other)).sum() / ((own - other) ** 2).sum()
        np.testing.assert_allclose(view, share * own + (1 - share) * other, atol=1e-5)
        shares.append(share)
    assert all(0 <= share <= 1 for share in shares) and len(set(np.round(shares, 4))) == 4
    assert mixed[0][0].dtype == np.float32


def test_layers_augment_as_in_training_and_nests_stay_nests():
    views = SameViews(IMAGES, 20, augment=keras.Sequential([keras.layers.RandomCrop(8, 8, seed=1)]), mixup=False)
    crop = views[0][0]
    assert crop.shape == (20, 8, 8, 1)
    centre = IMAGES[views._rows(), 1:9, 1:9]
    assert not np.allclose(crop, centre)  # what the layer does at inference
    both = SameViews({"a": IMAGES, "b": X[:20]}, 4, augment=lambda batch: {**batch, "b": batch["b"] + 1}, mixup=False)
    np.testing.assert_array_equal(both[0][0]["b"], X[both._rows()[:4]] + 1)


def twins():
    student, teacher = tiny_cnn(name="student"), tiny_cnn(name="teacher")
    teacher.set_weights([weight * 5 for weight in teacher.get_weights()])  # so that answers differ between images
    student.set_weights(teacher.get_weights())
    return student, teacher


def test_both_models_see_the_same_pixels():
    keras.utils.set_random_seed(0)
    student, teacher = twins()
    crop = keras.Sequential([keras.layers.RandomCrop(8, 8), keras.layers.RandomFlip()])
    still = {"optimizer": keras.optimizers.SGD(0.0), **EAGER}
    trained = function_matching(
        student, teacher, SameViews(IMAGES, 5, augment=crop), epochs=2, compile=still, fit={"verbose": 0}
    )
    # A student that is its teacher has nothing to learn from any view that both see.
    assert max(trained.histories[0]["soft_targets"]) < 1e-7
    shifted = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.RandomTranslation(0.3, 0.3), student])
    trained = function_matching(
        shifted, teacher, SameViews(IMAGES[:, :8, :8], 5), epochs=1, compile=still, fit={"verbose": 0}
    )
    assert trained.histories[0]["soft_targets"][0] > 1e-5  # another view inside the student


def test_the_student_comes_closer_without_labels_and_the_rate_ends_at_0():
    keras.utils.set_random_seed(0)
    student, teacher = net("student"), net("teacher", 9)
    before = teacher.get_weights()
    rates = []

    class Rates(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if self.model.optimizer.built:  # on TensorFlow, the first step builds it
                rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))

    trained = function_matching(
        student,
        teacher,
        SameViews(X, 16),
        epochs=10,
        learning_rate=0.03,
        compile={"metrics": ["accuracy"], **EAGER},
        fit={"verbose": 0, "validation_data": (X, np.zeros(32)), "validation_freq": 10, "callbacks": [Rates()]},
    )
    logs = trained.histories[0]
    assert "val_accuracy" in logs and "task_loss" not in logs
    assert logs["soft_targets"][-1] < 0.7 * logs["soft_targets"][0]
    assert np.argmax(rates) in (0, 1) and 0.029 < max(rates) <= 0.03 + 1e-6 and 0 < rates[-1] < 1e-3
    for ours, theirs in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SameViews(IMAGES, augment="crop"), "layer or a function"),
        (lambda: SameViews(IMAGES, 0), "batch_size"),
        (lambda: SameViews(IMAGES[:0]), "at least 1"),
        (lambda: SameViews({"a": IMAGES, "b": X}), "one length"),
        (lambda: function_matching(*twins(), IMAGES, epochs=1), "augmented views"),
        (lambda: function_matching(*twins(), SameViews(IMAGES), epochs=1), "takes inputs of shape"),
        (
            lambda: function_matching(*twins(), SameViews((IMAGES[:, :8, :8] * 255).astype("uint8")), epochs=1),
            "Divide by 255",
        ),
        (lambda: function_matching(*twins(), SameViews(IMAGES), epochs=0), "epochs"),
        (lambda: function_matching(*twins(), iter([]), epochs=1), "number of batches"),
        (
            lambda: function_matching(*twins(), SameViews(IMAGES[:, :8, :8]), epochs=1, compile={"loss": "mse"}),
            "sets \\['loss'\\]",
        ),
    ],
)
def test_what_cannot_be_said(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_a_dataset_of_views_needs_no_labels():
    import tensorflow as tf

    views = tf.data.Dataset.from_tensor_slices(X).batch(16)
    trained = function_matching(net("s"), net("t", 8), views, epochs=1, fit={"verbose": 0})
    assert trained.histories[0]["soft_targets"][0] > 0
