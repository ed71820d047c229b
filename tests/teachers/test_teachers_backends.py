"""The same numbers from an ensemble on every backend: this file runs itself once more under the other."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kdkeras.signals import Extractor
from kdkeras.teachers import ClassMap, Ensemble

rng = np.random.default_rng(0)
X = rng.normal(0, 2, (20, 4)).astype("float32")
WEIGHTS = [[rng.normal(size=shape).astype("float32") for shape in ((4, 5), (5,), (5, 3), (3,))] for _ in range(3)]


def members(activation):
    models = []
    for name, weights in zip("abc", WEIGHTS, strict=True):
        hidden = [keras.layers.Dense(5, "relu", name="hidden"), keras.layers.Dropout(0.5)]
        models.append(keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(3, activation)], name=name))
        models[-1].set_weights(weights)
    return models


def compiled_draws(ensemble, count):
    """Answers of `count` compiled calls with `training=True`."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        step = tf.function(lambda x: ensemble(x, training=True))
        return [np.asarray(step(X)) for _ in range(count)]
    if keras.backend.backend() == "torch":
        return [keras.ops.convert_to_numpy(ensemble(X, training=True)) for _ in range(count)]
    import jax

    step = jax.jit(lambda trained, state, x: ensemble.stateless_call(trained, state, x, training=True))
    trained, state = (
        [v.value for v in ensemble.trainable_variables],
        [v.value for v in ensemble.non_trainable_variables],
    )
    draws = []
    for _ in range(count):
        answers, state = step(trained, state, X)  # the state of the draws is among the variables
        draws.append(np.asarray(answers))
    return draws


def numbers():
    """Everything that must not depend on the backend, by name."""
    found = {}
    for activation in ("softmax", "sigmoid"):
        for combine in ("mean", "confidence"):
            for of in ("logits", "probabilities"):
                reader = Extractor(Ensemble(members(activation), combine, of=of))
                signals = reader(X)
                assert reader.head == activation
                for name in ("predictions", "logits"):
                    value = keras.ops.convert_to_numpy(getattr(signals, name))
                    found[f"{activation} {combine} {of} {name}"] = value
    mapped = ClassMap(Ensemble(members("softmax")), [2, [0, 1]])
    found["map"] = keras.ops.convert_to_numpy(Extractor(mapped)(X).logits)
    models = members("softmax")
    single = np.stack([keras.ops.convert_to_numpy(model(X)) for model in models])
    draws = compiled_draws(Ensemble(models, "random", seed=0), 30)
    places = [int(np.abs(single - drawn).max(axis=(1, 2)).argmin()) for drawn in draws]
    assert sorted(set(places)) == [0, 1, 2], places
    # Each backend draws in an order of its own: compare what each member said when it was drawn.
    found["random"] = np.stack([draws[places.index(place)] for place in range(3)])
    for drawn, place in zip(draws, places, strict=True):
        np.testing.assert_allclose(drawn, single[place], atol=1e-6)
    found["random in evaluation"] = keras.ops.convert_to_numpy(Ensemble(models, "random", seed=0)(X))
    return found


@pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=pytest.mark.slow)])
def test_the_same_numbers_on_every_backend(backend, tmp_path):
    pytest.importorskip(backend)
    path = tmp_path / "numbers.npz"
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run([sys.executable, __file__, str(path)], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    theirs, ours = np.load(path), numbers()
    assert set(theirs.files) == set(ours)
    for name, values in ours.items():
        np.testing.assert_allclose(theirs[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


if __name__ == "__main__":
    np.savez(sys.argv[1], **numbers())
