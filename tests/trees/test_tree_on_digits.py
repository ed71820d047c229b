"""The promised accuracy and fidelity of a tree of depth 6; `benchmarks/soft_tree.py` has the full table, of depth 8."""

import keras
import numpy as np
import pytest

import kdkeras


@pytest.fixture(scope="module")
def digits():
    data = kdkeras.datasets.digits()
    x, y = np.concatenate([data.x_train, data.x_valid]), np.concatenate([data.y_train, data.y_valid])
    return x, y, data.x_test, data.y_test


def _teacher(x, y, epochs):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=epochs, verbose=0)
    return model


def _classes(model, x):
    return model.predict(x, verbose=0).argmax(axis=1)


def test_tree_on_labels_is_accurate(digits):
    x, y, x_test, y_test = digits
    keras.utils.set_random_seed(1)
    tree = kdkeras.SoftDecisionTree(depth=6, num_classes=10)
    tree.fit(x, y, verbose=0)
    assert (_classes(tree, x_test) == y_test).mean() >= 0.96


def test_distilled_tree_is_faithful(digits):
    x, y, x_test, _ = digits
    keras.utils.set_random_seed(1)
    teacher = _teacher(x, y, epochs=8)
    tree = kdkeras.SoftDecisionTree(depth=6, num_classes=10)
    tree.distill(teacher, x, epochs=40, verbose=0)
    assert (_classes(tree, x_test) == _classes(teacher, x_test)).mean() >= 0.95


@pytest.mark.slow
def test_mean_of_three_seeds_keeps_the_promise(digits):
    x, y, x_test, y_test = digits
    accuracy, fidelity = [], []
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        teacher = _teacher(x, y, epochs=30)
        keras.utils.set_random_seed(seed)
        tree = kdkeras.SoftDecisionTree(depth=6, num_classes=10).distill(teacher, x, verbose=0)
        accuracy.append((_classes(tree, x_test) == y_test).mean())
        fidelity.append((_classes(tree, x_test) == _classes(teacher, x_test)).mean())
    assert np.mean(accuracy) >= 0.97
    assert np.mean(fidelity) >= 0.97
