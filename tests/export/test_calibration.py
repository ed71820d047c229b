"""Representative data: every form gives the same arrays, and data that would ruin a file is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdkeras.export.calibration import LIMIT, collect, random_samples
from kdkeras.export.signature import signature_of


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((40, 4, 4, 1))


@pytest.fixture(scope="module")
def single():
    return signature_of(keras.Sequential([keras.Input((4, 4, 1), name="image"), keras.layers.Flatten()]))


@pytest.fixture(scope="module")
def double():
    left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
    return signature_of(keras.Model([left, right], keras.layers.Concatenate()([left, right])))


LABELS = np.arange(40)

FORMS = {
    "array": lambda x: x,
    "tensor": tf.constant,
    "float64 pair": lambda x: (x, LABELS),
    "dict": lambda x: {"image": x, "unused": LABELS},
    "dataset of batches": lambda x: tf.data.Dataset.from_tensor_slices(x).batch(7),
    "dataset of samples": tf.data.Dataset.from_tensor_slices,
    "dataset of labelled batches": lambda x: tf.data.Dataset.from_tensor_slices((x, LABELS)).batch(16),
    "dataset with sample weights": lambda x: tf.data.Dataset.from_tensor_slices((x, LABELS, LABELS)).batch(16),
    "dataset of dicts": lambda x: tf.data.Dataset.from_tensor_slices(({"image": x}, LABELS)).batch(16),
    "generator": lambda x: (image for image in x),
    "generator of TensorFlow's form": lambda x: ([image[None]] for image in x),
    "list of samples": list,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_array(form, images, single):
    [collected] = collect(FORMS[form](images), single)
    assert collected.dtype == np.float32
    np.testing.assert_array_equal(collected, images.astype("float32"))


@pytest.mark.parametrize(
    "form",
    [
        lambda a, b: [a, b],
        lambda a, b: (a, b),
        lambda a, b: ((a, b), LABELS),
        lambda a, b: {"right": b, "left": a},
        lambda a, b: tf.data.Dataset.from_tensor_slices((a, b)),
        lambda a, b: tf.data.Dataset.from_tensor_slices(((a, b), LABELS)).batch(8),
        lambda a, b: tf.data.Dataset.from_tensor_slices(({"left": a, "right": b}, LABELS)).batch(8),
    ],
)
def test_several_inputs(form, double):
    generator = np.random.default_rng(0)
    left, right = generator.random((40, 2)), generator.random((40, 3))
    collected = collect(form(left, right), double)
    np.testing.assert_array_equal(collected[0], left.astype("float32"))
    np.testing.assert_array_equal(collected[1], right.astype("float32"))


def test_arrays_are_thinned_evenly_and_streams_are_cut(single):
    images = np.arange(2 * LIMIT, dtype="float32")[:, None, None, None] * np.ones((1, 4, 4, 1))
    [thinned] = collect(images, single)
    np.testing.assert_array_equal(thinned[:, 0, 0, 0], np.arange(0, 2 * LIMIT, 2))
    [cut] = collect(tf.data.Dataset.from_tensor_slices(images).batch(100).repeat(), single)
    np.testing.assert_array_equal(cut[:, 0, 0, 0], np.arange(LIMIT))


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda x: x[:31], ValueError, "at least 32 samples.*Received: 31"),
        (lambda x: x[:0], ValueError, "at least 32 samples.*Received: 0"),
        (lambda x: iter(()), ValueError, "`calibration` is empty"),
        (lambda x: np.where(x > 0.5, np.nan, x), ValueError, "needs finite values"),
        (lambda x: np.where(x > 0.5, -np.inf, x), ValueError, "needs finite values"),
        (lambda x: (255 * x).astype("uint8"), ValueError, r"uint8 up to 2\d\d. Scale it"),
        (lambda x: x[:, :3], ValueError, r"needs shape \(None, 4, 4, 1\).*Received: \(40, 3, 4, 1\)"),
        (lambda x: x.reshape(40, 4, 4), ValueError, r"Received: \(40, 4, 4\)"),
        (lambda x: {"picture": x}, ValueError, r"needs the inputs \['image'\].*keys \['picture'\]"),
        (lambda x: x.astype(str), TypeError, "needs numbers. Received: dtype <U"),
        (lambda x: 3, TypeError, "expects an array.*Received: int"),
        (lambda x: "images.npy", TypeError, "Received: str"),
        (lambda x: ["a", "b"], TypeError, "must yield arrays.*Received: str"),
    ],
)
def test_bad_data_is_refused(make, error, match, images, single):
    with pytest.raises(error, match=match):
        collect(make(images), single)


def test_one_array_for_two_inputs_is_refused(double):
    with pytest.raises(ValueError, match=r"needs 2 arrays.*keys \['left', 'right'\]"):
        collect(np.zeros((40, 2)), double)


def test_inputs_of_unequal_length_are_refused(double):
    with pytest.raises(ValueError, match=r"equally many for every input. Received: 40, 33"):
        collect([np.random.rand(40, 2), np.random.rand(33, 3)], double)


def test_samples_of_different_sizes_are_refused():
    signature = signature_of(keras.Sequential([keras.Input((None, 2)), keras.layers.GlobalMaxPooling1D()]))
    with pytest.raises(ValueError, match="samples of one shape"):
        collect([np.ones((2, 2)), np.ones((3, 2))] * 20, signature)


def test_constant_data_is_warned_about(single):
    with pytest.warns(UserWarning, match="`calibration` is constant: all 40 samples"):
        collect(np.zeros((40, 4, 4, 1)), single)


def test_integer_inputs_take_whole_numbers_only():
    signature = signature_of(keras.Sequential([keras.Input((3,), dtype="int32"), keras.layers.Embedding(9, 2)]))
    ids = np.arange(120).reshape(40, 3) % 9
    [collected] = collect(ids.astype("float32"), signature)
    assert collected.dtype == np.int32
    np.testing.assert_array_equal(collected, ids)
    with pytest.raises(ValueError, match="needs whole numbers"):
        collect(ids + 0.5, signature)


def test_random_samples_repeat_and_fit(double):
    first, second = random_samples(double), random_samples(double)
    assert [array.shape for array in first] == [(64, 2), (64, 3)]
    assert all((one == two).all() for one, two in zip(first, second, strict=True))
    assert 0 <= min(array.min() for array in first) < max(array.max() for array in first) < 1
