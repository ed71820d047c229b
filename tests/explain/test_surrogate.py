"""Global surrogates and reference importances, on models whose true answer is known."""

import json

import keras
import numpy as np
import pytest
from keras import layers
from scipy.special import expit

from kdkeras import explain, students

rng = np.random.default_rng(0)
X = rng.normal(size=(300, 4)).astype("float32")
NAMES = ["a", "b", "c", "d"]


def linear(weights, activation=None, name="net"):
    weights = np.asarray(weights, "float32")
    model = keras.Sequential([keras.Input((len(weights),)), layers.Dense(weights.shape[1], activation)], name=name)
    model.layers[0].set_weights([weights, np.zeros(weights.shape[1], "float32")])
    return model


def test_a_linear_model_is_its_own_linear_surrogate():
    found = explain.surrogate(linear([[0, 2.0], [0, -1], [0, 0], [0, 0]], "softmax"), X, "linear", feature_names=NAMES)
    assert found.fidelity.agreement > 0.97
    assert found.fidelity.r2 > 0.98
    assert (found.fidelity.samples, found.train_fidelity.samples) == (75, 225)
    assert list(np.argsort(-found.importance.importances)[:2]) == [0, 1]
    assert found.text.splitlines()[2].split()[0] == "a"
    assert str(found).startswith("Surrogate of 'net', linear: 5 parameters, 4 features\nheld out: agreement")
    assert json.loads(json.dumps(found.to_dict()))["kind"] == "linear"


def test_fidelity_tells_where_a_surrogate_must_not_be_believed():
    def parity(x):  # no sum of terms can say it, a tree can
        p = np.where(np.prod(np.sign(x[:, :2]), axis=1, keepdims=True) > 0, 0.9, 0.1)
        return np.concatenate([1 - p, p], axis=1)

    r2 = {
        kind: explain.surrogate(parity, X, kind, head="softmax", repeats=2).fidelity.r2 for kind in ("linear", "forest")
    }
    assert r2["linear"] < 0.1
    assert r2["forest"] > 0.5


def test_held_out_rows_tell_what_was_only_remembered():
    noise = rng.random(300)
    answers = {bytes(row): value for row, value in zip(X, noise, strict=True)}
    found = explain.surrogate(
        lambda x: np.array([[answers[bytes(row)]] for row in x]), X, "tree", size=200, head="sigmoid", repeats=2
    )
    assert found.train_fidelity.r2 > 0.95
    assert found.fidelity.r2 < 0


def test_numbers_images_and_single_sigmoids():
    number = explain.surrogate(linear([[1.0], [0], [0], [0]]), X, "gradient_boosting", feature_names=NAMES)
    assert number.fidelity.r2 > 0.9
    assert number.importance.score == "R²"
    assert number.importance.importances.argmax() == 0
    binary = explain.surrogate(linear([[0.0], [3], [0], [0]], "sigmoid"), X, "tree", size=8)
    assert binary.fidelity.agreement > 0.9
    assert binary.importance.importances.argmax() == 1
    images = rng.random((40, 3, 3, 1)).astype("float32")
    flat = keras.Sequential([keras.Input((3, 3, 1)), layers.Flatten(), layers.Dense(2)])
    assert explain.surrogate(flat, images, "linear", repeats=1).importance.importances.shape == (9,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": 1}, "`held_out` must lie between 0 and 1"),
        ({"kind": "bush"}, "must be one of tree"),
        ({"feature_names": ["a"]}, "must name all 4 features"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        explain.surrogate(linear(np.ones((4, 2))), X, **options)
    with pytest.raises(ValueError, match="8 samples or more"):
        explain.surrogate(linear(np.ones((4, 2))), X[:5])


def test_students_have_importances_like_networks():
    model = linear([[0, 2.0], [0, -1], [0, 0], [0, 0]], "softmax")
    labels = (2 * X[:, 0] - X[:, 1] > 0).astype(int)
    student = students.distill(model, X, "linear")
    comparison = explain.compare_importance(model, student, X, labels, repeats=5)
    theirs, ours = comparison.teacher.importances, comparison.student.importances
    np.testing.assert_allclose(ours, theirs, atol=0.15 * theirs.max())  # ridge shrinks the weights a little
    assert comparison.student.model == "linear"


@pytest.mark.parametrize("kind", ["lasso", "forest", "gradient_boosting"])
def test_references_learn_from_labels_what_matters(kind):
    z = 3 * X[:, 2] - 1.5 * X[:, 3]
    for y in (z + 0.1 * rng.normal(size=300), (rng.random(300) < expit(2 * z)).astype(int)):
        found = explain.reference_importance(X, y, kind, feature_names=NAMES)
        assert found.names == tuple(NAMES)
        assert list(np.argsort(-found.importances)[:2]) == [2, 3]
        assert found.importances.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="must be one of lasso, forest, gradient_boosting"):
        explain.reference_importance(X, z, "bush")
    with pytest.raises(ValueError, match="must name all 4 columns"):
        explain.reference_importance(X, z, kind, feature_names=["a"])


def test_lasso_shares_are_the_spread_of_terms():
    z = 3 * X[:, 2] - 1.5 * X[:, 3]
    spread = np.array([0, 0, 3, 1.5]) * X.std(axis=0)
    np.testing.assert_allclose(explain.reference_importance(X, z).importances, spread / spread.sum(), atol=0.01)


def test_teacher_student_and_references_side_by_side():
    y = X @ np.array([3.0, 2, 1, 0])
    reference = explain.reference_importance(X[:200], y[:200], feature_names=NAMES)
    teacher, student = linear([[3.0], [2], [1], [0]], name="t"), linear([[0.0], [1], [2], [3]], name="s")
    comparison = explain.compare_importance(
        teacher, student, X[200:], y[200:], feature_names=NAMES, repeats=5, references=[reference]
    )
    other = comparison.spearman
    assert other < -0.5
    np.testing.assert_allclose(comparison.rank_correlations, [[1, other, 1], [other, 1, other], [1, other, 1]])
    lines = str(comparison).splitlines()
    assert lines[1].split()[:4] == ["feature", "teacher", "student", "LASSO"]
    assert lines[-1].split() == ["LASSO", "1.000", f"{other:.3f}", "1.000"]
    assert comparison.to_dict()["rank_correlations"][0][1] == pytest.approx(other)
    figure = comparison.plot()
    figure.canvas.draw()
    assert [axis.get_title() for axis in figure.axes] == ["Teacher t", "Student s", "ρ = 1.00, LASSO"]
    with pytest.raises(ValueError, match="of the 3 columns of x"):
        explain.compare_importance(linear(np.ones((3, 1))), student, X[:, :3], y, references=[reference])
