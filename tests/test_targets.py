import keras
import numpy as np
import pytest

from kdkeras import datasets, targets

LOGITS = np.random.default_rng(0).normal(0, 3, (50, 6)).astype("float32")
ENCODERS = {
    "soft": targets.soft,
    "hard": targets.hard,
    "rank": targets.rank_encoded,
    "cluster": lambda outputs: targets.cluster_encoded(outputs, num_clusters=12),
}


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_every_encoding_gives_float32_distributions_and_the_same_each_time(encode):
    p = encode(LOGITS)
    assert p.dtype == np.float32
    assert p.shape == LOGITS.shape
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(p, encode(LOGITS.copy()))


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_adding_a_constant_to_the_logits_changes_nothing(encode):
    np.testing.assert_allclose(encode(LOGITS.astype("float64") + 100), encode(LOGITS), atol=1e-6)


@pytest.mark.parametrize("encode", [targets.soft, targets.hard, targets.rank_encoded])
def test_permuting_the_classes_permutes_the_targets(encode):
    order = np.random.default_rng(1).permutation(6)
    np.testing.assert_allclose(encode(LOGITS[:, order]), encode(LOGITS)[:, order], atol=1e-7)


def test_soft_by_hand_and_against_keras():
    z = np.log([[1.0, 2.0, 5.0]])
    np.testing.assert_allclose(targets.soft(z), [[1 / 8, 2 / 8, 5 / 8]], rtol=1e-6)
    root = np.sqrt([[1.0, 2.0, 5.0]])
    np.testing.assert_allclose(targets.soft(z, temperature=2), root / root.sum(), rtol=1e-6)
    np.testing.assert_allclose(
        targets.soft(LOGITS, temperature=4), keras.ops.convert_to_numpy(keras.ops.softmax(LOGITS / 4)), rtol=1e-5
    )


def test_soft_of_scores_divides_by_the_sum_and_agrees_with_soft_of_logits():
    np.testing.assert_allclose(targets.soft([[3, 1, 0]], from_logits=False), [[0.75, 0.25, 0]])
    p = targets.soft(LOGITS)
    for temperature in (0.5, 1.0, 4.0):
        expected = targets.soft(LOGITS, temperature=temperature)
        np.testing.assert_allclose(targets.soft(p, temperature=temperature, from_logits=False), expected, atol=1e-6)


def test_soft_stays_finite_for_large_logits_and_small_temperatures():
    np.testing.assert_array_equal(targets.soft([[1e4, 0.0, -1e4]], temperature=0.01), [[1, 0, 0]])


def test_hard_by_hand():
    np.testing.assert_array_equal(targets.hard([[0.1, 0.5, 0.4], [2, 2, 1]]), [[0, 1, 0], [1, 0, 0]])


def test_rank_encoding_by_hand():
    # sorted 1, 2, 4: gaps 1, 2; weights 1/2, 1: w = 0, 1/2, 5/2, sum 3
    np.testing.assert_allclose(targets.rank_encoded([[1, 4, 2]]), [[0, 5 / 6, 1 / 6]], rtol=1e-6)
    # weights 1, 1: w = z - min z = 0, 1, 3
    np.testing.assert_allclose(targets.rank_encoded([[1, 4, 2]], step_weights=[1, 1]), [[0, 3 / 4, 1 / 4]])
    # four classes, sorted -1, 0, 0, 6: gaps 1, 0, 6; weights 1/3, 2/3, 1: w = 0, 1/3, 1/3, 19/3, sum 7
    np.testing.assert_allclose(
        targets.rank_encoded([[0, 6, -1, 0]]), [[1 / 21, 19 / 21, 0, 1 / 21]], rtol=1e-6, atol=1e-8
    )
    np.testing.assert_array_equal(targets.rank_encoded([[2, 2, 2, 2]]), [[0.25] * 4])


def test_rank_encoding_against_a_plain_loop():
    for row, encoded in zip(LOGITS.astype("float64"), targets.rank_encoded(LOGITS), strict=True):
        order = sorted(range(6), key=row.__getitem__)
        w = [0.0] * 6
        for i in range(1, 6):
            w[order[i]] = w[order[i - 1]] + i / 5 * (row[order[i]] - row[order[i - 1]])
        np.testing.assert_allclose(encoded, np.array(w) / sum(w), rtol=1e-6)


def test_rank_encoding_keeps_the_order_and_ignores_the_scale():
    np.testing.assert_array_equal(targets.rank_encoded(LOGITS).argsort(axis=1), LOGITS.argsort(axis=1))
    np.testing.assert_allclose(targets.rank_encoded(7 * LOGITS), targets.rank_encoded(LOGITS), atol=1e-6)


def test_clusters_by_hand():
    votes = [[9, 1, 0], [7, 3, 0], [0, 0, 10], [0, 2, 8]]
    clusters = targets.cluster(votes, num_clusters=2, from_logits=False)
    assert clusters.assignments[0] == clusters.assignments[1] != clusters.assignments[2] == clusters.assignments[3]
    expected = [[0.8, 0.2, 0.0]] * 2 + [[0.0, 0.1, 0.9]] * 2
    np.testing.assert_allclose(clusters.targets, expected, atol=1e-6)
    np.testing.assert_array_equal(targets.cluster_encoded(votes, num_clusters=2, from_logits=False), clusters.targets)


def test_clusters_at_both_ends():
    p = targets.soft(LOGITS, temperature=3)
    one = targets.cluster_encoded(LOGITS, num_clusters=1, temperature=3)
    np.testing.assert_allclose(one, np.broadcast_to(p.mean(axis=0), p.shape), atol=1e-6)
    np.testing.assert_allclose(targets.cluster_encoded(LOGITS, num_clusters=50, temperature=3), p, atol=1e-6)


def test_every_sample_has_the_nearest_representative():
    clusters = targets.cluster(LOGITS, num_clusters=8, seed=3)
    assert clusters.representatives.shape == (8, 6)
    distances = np.linalg.norm(targets.soft(LOGITS)[:, np.newaxis] - clusters.representatives, axis=-1)
    np.testing.assert_array_equal(distances.argmin(axis=1), clusters.assignments)


NAN = np.where(np.arange(300).reshape(50, 6) == 7, np.nan, LOGITS)


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [
        (NAN, ValueError, "must be finite. Received: 1 NaN"),
        (LOGITS[0], ValueError, r"shape \(n, K\).*Received: shape \(6,\)"),
        (LOGITS[:, :1], ValueError, "at least 2 classes.*stack 1 - p and p"),
        (LOGITS[:0], ValueError, "shape"),
        (np.array([["a", "b"]]), TypeError, "real numbers. Received: dtype <U1"),
        (LOGITS + 1j, TypeError, "real numbers. Received: dtype complex"),
    ],
)
def test_bad_outputs_are_refused_by_every_encoding(encode, outputs, error, message):
    with pytest.raises(error, match=message):
        encode(outputs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: targets.soft(LOGITS, temperature=0), "`temperature` must be above 0.*temperature=0"),
        (lambda: targets.soft(LOGITS, temperature=float("nan")), "temperature=nan"),
        (lambda: targets.soft(LOGITS, from_logits=False), "scores of at least 0.*from_logits=True"),
        (lambda: targets.soft([[0, 0], [1, 0]], from_logits=False), "one above 0 in each row"),
        (lambda: targets.cluster_encoded(LOGITS, num_clusters=0), "between 1 and .* 50. Received: num_clusters=0"),
        (lambda: targets.cluster_encoded(LOGITS, num_clusters=51), "num_clusters=51"),
        (lambda: targets.cluster_encoded(np.ones((9, 3)), num_clusters=2), "different outputs, 1"),
        (lambda: targets.rank_encoded(LOGITS, step_weights=[1, 1]), "5 positive numbers.*between 6 classes"),
        (lambda: targets.rank_encoded(LOGITS, step_weights=[1, 1, 0, 1, 1]), "5 positive numbers"),
        (lambda: targets.from_teacher(len, LOGITS, encoding="ranks"), "one of soft, hard, rank, cluster.*'ranks'"),
    ],
)
def test_bad_options_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_low_precision_outputs_and_tensors_are_taken():
    tensor = keras.ops.convert_to_tensor(LOGITS)
    np.testing.assert_allclose(targets.soft(tensor), targets.soft(LOGITS))
    np.testing.assert_allclose(targets.soft(keras.ops.cast(tensor, "bfloat16")), targets.soft(LOGITS), atol=0.02)


def classifier(activation=None):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation=activation)])


def test_from_teacher_takes_the_logits_of_a_model_whether_it_ends_in_a_softmax_or_not():
    keras.utils.set_random_seed(0)
    linear, softmax = classifier(), classifier("softmax")
    softmax.set_weights(linear.get_weights())
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    expected = targets.soft(linear.predict(x, verbose=0), temperature=4)
    for teacher in (linear, softmax):
        np.testing.assert_allclose(targets.from_teacher(teacher, x, temperature=4), expected, atol=1e-6)


def test_from_teacher_takes_any_function_of_scores():
    from sklearn.ensemble import RandomForestClassifier

    data = datasets.wine()
    forest = RandomForestClassifier(20, random_state=0).fit(data.x_train, data.y_train)
    p = targets.from_teacher(forest.predict_proba, data.x_valid, "soft", from_logits=False)
    np.testing.assert_allclose(p, forest.predict_proba(data.x_valid), atol=1e-6)
    direct = targets.from_teacher(forest, data.x_valid)  # probabilities of 0 are clipped to 1e-7
    np.testing.assert_allclose(direct, forest.predict_proba(data.x_valid), atol=1e-6)
    with pytest.raises(TypeError, match=r"must be a keras.Model, a scikit-learn estimator.*type list"):
        targets.from_teacher([forest], data.x_valid)


@pytest.fixture(scope="module")
def digits_teacher():
    keras.utils.set_random_seed(0)
    data = datasets.digits()
    stack = [keras.layers.Flatten(), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
    teacher = keras.Sequential([keras.Input(data.input_shape), *stack])
    teacher.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    teacher.fit(data.x_train, data.y_train, epochs=15, verbose=0)
    return data, teacher


@pytest.mark.parametrize(
    ("encoding", "options"),
    [("soft", {"temperature": 4.0}), ("hard", {}), ("rank", {}), ("cluster", {"num_clusters": 40, "temperature": 4.0})],
)
def test_a_student_learns_digits_from_each_encoding_without_any_label(digits_teacher, encoding, options):
    data, teacher = digits_teacher
    p = targets.from_teacher(teacher, data.x_train, encoding, **options)
    keras.utils.set_random_seed(1)
    stack = [keras.layers.Flatten(), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(10)]
    student = keras.Sequential([keras.Input(data.input_shape), *stack, keras.layers.Softmax()])
    student.compile(keras.optimizers.Adam(0.01), "categorical_crossentropy")
    student.fit(data.x_train, p, epochs=15, verbose=0)
    accuracy = (student.predict(data.x_valid, verbose=0).argmax(axis=1) == data.y_valid).mean()
    assert accuracy > 0.9
