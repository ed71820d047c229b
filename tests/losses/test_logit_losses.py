"""Losses between logits: values against loops in numpy, invariances, gradients, errors, and DeiT's two heads."""

import keras
import numpy as np
import pytest
from scipy.special import expit, softmax
from scipy.stats import entropy

import kdkeras
from kdkeras.losses import HardTargets, SoftTargets, binary_soft_targets, soft_targets
from kdkeras.losses.decoupled import DecoupledKD, decoupled_kd
from kdkeras.losses.dist import DIST, dist
from kdkeras.losses.jensen_shannon import JensenShannon, jensen_shannon
from kdkeras.losses.multi_level_logits import MultiLevelLogits, multi_level_logits
from kdkeras.losses.normalized_kd import NormalizedKD, normalized_kd
from kdkeras.losses.reverse_kl import ReverseKL, reverse_kl
from kdkeras.losses.skewed_kl import SkewedKL, skewed_kl
from kdkeras.losses.top_k_logits import TopKSoftTargets, top_k_soft_targets
from kdkeras.signals import Signals, SignalSpec
from kdkeras.testing import check_gradient, check_loss, tiny_cnn


def far_apart(width=4, *, name):
    """A network whose logits differ between samples by more than the step of the contract's central differences."""
    model = tiny_cnn(width=width, name=name)
    model.get_layer("head").kernel.assign(100 * model.get_layer("head").kernel)
    return model


LOSSES = {
    "decoupled": (DecoupledKD, 0.0, tiny_cnn),
    "dist": (DIST, 0.0, far_apart),
    "normalized_kd": (NormalizedKD, None, tiny_cnn),
    "multi_level_logits": (MultiLevelLogits, 0.0, tiny_cnn),
    "multi_level_logits_standardized": (lambda: MultiLevelLogits(standardize=True), 0.0, far_apart),
    "reverse_kl": (ReverseKL, 0.0, tiny_cnn),
    "jensen_shannon": (lambda: JensenShannon(mixture=0.3), 0.0, tiny_cnn),
    "skewed_kl": (SkewedKL, 0.0, tiny_cnn),
    "skewed_kl_reverse": (lambda: SkewedKL(reverse=True), 0.0, tiny_cnn),
    "top_k": (lambda: TopKSoftTargets(2), 0.0, tiny_cnn),
    "top_k_ignore": (lambda: TopKSoftTargets(2, rest="ignore"), 0.0, tiny_cnn),
}
LABELS = np.array([0, 3, 4, -1, 1, 2])
# Each as a function of student, teacher and labels: some need the labels, some none, some weigh samples.
FUNCTIONS = {
    "decoupled": lambda s, t, y: decoupled_kd(s, t, labels=y, alpha=0.7, beta=2.0, temperature=3.0),
    "normalized": lambda s, t, y: normalized_kd(s, t, labels=y, gamma=2.0, temperature=3.0),
    "dist": lambda s, t, y: dist(s, t, beta=0.7, gamma=2.0, temperature=3.0),
    "multi_level": lambda s, t, y: multi_level_logits(s, t, temperatures=[1.0, 3.0]),
    "reverse": lambda s, t, y: reverse_kl(s, t, temperature=3.0),
    "jensen_shannon": lambda s, t, y: jensen_shannon(s, t, mixture=0.3, temperature=3.0),
    "skewed": lambda s, t, y: skewed_kl(s, t, temperature=3.0),
    "skewed_reverse": lambda s, t, y: skewed_kl(s, t, reverse=True, temperature=3.0),
    "top_k": lambda s, t, y: top_k_soft_targets(s, t, k=2, temperature=3.0),
    "top_k_ignore": lambda s, t, y: top_k_soft_targets(s, t, k=2, temperature=3.0, rest="ignore"),
    "soft": lambda s, t, y: soft_targets(s, t, temperature=3.0),
}
PER_SAMPLE = sorted(set(FUNCTIONS) - {"dist", "multi_level"})
# As `FUNCTIONS`, with the settings of the classes that standardise.
STANDARDIZED = {
    "decoupled": lambda **more: DecoupledKD(0.7, 2.0, 3.0, **more),
    "normalized": lambda **more: NormalizedKD(2.0, 3.0, **more),
    "dist": lambda **more: DIST(0.7, 2.0, 3.0, **more),
    "reverse": lambda **more: ReverseKL(3.0, **more),
    "jensen_shannon": lambda **more: JensenShannon(0.3, 3.0, **more),
    "skewed": lambda **more: SkewedKL(0.1, 3.0, **more),
    "skewed_reverse": lambda **more: SkewedKL(0.1, 3.0, reverse=True, **more),
    "top_k": lambda **more: TopKSoftTargets(2, 3.0, **more),
    "top_k_ignore": lambda **more: TopKSoftTargets(2, 3.0, rest="ignore", **more),
    "soft": lambda **more: SoftTargets(3.0, **more),
}


def logits(seed=0, shape=(6, 5), scale=3):
    return np.random.default_rng(seed).normal(scale=scale, size=shape).astype("float32")


def numbers(values):
    return np.asarray(keras.ops.convert_to_numpy(values))


def spec(name, shape, head=None):
    return SignalSpec(name, head, shape)


def called(loss, student, teacher, labels=None, **context):
    classes = (None, *student.shape[1:])
    loss.connect(spec("a", classes), spec("b", classes))
    loss.built = True
    return numbers(loss(*(Signals(z, z, {}) for z in (student, teacher)), labels=labels, **context))


@pytest.mark.parametrize("name", LOSSES)
def test_loss_keeps_the_contract(name):
    make, minimum, network = LOSSES[name]
    check_loss(make, minimum=minimum, network=network)


# --- values against loops over the definitions ------------------------------------------------------------------------


def split(z, y, temperature):
    """The target's probability, and the distribution over the other classes."""
    p = softmax(z.astype("float64") / temperature)
    others = np.delete(p, y)
    return p[y], others / others.sum()


def classes_of(labels, teacher):
    return [row.argmax() if y < 0 else y for y, row in zip(labels, teacher, strict=True)]


def test_decoupled_kd_is_its_two_divergences():
    student, teacher = logits(0), logits(1)
    expected = []
    for z_s, z_t, y in zip(student, teacher, classes_of(LABELS, teacher), strict=True):
        (s, others_s), (t, others_t) = split(z_s, y, 4.0), split(z_t, y, 4.0)
        expected.append(16 * (entropy([t, 1 - t], [s, 1 - s]) + 8 * entropy(others_t, others_s)))
    np.testing.assert_allclose(numbers(decoupled_kd(student, teacher, labels=LABELS)), expected, rtol=1e-4)
    np.testing.assert_allclose(called(DecoupledKD(), student, teacher, LABELS), expected, rtol=1e-4)


def test_decoupled_kd_is_soft_targets_when_its_parts_are_coupled_again():
    student, teacher, labels = logits(0), logits(1), np.abs(LABELS)
    target, others = (numbers(decoupled_kd(student, teacher, labels=labels, alpha=a, beta=1.0 - a)) for a in (1.0, 0.0))
    unsure = 1 - softmax(teacher / 4, axis=-1)[np.arange(6), labels]
    np.testing.assert_allclose(target + unsure * others, numbers(soft_targets(student, teacher)), rtol=1e-4)


def test_decoupled_kd_keeps_its_gradient_where_the_teacher_is_sure():
    student, teacher = np.array([[0.0, 1.0, -1.0]]), np.array([[300.0, 1.0, -2.0]])
    check_gradient(lambda s, t: decoupled_kd(s, t, labels=np.array([0]), temperature=1.0), student, teacher)
    # The ranking of the other classes: softmax(1, −1) against softmax(1, −2).
    others = entropy(softmax([1.0, -2.0]), softmax([1.0, -1.0]))
    value = decoupled_kd(student, teacher, labels=np.array([0]), alpha=0.0, beta=1.0, temperature=1.0)
    np.testing.assert_allclose(numbers(value), [others], rtol=1e-5)


def test_normalized_kd_is_its_two_cross_entropies():
    student, teacher = logits(0), logits(1)
    expected = []
    for z_s, z_t, y in zip(student, teacher, classes_of(LABELS, teacher), strict=True):
        target = -softmax(z_t)[y] * np.log(softmax(z_s)[y])  # without the temperature
        (_, others_s), (_, others_t) = split(z_s, y, 2.0), split(z_t, y, 2.0)
        expected.append(target - 1.5 * 4 * (others_t * np.log(others_s)).sum())
    np.testing.assert_allclose(
        numbers(normalized_kd(student, teacher, labels=LABELS, temperature=2.0)), expected, rtol=1e-4
    )
    np.testing.assert_allclose(called(NormalizedKD(temperature=2), student, teacher, LABELS), expected, rtol=1e-4)


@pytest.mark.parametrize("function", [decoupled_kd, normalized_kd])
def test_labels_in_every_spelling(function):
    student, teacher = logits(0), logits(1)
    whole = np.array([0, 3, 4, 2, 1, 2])
    expected = numbers(function(student, teacher, labels=whole))
    smooth = 0.9 * np.eye(5)[whole] + 0.02
    for labels in (whole[:, None], whole.astype("float32"), np.eye(5, dtype="float32")[whole], smooth):
        np.testing.assert_allclose(numbers(function(student, teacher, labels=labels)), expected, rtol=1e-6)
    top = numbers(function(student, teacher, labels=teacher.argmax(-1)))
    np.testing.assert_allclose(numbers(function(student, teacher, labels=np.full(6, -1))), top, rtol=1e-6)
    assert (np.abs(top - expected) > 1e-3).any()


def pearson(x, y, weights):
    x, y = x - np.average(x, weights=weights), y - np.average(y, weights=weights)
    return (weights * x * y).sum() / np.sqrt((weights * x * x).sum() * (weights * y * y).sum())


@pytest.mark.parametrize("weights", [np.ones(6), np.array([1.0, 0.0, 2.0, 0.5, 0.0, 3.0])])
def test_dist_is_one_minus_pearson_of_rows_and_columns(weights):
    student, teacher = logits(0), logits(1)
    p_s, p_t = softmax(student.astype("float64") / 2, axis=-1), softmax(teacher.astype("float64") / 2, axis=-1)
    rows = [1 - pearson(p_s[i], p_t[i], np.ones(5)) for i in range(6)]
    columns = [1 - pearson(p_s[:, k], p_t[:, k], weights) for k in range(5)]
    expected = 4 * (0.5 * (weights * rows).mean() + 3 * weights.mean() * np.mean(columns))
    value = dist(student, teacher, beta=0.5, gamma=3.0, temperature=2.0, sample_weight=weights.astype("float32"))
    np.testing.assert_allclose(numbers(value), expected, rtol=1e-4)
    loss = DIST(beta=0.5, gamma=3, temperature=2)
    np.testing.assert_allclose(
        called(loss, student, teacher, sample_weight=weights.astype("float32")), expected, rtol=1e-4
    )


def test_dist_sees_classes_of_tiny_probability():
    # Probabilities of about exp(-60): their squares are no float32 any more, nor is their product above 1e-8.
    student, teacher = logits(0), logits(1)
    for z in (student, teacher):
        z[:, -1] -= 60
    p_s, p_t = softmax(student.astype("float64"), axis=-1), softmax(teacher.astype("float64"), axis=-1)
    columns = [1 - np.corrcoef(p_s[:, k], p_t[:, k])[0, 1] for k in range(5)]
    np.testing.assert_allclose(numbers(dist(student, teacher, beta=0.0)), np.mean(columns), rtol=1e-4)


def test_dist_has_no_relation_to_copy_where_nothing_varies():
    teacher = np.repeat(logits(1, (1, 5)), 6, axis=0)
    assert abs(float(dist(teacher, teacher))) < 1e-6
    assert abs(float(dist(logits(0), teacher, beta=0.0))) < 1e-6
    assert abs(float(dist(logits(0), np.zeros((6, 5), "float32")))) < 1e-6


@pytest.mark.parametrize("weights", [np.ones(6), np.array([1.0, 0.0, 2.0, 0.5, 0.0, 3.0])])
def test_multi_level_logits_is_the_sum_of_its_levels(weights):
    student, teacher = logits(0), logits(1)
    counts = weights * weights.sum() / (weights**2).sum()
    expected = 0
    for temperature in (2.0, 3.0, 4.0, 5.0, 6.0):
        p_s, p_t = (softmax(z.astype("float64") / temperature, axis=-1) for z in (student, teacher))
        instance = temperature**2 * (weights * [entropy(t, s) for s, t in zip(p_s, p_t, strict=True)]).mean()
        batch = sum(
            counts[i] * counts[j] * (p_s[i] @ p_s[j] - p_t[i] @ p_t[j]) ** 2 for i in range(6) for j in range(6)
        )
        gaps = [
            sum(counts[i] * (p_s[i, k] * p_s[i, m] - p_t[i, k] * p_t[i, m]) for i in range(6)) ** 2
            for k in range(5)
            for m in range(5)
        ]
        expected += instance + weights.mean() * (batch / counts.sum() + sum(gaps) / 5)
    value = multi_level_logits(student, teacher, sample_weight=weights.astype("float32"))
    np.testing.assert_allclose(numbers(value), expected, rtol=1e-4)
    np.testing.assert_allclose(
        called(MultiLevelLogits(), student, teacher, sample_weight=weights.astype("float32")), expected, rtol=1e-4
    )


@pytest.mark.parametrize("function", [dist, multi_level_logits])
def test_samples_of_weight_0_leave_the_batch(function):
    student, teacher = logits(0), logits(1)
    kept = np.array([1, 1, 0, 1, 0, 1], "float32")
    alone = numbers(function(student[kept > 0], teacher[kept > 0]))
    # As Keras weighs a batch, the mean is over all six.
    np.testing.assert_allclose(numbers(function(student, teacher, sample_weight=kept)), alone * 4 / 6, rtol=1e-4)
    assert float(function(student, teacher, sample_weight=0 * kept)) == 0


def test_standardised_multi_level_logits_standardise_the_instance_level_alone():
    student, teacher = logits(0), logits(1)
    plain, standard = (numbers(multi_level_logits(student, teacher, standardize=flag)) for flag in (False, True))
    instance = [
        sum(float(numbers(soft_targets(*both, temperature=t)).mean()) for t in (2.0, 3.0, 4.0, 5.0, 6.0))
        for both in ((student, teacher), (z_scores(student), z_scores(teacher)))
    ]
    np.testing.assert_allclose(standard - plain, instance[1] - instance[0], rtol=1e-3)
    np.testing.assert_allclose(called(MultiLevelLogits(standardize=True), student, teacher), standard, rtol=1e-6)


def test_reverse_kl_equals_scipy():
    student, teacher = logits(0), logits(1)
    expected = 4 * entropy(softmax(student / 2, -1), softmax(teacher / 2, -1), axis=-1)
    np.testing.assert_allclose(numbers(reverse_kl(student, teacher, temperature=2.0)), expected, rtol=1e-4)
    np.testing.assert_allclose(called(ReverseKL(temperature=2), student, teacher), expected, rtol=1e-4)


@pytest.mark.parametrize("mixture", [0.1, 0.5, 0.9])
def test_jensen_shannon_equals_its_definition(mixture):
    student, teacher = logits(0), logits(1)
    p_s, p_t = softmax(student.astype("float64") / 2, axis=-1), softmax(teacher.astype("float64") / 2, axis=-1)
    m = mixture * p_t + (1 - mixture) * p_s
    expected = 4 * (mixture * entropy(p_t, m, axis=-1) + (1 - mixture) * entropy(p_s, m, axis=-1))
    value = jensen_shannon(student, teacher, mixture=mixture, temperature=2.0)
    np.testing.assert_allclose(numbers(value), expected, rtol=1e-4)
    np.testing.assert_allclose(called(JensenShannon(mixture, 2), student, teacher), expected, rtol=1e-4)


def test_jensen_shannon_is_symmetric_bounded_and_goes_to_both_divergences():
    student, teacher = logits(0), logits(1)
    both = [numbers(jensen_shannon(*pair)) for pair in ((student, teacher), (teacher, student))]
    np.testing.assert_allclose(*both, rtol=1e-4)
    far = numbers(jensen_shannon(100 * student, 100 * teacher))
    assert (far <= np.log(2) + 1e-5).all()
    # In float64, for a share of 1e-6 takes six digits away.
    student, teacher = student.astype("float64"), teacher.astype("float64")
    if keras.backend.backend() != "jax":
        forward = numbers(jensen_shannon(student, teacher, mixture=1e-6)) / 1e-6
        np.testing.assert_allclose(forward, numbers(soft_targets(student, teacher, temperature=1.0)), rtol=1e-3)
        reverse = numbers(jensen_shannon(student, teacher, mixture=1 - 1e-6)) / 1e-6
        np.testing.assert_allclose(reverse, numbers(reverse_kl(student, teacher)), rtol=1e-3)


@pytest.mark.parametrize("reverse", [False, True])
def test_skewed_kl_equals_its_definition(reverse):
    student, teacher = logits(0), logits(1)
    p_s, p_t = softmax(student.astype("float64") / 2, axis=-1), softmax(teacher.astype("float64") / 2, axis=-1)
    p, q = (p_s, p_t) if reverse else (p_t, p_s)
    expected = 4 * entropy(p, 0.1 * p + 0.9 * q, axis=-1)
    value = skewed_kl(student, teacher, reverse=reverse, temperature=2.0)
    np.testing.assert_allclose(numbers(value), expected, rtol=1e-4)
    np.testing.assert_allclose(called(SkewedKL(0.1, 2, reverse=reverse), student, teacher), expected, rtol=1e-4)
    far = numbers(skewed_kl(100 * student, 100 * teacher, reverse=reverse))
    assert (far <= -np.log(0.1) + 1e-5).all()


@pytest.mark.parametrize("rest", ["bin", "ignore"])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_equals_its_definition(k, rest):
    student, teacher = logits(0), logits(1)
    expected = []
    for z_s, z_t in zip(student, teacher, strict=True):
        p_s, p_t = softmax(z_s.astype("float64") / 2), softmax(z_t.astype("float64") / 2)
        top = sorted(range(5), key=lambda i, z=z_t: -z[i])[:k]
        in_bins = [[*p[top], 1 - p[top].sum()][: k + (rest == "bin" and k < 5)] for p in (p_t, p_s)]
        expected.append(4 * entropy(*in_bins))  # which brings both to sum 1
    value = top_k_soft_targets(student, teacher, k=k, temperature=2.0, rest=rest)
    np.testing.assert_allclose(numbers(value), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        called(TopKSoftTargets(k, 2, rest=rest), student, teacher), expected, rtol=1e-4, atol=1e-5
    )


def test_top_k_of_all_classes_is_soft_targets():
    student, teacher = logits(0), logits(1)
    full = numbers(soft_targets(student, teacher, temperature=2.0))
    for rest in ("bin", "ignore"):
        value = top_k_soft_targets(student, teacher, k=5, temperature=2.0, rest=rest)
        np.testing.assert_allclose(numbers(value), full, rtol=1e-4)


def test_top_k_knows_the_mass_of_the_rest_and_not_its_shares():
    teacher = np.log([[0.5, 0.3, 0.1, 0.1]]).astype("float32")
    other_shares = np.log([[0.5, 0.3, 0.15, 0.05]]).astype("float32")
    other_mass = np.log([[0.25, 0.15, 0.3, 0.3]]).astype("float32")
    values = {rest: [float(top_k_soft_targets(z, teacher, k=2, rest=rest)[0]) for z in (other_shares, other_mass)]
              for rest in ("bin", "ignore")}  # fmt: skip
    np.testing.assert_allclose(values["bin"], [0, entropy([0.5, 0.3, 0.2], [0.25, 0.15, 0.6])], atol=1e-6)
    np.testing.assert_allclose(values["ignore"], [0, 0], atol=1e-6)


def test_top_k_takes_all_that_tie():
    teacher = np.zeros((1, 4), "float32")
    student = logits(0, (1, 4))
    value = numbers(top_k_soft_targets(student, teacher, k=1))
    np.testing.assert_allclose(value, numbers(soft_targets(student, teacher, temperature=1.0)), rtol=1e-5)


def test_binary_soft_targets_has_the_right_gradient_and_minimum():
    student, teacher = logits(0), logits(1)
    check_gradient(lambda s, t: binary_soft_targets(s, t, temperature=3.0), student, teacher)
    assert np.abs(numbers(binary_soft_targets(teacher, teacher))).max() < 1e-6
    # A unit of logit z is a softmax of (z, 0).
    pairs = [np.stack([z, np.zeros_like(z)], axis=-1).reshape(-1, 2) for z in (student, teacher)]
    by_unit = numbers(soft_targets(*pairs)).reshape(6, 5).sum(-1)
    np.testing.assert_allclose(numbers(binary_soft_targets(student, teacher)), by_unit, rtol=1e-4)
    far = numbers(binary_soft_targets(np.float32([[300.0]]), np.float32([[-300.0]]), temperature=1.0))
    np.testing.assert_allclose(far, [300.0], rtol=1e-6)
    assert 0 < expit(-20.0) < 1e-8  # what a probability would have been clipped to


# --- what all have in common ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_in_double_precision(name):
    if keras.backend.backend() != "tensorflow" and name not in PER_SAMPLE:
        pytest.skip("Keras' mean is of single precision on JAX and PyTorch")
    student, teacher = logits(0), logits(1)
    student[0], student[1, 2] = teacher[0], teacher[1, 2]  # ties, where `max` and `abs` have no slope
    check_gradient(lambda s, t: FUNCTIONS[name](s, t, LABELS), student, teacher, tolerance=1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_shift_of_the_logits_and_the_order_of_the_classes_do_not_matter(name):
    student, teacher = logits(0), logits(1)
    value = numbers(FUNCTIONS[name](student, teacher, LABELS))
    shift = logits(2, (6, 1), scale=20)
    np.testing.assert_allclose(numbers(FUNCTIONS[name](student + shift, teacher - 7, LABELS)), value, rtol=1e-3)
    order = np.array([3, 0, 4, 2, 1])
    moved = np.where(LABELS < 0, -1, order.argsort()[LABELS])
    np.testing.assert_allclose(numbers(FUNCTIONS[name](student[:, order], teacher[:, order], moved)), value, rtol=1e-4)


@pytest.mark.parametrize("name", PER_SAMPLE)
def test_dense_outputs_are_averaged_over_positions(name):
    student, teacher, labels = logits(0, (2, 3, 5)), logits(1, (2, 3, 5)), LABELS.reshape(2, 3)
    flat = numbers(FUNCTIONS[name](student.reshape(-1, 5), teacher.reshape(-1, 5), LABELS)).reshape(2, 3)
    np.testing.assert_allclose(numbers(FUNCTIONS[name](student, teacher, labels)), flat.mean(1), rtol=1e-5)
    loss = STANDARDIZED[name]()
    np.testing.assert_allclose(called(loss, student, teacher, labels), flat, rtol=1e-5)  # one value per position


@pytest.mark.parametrize("name", PER_SAMPLE)
def test_extreme_logits_are_finite_with_the_right_gradient(name):
    far = logits(2)
    far[:3] = [[400.0, -400.0, 0.0, 1.0, 2.0], [0.0] * 5, [-1e3, 3.0, 2.0, -2e3, 1.0]]
    labels = np.array([0, 1, 2, 3, 4, 0])
    for student, teacher in ((far, logits(0)), (logits(0), far), (far, far[:, ::-1].copy())):
        values = numbers(FUNCTIONS[name](student, teacher, labels))
        assert np.isfinite(values).all()
        # By the student alone: the teacher's k largest classes change where its logits are equal.
        check_gradient(
            lambda s, t=teacher: FUNCTIONS[name](s, keras.ops.convert_to_tensor(t, "float64"), labels),
            student,
            tolerance=1e-4,
        )


def z_scores(z):
    return (z - z.mean(-1, keepdims=True)) / z.std(-1, keepdims=True)  # divided by K, as in the paper's equation


@pytest.mark.parametrize("name", STANDARDIZED)
def test_standardised_logits(name):
    student, teacher = logits(0), logits(1)
    value = called(STANDARDIZED[name](standardize=True), student, teacher, LABELS)
    expected = numbers(FUNCTIONS[name](z_scores(student), z_scores(teacher), LABELS))
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    scale, shift = np.exp(logits(2, (6, 1), 1)), logits(3, (6, 1))
    for ours, theirs in ((scale * student + shift, teacher), (student, 3 * teacher - 5)):
        moved = called(STANDARDIZED[name](standardize=True), ours, theirs, LABELS)
        np.testing.assert_allclose(moved, value, rtol=1e-3)
    assert np.abs(called(STANDARDIZED[name](), student, teacher, LABELS) - value).max() > 1e-2


def test_standardised_soft_targets_is_lskd():
    student, teacher = logits(0), logits(1)
    expected = []
    for rows in zip(student, teacher, strict=True):
        p_s, p_t = (softmax((z - z.mean()) / np.sqrt(((z - z.mean()) ** 2).mean()) / 2) for z in rows)
        expected.append(4 * entropy(p_t, p_s))
    value = called(SoftTargets(temperature=2, weight=9, standardize=True), student, teacher)
    np.testing.assert_allclose(value, expected, rtol=1e-4)


# --- settings and errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "setting"),
    [(DecoupledKD(), "alpha"), (DecoupledKD(), "beta"), (NormalizedKD(), "gamma"), (DIST(), "beta"), (DIST(), "gamma"),
     (DIST(), "temperature"), (NormalizedKD(), "temperature")],
)  # fmt: skip
def test_settings_can_be_moved(loss, setting):
    student, teacher, labels = logits(0), logits(1), LABELS
    before = called(loss, student, teacher, labels)
    setattr(loss, setting, 3.0)
    assert getattr(loss, setting) == 3.0 == loss.get_config()[setting]
    after = called(loss, student, teacher, labels)
    again = called(type(loss)(**{setting: 3.0}), student, teacher, labels)
    np.testing.assert_array_equal(after, again)
    assert np.abs(after - before).max() > 1e-3
    with pytest.raises(ValueError, match=f"finite {setting}"):
        setattr(loss, setting, -1.0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: DecoupledKD(alpha=-1), ValueError, "`DecoupledKD` needs a finite alpha of at least 0. Received: -1"),
        (lambda: DecoupledKD(beta="8"), TypeError, "needs a number as beta"),
        (lambda: NormalizedKD(gamma=float("inf")), ValueError, "finite gamma"),
        (lambda: DIST(beta=-1), ValueError, "`DIST` needs a finite beta"),
        (lambda: JensenShannon(mixture=0), ValueError, "finite mixture above 0. Received: 0"),
        (lambda: JensenShannon(mixture=1), ValueError, "mixture below 1. Received: 1.0. At 0 and 1 there is no mix"),
        (lambda: SkewedKL(skew=1.5), ValueError, "`SkewedKL` needs a skew below 1"),
        (lambda: SkewedKL(reverse="yes"), TypeError, "reverse=True or False. Received: 'yes'"),
        (lambda: TopKSoftTargets(0), ValueError, "k of at least 1. Received: 0"),
        (lambda: TopKSoftTargets(2.0), TypeError, "whole number as k. Received: 2.0 of type float"),
        (lambda: TopKSoftTargets(2, rest="spread"), ValueError, "rest='bin' or 'ignore'. Received: 'spread'"),
        (lambda: MultiLevelLogits([]), ValueError, "at least one temperature. Received: an empty list"),
        (lambda: MultiLevelLogits(4.0), TypeError, "a list of temperatures. Received: 4.0"),
        (lambda: MultiLevelLogits([2, 0]), ValueError, "temperature above 0. Received: 0"),
        (lambda: MultiLevelLogits(standardize=1), TypeError, "standardize=True or False"),
        (lambda: ReverseKL(temperature=0), ValueError, "temperature above 0"),
    ],
)
def test_settings_are_checked_when_built(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_need_exclusive_classes_of_equal_number(name):
    make = LOSSES[name][0]
    with pytest.raises(ValueError, match=r"needs exclusive classes, two or more. Received: model 'b' \(None, 5\) endi"):
        make().connect(spec("a", (None, 5), "sigmoid"), spec("b", (None, 5), "sigmoid"))
    with pytest.raises(ValueError, match="Give both models the same classes"):
        make().connect(spec("a", (None, 5)), spec("b", (None, 4)))


@pytest.mark.parametrize("make", [DIST, MultiLevelLogits])
def test_losses_between_samples_refuse_dense_outputs(make):
    with pytest.raises(ValueError, match=r"one prediction for each. Received: model 'b' \(None, 7, 5\). Use `SoftTarg"):
        make().connect(spec("a", (None, 7, 5)), spec("b", (None, 7, 5)))


def test_k_is_at_most_the_number_of_classes():
    TopKSoftTargets(5).connect(spec("a", (None, 5)), spec("b", (None, 5)))
    with pytest.raises(ValueError, match=r"at least k classes. Received: k=6, teacher 'b' \(None, 5\). Take a smaller"):
        TopKSoftTargets(6).connect(spec("a", (None, 5)), spec("b", (None, 5)))


@pytest.mark.parametrize("make", [DecoupledKD, NormalizedKD])
def test_losses_about_the_target_need_labels(make):
    with pytest.raises(ValueError, match=f"`{make.__name__}` needs labels. Received: none. Pass y, with -1"):
        called(make(), logits(0), logits(1))


def test_a_batch_of_one():
    student, teacher = logits(0, (1, 5)), logits(1, (1, 5))
    with pytest.raises(ValueError, match="`dist` compares the samples of a batch"):
        dist(student, teacher)
    # What is left over of an epoch may well be one sample; only JAX and PyTorch see in advance that it is.
    inter = 1 - np.corrcoef(softmax(student[0]), softmax(teacher[0]))[0, 1]
    np.testing.assert_allclose(called(DIST(), student, teacher), inter, rtol=1e-4)
    assert np.isfinite(called(MultiLevelLogits(), student, teacher))


def test_an_epoch_may_end_in_a_batch_of_one():
    keras.utils.set_random_seed(0)
    student, teacher = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name=n) for n in ("s", "t"))
    student.layers[0].kernel.assign(np.zeros((4, 3)))  # all samples alike: no correlation is defined
    losses = [DIST(), MultiLevelLogits()]
    distiller = kdkeras.Distiller(student=student, teacher=teacher)
    distiller.compile("sgd", loss=None, distillation_loss=losses, task_weight=0, max_skipped_steps=None)
    history = distiller.fit(logits(0, (5, 4)), batch_size=4, epochs=1, verbose=0).history
    assert np.isfinite([history["dist"], history["multi_level_logits"]]).all()
    assert np.isfinite(numbers(student.layers[0].kernel)).all()


# --- DeiT: a class head that learns the labels, a distillation head that learns the teacher ---------------------------


@keras.saving.register_keras_serializable(package="kdkeras_tests")
class WithTokens(keras.layers.Layer):
    """Puts a class token and a distillation token before a sequence."""

    def build(self, shape):
        self.tokens = self.add_weight(shape=(1, 2, shape[-1]), initializer="random_normal", name="tokens")

    def call(self, hidden):
        tokens = keras.ops.repeat(self.tokens, keras.ops.shape(hidden)[0], axis=0)
        return keras.ops.concatenate([tokens, hidden], axis=1)


def deit():
    inputs = keras.Input((6, 5))
    hidden = WithTokens(name="tokens")(keras.layers.Dense(8, name="embed")(inputs))
    hidden = hidden + keras.layers.MultiHeadAttention(2, 4, name="attention")(hidden, hidden)
    heads = {
        "label": keras.layers.Dense(3, name="label")(hidden[:, 0]),
        "distillation": keras.layers.Dense(3, name="distillation")(hidden[:, 1]),
    }
    return keras.Model(inputs, heads, name="student")


def test_a_distillation_head_learns_from_a_teacher_with_one_output():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 6, 5)).astype("float32")
    y = rng.integers(0, 3, 64)  # labels that have nothing to do with the teacher
    teacher = keras.Sequential([keras.Input((6, 5)), keras.layers.Flatten(), keras.layers.Dense(3)], name="teacher")
    student = deit()
    distiller = kdkeras.Distiller(student=student, teacher=teacher).compile(
        optimizer=keras.optimizers.Adam(0.03),
        loss={"label": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "distillation": None},
        distillation_loss=HardTargets(output=("distillation", None)),
        task_weight=0.5,
    )
    labels = {"label": y, "distillation": y}

    def measured():
        return distiller.evaluate(x, labels, batch_size=64, verbose=0, return_dict=True)

    said, top = student(x), numbers(teacher(x)).argmax(-1)
    task, hard = (
        -np.log(softmax(numbers(said[head]), axis=-1)[np.arange(64), classes]).mean()
        for head, classes in (("label", y), ("distillation", top))
    )
    before = measured()
    np.testing.assert_allclose(before["task_loss"], task, rtol=1e-4)
    np.testing.assert_allclose(before["hard_targets_distillation"], hard, rtol=1e-4)
    np.testing.assert_allclose(before["loss"], 0.5 * task + 0.5 * hard, rtol=1e-4)

    # Each head has its own teacher: with the task at weight 0, the class head stays.
    kernels = {head: numbers(student.get_layer(head).kernel) for head in ("label", "distillation")}
    distiller.task_weight = 0.0
    distiller.fit(x, labels, batch_size=32, epochs=1, verbose=0)
    np.testing.assert_array_equal(numbers(student.get_layer("label").kernel), kernels["label"])
    assert np.abs(numbers(student.get_layer("distillation").kernel) - kernels["distillation"]).max() > 1e-4

    distiller.task_weight = 0.5
    distiller.fit(x, labels, batch_size=32, epochs=8, verbose=0)
    after = measured()
    assert after["hard_targets_distillation"] < before["hard_targets_distillation"]
    assert after["task_loss"] < before["task_loss"]
