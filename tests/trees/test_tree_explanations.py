"""Why one sample ended where it did, and the hard tree that imitates a soft one."""

import keras
import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

import kdkeras
from kdkeras.trees import SoftDecisionTree


def hand_set(kernel, biases, leaf_logits, center=0.0):
    """Return a tree whose splits and leaves are given: kernel (features, splits)."""
    kernel = np.asarray(kernel, "float32")
    depth = kernel.shape[1].bit_length()
    tree = SoftDecisionTree(depth, len(leaf_logits[0]))
    tree.build((None, kernel.shape[0]))
    tree.splits.set_weights([kernel, np.asarray(biases, "float32")])
    tree.phi.assign(np.asarray(leaf_logits) / 10)
    tree.center.assign(np.full(kernel.shape[0], center, "float32"))
    return tree


@pytest.fixture(scope="module")
def known():
    # z0 = 2a - b - 1; left: z1 = b; right: z2 = a + b - 3. The data's center must cancel out of the explanation.
    kernel = np.array([[2.0, 0.0, 1.0], [-1.0, 1.0, 1.0]])
    center = 0.5
    biases = np.array([-1.0, 0.0, -3.0]) + center * kernel.sum(axis=0)
    return hand_set(kernel, biases, np.log([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]), center)


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_contributions_by_hand(known):
    explanation = known.explain_sample([3.0, 1.0])
    first, second = explanation.steps
    assert (first.node, first.right, second.node, second.right) == (0, True, 2, True)
    np.testing.assert_allclose(first.contributions, [6.0, -1.0], rtol=1e-6)
    np.testing.assert_allclose([first.threshold, first.score], [1.0, 4.0], rtol=1e-5)
    np.testing.assert_allclose([first.probability, second.probability], [_sigmoid(4.0), _sigmoid(1.0)], rtol=1e-5)
    assert explanation.path_probability == pytest.approx(_sigmoid(4.0) * _sigmoid(1.0), rel=1e-5)
    assert (explanation.leaf, explanation.class_index) == (3, 1)
    assert explanation.probability == pytest.approx(0.7, rel=1e-5)
    np.testing.assert_allclose(explanation.mixture, known.predict(np.array([[3.0, 1.0]]), verbose=0)[0], atol=1e-6)


def test_words_by_hand(known):
    text = str(known.explain_sample([3.0, 1.0], feature_names=["a", 'b"'], class_names=["no", "yes"], max_features=1))
    assert text.splitlines()[:3] == [
        "Split 0 leads right with probability 0.98: the sum 5.00 is above the threshold 1.00.",
        "    +6.00  a = 3 (weight 2.00)",
        "    -1.00  the other feature",
    ]
    assert text.splitlines()[-2] == "Leaf 3: class yes, probability 0.70. The sample reaches it with probability 0.72."
    assert text.splitlines()[-1].startswith("All leaves together: class yes, probability 0.")
    whole = str(known.explain_sample([3.0, 1.0], feature_names=["a", 'b"'], max_features=9))
    assert "other feature" not in whole
    assert '    -1.00  b" = 1 (weight -1.00)' in whole


def test_a_turn_against_the_likelier_side_is_said():
    # Slightly right at the root, but a coin below it; left is sure: the best leaf is on the less likely side.
    tree = hand_set([[0.1, 9.0, 0.0]], [0.0, 0.0, 0.0], np.log([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]))
    explanation = tree.explain_sample([1.0])
    assert not explanation.steps[0].right
    assert explanation.steps[0].score > 0
    assert "leads left with probability 0.48: the sum 0.10 is above the threshold" in str(explanation)
    assert "(right is likelier, but the best leaf lies here)" in str(explanation)


def test_images_are_explained_pixel_by_pixel():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).uniform(size=(30, 4, 5, 1)).astype("float32")
    tree = SoftDecisionTree(3, 2)
    tree.fit(x, np.arange(30) % 2, epochs=2, verbose=0)
    explanation = tree.explain_sample(x[0])
    logits = np.asarray(tree.node_logits(x[:1]))[0]
    for step in explanation.steps:
        assert step.contributions.shape == (4, 5, 1)
        assert step.score == pytest.approx(logits[step.node], abs=1e-5)
        assert step.contributions.sum() - step.threshold == pytest.approx(step.score)
    assert explanation.leaf == tree.decision_path(x[:1]).leaf[0]


def test_saving_keeps_the_explanation(known, tmp_path):
    known.save(tmp_path / "tree.keras")
    assert str(kdkeras.load_model(tmp_path / "tree.keras").explain_sample([3.0, 1.0])) == str(
        known.explain_sample([3.0, 1.0])
    )


def test_a_hard_tree_of_axis_aligned_splits_is_exact():
    tree = hand_set([[30.0, 0.0, 0.0], [0.0, 30.0, 30.0]], [0.0, 0.0, 0.0], 9 * np.eye(4))
    x = np.random.default_rng(0).uniform(-1, 1, size=(400, 2))
    hard = tree.to_hard_tree(x[:300], x_test=x[300:])
    assert isinstance(hard.model, DecisionTreeClassifier)
    assert hard.model.get_depth() == 2
    assert hard.fidelity == 1
    assert hard.test_fidelity > 0.95
    np.testing.assert_allclose(hard.model.tree_.threshold[[0]], 0, atol=0.02)
    assert str(hard).startswith("Hard tree of depth 2 with 4 leaves: names the soft tree's class for 100.0% of the 300")


def test_the_fidelity_of_an_oblique_tree_is_told_as_it_is():
    tree = hand_set([[30.0], [30.0]], [0.0], 9 * np.eye(2))  # the class of a + b > 0, which no axis splits
    x = np.random.default_rng(0).uniform(-1, 1, size=(384, 2))  # whole batches of 32: one compilation each
    for mode in ("mixture", "greedy"):
        hard = tree.to_hard_tree(x[:192], max_depth=2, x_test=x[192:], mode=mode)
        agreement = hard.model.predict(x[192:]) == tree.predict(x[192:], verbose=0, mode=mode).argmax(axis=1)
        assert hard.test_fidelity == agreement.mean() < 1
    deep = tree.to_hard_tree(x[:192], max_depth=20, x_test=x[192:])
    assert deep.fidelity == 1 > deep.test_fidelity  # memorised, which only unseen samples show
    one = tree.to_hard_tree(x[:1])
    assert (one.fidelity, one.test_fidelity, one.model.get_n_leaves()) == (1.0, None, 1)


def test_what_does_not_fit_is_refused(known):
    with pytest.raises(ValueError, match=r"x\[None\] of shape \(1, 3\)"):
        known.explain_sample([1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="takes numbers"):
        known.explain_sample(["a", "b"])
    with pytest.raises(ValueError, match="NaN"):
        known.explain_sample([1.0, np.nan])
    with pytest.raises(ValueError, match="max_features"):
        known.explain_sample([1.0, 2.0], max_features=0)
    with pytest.raises(ValueError, match=r"`class_names` needs 2 names"):
        known.explain_sample([1.0, 2.0], class_names=["a"])
    for depth in (0, True, 1.5):
        with pytest.raises(ValueError, match="`max_depth` must be a whole number of at least 1"):
            known.to_hard_tree(np.zeros((2, 2)), depth)
    with pytest.raises(ValueError, match="`mode` must be one of"):
        known.to_hard_tree(np.zeros((2, 2)), mode="soft")
    with pytest.raises(ValueError, match=r"x_test of shape \(2, 3\)"):
        known.to_hard_tree(np.zeros((2, 2)), x_test=np.zeros((2, 3)))
    unbuilt = SoftDecisionTree(2, 3)
    for ask in (unbuilt.explain_sample, unbuilt.to_hard_tree, unbuilt.counterfactual):
        with pytest.raises(ValueError, match="Call `fit` or `distill` first"):
            ask(np.zeros((1, 4)))
