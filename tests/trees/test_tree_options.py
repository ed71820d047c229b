"""Learned and annealed β, feature subsets, the share of the truth in distillation, and a tree on convolutions."""

import keras
import numpy as np
import pytest

import kdkeras
from kdkeras.callbacks import Anneal, linear
from kdkeras.trees import SoftDecisionTree
from kdkeras.trees.feature_subsets import subset_size


def _data(n=200, features=6):
    x = np.random.default_rng(0).normal(size=(n, features)).astype("float32")
    return x, (x[:, 0] + x[:, 1] > 0).astype(int)


def test_beta_is_set_between_steps_and_annealed():
    x, y = _data()
    tree = SoftDecisionTree(2, 2)
    history = tree.fit(x, y, epochs=3, verbose=0, callbacks=[Anneal(tree, "beta", linear(1, 4, epochs=2))])
    assert history.history["beta"] == [1.0, 2.5, 4.0]
    assert tree.beta == 4.0
    z = np.asarray(tree.node_logits(x))
    tree.beta = 2.0
    np.testing.assert_allclose(tree.node_logits(x), z / 2, rtol=1e-5)
    np.testing.assert_allclose(tree.anatomy().filters @ x[0] + tree.anatomy().biases, z[0] / 2, atol=1e-5)


def test_a_compiled_step_sees_beta_move():
    x, _ = _data()
    tree = SoftDecisionTree(2, 2)
    tree.build((None, 6))
    tree.phi.assign([[0.3, 0.0], [0.0, 0.3], [0.3, 0.0], [0.0, 0.3]])
    soft = tree.predict(x, verbose=0)
    tree.beta = 50.0
    crisp = tree.predict(x, verbose=0)
    assert crisp.max(axis=1).mean() > soft.max(axis=1).mean() + 0.1
    np.testing.assert_allclose(crisp, tree(x), atol=1e-6)


def test_learned_betas_train_stay_positive_and_come_back(tmp_path):
    x, y = _data()
    tree = SoftDecisionTree(2, 2, beta="learned")
    tree.fit(x, y, epochs=5, verbose=0)
    assert tree.beta == "learned"
    assert tree.betas.shape == (3,)
    assert (tree.betas > 0).all()
    assert np.ptp(tree.betas) > 1e-3  # each split has its own
    kernel, bias = tree.splits.get_weights()
    expected = tree.betas * ((x - tree.center.numpy()) @ kernel + bias)
    np.testing.assert_allclose(tree.node_logits(x), expected, atol=1e-4)
    np.testing.assert_allclose(x @ tree.anatomy().filters.T + tree.anatomy().biases, expected, atol=1e-4)
    tree.save(tmp_path / "tree.keras")
    loaded = kdkeras.load_model(tmp_path / "tree.keras")
    np.testing.assert_array_equal(loaded.betas, tree.betas)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), tree.predict(x, verbose=0))


def test_learned_beta_has_the_gradient_of_its_formula():
    import tensorflow as tf

    x, _ = _data(50)
    tree = SoftDecisionTree(1, 2, beta="learned", noise=0.0)
    tree.build((None, 6))
    with tf.GradientTape() as tape:
        z = keras.ops.sum(tree.node_logits(x))
    # z = exp(θ) s, so that dz/dθ = z
    assert float(tape.gradient(z, tree.sharpness.variable.value)[0]) == pytest.approx(float(z), rel=1e-4)


def test_a_learned_beta_can_be_neither_set_nor_annealed():
    tree = SoftDecisionTree(2, 2, beta="learned")
    with pytest.raises(ValueError, match="learns its beta"):
        tree.beta = 2.0
    with pytest.raises(TypeError, match="needs a setting that is a number"):
        Anneal(tree, "beta", linear(1, 2, epochs=2))


@pytest.mark.parametrize("beta", [0.0, "crisp", float("inf")])
def test_a_beta_that_does_not_exist_is_refused(beta):
    with pytest.raises(ValueError, match=r"above 0, or 'learned'\. Received"):
        SoftDecisionTree(2, 2, beta=beta)
    with pytest.raises(ValueError, match=r"above 0, or 'learned'\. Received"):
        SoftDecisionTree(2, 2).beta = beta


def test_each_split_sees_its_own_features_for_good(tmp_path):
    x, y = _data()
    tree = SoftDecisionTree(3, 2, max_features=2)
    tree.fit(x, y, epochs=5, verbose=0)
    seen = tree.splits.kernel.numpy() != 0  # (features, nodes)
    np.testing.assert_array_equal(seen.sum(axis=0), 2)
    assert len(np.unique(seen, axis=1).T) > 1
    tree.save(tmp_path / "tree.keras")
    loaded = kdkeras.load_model(tmp_path / "tree.keras")
    loaded.fit(x, y, epochs=1, verbose=0)
    np.testing.assert_array_equal(loaded.splits.kernel.numpy() != 0, seen)
    assert (loaded.anatomy().filters != 0).sum(axis=1).tolist() == [2] * 7


def test_the_sums_of_a_subset_begin_as_large_as_those_of_all_features():
    x = np.random.default_rng(0).normal(size=(500, 400)).astype("float32")
    spread = []
    for max_features in (None, 0.1):
        keras.utils.set_random_seed(0)
        tree = SoftDecisionTree(6, 2, max_features=max_features)
        tree.build((None, 400))
        spread.append(np.asarray(tree.node_logits(x)).std())
    assert spread[1] == pytest.approx(spread[0], rel=0.1)


@pytest.mark.parametrize(
    ("max_features", "error"), [(0, ValueError), (1.5, ValueError), ("all", ValueError), (True, TypeError)]
)
def test_a_number_of_features_that_does_not_exist_is_refused(max_features, error):
    with pytest.raises(error, match="max_features to be a whole number"):
        SoftDecisionTree(2, 2, max_features=max_features)


def test_more_features_than_there_are_are_refused():
    with pytest.raises(ValueError, match=r"at most the 6 features of x. Received: 7"):
        subset_size(7, 6)


def test_alpha_mixes_teacher_and_truth():
    x, y = np.zeros((64, 2)), np.ones(64, int)
    keras.utils.set_random_seed(0)
    tree = SoftDecisionTree(1, 2, penalty=0.0, noise=0.0)
    tree.distill(lambda x: np.tile([1.0, 0.0], (64, 1)), x, y, alpha=0.25, epochs=50, batch_size=16, verbose=0)
    np.testing.assert_allclose(tree.predict(x[:1], verbose=0)[0], [0.25, 0.75], atol=0.01)


def test_alpha_needs_the_truth():
    x, y = _data(8)
    with pytest.raises(ValueError, match=r"alpha=0.5 without y. Pass `y`"):
        SoftDecisionTree(1, 2).distill(lambda x: np.eye(2)[y], x, alpha=0.5)
    with pytest.raises(ValueError, match=r"share in 0…1. Received: 2"):
        SoftDecisionTree(1, 2).distill(lambda x: np.eye(2)[y], x, y, alpha=2)


def test_a_tree_routes_on_convolutions_that_train_with_it():
    rng = np.random.default_rng(0)
    x = rng.normal(scale=0.1, size=(300, 8, 8, 1)).astype("float32")
    y = rng.integers(2, size=300)
    for image, label in zip(x, y, strict=True):  # a bar that lies or stands, anywhere: no single pixel tells
        i, j = rng.integers(5, size=2)
        image[(i, slice(j, j + 4)) if label else (slice(i, i + 4), j)] += 1
    keras.utils.set_random_seed(0)
    tree = SoftDecisionTree(2, 2, noise=0.0, penalty=0.01)
    layers = keras.layers
    stem = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(4, 4, activation="relu"), layers.GlobalMaxPooling2D()]
    )
    model = keras.Sequential([stem, tree])
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
    before = stem.get_weights()[0]
    model.fit(x[:200], y[:200], epochs=30, batch_size=20, verbose=0)
    assert np.abs(stem.get_weights()[0] - before).max() > 0.01
    assert (model.predict(x[200:], verbose=0).argmax(axis=1) == y[200:]).mean() > 0.9
    features = stem.predict(x[200:201], verbose=0)
    assert tree.explain_sample(features[0]).steps[0].contributions.shape == (4,)


def test_the_default_optimizer_shrinks_filters_and_nothing_else():
    tree = SoftDecisionTree(2, 3, beta="learned")
    tree.build((None, 4))
    for variable in tree.trainable_variables:
        variable.assign(np.ones(variable.shape))
    optimizer = kdkeras.trees.default_optimizer(0.1, weight_decay=0.2)
    optimizer.build(tree.trainable_variables)
    optimizer.apply([keras.ops.zeros(variable.shape) for variable in tree.trainable_variables])
    after = {variable.name: float(variable.numpy().mean()) for variable in tree.trainable_variables}
    assert after.pop("kernel") == pytest.approx(1 - 0.1 * 0.2)
    assert after == dict.fromkeys(("phi", "bias", "log_beta"), 1.0)


def test_leaves_learn_ten_times_as_fast_as_their_variable():
    tree = SoftDecisionTree(1, 2)
    tree.build((None, 1))
    tree.phi.assign([[0.1, 0.0], [0.0, 0.3]])
    expected = [[1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))], [1 / (1 + np.exp(3)), 1 / (1 + np.exp(-3))]]
    np.testing.assert_allclose(tree.anatomy().leaves, expected, rtol=1e-5)
