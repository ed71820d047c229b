"""Activation maximisation through tf-keras-vis."""

import keras
import numpy as np
import pytest
from keras import layers

from kdkeras import explain

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf-keras-vis is for TensorFlow")


def seeker(activation=None, low=0.0):
    """Unit 0 likes the left half bright and the right half dark, unit 1 the reverse."""
    likes = np.ones((8, 8, 1))
    likes[:, 4:] = -1
    kernel = np.stack([likes.ravel(), -likes.ravel()], axis=1)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(2, use_bias=False, activation=activation)]
    )
    model.set_weights([kernel])
    return model


@pytest.mark.parametrize(("activation", "span"), [("softmax", (0, 1)), (None, (-1, 1)), (None, (0, 255))])
def test_the_image_is_what_the_model_likes(activation, span):
    found = explain.activation_maximisation(seeker(activation), [0, 1], input_range=span, steps=60)
    assert found.images.min() >= span[0] and found.images.max() <= span[1]
    shares = (found.images[..., 0] - span[0]) / (span[1] - span[0])
    for image, bright, dark in ((shares[0], slice(0, 3), slice(5, 8)), (shares[1], slice(5, 8), slice(0, 3))):
        assert image[1:-1, bright].mean() > 0.9 and image[1:-1, dark].mean() < 0.1
    assert (found.logits > found.start).all()
    np.testing.assert_allclose(found.probabilities, 1, atol=1e-3)


def test_the_same_seed_gives_the_same_image_and_numpys_own_state_stays():
    np.random.seed(3)
    first = explain.activation_maximisation(seeker(), 0, steps=5, seed=1)
    after = np.random.random()
    np.random.seed(3)
    assert np.random.random() == after
    again, other = (explain.activation_maximisation(seeker(), 0, steps=5, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)


def test_models_in_half_precision_and_subclassed_ones():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.body = [layers.Conv2D(4, 3, activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(3)]

        def call(self, x):
            for layer in self.body:
                x = layer(x)
            return x

    with pytest.raises(ValueError, match=r"one input of images .* Pass `shape`"):
        explain.activation_maximisation(Model(), 1, steps=2)
    found = explain.activation_maximisation(Model(), 1, shape=(32, 32, 3), steps=3)
    assert found.images.shape == (1, 32, 32, 3)
    policy = "mixed_bfloat16"
    parts = [layers.Conv2D(4, 3, dtype=policy), layers.Flatten(), layers.Dense(3, dtype=policy)]
    assert explain.activation_maximisation(keras.Sequential([keras.Input((8, 8, 1)), *parts]), 1, steps=3).images.size


def test_the_picture_names_classes():
    figure = explain.activation_maximisation(seeker(), [0, 1], steps=2).plot(class_names=["ant", "bee"])
    figure.canvas.draw()
    assert [axis.get_title().split("\n")[0] for axis in figure.axes] == ["ant", "bee"]


def test_bad_questions():
    with pytest.raises(ValueError, match=r"between 0 and 1, the units of model .* Received: 2"):
        explain.activation_maximisation(seeker(), 2, steps=1)
    with pytest.raises(ValueError, match="`input_range` must be two finite numbers, the lower first"):
        explain.activation_maximisation(seeker(), 0, input_range=(1, 0))
    with pytest.raises(ValueError, match="Penalties must be at least 0"):
        explain.activation_maximisation(seeker(), 0, norm=-1)
    table = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"Received: \(4,\)|Received: a model"):
        explain.activation_maximisation(table, 0)
