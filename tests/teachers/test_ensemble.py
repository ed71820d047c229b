"""Ensembles: numbers against numpy and scipy in float64, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats

from kdkeras.counting import count_macs
from kdkeras.layer_paths import layer_paths
from kdkeras.signals import Extractor, predict_with_head
from kdkeras.teachers import ClassMap, Ensemble

rng = np.random.default_rng(0)
X = rng.normal(0, 2, (40, 4)).astype("float32")


def net(name, activation="softmax", units=3, seed=None, width=5):
    keras.utils.set_random_seed(sum(map(ord, name)) if seed is None else seed)
    dense = keras.layers.Dense
    hidden = [dense(width, "relu", name="hidden"), keras.layers.Dropout(0.5, name="dropout")]
    head = dense(units, activation, name="head", kernel_initializer=keras.initializers.RandomNormal(stddev=2.0))
    return keras.Sequential([keras.Input((4,)), *hidden, head], name=name)


def logits_of(model, x=X):
    """The logits in float64 from the weights alone: no Keras, no dropout."""
    kernel, bias, head, offset = (weight.astype("float64") for weight in model.get_weights())
    return np.maximum(x.astype("float64") @ kernel + bias, 0) @ head + offset


def members(activation="softmax", units=3, count=3):
    models = [net(name, activation, units) for name in "abc"[:count]]
    return models, np.stack([logits_of(model) for model in models])


def distribution(z, activation):
    return special.expit(z) if activation == "sigmoid" else special.softmax(z, axis=-1)


def entropies(z, activation):
    """By scipy.stats, from the probabilities."""
    p = distribution(z, activation)
    if activation == "sigmoid":
        return stats.entropy(np.stack([p, 1 - p]), axis=0).sum(axis=-1)
    return stats.entropy(p, axis=-1)


def expected_weights(combine, z, activation):
    if combine == "weighted":
        return np.array([1.0, 2.0, 5.0]).reshape(3, 1, 1) / 8
    if combine == "mean":
        return np.full((3, 1, 1), 1 / 3)
    h = entropies(z, activation)
    return ((1 - h / h.sum(axis=0)) / 2)[..., np.newaxis]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
@pytest.mark.parametrize("of", ["logits", "probabilities"])
@pytest.mark.parametrize("combine", ["mean", "weighted", "confidence"])
def test_numbers_against_scipy(combine, of, activation):
    models, z = members(activation)
    ensemble = Ensemble(models, combine, weights=[1, 2, 5] if combine == "weighted" else None, of=of)
    signals, head = predict_with_head(ensemble, X)
    w = expected_weights(combine, z, activation)
    np.testing.assert_allclose(w.sum(axis=0), 1, rtol=1e-12)
    p = distribution((w * z).sum(axis=0), activation) if of == "logits" else (w * distribution(z, activation)).sum(0)
    assert head == ensemble.head == (activation or "linear")
    np.testing.assert_allclose(distribution(signals.logits.astype("float64"), activation), p, atol=2e-6)
    if of == "logits":
        np.testing.assert_allclose(signals.logits, (w * z).sum(axis=0), atol=5e-5)
    expected = signals.logits if activation is None else p
    np.testing.assert_allclose(signals.predictions, expected, atol=2e-6)


def test_mean_of_logits_is_the_geometric_mean_of_the_distributions():
    models, z = members()
    geometric = stats.gmean(special.softmax(z, axis=-1), axis=0)
    expected = geometric / geometric.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(Ensemble(models).predict(X, verbose=0), expected, atol=1e-6)


@pytest.mark.parametrize("of", ["logits", "probabilities"])
def test_logits_stay_finite_and_exact_where_probabilities_underflow(of):
    models = [net(name) for name in "ab"]
    for model, shift in zip(models, ([300.0, 0.0, -300.0], [0.0, 250.0, -500.0]), strict=True):
        layer = model.get_layer("head")
        layer.set_weights([np.zeros_like(layer.get_weights()[0]), np.array(shift, "float32")])
    z = np.array([[300.0, 0.0, -300.0], [0.0, 250.0, -500.0]])
    logits = predict_with_head(Ensemble(models, of=of), X[:1])[0].logits[0].astype("float64")
    if of == "logits":
        np.testing.assert_allclose(logits, z.mean(axis=0), rtol=1e-6)
    else:
        expected = special.logsumexp(special.log_softmax(z, axis=1) + np.log(0.5), axis=0)
        np.testing.assert_allclose(logits, expected, rtol=1e-6)
        assert logits[2] < -500  # log p itself, where p is 0 in float32


def test_a_member_without_any_doubt_has_all_the_weight_and_equals_share_it():
    models = [net(name) for name in "ab"]
    for model, bias in zip(models, ([200.0, 0.0, 0.0], [0.0, 1.0, 2.0]), strict=True):
        layer = model.get_layer("head")
        layer.set_weights([np.zeros_like(layer.get_weights()[0]), np.array(bias, "float32")])
    sure = Ensemble(models, "confidence").predict(X[:1], verbose=0)
    np.testing.assert_allclose(sure, [[1, 0, 0]], atol=1e-7)
    models[1].get_layer("head").bias.assign([0.0, 300.0, 0.0])
    both = predict_with_head(Ensemble(models, "confidence"), X[:1])[0].logits
    np.testing.assert_allclose(both, [[100, 150, 0]])  # neither doubts: the plain mean


def test_dense_outputs_are_weighed_position_by_position():
    def per_pixel(name):
        keras.utils.set_random_seed(ord(name))
        return keras.Sequential([keras.Input((4, 4, 2)), keras.layers.Conv2D(3, 1, activation="softmax")], name=name)

    models, x = [per_pixel("a"), per_pixel("b")], rng.normal(size=(5, 4, 4, 2)).astype("float32")
    z = np.stack([x.astype("float64") @ model.get_weights()[0][0, 0] + model.get_weights()[1] for model in models])
    h = stats.entropy(special.softmax(z, axis=-1), axis=-1)
    w = (1 - h / h.sum(axis=0))[..., np.newaxis]
    expected = (w * special.softmax(z, axis=-1)).sum(axis=0)
    np.testing.assert_allclose(
        Ensemble(models, "confidence", of="probabilities").predict(x, verbose=0), expected, atol=1e-6
    )


def test_regressors_average_and_softmax_beside_logits_ends_in_logits():
    first, second = net("a", None, units=1), net("b", None, units=1)
    expected = (logits_of(first) + logits_of(second)) / 2
    np.testing.assert_allclose(Ensemble([first, second]).predict(X, verbose=0), expected, atol=1e-5)
    first, second = net("a", "softmax"), net("b", None)
    mixed = Ensemble([first, second])
    assert mixed.head == "linear"
    np.testing.assert_allclose(mixed.predict(X, verbose=0), (logits_of(first) + logits_of(second)) / 2, atol=1e-5)


def test_members_run_in_inference_mode_and_give_no_other_answer_in_training():
    models, _ = members()
    for combine in ("mean", "confidence"):
        ensemble = Ensemble(models, combine)
        np.testing.assert_array_equal(ensemble(X, training=True), ensemble(X, training=False))
        assert not ensemble.stochastic


def test_half_precision_members_are_combined_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        models = [net(name) for name in "ab"]
        ensemble = Ensemble(models, of="probabilities")
    finally:
        keras.config.set_dtype_policy("float32")
    assert models[0](X).dtype == "float16"
    z = np.stack([np.asarray(Extractor(model)(X).logits, "float64") for model in models])
    answer = ensemble(X)
    assert answer.dtype == "float32"
    np.testing.assert_allclose(answer, special.softmax(z, axis=-1).mean(axis=0), atol=1e-6)


# --- a random member ----------------------------------------------------------------------------------------------


class Counted(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, dtype="int32")

    def call(self, inputs):
        self.calls.assign_add(1)
        return inputs


def test_random_runs_one_member_per_compiled_step_and_both_in_their_turn():
    counters = [Counted(), Counted()]
    plain = [net(name) for name in "ab"]
    models = [
        keras.Sequential([keras.Input((4,)), counter, *model.layers], name=model.name)
        for counter, model in zip(counters, plain, strict=True)
    ]
    ensemble = Ensemble(models, "random", seed=3)
    assert ensemble.stochastic
    answers = special.softmax(np.stack([logits_of(model) for model in plain]), axis=-1)
    step = tf.function(lambda x: ensemble(x, training=True))
    step(X)
    for counter in counters:
        counter.calls.assign(0)
    drawn = []
    for _ in range(40):
        errors = np.abs(step(X) - answers).max(axis=(1, 2))
        assert errors.min() < 1e-6 < errors.max()
        drawn.append(int(errors.argmin()))
    assert [int(counter.calls) for counter in counters] == [drawn.count(0), drawn.count(1)]
    assert 10 <= drawn.count(0) <= 30  # 20 ± 3 standard deviations
    again = Ensemble(models, "random", seed=3)
    again(X, training=True)
    assert [int(np.abs(again(X, training=True) - answers).max(axis=(1, 2)).argmin()) for _ in range(40)] == drawn


def test_random_is_the_mean_in_evaluation_and_passes_through_a_class_map():
    models, z = members(count=2)
    ensemble = Ensemble(models, "random", seed=0)
    np.testing.assert_allclose(ensemble.predict(X, verbose=0), special.softmax(z.mean(axis=0), axis=-1), atol=1e-6)
    mapped = ClassMap(ensemble, [2, 0])
    assert mapped.stochastic
    answers = special.softmax(z[..., [2, 0]], axis=-1)
    seen = {int(np.abs(mapped(X, training=True) - answers).max(axis=(1, 2)).argmin()) for _ in range(20)}
    assert seen == {0, 1}


def test_layers_of_a_random_ensemble_cannot_be_tapped():
    ensemble = Ensemble(members(count=2)[0], "random")
    with pytest.raises(ValueError, match=r"runs one member per step.*taps at \['a/hidden'\].*combine='mean'"):
        Extractor(ensemble, ["a/hidden"]).spec(ensemble.input)
    assert Extractor(ensemble).spec(ensemble.input).head == "softmax"


# --- as a Keras model ---------------------------------------------------------------------------------------------


def test_features_of_members_are_tapped_by_path():
    models, _ = members(count=2)
    signals = Extractor(Ensemble(models), ["a/hidden", "b/hidden"])(X)
    for model in models:
        kernel, bias = model.get_weights()[:2]
        np.testing.assert_allclose(
            signals.features[f"{model.name}/hidden"], np.maximum(X @ kernel + bias, 0), atol=1e-5
        )
    assert {"a/hidden", "b/head"} <= set(layer_paths(Ensemble(models)))


def test_its_multiply_accumulates_are_those_of_its_members():
    ensemble = Ensemble([net("a", width=5), net("b", width=7)])
    expected = (4 * 5 + 5 * 3) + (4 * 7 + 7 * 3)
    assert count_macs(ensemble) == count_macs(ClassMap(ensemble, [0, 1])) == expected


@pytest.mark.parametrize("combine", ["weighted", "random"])
def test_save_and_load(tmp_path, combine):
    models, _ = members(count=2)
    ensemble = Ensemble(
        models, combine, [1, 3] if combine == "weighted" else None, of="probabilities", seed=5, name="e"
    )
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.saving.load_model(tmp_path / "ensemble.keras")
    assert type(loaded) is Ensemble
    assert (loaded.combine, loaded.of, loaded.seed, loaded.name) == (combine, "probabilities", 5, "e")
    assert loaded.member_weights == ensemble.member_weights
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), ensemble.predict(X, verbose=0))


@keras.saving.register_keras_serializable(package="test_teachers")
class Subclassed(keras.Model):
    def __init__(self, name):
        super().__init__(name=name)
        self.head = keras.layers.Dense(3, "softmax", name="head")

    def call(self, inputs):
        return self.head(inputs)

    def get_config(self):
        return {"name": self.name}


def test_subclassed_members_are_built_by_the_first_data(tmp_path):
    models = [Subclassed("a"), Subclassed("b")]
    ensemble = Ensemble(models)
    assert ensemble.inputs is None and not ensemble.built
    extractor = Extractor(ensemble, ["b/head"])
    answers = np.asarray(extractor(X).predictions)
    assert extractor.head == ensemble.head == "softmax"
    z = np.mean([X @ model.get_weights()[0] + model.get_weights()[1] for model in models], axis=0)
    np.testing.assert_allclose(answers, special.softmax(z, axis=-1), atol=1e-6)
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.saving.load_model(tmp_path / "ensemble.keras")
    np.testing.assert_array_equal(loaded(X), answers)


def test_inputs_are_known_at_once_and_may_be_nested():
    def two_inputs(name):
        inputs = {"u": keras.Input((2,), name="u"), "v": keras.Input((3,), name="v")}
        joined = keras.layers.Concatenate()([inputs["u"], inputs["v"]])
        return keras.Model(inputs, keras.layers.Dense(3, "softmax")(joined), name=name)

    models = [two_inputs("a"), two_inputs("b")]
    ensemble = Ensemble(models)
    assert ensemble.built
    assert {name: spec.shape for name, spec in ensemble.input.items()} == {"u": (None, 2), "v": (None, 3)}
    assert [spec.shape for spec in ensemble.inputs] == [(None, 2), (None, 3)]
    x = {"u": X[:, :2], "v": X[:, 1:]}
    z = np.mean([np.concatenate([x["u"], x["v"]], 1) @ m.get_weights()[0] + m.get_weights()[1] for m in models], 0)
    np.testing.assert_allclose(ensemble.predict(x, verbose=0), special.softmax(z, axis=-1), atol=1e-6)


# --- refusals -----------------------------------------------------------------------------------------------------


def shaped(name, shape):
    return keras.Sequential([keras.Input(shape), keras.layers.Dense(3)], name=name)


def two_outputs(name):
    inputs = keras.Input((4,))
    return keras.Model(inputs, [keras.layers.Dense(3)(inputs), keras.layers.Dense(3)(inputs)], name=name)


class HandMadeSoftmax(keras.Model):
    def __init__(self, name):
        super().__init__(name=name)
        self.dense = keras.layers.Dense(3)

    def call(self, inputs):
        exp = keras.ops.exp(self.dense(inputs))
        return exp / keras.ops.sum(exp, axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ensemble([net("a")]), r"two models or more. Received: \['a'\]"),
        (lambda: Ensemble([net("a"), net("a")]), r"different names.*\['a', 'a'\].*Set `model.name`"),
        (lambda: Ensemble([net("a"), net("b")], "median"), "mean, weighted, confidence, random. Received: 'median'"),
        (lambda: Ensemble([net("a"), net("b")], of="votes"), "logits, probabilities. Received: 'votes'"),
        (lambda: Ensemble([net("a"), net("b")], "weighted"), "needs weights for combine='weighted'.*weights=None"),
        (lambda: Ensemble([net("a"), net("b")], weights=[1, 2]), "only for it. Received: combine='mean'"),
        (lambda: Ensemble([net("a"), net("b")], "weighted", [1, 2, 3]), "for each of 2 models"),
        (lambda: Ensemble([net("a"), net("b")], "weighted", [1, 0]), r"positive.*weights=\[1, 0\]"),
        (lambda: Ensemble([net("a"), net("b")], "weighted", [1, float("nan")]), "positive"),
        (lambda: Ensemble([net("a"), net("b", units=4)]), r"equal shape.*'b': \(None, 4\).*ClassMap"),
        (lambda: Ensemble([net("a"), net("b", "sigmoid")]), "one kind of head.*'a': 'softmax', 'b': 'sigmoid'"),
        (lambda: Ensemble([net("a", None), net("b", "sigmoid")]), "one kind of head"),
        (lambda: Ensemble([shaped("a", (4,)), shaped("b", (5,))]), r"same inputs. Received: \[\(5,\)\] for model 'b'"),
        (lambda: Ensemble([two_outputs("a"), two_outputs("b")]), "'a' must have exactly one output. Received: 2"),
        (lambda: Ensemble([net("a", None, 1), net("b", None, 1)], "confidence"), "class probabilities.*one unit"),
        (lambda: Ensemble([net("a", None, 1), net("b", None, 1)], of="probabilities"), "of='logits'.*regression"),
        (lambda: Ensemble([net("a", None), HandMadeSoftmax("b")]), "'b' returns probabilities.*could not be found"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_members_must_be_keras_models():
    with pytest.raises(TypeError, match=r"needs Keras models. Received: .* of type str"):
        Ensemble([net("a"), "b.keras"])
