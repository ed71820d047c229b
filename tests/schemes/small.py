"""Small dense networks, the data they learn, and what they compute, in numpy."""

import keras
import numpy as np
from scipy import special

rng = np.random.default_rng(0)
X = rng.normal(0, 2, (32, 4)).astype("float32")
Y = rng.integers(0, 3, 32).astype("int32")
# For a few batches, a step run eagerly costs less than to compile it; JAX would compile each operation of it.
EAGER = {"run_eagerly": keras.backend.backend() != "jax"}


def task():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(name, width=6, units=3, activation=None, seed=None):
    """Two hidden layers, `h1` and `h2`, and a classifier, `head`."""
    keras.utils.set_random_seed(sum(map(ord, name)) if seed is None else seed)
    layers = [
        keras.Input((4,)),
        keras.layers.Dense(width, "relu", name="h1"),
        keras.layers.Dense(width, "relu", name="h2"),
        keras.layers.Dense(units, activation, name="head"),
    ]
    return keras.Sequential(layers, name=name)


def layers_of(weights, x=X):
    """Return the outputs of h1 and h2 and the logits, from a network's weights."""
    w1, b1, w2, b2, w3, b3 = (np.asarray(weight, "float64") for weight in weights[:6])
    h1 = np.maximum(x @ w1 + b1, 0)
    h2 = np.maximum(h1 @ w2 + b2, 0)
    return h1, h2, h2 @ w3 + b3


def divergence(teacher, student, temperature=1.0):
    """T² KL(softmax(z_t / T) ‖ softmax(z_s / T)), the mean over samples."""
    log_p, log_q = (special.log_softmax(z / temperature, axis=1) for z in (teacher, student))
    return temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()


def cross_entropy(z, y=Y):
    return -special.log_softmax(z, axis=1)[np.arange(len(y)), y].mean()


def unchanged(model, before):
    return all(np.array_equal(now, then) for now, then in zip(model.get_weights(), before, strict=True))


def close(model, other, rtol=1e-4, atol=1e-6):
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)
