import numpy as np
import pytest

from kdkeras.trees import objectives, routing


def _by_hand(logits, depth):
    """Leaf probabilities of one sample, walking node by node."""
    leaves = []
    for leaf in range(2**depth):
        node, probability = 0, 1.0
        for level in reversed(range(depth)):
            right = (leaf >> level) & 1
            p = 1 / (1 + np.exp(-logits[node]))
            probability *= p if right else 1 - p
            node = 2 * node + 1 + right
        leaves.append(probability)
    return np.array(leaves)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_path_probabilities_match_a_walk_over_the_nodes(depth):
    logits = np.random.default_rng(0).normal(scale=2, size=(4, 2**depth - 1)).astype("float32")
    expected = np.stack([_by_hand(row, depth) for row in logits])
    np.testing.assert_allclose(np.exp(routing.log_path_probabilities(logits)), expected, rtol=1e-5)
    nodes, leaves = (np.asarray(part) for part in routing.reach_probabilities(logits))
    np.testing.assert_allclose(leaves, expected, rtol=1e-5)
    np.testing.assert_allclose(leaves.sum(axis=1), 1, rtol=1e-6)
    for level in range(depth):
        np.testing.assert_allclose(nodes[:, 2**level - 1 : 2 ** (level + 1) - 1].sum(axis=1), 1, rtol=1e-6)


def test_log_path_probabilities_survive_extreme_splits():
    log_path = np.asarray(routing.log_path_probabilities(np.full((1, 7), -300.0, "float32")))
    assert np.isfinite(log_path).all()
    np.testing.assert_allclose(log_path[0, [0, 7]], [0, -900], atol=1e-6)


def test_best_leaf_is_the_likeliest_and_greedy_follows_the_signs():
    logits = np.random.default_rng(1).normal(size=(200, 15)).astype("float32")
    expected = np.stack([_by_hand(row, 4) for row in logits])
    np.testing.assert_array_equal(routing.best_leaf(logits), expected.argmax(axis=1))
    walked = []
    for row in logits:
        node = 0
        for _ in range(4):
            node = 2 * node + 1 + int(row[node] > 0)
        walked.append(node - 15)
    np.testing.assert_array_equal(routing.greedy_leaf(logits), walked)
    assert (expected.argmax(axis=1) != np.array(walked)).any()  # the two modes are different things


def test_path_nodes_lead_from_the_root_to_the_leaf():
    nodes, right = routing.path_nodes(np.arange(16), depth=4)
    assert (nodes[:, 0] == 0).all()
    np.testing.assert_array_equal(nodes[:, 1:], 2 * nodes[:, :-1] + 1 + right[:, :-1])
    np.testing.assert_array_equal(2 * nodes[:, -1] + 1 + right[:, -1] - 15, np.arange(16))


def test_objectives_match_numpy():
    rng = np.random.default_rng(2)
    path = rng.dirichlet(np.ones(8), size=5)
    leaves = rng.dirichlet(np.ones(3), size=8)
    targets = rng.dirichlet(np.ones(3), size=5)
    mixture = -(targets * np.log(path @ leaves)).sum(axis=1)
    single = (path * -(targets @ np.log(leaves).T)).sum(axis=1)
    arguments = targets, np.log(path), np.log(leaves)
    np.testing.assert_allclose(objectives.mixture_cross_entropy(*arguments), mixture, rtol=1e-6)
    np.testing.assert_allclose(objectives.path_cross_entropy(*arguments), single, rtol=1e-6)
    assert (single >= mixture).all()  # Jensen: a mixture is never worse than its parts on average


def test_balance_penalty_is_least_for_even_splits_and_fades_with_depth():
    depths = routing.node_depths(2)
    mass = np.array([1.0, 0.5, 0.5])
    even = float(objectives.balance_penalty(mass / 2, mass, depths))
    assert even == pytest.approx(2 * np.log(2), rel=1e-4)  # log 2 per level
    tilted_root = float(objectives.balance_penalty(np.array([0.9, 0.25, 0.25]), mass, depths))
    tilted_child = float(objectives.balance_penalty(np.array([0.5, 0.45, 0.25]), mass, depths))
    rise = -0.5 * np.log(0.9 * 0.1) - np.log(2)
    assert tilted_root - even == pytest.approx(rise, rel=1e-3)
    assert tilted_child - even == pytest.approx(rise / 2, rel=1e-3)


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_balance_penalty_stays_finite_when_all_samples_go_one_way(right):
    value = float(objectives.balance_penalty(np.float32([right]), np.float32([1.0]), np.array([0])))
    assert np.isfinite(value)
    assert value > 5
