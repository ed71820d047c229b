import keras
import numpy as np
import pytest

import kdkeras
from kdkeras.trees import SoftRegressionTree, objectives, routing


def _data(n=300):
    x = np.random.default_rng(0).normal(size=(n, 3)).astype("float32")
    return x, np.stack([np.sign(x[:, 0]), np.tanh(2 * x[:, 1])], axis=1).astype("float32")


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    x, y = _data()
    tree = SoftRegressionTree(3, 2, penalty=0.01, noise=0.0)
    tree.fit(x, y, epochs=40, verbose=0)
    return tree, x, y


def test_it_learns_means_and_predicts_their_mixture(trained):
    tree, x, y = trained
    predicted = tree.predict(x, verbose=0)
    assert ((predicted - y) ** 2).mean() < 0.1 * y.var()
    _, leaves = routing.reach_probabilities(tree.node_logits(x))
    np.testing.assert_allclose(predicted, np.asarray(leaves) @ tree.phi.numpy(), atol=1e-5)
    best = np.asarray(routing.best_leaf(tree.node_logits(x)))
    np.testing.assert_allclose(tree.predict(x, verbose=0, mode="best_leaf"), tree.anatomy().leaves[best], atol=1e-6)
    assert set(tree.history.history) == {"loss"}


@pytest.mark.parametrize("objective", ["mixture", "path"])
def test_the_reported_loss_is_the_squared_error(objective):
    x, y = _data(50)
    tree = SoftRegressionTree(2, 2, objective=objective)
    tree.compile()
    loss = tree.evaluate(x, y, batch_size=50, verbose=0)
    log_path = np.asarray(routing.log_path_probabilities(tree.node_logits(x)), "float64")
    means = tree.phi.numpy()
    mixture = ((y - np.exp(log_path) @ means) ** 2).mean()
    path = (np.exp(log_path) * ((y[:, None] - means) ** 2).mean(axis=2)).sum(axis=1).mean()
    assert loss == pytest.approx(mixture if objective == "mixture" else path, rel=1e-5)


def test_squared_errors_match_numpy():
    rng = np.random.default_rng(0)
    path, means, targets = rng.dirichlet(np.ones(4), size=5), rng.normal(size=(4, 2)), rng.normal(size=(5, 2))
    mixture = objectives.mixture_squared_error(targets, np.log(path), means)
    single = objectives.path_squared_error(targets, np.log(path), means)
    np.testing.assert_allclose(mixture, ((targets - path @ means) ** 2).mean(axis=1), rtol=1e-6)
    assert (np.asarray(single) >= np.asarray(mixture)).all()  # Jensen


def test_one_target_may_be_a_flat_array_and_a_teacher_may_be_a_function(trained):
    x, y = _data()
    keras.utils.set_random_seed(0)
    tree = SoftRegressionTree(2, penalty=0.01).distill(lambda x: np.sign(x[:, 0]), x, epochs=15, verbose=0)
    assert tree.predict(x, verbose=0).shape == (300, 1)
    assert np.corrcoef(tree.predict(x, verbose=0)[:, 0], y[:, 0])[0, 1] > 0.85


def test_a_model_teaches_values():
    x, _ = _data(20)
    teacher = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    tree = SoftRegressionTree(1, 2)
    targets = tree.leaves.teacher_targets(teacher, x, 1.0)
    np.testing.assert_allclose(targets, teacher.predict(x, verbose=0), rtol=1e-6)
    with pytest.raises(ValueError, match="Values have no temperature"):
        tree.distill(teacher, x, temperature=2.0)


def test_everything_that_needs_no_class_can_be_read(trained):
    tree, x, _ = trained
    names = {"feature_names": ["a", "b", "c"], "class_names": ["step", "curve"]}
    assert "means step = " in tree.export_text(**names)
    rules = tree.to_rules(**names)
    held = np.stack([rule.holds(x) for rule in rules])  # (rules, n)
    np.testing.assert_array_equal(held.sum(axis=0), 1)
    greedy = tree.predict(x, verbose=0, mode="greedy")
    np.testing.assert_allclose(np.stack([rule.distribution for rule in rules])[held.argmax(axis=0)], greedy, atol=1e-5)
    assert rules[0].class_index == -1
    assert "curve = " in tree.to_graphviz(x[0], **names)
    explanation = tree.explain_sample(x[0], **names)
    assert "All leaves together: means step = " in str(explanation)
    np.testing.assert_allclose(explanation.mixture, tree.predict(x[:1], verbose=0)[0], atol=1e-5)
    assert tree.decision_path(x).leaf_distribution.shape == (300, 2)
    assert tree.feature_importances_.argmin() == 2  # the target does not depend on it
    hard = tree.to_hard_tree(x, x_test=x[:50])
    difference = ((hard.model.predict(x) - tree.predict(x, verbose=0)) ** 2).mean(axis=0)
    assert hard.fidelity == pytest.approx((1 - difference / tree.predict(x, verbose=0).var(axis=0)).mean(), abs=1e-4)
    assert "R²" in str(hard)


def test_what_needs_a_class_is_refused(trained):
    tree, x, _ = trained
    for ask in (lambda: tree.counterfactual(x[0]), lambda: tree.plot(), lambda: tree.export_text(min_mass=0.1)):
        with pytest.raises(ValueError, match=r"needs leaves that name a class. Received: a regression tree"):
            ask()


def test_it_is_saved_and_goes_on(trained, tmp_path):
    tree, x, y = trained
    tree.save(tmp_path / "tree.keras")
    loaded = kdkeras.load_model(tmp_path / "tree.keras")
    assert isinstance(loaded, SoftRegressionTree)
    assert loaded.get_config() == tree.get_config()
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), tree.predict(x, verbose=0))
    loaded.fit(x, y, epochs=1, verbose=0)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros((10, 3)), r"y must have shape \(10, 2\).*Received: \(10, 3\)"),
        (np.full((10, 2), np.nan), "NaN"),
    ],
)
def test_targets_that_do_not_fit_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        SoftRegressionTree(2, 2).fit(np.zeros((10, 3)), y)


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"num_targets of at least 1. Received: 0"):
        SoftRegressionTree(2, 0)
    with pytest.raises(TypeError, match="numbers as targets"):
        SoftRegressionTree(2).fit(np.zeros((2, 3)))
