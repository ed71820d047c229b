"""An explainer that takes the weights as constants: the same maps, and blind to what the model learns later."""

import keras
import numpy as np
import pytest

from kdkeras import explain

layers = keras.layers
RNG = np.random.default_rng(0)
IMAGES = RNG.random((6, 8, 8, 3)).astype("float32")


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    parts = [layers.Conv2D(6, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU(), layers.Conv2D(8, 3)]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(4, activation="softmax")]
    model = keras.Sequential([keras.Input((8, 8, 3)), *parts, *head])
    model.layers[1].moving_variance.assign(RNG.random(6) + 0.5)
    return model


@pytest.mark.parametrize("method", ["grad_cam", "saliency", "integrated_gradients", "occlusion"])
def test_the_maps_are_those_of_the_variables(model, method):
    live, frozen = (explain.Explainer(model, method, freeze=freeze) for freeze in (False, True))
    for count in (6, 1):  # also a batch of another size than the first
        maps = live(IMAGES[:count], 1).raw
        np.testing.assert_allclose(frozen(IMAGES[:count], 1).raw, maps, atol=1e-5 * np.abs(maps).max())


def test_what_the_model_learns_later_is_not_seen(model):
    live, frozen = (explain.Explainer(model, "saliency", freeze=freeze) for freeze in (False, True))
    before = frozen(IMAGES, 1).raw
    np.testing.assert_allclose(live(IMAGES, 1).raw, before, rtol=1e-3, atol=1e-6)
    model.layers[-1].kernel.assign(3 * model.layers[-1].kernel)
    np.testing.assert_array_equal(frozen(IMAGES, 1).raw, before)
    np.testing.assert_allclose(live(IMAGES, 1).raw, 3 * before, rtol=1e-3, atol=1e-6)


def test_a_model_that_cannot_be_frozen_says_why():
    import tensorflow as tf

    class Inner(layers.Layer):
        @tf.function
        def call(self, x):
            return 2.0 * x

    model = keras.Sequential([keras.Input((4,)), Inner(), layers.Dense(3)], name="inner")
    explainer = explain.Explainer(model, "saliency", freeze=True)
    with pytest.raises(ValueError, match=r"Model 'inner' cannot be explained with constant weights: .* freeze=False"):
        explainer(np.ones((2, 4), "float32"), 0)
