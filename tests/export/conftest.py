"""One small trained digits model for the export tests: training and conversion cost seconds."""

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits():
    """Scaled 8×8 digits `(n, 8, 8, 1)` and their labels."""
    pixels, labels = load_digits(return_X_y=True)
    return (pixels / 16.0).reshape(-1, 8, 8, 1).astype("float32"), labels.astype(np.int64)


@pytest.fixture(scope="session")
def cnn(digits):
    """A CNN with BatchNormalization and a depthwise convolution, ending in softmax."""
    keras.utils.set_random_seed(0)
    images, labels = digits
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.Conv2D(24, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images[:1400], labels[:1400], epochs=4, verbose=0)
    return model
