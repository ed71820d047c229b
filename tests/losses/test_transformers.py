"""Losses between hidden states, attention and values of transformers."""

import keras
import numpy as np
import pytest
from scipy.spatial.distance import cosine
from scipy.special import softmax
from scipy.stats import entropy

import kdkeras
from kdkeras.losses.attention_maps import AttentionMaps, attention_maps
from kdkeras.losses.hidden_states import HiddenStates, hidden_states, layer_map
from kdkeras.losses.value_relations import ValueRelations, value_relations
from kdkeras.signals import Extractor, Signals, SignalSpec
from kdkeras.testing import check_gradient, check_loss, tiny_transformer

KINDS = ("mse", "cosine", "normalized")
V2 = ["query-query", "key-key", "value-value"]


ATTENTION = ["attention1", "attention2"]


def transformers_of_one_width(width=4, name="tiny"):
    return tiny_transformer(name=name)


LOSSES = {
    "hidden_states_mse": (lambda: HiddenStates("hidden2", "hidden2"), None, tiny_transformer),
    "hidden_states_cosine": (lambda: HiddenStates("hidden2", "hidden2", kind="cosine"), None, tiny_transformer),
    "hidden_states_normalized": (
        lambda: HiddenStates(["embed", "hidden2"], ["embed", "hidden2"], kind="normalized"),
        0.0,
        transformers_of_one_width,
    ),
    "attention_maps": (lambda: AttentionMaps("attention1", "attention1", causal=True), 0.0, tiny_transformer),
    "attention_maps_distributions": (
        lambda: AttentionMaps(ATTENTION, ATTENTION, kind="distributions"),
        0.0,
        tiny_transformer,
    ),
    "value_relations": (lambda: ValueRelations("attention2", "attention2"), 0.0, tiny_transformer),
    "value_relations_v2": (
        lambda: ValueRelations("attention2", "attention2", relations=V2, relation_heads=2),
        0.0,
        tiny_transformer,
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_keeps_the_contract(name):
    make, minimum, network = LOSSES[name]
    check_loss(make, minimum=minimum, network=network)


def states(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def numbers(values):
    return keras.ops.convert_to_numpy(values)


def spec(model="m", **features):
    return SignalSpec(model, None, (None, 3), features)


HEADS = [(2, 4, 2, 3), (2, 4, 2, 3), (2, 4, 2, 5), (2, 4, 2, 5)]  # queries and keys of a narrow and a wide model
SHOWN = np.array([[True, True, True, False], [True, True, False, False]])
GRADIENTS = {
    **{kind: (lambda s, t, kind=kind: hidden_states(s, t, kind=kind), [(2, 4, 3), (2, 4, 3)]) for kind in KINDS},
    "scores": (attention_maps, HEADS),
    "distributions": (lambda *x: attention_maps(*x, kind="distributions", mask=SHOWN), HEADS),
    "causal": (lambda *x: attention_maps(*x, kind="distributions", causal=True), HEADS),
    "values": (value_relations, HEADS[1:3]),
    "relation_heads": (lambda s, t: value_relations(s, t, relation_heads=3), [(2, 4, 2, 3), (2, 4, 3, 4)]),
}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras takes means in float32 there")
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient(name):
    function, shapes = GRADIENTS[name]
    check_gradient(function, *(states(seed, *shape) for seed, shape in enumerate(shapes)))


# --- hidden states ---------------------------------------------------------------------------------------------------


def by_scipy(student, teacher, kind):
    values = np.zeros(student.shape[:-1])
    for place in np.ndindex(*values.shape):
        s, t = student[place].astype("float64"), teacher[place].astype("float64")
        values[place] = {
            "mse": ((s - t) ** 2).mean(),
            "cosine": cosine(s, t),
            "normalized": np.linalg.norm(s / np.linalg.norm(s) - t / np.linalg.norm(t)) ** 2,
        }[kind]
    return values


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_equal_scipy(kind):
    student, teacher = states(0, 2, 4, 6), states(1, 2, 4, 6)
    expected = by_scipy(student, teacher, kind).mean(1)
    np.testing.assert_allclose(numbers(hidden_states(student, teacher, kind=kind)), expected, rtol=1e-4)
    np.testing.assert_allclose(numbers(hidden_states(teacher, teacher, kind=kind)), 0, atol=1e-6)
    if kind != "mse":  # lengths are not seen
        np.testing.assert_allclose(numbers(hidden_states(5 * student, teacher, kind=kind)), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_of_zero_have_a_finite_gradient(kind):
    zeros, loss = np.zeros((5, 2, 3), "float32"), HiddenStates("s", "t", kind=kind)
    loss.connect(spec(s=(None, 2, 3)), spec(t=(None, 2, 3)))
    loss.built = True
    projector = keras.layers.Dense(3, kernel_initializer="zeros")
    projector.build((None, 2, 3))

    class Step(keras.Model):
        def call(self, inputs):
            return loss(Signals(None, None, {"s": projector(inputs)}), Signals(None, None, {"t": zeros}))

    model = Step()
    model.projector = projector
    model.compile("sgd", loss=lambda y, value: value)
    model.train_on_batch(zeros, np.zeros(5))
    assert np.isfinite(projector.get_weights()[0]).all()


def test_hidden_states_are_projected_where_widths_differ():
    keras.utils.set_random_seed(0)
    loss, student, teacher = HiddenStates(["a", "b"], ["a", "b"]), states(0, 2, 4, 3), states(1, 2, 4, 6)
    loss.connect(spec(a=(None, 4, 3), b=(None, None, 6)), spec(a=(None, 4, 6), b=(None, 4, 6)))
    loss.built = True
    assert loss.projectors[1] is None and not loss.projectors[0].use_bias
    values = loss(Signals(None, None, {"a": student, "b": teacher}), Signals(None, None, {"a": teacher, "b": teacher}))
    expected = by_scipy(student @ numbers(loss.projectors[0].kernel), teacher, "mse")
    np.testing.assert_allclose(numbers(values), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "counts", "expected"),
    [
        ("skip", (6, 12), [2, 4, 6, 8, 10]),
        ("last", (6, 12), [7, 8, 9, 10, 11]),
        ("uniform", (4, 12), [3, 6, 9, 12]),
        ("uniform", (6, 6), [1, 2, 3, 4, 5, 6]),
        ("uniform", (5, 12), [2, 5, 7, 10, 12]),
        ("uniform", (1, 3), [3]),
        ("skip", (3, 12), [4, 8]),
    ],
)
def test_layer_maps(kind, counts, expected):
    assert layer_map(kind, *counts) == [(place, number - 1) for place, number in enumerate(expected)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layer_map("first", 2, 4), "'skip', 'last' or 'uniform'"),
        (lambda: layer_map("skip", 1, 4), "needs 2 student layers or more for 'skip'.* Received: 1 and 4"),
        (lambda: layer_map("uniform", 6, 4), "Received: 6 and 4"),
        (lambda: HiddenStates("a", "b", kind="l1"), "`HiddenStates` needs a kind of .*'cosine'"),
        (lambda: hidden_states(np.zeros((1, 2)), np.zeros((1, 2)), kind="l1"), "`hidden_states` needs a kind of"),
        (lambda: HiddenStates("a", "a").connect(spec(a=(None, 4, 3)), spec(a=(None, 5, 3))), "equal length"),
        (lambda: HiddenStates("a", "a").connect(spec(a=(None, 4, 3)), spec(a=(None, 3))), "equal rank"),
    ],
)
def test_hidden_states_say_what_they_need(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- attention -------------------------------------------------------------------------------------------------------


def by_loops(student, teacher, kind, allowed):
    """Compare the scores of two models, each given as (queries, keys), at each position."""
    batch, length, heads, _ = student[0].shape
    values = np.zeros((batch, length))
    for sample, place, head in np.ndindex(batch, length, heads):
        seen = [other for other in range(length) if allowed(sample, place, other)]
        if not seen:
            continue
        s, t = (
            np.array([q[sample, place, head] @ k[sample, other, head] for other in seen]) / np.sqrt(q.shape[-1])
            for q, k in (student, teacher)
        )
        values[sample, place] += (
            ((s - t) ** 2).mean() if kind == "scores" else entropy(softmax(t), softmax(s))
        ) / heads
    return values


@pytest.mark.parametrize("kind", ["scores", "distributions"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, SHOWN])
def test_attention_maps_equal_loops(kind, causal, mask):
    q, k, tq, tk = (2 * states(seed, *shape) for seed, shape in enumerate(HEADS))
    shown = np.ones((2, 4), bool) if mask is None else mask

    def allowed(sample, place, other):
        return shown[sample, other] and (other <= place or not causal)

    values = by_loops((q, k), (tq, tk), kind, allowed)
    expected = (values * shown).sum(1) / shown.sum(1)
    options = {"kind": kind, "causal": causal, "mask": mask}
    np.testing.assert_allclose(numbers(attention_maps(q, k, tq, tk, **options)), expected, rtol=1e-4)
    np.testing.assert_allclose(numbers(attention_maps(tq, tk, tq, tk, **options)), 0, atol=1e-6)


def test_distributions_do_not_see_what_all_scores_of_a_position_share():
    q, k, tq, tk = (states(seed, *shape) for seed, shape in enumerate(HEADS))
    options = {"kind": "distributions"}
    np.testing.assert_allclose(
        numbers(attention_maps(q, k + 5, tq, tk, **options)),
        numbers(attention_maps(q, k, tq, tk, **options)),
        rtol=1e-3,
    )


def test_value_relations_equal_loops_and_do_not_see_a_rotation():
    values, other = states(0, 2, 4, 2, 3), states(1, 2, 4, 2, 5)
    expected = by_loops((values, values), (other, other), "distributions", lambda *_: True).mean(1)
    np.testing.assert_allclose(numbers(value_relations(values, other)), expected, rtol=1e-4)
    rotation, _ = np.linalg.qr(states(2, 3, 3))
    np.testing.assert_allclose(numbers(value_relations(values @ rotation, other)), expected, rtol=1e-4)


def test_relation_heads_put_all_heads_together_and_split_them_again():
    values, other = states(0, 2, 4, 2, 6), states(1, 2, 4, 3, 4)
    split = [x.reshape(2, 4, 12).reshape(2, 4, 4, 3) for x in (values, other)]
    expected = by_loops((split[0],) * 2, (split[1],) * 2, "distributions", lambda *_: True).mean(1)
    np.testing.assert_allclose(numbers(value_relations(values, other, relation_heads=4)), expected, rtol=1e-4)
    merged = [x.reshape(2, 4, 12) for x in (values, other)]  # of layers that do not split them
    np.testing.assert_allclose(numbers(value_relations(*merged, relation_heads=4)), expected, rtol=1e-4)


def attention_layer(grouped=False, **settings):
    if grouped:
        return keras.layers.GroupQueryAttention(4, 4, 2, name="attention", **settings)
    return keras.layers.MultiHeadAttention(4, 4, name="attention", **settings)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_the_attention_that_keras_computes_is_what_is_compared(grouped, causal):
    inputs = keras.Input((5, 6))
    both = []
    for name in ("student", "teacher"):
        outputs, weights = attention_layer(grouped)(
            inputs, inputs, return_attention_scores=True, use_causal_mask=causal
        )
        both.append((keras.Model(inputs, outputs, name=name), keras.Model(inputs, weights)))
    x, loss = states(0, 3, 5, 6), AttentionMaps("attention", "attention", kind="distributions", causal=causal)
    extractors = [
        Extractor(model, layers)
        for (model, _), layers in zip(both, (loss.student_layers, loss.teacher_layers), strict=True)
    ]
    loss.connect(*(extractor.spec(keras.KerasTensor((None, 5, 6))) for extractor in extractors))
    loss.built = True
    values = numbers(loss(*(extractor(x) for extractor in extractors)))
    q, p = (numbers(weights(x)).astype("float64") for _, weights in both)  # (b, heads, t, s)
    expected = entropy(p, np.where(p > 0, q, 1), axis=-1).mean(1)
    if not causal:
        np.testing.assert_allclose(values, expected, rtol=1e-3)
    else:  # scipy makes the sum of each row 1: ours does not have the terms that are not attended to
        expected = np.where(p > 0, p * np.log(np.maximum(p, 1e-12) / np.maximum(q, 1e-12)), 0).sum(-1).mean(1)
        np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-6)


def connected(loss, student, teacher):
    for each in (student, teacher):
        each.setdefault("attention_output", (None, 4, 6))
    loss.connect(*(spec(**{f"a/{part}": shape for part, shape in each.items()}) for each in (student, teacher)))


def heads(count, size, length=4):
    return dict.fromkeys(("query", "key", "value"), (None, length, count, size))


@pytest.mark.parametrize(
    ("settings", "student", "teacher", "message"),
    [
        ({}, heads(2, 3), heads(3, 3), "equally many heads.* Pass `relation_heads`"),
        ({}, heads(2, 3), heads(2, 3, 5), "sequences of equal length"),
        ({"relation_heads": 4}, heads(2, 3), heads(4, 3), "4 relation heads share evenly. Received: 'a' of model 'm'"),
        ({}, heads(2, 3) | {"query": (None, 4, 6)}, heads(2, 3), r"shape \(batch, length, heads, size\)"),
        ({}, heads(2, 3) | {"key": (None, 9, 2, 3)}, heads(2, 3), "self-attention"),
    ],
)
def test_attention_layers_that_do_not_fit(settings, student, teacher, message):
    with pytest.raises(ValueError, match=message):
        connected(AttentionMaps("a", "a", **settings), student, teacher)
    with pytest.raises(ValueError, match=message):
        connected(ValueRelations("a", "a", **settings), student, teacher)


def test_heads_may_differ_with_relation_heads_and_grouped_keys_may_always():
    connected(ValueRelations("a", "a", relation_heads=6, relations=V2), heads(2, 6), heads(3, 4))
    grouped = [heads(4, 3) | {"key": (None, 4, count, 3)} for count in (2, 1)]
    connected(AttentionMaps("a", "a"), *grouped)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AttentionMaps("a", "b", kind="kl"), ValueError, "a kind of .*'distributions'"),
        (lambda: attention_maps(*np.zeros((4, 1, 2, 1, 3)), kind="kl"), ValueError, "`attention_maps` needs a kind of"),
        (lambda: AttentionMaps("a", "b", relation_heads=0), ValueError, "one relation head or more"),
        (lambda: AttentionMaps("a", "b", relation_heads=1.5), TypeError, "whole number of relation heads"),
        (lambda: AttentionMaps("a", "b", causal="yes"), TypeError, "causal=True or False"),
        (lambda: ValueRelations("a", "b", relations="value-value"), ValueError, "a list of relations"),
        (lambda: ValueRelations("a", "b", relations=["query-value"]), ValueError, "a list of relations"),
        (lambda: ValueRelations("a", "b", relations=[]), ValueError, "a list of relations"),
    ],
)
def test_attention_losses_check_their_settings(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_layer_without_queries_is_refused():
    student, teacher = tiny_transformer(name="student"), tiny_transformer(name="teacher")
    distiller = kdkeras.Distiller(student=student, teacher=teacher)
    with pytest.raises(ValueError, match="has no layer 'hidden1/attention_output'"):
        distiller.compile("sgd", distillation_loss=AttentionMaps("hidden1", "hidden1"))


# --- padding ---------------------------------------------------------------------------------------------------------


def masked(width, name):
    """A transformer of tokens. No residuals: Keras takes the mask off what goes into an attention layer."""
    tokens = keras.Input((None,), dtype="int32")
    spread = keras.initializers.RandomNormal(stddev=1.0)
    hidden = keras.layers.Embedding(9, width, spread, mask_zero=True, name="embed")(tokens)
    for block in (1, 2):
        hidden = keras.layers.MultiHeadAttention(2, width // 2, name=f"attention{block}")(hidden, hidden)
        hidden = keras.layers.LayerNormalization(name=f"hidden{block}")(hidden)
    pooled = keras.layers.GlobalAveragePooling1D(name="pool")(hidden)
    return keras.Model(tokens, keras.layers.Dense(3, name="head")(pooled), name=name)


PADDED = {
    "hidden_states": lambda: HiddenStates("hidden2", "hidden2", kind="cosine"),
    "scores": lambda: AttentionMaps(ATTENTION, ATTENTION, name="scores"),
    "distributions": lambda: AttentionMaps(ATTENTION, ATTENTION, kind="distributions", name="distributions"),
    "causal": lambda: AttentionMaps("attention1", "attention1", causal=True, name="causal"),
    "value_relations": lambda: ValueRelations("attention2", "attention2"),
    "v2": lambda: ValueRelations("attention2", "attention2", relations=V2, relation_heads=4, name="v2"),
}


def test_padding_is_neither_attended_to_nor_counted():
    keras.utils.set_random_seed(0)
    tokens = np.array([[1, 2, 3, 4], [5, 6, 0, 0], [7, 8, 1, 0]])
    longer = np.pad(tokens, ((0, 0), (0, 3)))
    distiller = kdkeras.Distiller(student=masked(4, "student"), teacher=masked(8, "teacher"))
    losses = [make() for make in PADDED.values()]
    eagerly = keras.backend.backend() != "jax"  # which would compile each operation
    distiller.compile("sgd", loss=None, distillation_loss=losses, task_weight=0, run_eagerly=eagerly)
    short, long = (distiller.evaluate(x, return_dict=True, verbose=0) for x in (tokens, longer))
    assert set(short) == {"loss", *PADDED}
    for name, value in short.items():
        assert value > 1e-4, name
        np.testing.assert_allclose(long[name], value, rtol=1e-3, err_msg=name)
    # Each sequence alone, without any padding, weighed by its length.
    alone = [distiller.evaluate(row[row > 0][None], return_dict=True, verbose=0) for row in tokens]
    for name, value in short.items():
        expected = np.average([each[name] for each in alone], weights=(tokens > 0).sum(1))
        np.testing.assert_allclose(value, expected, rtol=1e-3, err_msg=name)
