"""The smallest change that flips the best leaf's class: by hand, against a grid, within limits."""

import keras
import numpy as np
import pytest

import kdkeras
from kdkeras.trees import SoftDecisionTree
from kdkeras.trees.leaf_regions import Surroundings, log_paths, nearest_flip
from kdkeras.trees.nearest_point import nearest_point

MARGIN = 1e-3


def _hand_set(kernel, biases, leaves, shape=None):
    """Return a tree whose splits and leaf classes are given: kernel (features, splits)."""
    kernel = np.asarray(kernel, "float32")
    tree = SoftDecisionTree(kernel.shape[1].bit_length(), max(leaves) + 1)
    tree.build((None, *(shape or kernel.shape[:1])))
    tree.splits.set_weights([kernel, np.asarray(biases, "float32")])
    tree.phi.assign(0.3 * np.eye(max(leaves) + 1)[leaves])
    return tree


def _best_class(tree, x):
    return tree.decision_path(np.asarray(x)[None]).leaf_distribution[0].argmax()


@pytest.fixture(scope="module")
def half_space():
    return _hand_set([[3.0], [4.0]], [-5.0], [0, 1])  # right where 3a + 4b > 5


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(1)
    x = np.random.default_rng(1).uniform(-2, 2, size=(400, 2)).astype("float32")
    y = (x[:, 0] > 0).astype(int) + 2 * (np.abs(x[:, 1]) > 1)
    tree = SoftDecisionTree(3, 4, beta=3.0)
    tree.fit(x, y, batch_size=200, epochs=50, verbose=0)
    return tree, x


def test_of_one_half_space_it_is_the_projection(half_space):
    x = np.array([-1.0, 2.0], "float32")  # 3a + 4b = 5: on the edge; step back by (3, 4) / 5 · 2
    x = x - np.array([1.2, 1.6], "float32")
    answer = half_space.counterfactual(x, margin=MARGIN)
    np.testing.assert_allclose(answer.sample, [-1.0, 2.0], atol=2 * MARGIN)
    np.testing.assert_allclose(answer.change, answer.sample - x)
    assert answer.distance == pytest.approx(2 + MARGIN / 5, abs=1e-5)
    assert answer.lower_bound == pytest.approx(2, abs=1e-5)
    assert (answer.found, answer.leaf, answer.class_index) == (True, 1, 1)
    assert _best_class(half_space, answer.sample) == 1


def test_units_bounds_and_fixed_features_by_hand(half_space):
    x = np.zeros(2, "float32")  # 3a + 4b must rise by 5
    names = {"feature_names": ["a", "b"], "margin": MARGIN}
    only_a = half_space.counterfactual(x, fixed=["b"], **names)
    np.testing.assert_allclose(only_a.change, [5 / 3, 0], atol=MARGIN)
    assert only_a.change[1] == 0
    np.testing.assert_array_equal(half_space.counterfactual(x, fixed=[False, True], **names).change, only_a.change)
    capped = half_space.counterfactual(x, bounds=([-9, -9], [9, 0.5]), **names)
    np.testing.assert_allclose(capped.sample, [1, 0.5], atol=MARGIN)
    # min (a/2)² + b² with 3a + 4b = 5: u = (a/2, b) is the projection of (6, 4): 5 (6, 4) / 52
    scaled = half_space.counterfactual(x, scales=[2, 1], **names)
    np.testing.assert_allclose(scaled.change, [2 * 30 / 52, 20 / 52], atol=MARGIN)
    assert scaled.distance == pytest.approx(5 / np.sqrt(52), abs=MARGIN)


def test_where_nothing_flips_one_sentence_says_so(half_space):
    x = np.zeros(2)
    nothing = half_space.counterfactual(x, bounds=(0, 0.7), class_names=["no", "yes"])  # 3a + 4b stays below 4.9
    assert (nothing.found, nothing.sample, nothing.change, nothing.mixture) == (False, None, None, None)
    assert nothing.distance == nothing.lower_bound == np.inf
    assert str(nothing) == "No change within the limits leads to a best leaf of another class than no."
    assert not half_space.counterfactual(x, fixed=[True, True]).found
    alone = _hand_set([[3.0], [4.0]], [-5.0], [1, 1]).counterfactual(x, target=0)
    assert str(alone) == "No leaf of the tree has class 0."


def test_the_words_hold_the_changes(half_space):
    text = str(half_space.counterfactual([0.0, 0.0], feature_names=['"a"', "b"], class_names=["no", "yes"]))
    lines = text.splitlines()
    assert lines[0] == "For class yes in place of no, change (distance 1):"
    assert lines[1] == "    b: 0 -> 0.802 (+0.8)"
    assert lines[2] == '    "a": 0 -> 0.601 (+0.6)'
    assert lines[3] == "The best leaf is then leaf 1: class yes, probability 0.95."
    assert lines[5] == "No change shorter than 1 does it."
    one = str(half_space.counterfactual([0.0, 0.0], max_features=1))
    assert "and 1 more feature, each by less" in one


def test_of_two_splits_the_nearer_side_wins():
    # Quadrants: leaf 0 a<0,b<0; 1 a<0,b>0; 2 a>0,b<0; 3 a>0,b>0, crisp. From (-1, -2): a is nearer, class 2.
    tree = _hand_set(50 * np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]), np.zeros(3), [0, 1, 2, 3])
    x = np.array([-1.0, -2.0])
    for target, distance in ((None, 1), (2, 1), (1, 2), (3, np.sqrt(5))):
        answer = tree.counterfactual(x, target)
        assert answer.class_index == (2 if target is None else target)
        assert answer.distance == pytest.approx(distance, abs=0.05)  # of crisp, not of hard splits
        assert answer.lower_bound <= answer.distance
        assert answer.lower_bound > distance - 0.05


@pytest.mark.parametrize("target", [None, 3])
def test_a_grid_finds_no_smaller_change(trained, target):
    tree, x = trained
    axis = np.linspace(-4, 4, 401)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2).astype("float32")
    classes = tree.decision_path(grid).leaf_distribution.argmax(axis=1)
    now = tree.decision_path(x[:12]).leaf_distribution.argmax(axis=1)
    found = 0
    for sample, name in zip(x[:12], now, strict=True):
        if name == target:
            continue
        answer = tree.counterfactual(sample, target, margin=MARGIN)
        of_grid = np.linalg.norm(grid - sample, axis=1)[classes != name if target is None else classes == target].min()
        assert _best_class(tree, answer.sample) == answer.class_index != name
        assert answer.distance <= 1.02 * of_grid + 0.01
        assert answer.lower_bound <= of_grid + 1e-6
        assert answer.distance >= of_grid - 0.02 * np.sqrt(2)  # the grid's own error: it cannot be much smaller
        found += 1
    assert found >= 6


def test_bounds_hold_for_images():
    rng = np.random.default_rng(0)
    tree = _hand_set(3 * rng.normal(size=(20, 3)), np.zeros(3), [0, 1, 1, 2], shape=(5, 4, 1))
    x = rng.uniform(size=(2, 5, 4, 1)).astype("float32")
    still = np.zeros((5, 4, 1), bool)
    still[0] = True
    answer = tree.counterfactual(x[0], bounds=(0, 1), fixed=still)
    assert answer.found
    assert answer.sample.shape == (5, 4, 1)
    assert answer.sample.min() >= 0
    assert answer.sample.max() <= 1
    np.testing.assert_array_equal(answer.change[0], 0)
    assert _best_class(tree, answer.sample) != _best_class(tree, x[0])
    assert tree.counterfactual(x[0]).distance <= answer.distance + 1e-6
    assert "x[" in str(answer)


def test_the_bound_is_below_every_change_that_flips():
    rng = np.random.default_rng(5)
    axis = np.linspace(-5, 5, 201)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    free = np.full(2, np.inf)
    for depth in (1, 2, 3, 3):
        weights, biases = 2 * rng.normal(size=(2**depth - 1, 2)), rng.normal(size=2**depth - 1)
        x = rng.normal(size=2)
        place = Surroundings(weights @ x + biases, weights, -free, free)
        wanted = np.arange(2**depth) != log_paths(place, place.scores).argmax()
        flip = nearest_flip(place, wanted, MARGIN)
        best = np.array([log_paths(place, weights @ point + biases).argmax() for point in grid[::29]])
        flips = np.linalg.norm(grid[::29] - x, axis=1)[wanted[best]]
        assert flip.bound <= flips.min()
        log_path = log_paths(place, place.scores + weights @ flip.change)
        assert log_path[wanted].max() - log_path[~wanted].max() == pytest.approx(MARGIN, abs=2e-3)
        assert flip.bound <= np.linalg.norm(flip.change) + 1e-9


def test_the_nearest_point_meets_the_conditions_of_an_optimum():
    rng = np.random.default_rng(0)
    for features, rows in ((3, 2), (40, 12)):
        matrix = rng.normal(size=(rows, features))
        sides = matrix @ rng.uniform(-0.5, 0.5, size=features)
        low, high = np.full(features, -0.5), np.full(features, 0.5)
        found = nearest_point(matrix, sides, low, high)
        assert (matrix @ found.point >= sides - 1e-6).all()
        assert (np.abs(found.point) <= 0.5).all()
        assert np.linalg.norm(found.point) == pytest.approx(found.bound, abs=1e-6)  # no duality gap
    contradiction = nearest_point(np.array([[1.0, 0], [-1.0, 0]]), np.ones(2), np.full(2, -np.inf), np.full(2, np.inf))
    assert contradiction.bound == np.inf
    assert nearest_point(np.zeros((1, 2)), np.ones(1), low[:2], high[:2]).bound == np.inf


@pytest.fixture
def in_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield _hand_set([[3.0], [4.0]], [-5.0], [0, 1])
    keras.config.set_dtype_policy("float32")


def test_the_tree_itself_has_the_last_word(in_bfloat16):
    x = np.array([0.6286511, -0.6605243], "float32")
    answer = in_bfloat16.counterfactual(x, margin=MARGIN)
    assert _best_class(in_bfloat16, answer.sample) == answer.class_index == 1
    # At this margin bfloat16 rounds the score back over the edge: a greater one was needed, and the distance tells.
    distance = (5 - x @ [3.0, 4.0]) / 5
    assert answer.distance > distance + 5 * MARGIN / 5
    assert answer.lower_bound == pytest.approx(distance, abs=1e-5)


def test_saving_keeps_the_answer(trained, tmp_path):
    tree, x = trained
    tree.save(tmp_path / "tree.keras")
    again = kdkeras.load_model(tmp_path / "tree.keras").counterfactual(x[0])
    np.testing.assert_allclose(again.sample, tree.counterfactual(x[0]).sample, atol=1e-6)


def test_what_does_not_fit_is_refused(half_space):
    x = np.zeros(2)
    for wrong, match in (
        ({"target": 2}, "`target` must be a class of"),
        ({"target": "maybe"}, "`target` must be a class of"),
        ({"target": 0}, "has class 0 already"),
        ({"scales": 0}, "`scales` must be finite and above 0"),
        ({"scales": [1, 2, 3]}, r"`scales` must fit samples of shape \(2,\). Received: shape \(3,\)"),
        ({"bounds": (1, 2)}, "must lie within `bounds`"),
        ({"bounds": 1}, "`bounds` must be a pair"),
        ({"bounds": (np.nan, 2)}, "`bounds` must be numbers. Received: NaN"),
        ({"fixed": ["c"]}, "names of features. Received: 'c'"),
        ({"fixed": [True, False, True]}, "`fixed` must fit"),
        ({"margin": 0}, "`margin` must be finite and above 0"),
        ({"max_features": 0}, "max_features"),
    ):
        with pytest.raises(ValueError, match=match):
            half_space.counterfactual(x, **wrong)
    with pytest.raises(TypeError, match="`target` must be a class number or a class name"):
        half_space.counterfactual(x, 1.0)
    with pytest.raises(ValueError, match=r"x\[None\] of shape \(1, 1, 2\)"):
        half_space.counterfactual(x[None])
