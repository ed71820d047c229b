"""Losses on the relations between samples, against loops over pairs and triples."""

import itertools
import math

import keras
import numpy as np
import pytest

from kdkeras import losses
from kdkeras.signals import Signals, SignalSpec
from kdkeras.testing import check_gradient, check_loss, tiny_stages


def stages(**options):
    """Return `tiny_stages` with features so large that the contract's central differences are small against them."""
    model = tiny_stages(**options)
    for norm in ("norm1", "norm2"):
        model.get_layer(norm).gamma.assign(np.full(model.get_layer(norm).gamma.shape, 30.0))
    return model


LOSSES = {
    "similarity_preserving": (lambda: losses.SimilarityPreserving("relu2", "relu2"), 0.0, stages),
    "correlation_congruence": (lambda: losses.CorrelationCongruence("pool", "pool"), None, stages),
    "correlation_congruence_of_features": (
        lambda: losses.CorrelationCongruence("pool", "pool", embedding=None),
        0.0,
        stages,
    ),
    "relational_distance": (lambda: losses.RelationalDistance("pool", "pool"), 0.0, stages),
    "relational_distance_of_maps": (lambda: losses.RelationalDistance("relu1", "pool"), 0.0, stages),
    "relational_angle": (lambda: losses.RelationalAngle("pool", "pool"), 0.0, stages),
    "pkt": (lambda: losses.PKT("pool", "pool"), 0.0, stages),
    "several_pairs": (lambda: losses.PKT(["relu2", "head"], ["relu2", "head"]), 0.0, stages),
}
FUNCTIONS = {
    "similarity_preserving": losses.similarity_preserving,
    "correlation_congruence": losses.correlation_congruence,
    "relational_distance": losses.relational_distance,
    "relational_angle": losses.relational_angle,
    "pkt": losses.pkt,
}
CLASSES = [
    losses.SimilarityPreserving,
    losses.CorrelationCongruence,
    losses.RelationalDistance,
    losses.RelationalAngle,
    losses.PKT,
]


def features(seed=0, shape=(5, 3)):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def number(value):
    return float(keras.ops.convert_to_numpy(value))


# --- what the papers say, in loops and float64 ------------------------------------------------------------------------


def similarities(x):
    x = x.astype("float64").reshape(len(x), -1)
    gram = np.array([[np.dot(a, b) for b in x] for a in x])
    return np.array([row / math.sqrt((row**2).sum()) for row in gram])


def slow_similarity_preserving(s, t):
    return np.linalg.norm(similarities(s) - similarities(t), "fro") ** 2 / len(s) ** 2


def slow_correlation_congruence(s, t, gamma=0.4, order=2):
    def kernel(a, b):
        a, b = (v.astype("float64").ravel() / np.linalg.norm(v) for v in (a, b))
        terms = [(2 * gamma) ** p / math.factorial(p) * np.dot(a, b) ** p for p in range(order + 1)]
        return math.exp(-2 * gamma) * sum(terms)

    return np.mean([(kernel(s[i], s[j]) - kernel(t[i], t[j])) ** 2 for i in range(len(s)) for j in range(len(s))])


def smooth_l1(difference):
    return difference**2 / 2 if abs(difference) < 1 else abs(difference) - 0.5


def slow_relational_distance(s, t):
    def distances(x):
        x = x.astype("float64").reshape(len(x), -1)
        d = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        return d / d[d > 0].mean()

    return np.mean([smooth_l1(d) for d in (distances(s) - distances(t)).ravel()])


def slow_relational_angle(s, t):
    def cosine(x, i, j, k):
        one, other = (x[place].astype("float64").ravel() - x[j].astype("float64").ravel() for place in (i, k))
        lengths = np.linalg.norm(one) * np.linalg.norm(other)
        return np.dot(one, other) / lengths if lengths else 0.0

    triples = itertools.product(range(len(s)), repeat=3)
    return np.mean([smooth_l1(cosine(s, *places) - cosine(t, *places)) for places in triples])


def slow_pkt(s, t):
    def probabilities(x):
        x = x.astype("float64").reshape(len(x), -1)
        kernel = np.array([[(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) + 1) / 2 for b in x] for a in x])
        return np.array([row / row.sum() for row in kernel])

    p, q = probabilities(t), probabilities(s)
    return np.mean(p * np.log((p + 1e-7) / (q + 1e-7)))


SLOW = {
    "similarity_preserving": slow_similarity_preserving,
    "correlation_congruence": slow_correlation_congruence,
    "relational_distance": slow_relational_distance,
    "relational_angle": slow_relational_angle,
    "pkt": slow_pkt,
}


@pytest.mark.parametrize("name", LOSSES)
def test_contract(name):
    make, minimum, network = LOSSES[name]
    check_loss(make, minimum=minimum, network=network)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_value_is_that_of_the_definition(name):
    student, teacher = features(0, (5, 1, 3)), features(1, (5, 4)) + 3
    np.testing.assert_allclose(number(FUNCTIONS[name](student, teacher)), SLOW[name](student, teacher), rtol=2e-4)


def test_correlation_congruence_is_near_the_gaussian_kernel():
    x = features() / np.linalg.norm(features(), axis=1, keepdims=True)
    gaussian = np.exp(-0.4 * ((x[:, None] - x[None]) ** 2).sum(-1))
    far = np.eye(5, dtype="float32")  # all of them at a distance of √2 from each other
    expected = np.mean((gaussian - (np.eye(5) * (1 - math.exp(-0.8)) + math.exp(-0.8))) ** 2)
    np.testing.assert_allclose(number(losses.correlation_congruence(x, far, order=9)), expected, rtol=1e-4)


def test_large_distances_count_linearly():
    student, teacher = np.zeros((5, 3), "float32"), np.zeros((5, 4), "float32")
    student[:, 0], teacher[:, 0] = [0, 1, 2, 3, 4], [0, 0.1, 0.2, 0.3, 50]
    expected = slow_relational_distance(student, teacher)
    np.testing.assert_allclose(number(losses.relational_distance(student, teacher)), expected, rtol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras takes products in float32 there")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient(name):
    weights = np.array([1.0, 0.5, 0.0, 2.0, 1.0])
    check_gradient(FUNCTIONS[name], features(0), features(1, (5, 4)))
    check_gradient(
        lambda s, t: FUNCTIONS[name](s, t, sample_weight=weights), features(0), features(1, (5, 4)), tolerance=1e-5
    )


# --- what they do not see ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_scale_and_rotation_do_not_count(name):
    student, teacher = features(0), features(1, (5, 4))
    rotation = np.linalg.qr(features(2, (3, 3)))[0]
    moved = 1e-3 * student @ rotation
    expected = number(FUNCTIONS[name](student, teacher))
    np.testing.assert_allclose(number(FUNCTIONS[name](moved, 1e3 * teacher)), expected, rtol=1e-3)


@pytest.mark.parametrize("name", ["relational_distance", "relational_angle"])
def test_distances_and_angles_do_not_see_a_shift(name):
    student, teacher = features(0), features(1, (5, 4))
    expected = number(FUNCTIONS[name](student, teacher))
    np.testing.assert_allclose(number(FUNCTIONS[name](student + 100, teacher)), expected, rtol=1e-3)


@pytest.mark.parametrize("name", ["correlation_congruence", "pkt"])
def test_kernels_of_cosines_do_not_see_the_size_of_a_sample(name):
    student, teacher = features(0), features(1, (5, 4))
    sizes = np.array([[1.0], [2.0], [0.5], [30.0], [1.0]], "float32")
    expected = number(FUNCTIONS[name](student, teacher))
    np.testing.assert_allclose(number(FUNCTIONS[name](student * sizes, teacher)), expected, rtol=1e-4)


# --- sample weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("anything", [0.0, 1e4, float("nan")])
def test_samples_of_weight_0_are_not_there(name, anything):
    student, teacher = features(0), features(1, (5, 4))
    weights = np.array([1, 1, 0, 1, 0], "float32")
    student[weights == 0], teacher[weights == 0] = anything, anything
    # The sum over the others, of which there are three, over the five samples of the batch, as Keras takes the mean.
    expected = SLOW[name](student[weights > 0], teacher[weights > 0]) * 3 / 5
    np.testing.assert_allclose(number(FUNCTIONS[name](student, teacher, sample_weight=weights)), expected, rtol=1e-3)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_weights_count_linearly(name):
    student, teacher = features(0), features(1, (5, 4))
    weights = np.array([1.0, 0.5, 0.0, 2.0, 1.0], "float32")
    once, thrice = (number(FUNCTIONS[name](student, teacher, sample_weight=w)) for w in (weights, 3 * weights))
    np.testing.assert_allclose(thrice, 3 * once, rtol=1e-4)
    assert number(FUNCTIONS[name](student, teacher, sample_weight=0 * weights)) == 0


# --- where relations end ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("case", ["identical", "near", "zero", "one", "all_zero"])
def test_values_and_gradients_are_finite(name, case):
    student, teacher = features(0), features(1, (5, 4))
    if case == "identical":
        student[1] = student[0]
    if case == "near":
        student[1] = student[0] * (1 + 1e-6)
    if case == "zero":
        student[0], teacher[2] = 0, 0
    if case == "all_zero":
        student *= 0
    if case == "one":
        student, teacher = student[:1], teacher[:1]
    value, gradient = value_and_gradient(lambda x: FUNCTIONS[name](x, teacher), student)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def value_and_gradient(function, array):
    if keras.backend.backend() == "jax":
        import jax

        return tuple(np.asarray(each) for each in jax.value_and_grad(function)(array))
    if keras.backend.backend() == "torch":
        import torch

        tensor = torch.tensor(array, requires_grad=True)
        value = function(tensor)
        return number(value), torch.autograd.grad(value, tensor)[0].numpy()
    import tensorflow as tf

    tensor = tf.Variable(array)
    with tf.GradientTape() as tape:
        value = function(tensor.value())
    return number(value), tape.gradient(value, tensor).numpy()


def test_identical_samples_have_no_distance_and_no_angle():
    student, teacher = features(0), features(1, (5, 4))
    student[1], teacher[3] = student[0], teacher[2]
    for name in ("relational_distance", "relational_angle"):
        np.testing.assert_allclose(number(FUNCTIONS[name](student, teacher)), SLOW[name](student, teacher), rtol=1e-3)


@pytest.mark.parametrize("loss", CLASSES)
def test_a_batch_of_one_is_refused(loss):
    loss = loss("s", "t")
    loss.connect(SignalSpec("a", None, (None, 3), {"s": (None, 2)}), SignalSpec("b", None, (None, 3), {"t": (None, 3)}))
    signals = [Signals(None, None, {name: features(0, (1, size))}) for name, size in (("s", 2), ("t", 3))]
    with pytest.raises(ValueError, match="Received: a batch of one"):
        loss.call(*signals)


# --- the embeddings of correlation congruence -------------------------------------------------------------------------


def connected(**options):
    keras.utils.set_random_seed(0)
    loss = losses.CorrelationCongruence("s", "t", **options)
    loss.connect(
        SignalSpec("a", None, (None, 3), {"s": (None, 2, 2, 3)}), SignalSpec("b", None, (None, 3), {"t": (None, 7)})
    )
    loss.built = True
    return loss


def test_the_teachers_embedding_is_fixed_and_keeps_its_correlations():
    loss = connected(embedding=16)
    student, teacher = features(0, (5, 2, 2, 3)), features(1, (5, 7))
    kernel, bias = loss.heads[0][0].get_weights()
    assert [tuple(weight.shape) for weight in loss.trainable_variables] == [(12, 16), (16,)]
    value = loss(Signals(None, None, {"s": student}), Signals(None, None, {"t": teacher}))
    expected = slow_correlation_congruence(student.reshape(5, 12) @ kernel + bias, teacher)
    np.testing.assert_allclose(number(value), expected, rtol=1e-3)


def test_embeddings_need_layers_of_known_size():
    sizes = [SignalSpec("a", None, (None, 3), {"c": shape}) for shape in ((None, None, None, 3), (None, 5))]
    with pytest.raises(ValueError, match=r"layers of known size. Received: student 'c' \(None, None, None, 3\)"):
        losses.CorrelationCongruence("c", "c").connect(*sizes)
    losses.CorrelationCongruence("c", "c", embedding=None).connect(*sizes)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"gamma": 0}, ValueError, "finite gamma above 0. Received: 0"),
        ({"order": 0}, ValueError, "order of at least 1. Received: 0"),
        ({"order": 1.5}, TypeError, "whole number as order. Received: 1.5 of type float"),
        ({"embedding": True}, TypeError, "whole number as embedding"),
    ],
)
def test_settings_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        losses.CorrelationCongruence("s", "t", **options)
