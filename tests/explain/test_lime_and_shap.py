"""LIME and SHAP on models whose true answer is known."""

import itertools
import math
import sys

import keras
import numpy as np
import pytest
from keras import layers

from kdkeras import explain

rng = np.random.default_rng(0)
WEIGHTS = np.array([[2.0, -1.0], [0.5, 0.0], [-3.0, 1.0], [0.0, 0.0]], "float32")
TABLE = rng.normal(size=(5, 4)).astype("float32")
BOTH = (explain.LIME, explain.SHAP)
CLOSE = {explain.LIME: 0.02, explain.SHAP: 1e-5}  # of the largest value: a ridge regression of random samples shrinks


def linear(weights=WEIGHTS, shape=(4,)):
    dense = layers.Dense(weights.shape[1], activation="softmax")
    model = keras.Sequential([keras.Input(shape), layers.Flatten(), dense], name="linear")
    dense.set_weights([weights, np.full(weights.shape[1], 0.3)])
    return model


def bend():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), layers.Dense(8, "tanh"), layers.Dense(3)])


@pytest.mark.parametrize("method", BOTH)
def test_a_linear_logit_is_explained_by_its_weights(method):
    for background in (None, rng.normal(1, 2, size=(30, 4)).astype("float32")):
        mean = (TABLE if background is None else background).mean(axis=0)
        expected = WEIGHTS[:, 1] * (TABLE - mean)
        found = explain.attribute(linear(), TABLE, 1, method(background=background))
        np.testing.assert_allclose(found.raw, expected, atol=CLOSE[method] * np.abs(expected).max())
        assert (found.raw.dtype, found.layer, found.maps.shape) == (np.float32, None, TABLE.shape)


def test_shapley_values_are_the_mean_over_all_orders():
    model, background = bend(), 2 * TABLE[1:]
    found = explain.attribute(model, 3 * TABLE[:1], 2, explain.SHAP(background=background)).raw[0]

    def value(seen):
        mixed = background.copy()
        mixed[:, seen] = 3 * TABLE[0, seen]
        return float(np.asarray(model(mixed))[:, 2].mean())

    expected = np.zeros(4)
    for order in itertools.permutations(range(4)):
        for place, feature in enumerate(order):
            expected[feature] += value(list(order[: place + 1])) - value(list(order[:place]))
    np.testing.assert_allclose(found, expected / math.factorial(4), atol=1e-5)
    assert np.abs(found).max() > 0.1


@pytest.mark.parametrize("method", BOTH)
def test_pixels_and_their_channels(method):
    weights = rng.normal(size=(5 * 5 * 2, 2)).astype("float32")
    x = rng.normal(size=(2, 5, 5, 2)).astype("float32")
    cube = weights[:, 1].reshape(5, 5, 2)
    model = linear(weights, (5, 5, 2))
    for baseline in (None, 0.5):
        expected = (cube * (x - (baseline or 0))).sum(axis=-1)
        found = explain.attribute(model, x, 1, method(segments=25, baseline=baseline)).raw  # each pixel is a part
        np.testing.assert_allclose(found, expected, atol=CLOSE[method] * np.abs(expected).max())


@pytest.mark.parametrize("method", BOTH)
def test_superpixels_find_a_planted_patch(method):
    weights = np.zeros((16, 16, 1, 2), "float32")
    weights[4:8, 8:12, :, 1] = 0.3
    x = 0.1 * rng.random((2, 16, 16, 1)).astype("float32")
    x[:, 4:8, 8:12] += 0.8
    found = explain.attribute(linear(weights.reshape(-1, 2), (16, 16, 1)), x, 1, method(segments=16)).raw
    inside = np.maximum(found, 0)[:, 4:8, 8:12].sum(axis=(1, 2)) / np.maximum(found, 0).sum(axis=(1, 2))
    assert (inside > 0.9).all()
    expected = (weights[..., 1] * x).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(found.sum(axis=(1, 2)), expected, rtol=0.05)
    assert len(np.unique(found[0])) < 40  # a value per superpixel


@pytest.mark.parametrize("method", BOTH)
def test_words_are_explained(method):
    words = layers.Embedding(5, 1)
    model = keras.Sequential([keras.Input((6,), dtype="int32"), words, layers.GlobalAveragePooling1D()])
    words.set_weights([np.array([[0.0], [0], [0], [6], [0]])])  # the number of times that word 3 stands in the text
    x = np.array([[3, 1, 3, 2, 4, 1], [1, 1, 2, 4, 3, 2]], "int32")
    np.testing.assert_allclose(explain.attribute(model, x, 0, method()).raw, x == 3, atol=CLOSE[method])


@pytest.mark.parametrize("method", BOTH)
def test_seeds_repeat_and_differ(method):
    keras.utils.set_random_seed(0)
    wide = keras.Sequential([keras.Input((12,)), layers.Dense(6, "tanh"), layers.Dense(2)])
    x = rng.normal(size=(3, 12)).astype("float32")
    before = np.random.get_state()[1].copy()
    settings = {"background": x, ("samples" if method is explain.LIME else "evaluations"): 100}
    first, again, other = (explain.attribute(wide, x, 0, method(**settings, seed=seed)).raw for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    alone = explain.attribute(wide, x[1:2], 0, method(**settings)).raw
    np.testing.assert_allclose(alone[0], first[1], atol=1e-6)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_few_rows_of_a_large_background_are_used():
    rows = rng.normal(size=(300, 4)).astype("float32")
    found, all_of_them = (
        explain.attribute(linear(), TABLE, 1, explain.SHAP(background=rows, background_rows=n)).raw for n in (20, 300)
    )
    expected = WEIGHTS[:, 1] * (TABLE - rows.mean(axis=0))
    np.testing.assert_allclose(all_of_them, expected, atol=1e-4)
    assert 0.01 < np.abs(found - expected).max() < 1


def test_comparison_pictures_and_faithfulness_take_them():
    def network(name):
        keras.utils.set_random_seed(len(name))
        return keras.Sequential(
            [keras.Input((6, 6, 1)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(2)],
            name=name,
        )

    teacher, student, x = network("teacher"), network("student"), rng.random((2, 6, 6, 1)).astype("float32")
    lime, shap = explain.LIME(samples=100, segments=9), explain.SHAP(evaluations=100, segments=9)
    comparison = explain.compare(teacher, student, x, method=shap)
    assert np.isfinite(comparison.measures["cosine"]).all()
    target = comparison.teacher.target
    ours = explain.attribute(teacher, x, target, lime)
    explain.method_grid([comparison.teacher, ours]).canvas.draw()
    measured = explain.faithfulness(teacher, x, ours, explainer=lime, neighbours=2, samples=50)
    assert np.isfinite(measured.deletion.area).all()


@pytest.mark.parametrize(
    ("method", "module"), [(explain.LIME, "lime.lime_base"), (explain.SHAP, "shap")], ids=("lime", "shap")
)
def test_a_missing_package_is_told_with_its_command(method, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    model = linear(rng.normal(size=(25, 2)), (5, 5, 1))
    with pytest.raises(ImportError, match=rf"needs '{module}'.*`pip install 'kdkeras\[explain\]'`"):
        explain.attribute(model, np.ones((1, 5, 5, 1)), 0, method())


def test_missing_superpixels_are_told_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(ImportError, match=r"`explain.SHAP` needs 'skimage.segmentation'"):
        explain.attribute(linear(rng.normal(size=(64, 2)), (8, 8, 1)), np.ones((1, 8, 8, 1)), 0, "shap")


@pytest.mark.parametrize("method", BOTH)
def test_what_does_not_fit_is_refused(method):
    with pytest.raises(ValueError, match=r"segments of at least 1\. Received: 0"):
        method(segments=0)
    with pytest.raises(ValueError, match=r"rows of the table that is explained. Received: shape \(2, 3\)"):
        explain.attribute(linear(), TABLE, 0, method(background=np.ones((2, 3))))
    with pytest.raises(ValueError, match="`baseline` is for images and sequences"):
        explain.attribute(linear(), TABLE, 0, method(baseline=0))
    with pytest.raises(ValueError, match=r"broadcasts to x. Received: shape \(3,\)"):
        explain.attribute(linear(np.ones((25, 2)), (5, 5, 1)), np.ones((1, 5, 5, 1)), 0, method(baseline=np.ones(3)))
