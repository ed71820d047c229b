import keras
import numpy as np
import pytest

import kdkeras
from kdkeras import signals
from kdkeras.trees import SoftDecisionTree, objectives, routing


def _blobs(n=300, features=4, classes=3, seed=0):
    """Well separated classes: a tree of depth 2 tells them apart."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    centres = 3 * np.eye(features)[:classes]
    return (centres[y] + rng.normal(scale=0.4, size=(n, features))).astype("float32"), y


def _trained(depth=2, **kwargs):
    keras.utils.set_random_seed(0)
    x, y = _blobs()
    tree = SoftDecisionTree(depth, 3, **kwargs)
    tree.fit(x, y, epochs=12, verbose=0)
    return tree, x, y


@pytest.fixture(scope="module")
def trained():
    return _trained(depth=3, noise=0.0)


def _mixture(tree, x):
    """The prediction in plain numpy."""
    kernel, biases = (np.asarray(w.numpy(), "float64") for w in tree.splits.weights)
    centred = x.reshape(len(x), -1) - tree.center.numpy()
    p = 1 / (1 + np.exp(-tree.beta * (centred @ kernel + biases)))
    leaves = np.exp(10 * tree.phi.numpy().astype("float64"))
    leaves /= leaves.sum(axis=1, keepdims=True)
    prediction = 0
    for leaf in range(2**tree.depth):
        node, path = 0, 1.0
        for level in reversed(range(tree.depth)):
            right = (leaf >> level) & 1
            path = path * (p[:, node] if right else 1 - p[:, node])
            node = 2 * node + 1 + right
        prediction = prediction + path[:, None] * leaves[leaf]
    return prediction


def test_call_is_the_mixture_of_the_leaves_in_training_and_in_inference(trained):
    tree, x, _ = trained
    expected = _mixture(tree, x)
    np.testing.assert_allclose(tree(x), expected, atol=1e-5)
    np.testing.assert_allclose(tree.predict(x, verbose=0), expected, atol=1e-5)
    mass = tree.node_mass.numpy(), tree.right_mass.numpy()
    np.testing.assert_allclose(tree(x, training=True), expected, atol=1e-5)
    for variable, value in zip((tree.node_mass, tree.right_mass), mass, strict=True):
        variable.assign(value)


def test_beta_sharpens_the_splits():
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    soft, sharp = SoftDecisionTree(2, 3), SoftDecisionTree(2, 3, beta=4.0)
    soft(x), sharp(x)
    sharp.splits.set_weights(soft.splits.get_weights())
    np.testing.assert_allclose(sharp.node_logits(x), 4 * np.asarray(soft.node_logits(x)), rtol=1e-5)


def test_inputs_of_any_rank_are_flattened():
    x = np.random.default_rng(0).normal(size=(5, 2, 3, 2)).astype("float32")
    images, rows = SoftDecisionTree(2, 3), SoftDecisionTree(2, 3)
    images(x), rows(x.reshape(5, -1))
    rows.set_weights(images.get_weights())
    np.testing.assert_allclose(images(x), rows(x.reshape(5, -1)), rtol=1e-6)
    assert images.sample_shape == (2, 3, 2)
    assert images.anatomy().filters.shape == (3, 2, 3, 2)


def test_fit_learns_and_reports_loss_and_accuracy(trained):
    tree, x, y = trained
    assert (tree.predict(x, verbose=0).argmax(axis=1) == y).mean() > 0.98
    assert set(tree.history.history) == {"loss", "accuracy"}
    assert tree.history.history["accuracy"][-1] > 0.95


def test_labels_columns_and_one_hot_train_alike():
    x, y = _blobs(100)
    trees = []
    for targets in (y, y[:, None], np.eye(3)[y].astype("float32")):
        keras.utils.set_random_seed(0)
        trees.append(SoftDecisionTree(2, 3))
        trees[-1].fit(x, targets, epochs=2, verbose=0)
    for tree in trees[1:]:
        np.testing.assert_allclose(tree(x), trees[0](x), atol=1e-5)


@pytest.mark.parametrize("objective", ["mixture", "path"])
def test_the_reported_loss_is_the_objective(objective):
    x, y = _blobs(50)
    tree = SoftDecisionTree(2, 3, objective=objective)
    tree.compile()
    loss = tree.evaluate(x, y, batch_size=50, verbose=0)
    log_path = routing.log_path_probabilities(tree.node_logits(x))
    log_leaves = keras.ops.log_softmax(10 * tree.phi)
    expected = objectives.OBJECTIVES[objective](np.eye(3, dtype="float32")[y], log_path, log_leaves)
    assert loss == pytest.approx(float(np.mean(expected)), rel=1e-5)


def test_path_objective_brings_the_best_leaf_to_the_mixture():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype("float32")
    y = (x[:, 0] + rng.normal(size=300) > 0).astype(int)  # noisy: leaves have something to share
    gaps = {}
    for objective in ("mixture", "path"):
        keras.utils.set_random_seed(0)
        tree = SoftDecisionTree(3, 2, objective=objective)
        tree.fit(x, y, epochs=15, verbose=0)
        best = tree.predict(x, verbose=0, mode="best_leaf")
        gaps[objective] = np.abs(best - tree.predict(x, verbose=0)).mean()
    assert gaps["path"] < 0.7 * gaps["mixture"]


def test_penalty_is_added_to_the_loss_in_training_only():
    x, _ = _blobs(50)
    tree = SoftDecisionTree(2, 3, penalty=0.5)
    tree(x, training=True)
    assert float(tree.losses[0]) >= 0.5 * 2 * np.log(2) - 1e-4  # log 2 per level, when all splits are even
    tree(x)
    assert not tree.losses


def test_penalty_has_the_gradient_of_its_formula():
    import tensorflow as tf

    x, _ = _blobs(50)
    tree = SoftDecisionTree(1, 3, penalty=0.5, noise=0.0)
    tree.build((None, 4))
    tree.splits.bias.assign([2.0])
    with tf.GradientTape() as tape:
        tree(x, training=True)
        penalty = tree.losses[0]
    p = 1 / (1 + np.exp(-np.asarray(tree.node_logits(x), "float64")[:, 0]))
    share = p.mean()
    expected = -0.5 * 0.5 * (1 / share - 1 / (1 - share)) * (p * (1 - p)).mean()
    assert float(penalty) == pytest.approx(-0.25 * np.log(share * (1 - share)), rel=1e-4)
    assert float(tape.gradient(penalty, tree.splits.bias.value)[0]) == pytest.approx(expected, rel=1e-3)


def test_running_masses_are_those_of_the_training_samples():
    tree, x, _ = _trained(depth=3)
    nodes, _ = routing.reach_probabilities(tree.node_logits(x))
    np.testing.assert_allclose(tree.node_mass.numpy(), np.mean(nodes, axis=0), atol=0.12)
    for level in range(3):
        assert tree.node_mass.numpy()[2**level - 1 : 2 ** (level + 1) - 1].sum() == pytest.approx(1, abs=1e-4)


def test_first_update_of_the_running_means_by_hand():
    x, _ = _blobs(20)
    tree = SoftDecisionTree(2, 3, noise=0.0)
    tree(x)
    nodes, _ = (np.asarray(part) for part in routing.reach_probabilities(tree.node_logits(x)))
    tree(x, training=True)
    batch = nodes.mean(axis=0)
    expected = [batch[0], 0.5 * 0.5 + 0.5 * batch[1], 0.5 * 0.5 + 0.5 * batch[2]]  # windows of 1, 2 and 2 batches
    np.testing.assert_allclose(tree.node_mass.numpy(), expected, rtol=1e-5)


def test_a_fresh_tree_is_centred_once():
    x, y = _blobs(64)
    tree = SoftDecisionTree(2, 3)
    tree.build((None, 4))
    tree.fit(x, y, epochs=1, verbose=0)
    np.testing.assert_allclose(tree.center.numpy(), x.mean(axis=0), rtol=1e-5)
    tree.fit(x + 1, y, epochs=1, verbose=0)
    np.testing.assert_allclose(tree.center.numpy(), x.mean(axis=0), rtol=1e-5)
    anatomy = tree.anatomy()
    np.testing.assert_allclose(x @ anatomy.filters.T + anatomy.biases, tree.node_logits(x), atol=1e-5)


def test_noise_moves_the_samples_in_training_only():
    x, _ = _blobs(32)
    tree = SoftDecisionTree(2, 3, noise=0.5)
    tree(x)
    kernel = tree.splits.kernel.numpy()
    shift = np.asarray(tree.node_logits(np.tile(x, (50, 1)), training=True) - tree.node_logits(np.tile(x, (50, 1))))
    np.testing.assert_allclose(shift.std(axis=0), 0.5 * np.linalg.norm(kernel, axis=0), rtol=0.1)
    np.testing.assert_array_equal(tree.node_logits(x), tree.node_logits(x))


def test_compile_of_the_user_is_respected():
    x, y = _blobs(64)
    tree = SoftDecisionTree(2, 3)
    optimizer = keras.optimizers.SGD(0.25)
    tree.compile(optimizer, "sparse_categorical_crossentropy", metrics=["sparse_categorical_accuracy"])
    history = tree.fit(x, y, epochs=2, verbose=0)
    assert tree.optimizer is optimizer
    assert float(optimizer.learning_rate.numpy()) == 0.25
    assert set(history.history) == {"loss", "sparse_categorical_accuracy"}


def test_learning_rate_falls_along_a_cosine():
    x, y = _blobs(32)
    rates = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: rates.append(float(tree.optimizer.learning_rate.numpy()))
    )
    tree = SoftDecisionTree(2, 3)
    tree.fit(x, y, epochs=4, verbose=0, callbacks=[record])
    np.testing.assert_allclose(rates, 0.01 * (1 + np.cos(np.pi * np.arange(4) / 4)), rtol=1e-5)


def test_sample_weights_leave_samples_out():
    x, y = _blobs(200)
    wrong = np.where(y == 2, 0, y)
    tree = SoftDecisionTree(2, 3)
    keras.utils.set_random_seed(0)
    tree.fit(
        np.concatenate([x, x]),
        np.concatenate([y, wrong]),
        epochs=15,
        verbose=0,
        sample_weight=np.repeat([1.0, 0.0], 200),
    )
    assert (tree.predict(x, verbose=0).argmax(axis=1) == y).mean() > 0.95


def test_datasets_and_validation_data_work():
    import tensorflow as tf

    x, y = _blobs(64)
    tree = SoftDecisionTree(2, 3)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    history = tree.fit(batches, epochs=2, shuffle=False, verbose=0, validation_data=batches)
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    np.testing.assert_allclose(tree.predict(batches, verbose=0), tree.predict(x, verbose=0), atol=1e-6)
    leaves = tree.predict(batches, verbose=0, mode="greedy")
    np.testing.assert_allclose(leaves, tree.predict(x, verbose=0, mode="greedy"), atol=1e-6)


def test_leaf_modes_return_the_distribution_of_one_leaf(trained):
    tree, x, _ = trained
    logits = np.asarray(tree.node_logits(x))
    leaves = tree.anatomy().leaves
    for mode, leaf in (("best_leaf", routing.best_leaf(logits)), ("greedy", routing.greedy_leaf(logits))):
        np.testing.assert_allclose(tree.predict(x, verbose=0, mode=mode), leaves[np.asarray(leaf)], atol=1e-6)
    np.testing.assert_allclose(
        tree.predict(x, 16, 0), _mixture(tree, x), atol=1e-5
    )  # Keras' positions, and no mode left


def test_unknown_mode_is_refused_with_the_options(trained):
    tree, x, _ = trained
    with pytest.raises(ValueError, match=r"'mixture', 'best_leaf', 'greedy'.*Received: 'leaf'"):
        tree.predict(x, mode="leaf")


def test_saved_tree_predicts_explains_and_learns_on(tmp_path):
    tree, x, y = _trained()
    path = tmp_path / "tree.keras"
    tree.save(path)
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), tree.predict(x, verbose=0))
    np.testing.assert_array_equal(loaded.feature_importances_, tree.feature_importances_)
    assert loaded.get_config() == tree.get_config()
    assert loaded.export_text() == tree.export_text()
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(tree.evaluate(x, y, verbose=0), rel=1e-5)
    history = loaded.fit(x, y, epochs=3, verbose=0)
    assert history.history["loss"][-1] < tree.history.history["loss"][0]
    assert float(loaded.optimizer.learning_rate.numpy()) == pytest.approx(0.01 * (1 + np.cos(2 * np.pi / 3)), rel=1e-5)


def test_saved_compile_of_the_user_comes_back(tmp_path):
    x, y = _blobs(32)
    tree = SoftDecisionTree(2, 3, penalty=0.05, noise=0.2, objective="path", beta=2.0, name="mine")
    tree.compile(keras.optimizers.SGD(0.25), metrics=["accuracy"])
    tree.fit(x, y, epochs=1, verbose=0)
    tree.save(tmp_path / "tree.keras")
    loaded = kdkeras.load_model(tmp_path / "tree.keras")
    assert isinstance(loaded.optimizer, keras.optimizers.SGD)
    loaded.fit(x, y, epochs=1, verbose=0)
    assert float(loaded.optimizer.learning_rate.numpy()) == 0.25
    assert (loaded.penalty, loaded.noise, loaded.objective, loaded.beta) == (0.05, 0.2, "path", 2.0)
    assert loaded.name == "mine"


def test_the_head_gives_exact_logits_to_losses_and_teachers(trained):
    tree, x, _ = trained
    logits = signals.predict_logits(tree, x)
    np.testing.assert_allclose(np.exp(logits), tree.predict(x, verbose=0), atol=1e-5)


def test_tree_is_a_student_of_the_distiller():
    x, y = _blobs(64)
    teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    tree = SoftDecisionTree(2, 3)
    tree.build((None, 4))
    distiller = kdkeras.Distiller(student=tree, teacher=teacher)
    distiller.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    history = distiller.fit(x, y, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_tree_converts_to_integers(trained, tmp_path):
    tree, x, _ = trained
    exported = kdkeras.export.tflite(tree, tmp_path / "tree.tflite", quantize="int8", calibration=x)
    assert (tmp_path / "tree.tflite").exists()
    assert exported.agreement >= 0.95
    assert exported.float_tensors == 0


def test_evaluation_table_counts_the_splits_and_the_mixture():
    x, y = _blobs(60)
    tree = SoftDecisionTree(2, 3)
    tree(x)
    table = kdkeras.evaluate.compare(tree, tree, (x, y), latency=False)
    assert table.rows[0].cost.macs == 3 * 4 + 4 * 3


def test_mixed_precision_keeps_the_routing_in_float32():
    x, y = _blobs(64)
    tree = SoftDecisionTree(2, 3, dtype="mixed_bfloat16")
    tree.fit(x, y, epochs=2, verbose=0)
    assert tree(x).dtype == "float32"
    np.testing.assert_allclose(tree.predict(x, verbose=0), _mixture(tree, x), atol=0.1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"depth": 0}, ValueError, "depth in 1…12. Received: 0"),
        ({"depth": 13}, ValueError, "depth in 1…12. Received: 13"),
        ({"depth": 2.5}, TypeError, "integer depth. Received: 2.5"),
        ({"num_classes": 1}, ValueError, "num_classes of at least 2. Received: 1"),
        ({"penalty": -1}, ValueError, "penalty of at least 0. Received: -1"),
        ({"noise": 2}, ValueError, "noise in 0…1. Received: 2"),
        ({"beta": 0}, ValueError, r"beta above 0, or 'learned'. Received: 0"),
        ({"objective": "log"}, ValueError, "Received: 'log'"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        SoftDecisionTree(**arguments)


def _with_nan():
    x, y = _blobs(8)
    x[2, 1] = np.nan
    return x, y


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_with_nan(), "x contains 1 NaN or infinite values of 32"),
        ((np.zeros((0, 4)), np.zeros(0)), "no samples"),
        ((np.zeros((8, 5)), np.zeros(8)), r"samples of shape \(4,\). Received: x of shape \(8, 5\)"),
        ((np.zeros(4), np.zeros(4)), "Add a batch axis"),
        ((np.zeros((8, 4)), np.zeros(7)), "same number of samples. Received: 8 and 7"),
        ((np.zeros((8, 4)), np.full(8, 3)), "whole numbers in 0…2"),
        ((np.zeros((8, 4)), np.full(8, 0.5)), "whole numbers in 0…2"),
        ((np.zeros((8, 4)), np.ones((8, 4))), r"y must have shape \(8, 3\)"),
        ((np.zeros((8, 4)), np.ones((8, 3))), "rows sum to 1. Received: row sums from 3 to 3"),
    ],
)
def test_bad_data_is_refused_before_training(data, message):
    tree = SoftDecisionTree(2, 3)
    tree.build((None, 4))
    with pytest.raises(ValueError, match=message):
        tree.fit(*data, epochs=1, verbose=0)


def test_samples_and_targets_that_are_no_numbers_are_refused():
    with pytest.raises(TypeError, match="takes numbers"):
        SoftDecisionTree(2, 3).fit(np.array([["a"]]), np.zeros(1))
    with pytest.raises(TypeError, match="class numbers or class probabilities"):
        SoftDecisionTree(2, 3).fit(np.zeros((2, 3)))


def test_a_shape_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="samples of a known shape"):
        SoftDecisionTree(2, 3).build((None, None))
