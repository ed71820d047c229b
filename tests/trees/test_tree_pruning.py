"""Subtrees shown as one leaf, rules and DOT text: on trees whose true answers are known."""

import re

import keras
import numpy as np
import pytest

import kdkeras
from kdkeras.trees import SoftDecisionTree
from kdkeras.trees.anatomy import Anatomy
from kdkeras.trees.dot import dot_source
from kdkeras.trees.pruning import subtrees
from kdkeras.trees.rule_list import list_rules

LEAVES = np.array([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4], [0.0, 1.0]])
FILTERS = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, -3.0]])
# right at x0 > 0.5; below left: right at x1 > 0; below right: right at x1 < 1
KNOWN = Anatomy(FILTERS, np.array([-0.5, 0.0, 3.0]), LEAVES, np.array([1, 0.4, 0.6]), np.array([0.2, 0.2, 0.01, 0.59]))
QUOTED = ['the "true" size', "path C:\\new & <b>\nold"]


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(3)
    x = np.random.default_rng(3).normal(size=(300, 4)).astype("float32")
    y = (x[:, 0] > 0).astype(int) + (x[:, 0] > 0) * (x[:, 1] > 0)
    tree = SoftDecisionTree(4, 3, beta=3.0)
    tree.fit(x, y, epochs=8, verbose=0)
    return tree, x


def test_nothing_is_merged_unless_asked():
    below = subtrees(KNOWN)
    assert below.shown() == [0, 1, 3, 4, 2, 5, 6]
    np.testing.assert_array_equal(below.values[3:], LEAVES)
    np.testing.assert_allclose(below.values[0], KNOWN.leaf_mass @ LEAVES, atol=1e-7)


def test_leaves_of_one_class_become_their_mean():
    below = subtrees(KNOWN, 0)
    assert below.shown() == [0, 1, 2, 5, 6]
    np.testing.assert_allclose(below.values[1], [0.8, 0.2])
    assert below.leaves_below(1) == (0, 1)
    assert below.leaves_below(6) == (3, 3)


def test_a_light_leaf_is_merged_where_the_heavy_one_keeps_its_class():
    assert subtrees(KNOWN, 0.01).shown() == [0, 1, 2, 5, 6]  # not below 0.01
    below = subtrees(KNOWN, 0.02)
    assert below.shown() == [0, 1, 2]
    np.testing.assert_allclose(below.values[2], (0.01 * LEAVES[2] + 0.59 * LEAVES[3]) / 0.6, atol=1e-6)
    close = KNOWN._replace(leaves=np.array([[0.9, 0.1], [0.7, 0.3], [1.0, 0.0], [0.49, 0.51]]))
    close = close._replace(leaf_mass=np.array([0.2, 0.2, 0.2, 0.4]))
    assert not subtrees(close, 0.3).closed[2]  # the mean would name the light leaf's class


def test_a_tree_of_one_class_is_one_leaf():
    same = KNOWN._replace(leaves=LEAVES[[0, 1, 2, 0]])
    (rule,) = list_rules(same, min_mass=0)
    assert rule.conditions == ()
    assert rule.leaves == (0, 3)
    assert str(rule).startswith("always class 0, probability 0.")
    assert rule.holds(np.zeros((3, 2))).tolist() == [True] * 3
    assert "->" not in dot_source(same, min_mass=0)


def test_masses_and_classes_survive_merging(trained):
    tree, x = trained
    greedy = tree.predict(x, verbose=0, mode="greedy").argmax(axis=1)
    assert len(tree.to_rules(min_mass=0)) < len(tree.to_rules()) == 16
    for min_mass in (None, 0):
        rules = tree.to_rules(min_mass=min_mass)
        held = np.array([rule.holds(x) for rule in rules])
        np.testing.assert_array_equal(held.sum(axis=0), 1)
        np.testing.assert_array_equal(np.array([rule.class_index for rule in rules])[held.argmax(axis=0)], greedy)
        assert sum(rule.mass for rule in rules) == pytest.approx(1, abs=1e-5)


def test_rules_by_hand():
    rules = list_rules(KNOWN, feature_names=["age", "dose"], class_names=["no", "yes"], max_features=1)
    assert [rule.leaves for rule in rules] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert str(rules[3]).splitlines() == [
        "if 1.00*age + ... > 0.50 (split 0)",
        "and -3.00*dose + ... > -3.00 (split 2)",
        "then class yes, probability 1.00 (leaf 3, 59% of the training samples)",
    ]
    assert [condition.direction for condition in rules[2].conditions] == ["right", "left"]
    assert rules[2].conditions[1].threshold == -3.0
    np.testing.assert_array_equal(rules[2].conditions[1].weights, FILTERS[2])
    x = np.array([[0.6, 0.9], [0.6, 1.1], [0.4, 0.1], [0.5, -0.1]])
    assert [int(np.argmax([rule.holds(x)[i] for rule in rules])) for i in range(4)] == [3, 2, 1, 0]
    assert rules[0].holds(x[3:]).tolist() == [True]  # a batch of one


def test_merged_leaves_are_named_in_text_and_picture(trained):
    tree, x = trained
    text = tree.export_text(min_mass=0)
    assert "leaves " in text
    assert len(text.splitlines()) == 2 + 2 * len(tree.to_rules(min_mass=0)) - 1
    below = subtrees(tree.anatomy(), 0)
    # canvas and every node shown; with a sample: the four splits of its path, and its leaf (the sample itself is text)
    assert len(tree.plot(max_depth=5, min_mass=0).axes) == 1 + len(below.shown())
    assert len(tree.plot(x[0], max_depth=5, min_mass=0).axes) == 1 + len(below.shown()) + 5
    assert tree.export_text(min_mass=None) == tree.export_text()


def _parse(source):
    """Return DOT's quoted strings unescaped, with nodes and edges; fails where a quote or brace is left over."""
    strings = []

    def take(match):
        strings.append(match[0][1:-1])
        return f"S{len(strings) - 1}"

    bare = re.sub(r'"(?:[^"\\]|\\.)*"', take, source)
    assert '"' not in bare
    assert "\\" not in bare
    assert re.fullmatch(r"digraph tree \{\n(  [\w ->]+( \[[\w=.,# ]+\])?;\n)*\}", bare), bare
    nodes = dict(re.findall(r"^  (\d+) \[label=S(\d+)", bare, re.MULTILINE))
    labels = {int(node): strings[int(label)] for node, label in nodes.items()}
    edges = [(int(a), int(b)) for a, b in re.findall(r"^  (\d+) -> (\d+) ", bare, re.MULTILINE)]
    return labels, edges


def test_dot_has_every_node_and_edge(trained):
    labels, edges = _parse(trained[0].to_graphviz())
    assert sorted(labels) == list(range(31))
    assert edges == sorted(edges, key=edges.index)
    assert sorted(child for _, child in edges) == list(range(1, 31))
    assert all(parent == (child - 1) // 2 for parent, child in edges)
    merged, _ = _parse(trained[0].to_graphviz(min_mass=0))
    assert len(merged) == 2 * len(trained[0].to_rules(min_mass=0)) - 1


def test_dot_escapes_names():
    labels, _ = _parse(dot_source(KNOWN, feature_names=QUOTED, class_names=['"', "a\\Nb"], max_features=2))
    assert 'the \\"true\\" size' in labels[0]
    assert "path C:\\\\new &amp; <b> old" in labels[0]
    assert labels[3].startswith('\\"\\np 0.90\\nleaf 0 · 20%')
    assert labels[6].startswith("a\\\\Nb\\n")


def test_dot_marks_the_path_of_a_sample(trained):
    tree, x = trained
    source = tree.to_graphviz(x[5])
    _parse(source)
    path = tree.decision_path(x[5:6])
    marked = re.findall(r'^  (\d+) \[.*"#d98200"', source, re.MULTILINE)
    assert [int(node) for node in marked] == [*path.nodes[0], 15 + path.leaf[0]]
    for probability, right in zip(path.probabilities[0], path.right[0], strict=True):
        assert f'label="{"right" if right else "left"} {probability:.2f}"' in source
    assert "#d98200" not in tree.to_graphviz()


def test_images_and_names_with_quotes_in_every_text():
    keras.utils.set_random_seed(0)
    tree = SoftDecisionTree(2, 2)
    x = np.random.default_rng(0).uniform(size=(20, 4, 4, 1)).astype("float32")
    tree.fit(x, np.arange(20) % 2, epochs=1, verbose=0)
    labels, _ = _parse(tree.to_graphviz(x[0], class_names=['"a"', "b"]))
    assert "x[" in labels[0]
    rules = tree.to_rules(class_names=['"a"', "b"])
    assert rules[0].conditions[0].weights.shape == (4, 4, 1)
    assert np.array([rule.holds(x[:1]) for rule in rules]).sum() == 1


def test_saving_keeps_rules_and_text(trained, tmp_path):
    tree, _ = trained
    tree.save(tmp_path / "tree.keras")
    again = kdkeras.load_model(tmp_path / "tree.keras")
    assert again.to_graphviz(min_mass=0.01) == tree.to_graphviz(min_mass=0.01)
    assert [str(rule) for rule in again.to_rules()] == [str(rule) for rule in tree.to_rules()]


def test_what_does_not_fit_is_refused(trained):
    tree, x = trained
    for read in (tree.export_text, tree.to_rules, tree.to_graphviz, tree.plot):
        with pytest.raises(ValueError, match=r"`min_mass` must be a share in 0…1"):
            read(min_mass=2)
    for read in (tree.to_rules, tree.to_graphviz):
        with pytest.raises(ValueError, match="max_features"):
            read(max_features=0)
        with pytest.raises(ValueError, match=r"`feature_names` needs 4 names"):
            read(feature_names=["a"])
    with pytest.raises(ValueError, match=r"sample of shape \(1, 3\)"):
        tree.to_graphviz(x[0, :3])
    with pytest.raises(ValueError, match=r"x of shape \(300, 3\)"):
        tree.to_rules()[0].holds(x[:, :3])
    for read in (SoftDecisionTree(2, 3).to_rules, SoftDecisionTree(2, 3).to_graphviz):
        with pytest.raises(ValueError, match="Call `fit` or `distill` first"):
            read()
