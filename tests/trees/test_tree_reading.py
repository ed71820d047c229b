import io

import keras
import numpy as np
import pytest

from kdkeras.trees import SoftDecisionTree, routing
from kdkeras.trees.anatomy import Anatomy, importances


def _tree(depth=3, shape=(4,), classes=3):
    keras.utils.set_random_seed(0)
    tree = SoftDecisionTree(depth, classes)
    x = np.random.default_rng(0).normal(size=(60, *shape)).astype("float32")
    tree.fit(x, np.arange(60) % classes, epochs=2, verbose=0)
    return tree, x


@pytest.fixture(scope="module")
def tabular():
    return _tree()


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    return buffer.getvalue()


def test_decision_path_is_the_way_to_the_best_leaf(tabular):
    tree, x = tabular
    path = tree.decision_path(x)
    log_path = np.asarray(routing.log_path_probabilities(tree.node_logits(x)))
    np.testing.assert_array_equal(path.leaf, log_path.argmax(axis=1))
    np.testing.assert_allclose(path.path_probability, np.exp(log_path.max(axis=1)), rtol=1e-5)
    np.testing.assert_allclose(path.probabilities.prod(axis=1), path.path_probability, rtol=1e-5)
    np.testing.assert_allclose(path.leaf_distribution, tree.predict(x, verbose=0, mode="best_leaf"), atol=1e-6)


def test_decision_path_gives_the_probability_of_the_turn_taken(tabular):
    tree, x = tabular
    path = tree.decision_path(x)
    right = 1 / (1 + np.exp(-np.asarray(tree.node_logits(x), "float64")))
    for sample in range(len(x)):
        p = right[sample, path.nodes[sample]]
        np.testing.assert_allclose(path.probabilities[sample], np.where(path.right[sample], p, 1 - p), rtol=1e-4)


def test_masses_of_the_leaves_sum_to_one(tabular):
    anatomy = tabular[0].anatomy()
    assert anatomy.leaf_mass.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(anatomy.leaf_mass.reshape(-1, 2).sum(axis=1), anatomy.node_mass[3:], atol=1e-6)


def test_importances_find_the_feature_that_decides():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(400, 5)).astype("float32")
    tree = SoftDecisionTree(2, 2)
    tree.fit(x, (x[:, 3] > 0).astype(int), epochs=15, verbose=0)
    assert tree.feature_importances_.sum() == pytest.approx(1)
    assert tree.feature_importances_.argmax() == 3
    assert tree.feature_importances_.shape == (5,)


def test_importances_weigh_splits_by_mass():
    filters = np.array([[2.0, 0.0], [0.0, 5.0], [-3.0, 3.0]])
    parts = Anatomy(filters, np.zeros(3), np.zeros((4, 2)), np.array([1.0, 0.8, 0.2]), np.zeros(4))
    np.testing.assert_allclose(importances(parts), [1.1 / 2, 0.9 / 2])


def test_importances_of_images_have_the_shape_of_an_image():
    tree, _ = _tree(shape=(4, 5, 1))
    assert tree.feature_importances_.shape == (4, 5, 1)
    assert tree.feature_importances_.sum() == pytest.approx(1)


def test_text_has_a_line_per_branch_and_the_names(tabular):
    tree, _ = tabular
    names = ["height", "weight", "age", "dose"]
    lines = tree.export_text(names, ["low", "middle", "high"], max_features=2).splitlines()
    assert len(lines) == 2 + 7 + 8
    heaviest = np.abs(tree.anatomy().filters[0]).argmax()
    assert lines[2].startswith("split 0 [100%]: score = ")
    assert f"*{names[heaviest]}" in lines[2].split(" + ")[0].split(" - ")[0]
    assert lines[2].count("*") == 2
    assert "..." in lines[2]
    leaves = [line for line in lines if "leaf" in line]
    assert len(leaves) == 8
    best = tree.anatomy().leaves[0].argmax()
    assert f"class {['low', 'middle', 'high'][best]}, probability {tree.anatomy().leaves[0].max():.2f}" in leaves[0]


def test_text_without_names_shows_positions(tabular):
    text = tabular[0].export_text(max_features=9)
    assert "*x[0]" in text
    assert "..." not in text


@pytest.mark.parametrize("shape", [(4,), (6, 7), (6, 7, 1), (5, 5, 3), (9, 1)])
def test_pictures_of_all_kinds_of_samples(shape):
    tree, x = _tree(depth=2, shape=shape)
    plain, path = tree.plot(), tree.plot(x[0], class_names=["a", "b", "c"])
    assert _png(plain)[:4] == b"\x89PNG"
    assert _png(path)[:4] == b"\x89PNG"
    assert len(path.axes) > len(plain.axes)
    titles = " ".join(axes.get_title() for axes in path.axes)
    best = "abc"[tree.decision_path(x[:1]).leaf_distribution[0].argmax()]
    assert f"leaf {tree.decision_path(x[:1]).leaf[0]}\n{best}" in titles


def test_picture_of_a_deep_tree_draws_its_upper_levels_and_the_whole_path():
    tree, x = _tree(depth=6, shape=(8, 8, 1))
    figure = tree.plot(x[0])
    # canvas, 15 splits, 16 subtrees; sample, two pictures per split of the path, leaf
    assert len(figure.axes) == 1 + 15 + 16 + 1 + 2 * 6 + 1
    assert len(tree.plot(max_depth=2).axes) == 1 + 3 + 4
    for node in tree.decision_path(x[:1]).nodes[0]:
        assert any(axes.get_title().startswith(f"split {node}\n") for axes in figure.axes)


def test_a_tree_that_saw_no_data_cannot_be_read():
    tree = SoftDecisionTree(2, 3)
    for read in (tree.anatomy, tree.export_text, tree.plot, lambda: tree.decision_path(np.zeros((1, 4)))):
        with pytest.raises(ValueError, match="Call `fit` or `distill` first"):
            read()
    with pytest.raises(ValueError, match="Call `fit` or `distill` first"):
        tree.predict(np.zeros((1, 4)), mode="greedy")


def test_misfits_are_refused(tabular):
    tree, x = tabular
    with pytest.raises(ValueError, match=r"`feature_names` needs 4 names. Received: 1"):
        tree.export_text(["one"])
    with pytest.raises(ValueError, match=r"`class_names` needs 3 names. Received: 2"):
        tree.plot(class_names=["a", "b"])
    with pytest.raises(ValueError, match="max_features"):
        tree.export_text(max_features=0)
    with pytest.raises(ValueError, match="max_depth"):
        tree.plot(max_depth=6)
    with pytest.raises(ValueError, match=r"sample of shape \(1, 60, 4\)"):
        tree.plot(x)
    with pytest.raises(ValueError, match=r"x of shape \(60, 3\)"):
        tree.decision_path(x[:, :3])
