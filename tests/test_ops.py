"""The shared arithmetic, against scipy."""

import numpy as np
from scipy.special import expit, log_softmax
from scipy.stats import entropy

from kdkeras import ops


def test_log_soften():
    logits = np.random.default_rng(0).normal(size=(4, 7)).astype("float32") * 50
    np.testing.assert_allclose(ops.log_soften(logits, 3.0), log_softmax(logits / 3, axis=-1), rtol=1e-5, atol=1e-6)


def test_kl_divergence():
    rng = np.random.default_rng(1)
    p, q = rng.dirichlet(np.ones(6), 3).astype("float32"), rng.dirichlet(np.ones(6), 3).astype("float32")
    np.testing.assert_allclose(ops.kl_divergence(np.log(p), np.log(q)), entropy(p, q, axis=-1), rtol=1e-4)


def test_binary_kl_divergence():
    a, b = np.float32([0.3, -2.0]), np.float32([1.5, 0.1])
    p, q = expit(a), expit(b)
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    np.testing.assert_allclose(ops.binary_kl_divergence(a, b), expected, rtol=1e-4)
    assert np.isfinite(ops.binary_kl_divergence(np.float32(200), np.float32(-200)))


def test_mean_per_sample_of_a_vector_is_the_vector():
    np.testing.assert_array_equal(ops.mean_per_sample(np.float32([1, 2])), [1, 2])
