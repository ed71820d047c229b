"""Students from scikit-learn: what they learn is known beforehand."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy.special import expit, softmax

from kdkeras import datasets, evaluate, students

rng = np.random.default_rng(0)
X = rng.normal(size=(400, 3))
Z = np.stack([2 * X[:, 0], X[:, 1], np.zeros(400)], axis=1)
P = softmax(Z, axis=1)
KINDS = tuple(students.KINDS)


def linear_model(weights, activation=None):
    weights = np.asarray(weights, "float32")
    model = keras.Sequential([keras.Input((len(weights),)), layers.Dense(weights.shape[1], activation)])
    model.layers[0].set_weights([weights, np.zeros(weights.shape[1], "float32")])
    return model


def soft_teacher(x):
    return softmax(np.stack([2 * x[:, 0], x[:, 1], 0 * x[:, 0]], axis=1), axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_learns_probabilities_and_not_only_classes(kind):
    student = students.distill(soft_teacher, X, kind, head="softmax")
    p = student.predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    assert np.abs(p - P).mean() < 0.06
    np.testing.assert_array_equal(student.predict(X), p.argmax(axis=1))
    np.testing.assert_allclose(softmax(student.logits(X), axis=1), p, atol=1e-5)
    assert (student.predict(X) == P.argmax(axis=1)).mean() > 0.9
    # The classes alone would make it surer than its teacher.
    hard = students.fit(X, P.argmax(axis=1), kind)
    assert students.fidelity(student, hard, X).kl > 0.02


def test_a_linear_student_finds_the_teachers_weights():
    weights = np.array([[1.0, -1.0], [0.5, -0.5], [0, 0]])
    large = rng.normal(size=(5000, 3))
    student = students.distill(linear_model(weights, "softmax"), large, "linear")
    found = student.estimator[-1].coef_[0] / student.estimator[0].scale_  # of class 1 against class 0
    np.testing.assert_allclose(found, weights[:, 1] - weights[:, 0], atol=0.02)


def test_a_tree_of_soft_labels_is_cart_on_many_drawn_labels():
    from sklearn.tree import DecisionTreeClassifier

    student = students.distill(soft_teacher, X, "tree", size=6, head="softmax")
    copies = np.repeat(np.arange(400), 3)
    cart = DecisionTreeClassifier(max_leaf_nodes=6, random_state=0)
    cart.fit(X[copies], np.tile(np.arange(3), 400), sample_weight=P.ravel())
    np.testing.assert_allclose(student.predict_proba(X), cart.predict_proba(X), atol=1e-5)
    assert (student.nodes, student.parameters) == (11, 2 * 5 + 3 * 6)


def test_an_additive_student_bends_and_a_linear_one_does_not():
    x = rng.uniform(-2, 2, size=(600, 2))
    logit = 3 * x[:, 0] ** 2 - 4 + x[:, 1]
    teacher = lambda x: expit(3 * x[:, :1] ** 2 - 4 + x[:, 1:])  # noqa: E731
    bends, straight = (students.distill(teacher, x, kind, head="sigmoid") for kind in ("additive", "linear"))
    assert students.fidelity(teacher, bends, x, head="sigmoid").r2 > 0.98
    assert students.fidelity(teacher, straight, x, head="sigmoid").r2 < 0.4
    assert bends.logits(x).shape == (600, 1)
    assert np.corrcoef(bends.logits(x)[:, 0], logit)[0, 1] > 0.98


def test_sparse_students_keep_what_moves_the_answer():
    x = rng.normal(size=(500, 6)) * [1, 1, 10, 1, 1, 0]  # the last is constant
    z = x @ [3.0, 0, 0.2, 0, 0.1, 0]  # their terms spread by 3, 0, 2, 0 and 0.1
    teacher = lambda x: np.stack([0 * x[:, 0], x @ [3.0, 0, 0.2, 0, 0.1, 0]], axis=1)  # noqa: E731
    student = students.distill(teacher, x, "linear", size=2)
    np.testing.assert_array_equal(student.columns, [0, 2])
    assert student.parameters == 3
    spread = student.spread(x)
    np.testing.assert_array_equal(np.flatnonzero(spread), [0, 2])
    assert 1.2 < spread[0] / spread[2] < 1.8
    assert ((student.predict(x) == 1) == (z > 0)).mean() > 0.95
    np.testing.assert_array_equal(students.distill(teacher, x, "additive", size=1).columns, [0])
    np.testing.assert_array_equal(students.distill(teacher, x, "tree").columns, np.arange(5))


def test_lasso_keeps_the_features_that_the_teacher_uses():
    x = rng.normal(size=(400, 8))
    for y in (x[:, 2] - x[:, 5] + 0.1 * rng.normal(size=400), softmax(np.stack([2 * x[:, 2], x[:, 5]], 1), 1)):
        student = students.fit(x, y, "lasso")
        assert {2, 5} <= set(student.columns)
        assert len(student.columns) < 8
        assert set(np.argsort(-student.spread(x))[:2]) == {2, 5}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers(kind):
    student = students.distill(linear_model([[1.0], [-2.0], [0.0]]), X, kind)
    assert (student.head, student.predict(X).shape, student.logits(X).shape) == ("linear", (400,), (400, 1))
    found = students.fidelity(linear_model([[1.0], [-2.0], [0.0]]), student, X)
    assert found.r2 > 0.85
    assert found.agreement is found.kl is found.accuracy is None
    with pytest.raises(ValueError, match="has no probabilities"):
        student.predict_proba(X)


def test_keras_sigmoids_images_and_seeds():
    images = rng.random((60, 4, 4, 1)).astype("float32")
    teacher = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(1, activation="sigmoid")])
    teacher.layers[-1].set_weights([rng.normal(size=(16, 1)), np.array([0.1])])
    first, again, other = (students.distill(teacher, images, "forest", size=5, seed=seed) for seed in (0, 0, 1))
    assert first.head == "sigmoid"
    np.testing.assert_array_equal(first.predict_proba(images), again.predict_proba(images))
    assert (first.predict_proba(images) != other.predict_proba(images)).any()
    p = teacher.predict(images, verbose=0)[:, 0]
    assert np.corrcoef(first.predict_proba(images)[:, 1], p)[0, 1] > 0.8


def test_fidelity_by_hand():
    teacher, student = np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([[0.6, 0.4], [0.6, 0.4]])
    as_model = [students.fit(np.array([[0.0], [1.0]]), p, "tree") for p in (teacher, student)]
    found = students.fidelity(*as_model, np.array([[0.0], [1.0]]), np.array([0, 0]))
    assert (found.agreement, found.accuracy, found.samples) == (0.5, 1.0, 2)
    assert found.kl == pytest.approx((teacher * np.log(teacher / student)).sum() / 2, abs=1e-5)
    assert found.r2 == pytest.approx(1 - (2 * 0.3**2 + 2 * 0.2**2) / (4 * 0.25**2), abs=1e-5)
    assert "agreement 50.0%" in str(found)


def test_a_class_that_the_teacher_never_names_is_known_all_the_same():
    x = X[:100]
    p = np.stack([P[:100, 0], 1 - P[:100, 0], np.zeros(100)], axis=1)
    for kind in KINDS:
        assert students.fit(x, p, kind, size=None if kind == "lasso" else 3).predict_proba(x).shape == (100, 3)


def test_texts():
    tree = students.fit(X, (X[:, 1] > 0).astype(int), "tree", size=2)
    assert tree.export_text(["a", "b", "c"], ["low", "high"]).splitlines()[0].startswith("if b <= 0.0")
    assert "class high, probability 1.00" in tree.export_text(class_names=["low", "high"])
    text = students.fit(X, P, "linear").export_text(["a", "b", "c"], n=2)
    assert text.splitlines()[2].split()[0] == "a"
    assert "and 1 more feature" in text
    assert "range" in students.fit(X, (X[:, 1] > 0).astype(int), "additive").export_text()
    assert students.fit(X, X[:, 0], "tree", size=2).export_text().count("if feature 0") == 1
    assert students.fit(X, P, "forest", size=3).export_text().startswith("3 trees with")
    assert str(tree) == "tree: 3 nodes, 6 parameters, 3 features"
    with pytest.raises(ValueError, match="must name all 3 features"):
        tree.export_text(["a"])


def test_curves_of_size():
    teacher = linear_model([[2.0, 0], [0, 1], [0, 0]], "softmax")
    labels = (X[:, 0] > 0).astype(int)
    sizes = {"tree": (2, 16), "linear": (1, None)}
    curve = students.size_curve(teacher, X, X[:100], labels[:100], sizes=sizes, y=labels, beside={"itself": teacher})
    assert [(each.name, each.learned_from, each.size) for each in curve.points] == [
        *(("tree", source, size) for source in ("teacher", "labels") for size in (2, 16)),
        *(("linear", source, size) for source in ("teacher", "labels") for size in (1, None)),
        ("itself", "", None),
    ]
    small, large, *_ = curve.points
    assert small.fidelity.r2 < large.fidelity.r2
    assert (curve.points[-1].fidelity.agreement, curve.points[-1].parameters) == (1, 8)
    assert curve.points[-2].fidelity.accuracy > 0.97  # labels, all features
    assert "tree" in str(curve).splitlines()[2]
    assert len(curve.to_dict()["points"]) == 9
    figure = curve.plot()
    figure.canvas.draw()
    assert [axis.get_title() for axis in figure.axes] == ["agreement with the teacher", "accuracy"]


def test_one_table_with_keras_models():
    data = datasets.wine()
    keras.utils.set_random_seed(0)
    teacher = keras.Sequential([keras.Input((13,)), layers.Dense(8, "relu"), layers.Dense(3)])
    teacher.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    teacher.fit(data.x_train, data.y_train, epochs=10, verbose=0)
    learned = {kind: students.distill(teacher, data.x_train, kind) for kind in ("tree", "linear")}
    table = evaluate.compare(teacher, {**learned, "keras": teacher}, data.arrays("test"), latency=False)
    for kind, student in learned.items():
        row, found = table[kind], students.fidelity(teacher, student, data.x_test, data.y_test)
        assert row.scores.agreement == pytest.approx(found.agreement)
        assert row.scores.kl_to_teacher == pytest.approx(found.kl, abs=1e-5)
        assert row.scores.accuracy == found.accuracy
        assert (row.cost.parameters, row.cost.macs) == (student.parameters, None)
        assert row.cost.file_bytes > 100
    assert "unknown" in str(table)
    sigmoid = linear_model(rng.normal(size=(13, 1)), "sigmoid")
    student = students.distill(sigmoid, data.x_train, "linear")
    binary = evaluate.compare(sigmoid, student, (data.x_test, (data.y_test > 0).astype(int)))
    assert binary["student"].scores.agreement > 0.9
    assert binary["student"].cost.latency.median > 0
    number = linear_model(rng.normal(size=(13, 1)))
    student = students.distill(number, data.x_train, "linear")
    scores = evaluate.compare(number, student, (data.x_test, data.x_test[:, 0]), latency=False)["student"].scores
    assert scores.r2_to_teacher > 0.99


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: students.fit(X, P, "bush"), "must be one of tree, forest"),
        (lambda: students.fit(X, P, "tree", size=1), "must be at least 2. Received: size=1"),
        (lambda: students.fit(X, P, "lasso", size=2), "chooses its size itself"),
        (lambda: students.fit(X, P[:10]), "same number of samples. Received: 400 and 10"),
        (lambda: students.fit(X, 2 * P), "sum to 1"),
        (lambda: students.fit(X, np.zeros(400, int)), "of two classes"),
        (lambda: students.fit(X * np.nan, P), "NaN"),
        (lambda: students.fit(X[:, 0], P), r"shape \(n, ...\)"),
        (lambda: students.fit(X, P).predict(X[:, :2]), "takes 3 features. Received: samples with 2"),
        (lambda: students.fit(X, P).spread(X), "sums of terms: linear, lasso, additive"),
        (lambda: students.distill(linear_model(np.ones((3, 2)), "sigmoid"), X), "one set of exclusive classes"),
        (lambda: students.distill(linear_model(np.ones((3, 2))), X, head="softmax"), "shows its own head"),
        (lambda: students.distill(soft_teacher, X), "Pass head='softmax'"),
        (lambda: students.fidelity(linear_model(np.ones((3, 2))), students.fit(X, P), X), "need the same classes"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_teacher_that_cannot_be_asked_is_refused():
    with pytest.raises(TypeError, match="A teacher must be"):
        students.distill(3, X)
