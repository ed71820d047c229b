"""Measures of explanations, on models whose true answer is known."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from kdkeras import explain
from kdkeras.explain.measures.subsets import Subsets
from kdkeras.explain.measures.variants import scores_of_variants, single_subject

WEIGHTS = np.array([[3.0], [-2.0], [1.0], [0.5]])
ROW = np.array([[1.0, 1.0, 2.0, 4.0]])  # contributions 3, −2, 2, 2


def linear(weights, activation=None, dtype=None):
    """A model whose logits are x · weights."""
    weights = np.asarray(weights, "float32")
    dense = layers.Dense(weights.shape[1], activation=activation, dtype=dtype)
    model = keras.Sequential([keras.Input((len(weights),)), dense], name="linear")
    dense.set_weights([weights, np.zeros(weights.shape[1])])
    return model


def patch_model(size=8, gain=1.0):
    """A model of images whose class 1 is the sum of the patch in rows 1–3, columns 2–5; its head is a softmax."""
    kernel = np.zeros((size, size, 1, 2), "float32")
    kernel[1:4, 2:6, 0, 1] = gain
    dense = layers.Dense(2, activation="softmax")
    model = keras.Sequential([keras.Input((size, size, 1)), layers.Flatten(), dense], name="patch")
    dense.set_weights([kernel.reshape(-1, 2), np.array([3.0, 0.0])])
    return model


def patch_maps(n, size=8):
    maps = np.zeros((n, size, size))
    maps[:, 1:4, 2:6] = 1
    return maps


def cnn(seed=0, dtype=None, name="cnn"):
    keras.utils.set_random_seed(seed)
    convolutions = [layers.Conv2D(6, 3, activation="relu", name=each, dtype=dtype) for each in ("low", "high")]
    head = [layers.GlobalAveragePooling2D(name="pool", dtype=dtype), layers.Dense(3, name="head", dtype=dtype)]
    return keras.Sequential([keras.Input((10, 10, 1)), *convolutions, *head], name=name)


class Subclassed(keras.Model):
    """Called as a class, so that Keras knows neither its layers' order nor its inputs."""

    def __init__(self, units=3):
        super().__init__()
        self.head = layers.Dense(units, activation="softmax", name="head")
        self.convolution = layers.Conv2D(4, 3, activation="relu", name="conv")
        self.pool = layers.GlobalAveragePooling2D()

    def call(self, x):
        return self.head(self.pool(self.convolution(x)))


def images(n=4, size=10, seed=0):
    return np.random.default_rng(seed).random((n, size, size, 1)).astype("float32")


def table(n=5, features=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, features)).astype("float32")


# --- deletion and insertion ------------------------------------------------------------------------------------------


def test_the_curves_of_a_linear_model_by_hand():
    model, attributions = linear(WEIGHTS), [[3.0, -2.0, 2.0, 1.9]]
    deletion = explain.deletion(model, ROW, attributions)
    np.testing.assert_allclose(deletion.share, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(deletion.scores, [[5, 2, 0, -2, 0]], atol=1e-6)
    np.testing.assert_allclose(deletion.area, [(2.5 + 2 + 0 - 2 + 0) / 4], atol=1e-6)
    insertion = explain.insertion(model, ROW, attributions)
    np.testing.assert_allclose(insertion.scores, [[0, 3, 5, 7, 5]], atol=1e-6)
    np.testing.assert_allclose(insertion.area, [(3 + 5 + 7 + 2.5) / 4], atol=1e-6)


def test_a_baseline_takes_the_place_of_what_is_deleted():
    model, base = linear(WEIGHTS), np.array([2.0, 0, 0, 1])
    scores = explain.deletion(model, ROW, [[4.0, 3.0, 2.0, 1.0]], baseline=base).scores
    np.testing.assert_allclose(scores, [[5, 8, 10, 8, 6.5]], atol=1e-6)
    np.testing.assert_allclose(
        explain.insertion(model, ROW, [[4, 3, 2, 1]], baseline=base).scores[0, [0, -1]], [6.5, 5]
    )


@pytest.mark.parametrize("head", ["softmax", "linear", "sigmoid"])
def test_the_probability_is_that_of_the_models_own_head(head):
    weights = np.array([[1.0, -1.0], [0.0, 2.0]])
    model = linear(weights, None if head == "linear" else head)
    x, z = np.array([[1.0, 2.0]]), np.array([1.0, 3.0])
    p = 1 / (1 + np.exp(-z)) if head == "sigmoid" else np.exp(z) / np.exp(z).sum()
    curve = explain.deletion(model, x, [[1.0, 2.0]], target=1)
    np.testing.assert_allclose(curve.scores[0, 0], p[1], atol=1e-6)
    logit = explain.deletion(model, x, [[1.0, 2.0]], target=1, score="logit")
    np.testing.assert_allclose(logit.scores, [[3, -1, 0]], atol=1e-6)
    np.testing.assert_allclose(explain.deletion(model, x, [[1.0, 2.0]]).scores, curve.scores)  # predicted: 1


def test_the_true_map_beats_a_random_and_an_inverted_one():
    model, x = patch_model(), np.ones((6, 8, 8, 1))
    true = patch_maps(6)
    maps = {"true": true, "random": np.random.default_rng(0).random(true.shape), "inverted": 1 - true}
    deletion = {name: explain.deletion(model, x, each, 1).summary.mean for name, each in maps.items()}
    insertion = {name: explain.insertion(model, x, each, 1, baseline=0).summary.mean for name, each in maps.items()}
    assert deletion["true"] < deletion["random"] - 0.2 < deletion["inverted"] - 0.4
    assert insertion["true"] > insertion["random"] + 0.1 > insertion["inverted"] + 0.2


def test_insertion_of_images_starts_from_a_blur():
    from scipy import ndimage

    x = images(2, 8)
    start = explain.insertion(patch_model(), x, patch_maps(2), 1, score="logit").scores[:, 0]
    blurred = [ndimage.gaussian_filter(each[..., 0].astype("float64"), 5, radius=5) for each in x]
    np.testing.assert_allclose(start, [each[1:4, 2:6].sum() for each in blurred], rtol=1e-5)


def test_a_constant_map_has_no_order_and_no_curve():
    maps = patch_maps(3)
    maps[1] = 0.5
    curve = explain.deletion(patch_model(), np.ones((3, 8, 8, 1)), maps, 1, steps=4)
    np.testing.assert_array_equal(np.isnan(curve.area), [False, True, False])
    assert curve.summary.n == 2
    with pytest.raises(ValueError, match="no deletion curve to draw"):
        explain.deletion(patch_model(), np.ones((1, 8, 8, 1)), np.ones((1, 8, 8)), 1, steps=2).plot()


def test_equal_attributions_go_in_random_order_and_batches_do_not_matter():
    model, x, maps = patch_model(gain=0.3), images(3, 8), patch_maps(3)
    first = explain.deletion(model, x, maps, 1, batch_size=7, seed=1)
    np.testing.assert_allclose(first.scores, explain.deletion(model, x, maps, 1, seed=1).scores, atol=1e-6)
    assert np.abs(first.scores - explain.deletion(model, x, maps, 1, seed=2).scores).max() > 1e-3


# --- fidelity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correlation", ["spearman", "pearson"])
def test_contributions_of_a_linear_model_are_faithful(correlation):
    x, weights = table(), np.random.default_rng(1).normal(size=(6, 3))
    target = np.array([0, 1, 2, 1, 0])
    contributions = x * weights[:, target].T
    options = {"target": target, "samples": 40}
    fidelity = explain.mu_fidelity(linear(weights), x, contributions, correlation=correlation, **options)
    np.testing.assert_allclose(fidelity, 1, atol=1e-5)
    opposite = explain.mu_fidelity(linear(weights), x, -contributions, correlation=correlation, **options)
    np.testing.assert_allclose(opposite, -1, atol=1e-5)
    np.testing.assert_allclose(explain.infidelity(linear(weights), x, contributions, **options), 0, atol=1e-9)


def test_mu_fidelity_of_images_draws_cells_of_a_grid():
    model, x = patch_model(), images(2, 8)
    contributions = x[..., 0] * patch_maps(2)
    fidelity = explain.mu_fidelity(model, x, contributions, 1, correlation="pearson", grid=3, samples=30)
    np.testing.assert_allclose(fidelity, 1, atol=1e-5)
    whole = Subsets((8, 8), share=0.3, grid=4, seed=0).draw(np.arange(3), np.arange(3))
    cells = whole.reshape(3, 4, 2, 4, 2)
    assert (cells.all(axis=(2, 4)) == cells.any(axis=(2, 4))).all()  # all of a cell or nothing
    np.testing.assert_array_equal(cells.all(axis=(2, 4)).sum(axis=(1, 2)), 5)  # 0.3 · 16


def test_infidelity_by_hand_and_after_rescaling():
    model = linear([[2.0], [0.0]])
    x, attributions = np.array([[1.0, 1.0]]), [[1.0, 0.0]]
    half = explain.infidelity(model, x, attributions, samples=400)  # one column at a time: error 1, or none
    share = np.mean([Subsets((2,), share=0.2, grid=1, seed=0).draw([0], [i])[0, 0] for i in range(400)])
    np.testing.assert_allclose(half, share)
    np.testing.assert_allclose(explain.infidelity(model, x, attributions, rescale=True), 0, atol=1e-9)


def test_slopes_are_faithful_to_noise():
    x = np.random.default_rng(0).random((2, 4, 4, 3)).astype("float32")
    dense = layers.Dense(1)
    model = keras.Sequential([keras.Input((4, 4, 3)), layers.Flatten(), dense])
    slopes = dense.get_weights()[0].reshape(1, 4, 4, 3).sum(axis=-1).repeat(2, axis=0)
    options = {"perturbation": "noise", "samples": 50}
    np.testing.assert_allclose(explain.infidelity(model, x, slopes, **options), 0, atol=1e-9)
    # Of nothing predicted of noise of sd 0.2, what is left is the variance of the score: Σ (0.2 w)².
    tiny = explain.infidelity(model, x, 1e-9 * slopes, perturbation="noise", samples=2000)
    np.testing.assert_allclose(tiny, (0.04 * slopes**2).sum(axis=(1, 2)), rtol=0.15)


def test_what_says_nothing_is_not_defined():
    model, x = linear(np.eye(3)), table(4, 3)
    attributions = x.copy()
    attributions[1], attributions[2] = 0, 1
    fidelity = explain.mu_fidelity(model, x, attributions, samples=20)
    np.testing.assert_array_equal(np.isnan(fidelity), [False, True, True, False])
    infidelity = explain.infidelity(model, x, attributions, samples=20)
    np.testing.assert_array_equal(np.isnan(infidelity), [False, True, False, False])
    deaf = linear(np.zeros((3, 1)))  # its score never changes
    assert np.isnan(explain.mu_fidelity(deaf, x, x, samples=20)).all()


# --- stability -------------------------------------------------------------------------------------------------------


def test_a_constant_gradient_never_moves_and_a_moving_one_by_as_much_as_it_does():
    model, x = linear(np.ones((6, 1))), table()

    def gradient(model, x, target):
        return np.ones_like(x)

    def twice(model, x, target):
        return 2 * x

    assert explain.max_sensitivity(model, x, gradient).max() == explain.average_stability(model, x, gradient).max() == 0
    largest = explain.max_sensitivity(model, x, twice, radius=0.1, samples=100)
    mean = explain.average_stability(model, x, twice, radius=0.1, samples=100)
    norm = np.linalg.norm(x, axis=1)
    assert (largest > mean).all()
    assert (largest <= 0.1 * np.sqrt(6) / norm).all()
    np.testing.assert_allclose(mean, 0.1 * np.sqrt(6 / 3) / norm, rtol=0.1)
    np.testing.assert_array_equal(mean, explain.average_stability(model, x, twice, radius=0.1, samples=100))


def test_grad_cam_is_explained_again_for_the_same_target_and_layer():
    model, x = cnn(), images(3)
    explanation = explain.attribute(model, x, [0, 1, 2], layer="low")
    by_record = explain.max_sensitivity(model, x, explanation, samples=2)

    def by_hand(model, x, target):
        asked.append(target.tolist())
        return explain.attribute(model, x, target, layer="low").maps

    asked = []
    again = explain.max_sensitivity(model, x, by_hand, [0, 1, 2], samples=2, batch_size=4)
    assert asked == [[0, 1, 2], [0, 0, 1, 1], [2, 2]]
    np.testing.assert_allclose(by_record, again, rtol=1e-4)
    np.testing.assert_array_equal(np.isnan(by_record), explanation.zero)


# --- sparseness, complexity, pointing --------------------------------------------------------------------------------


def test_sparseness_and_complexity_by_hand():
    maps = np.array([[[0, 0], [0, -7]], [[1, 1], [1, 1]], [[1, 2], [3, 4]], [[0, 0], [0, 0]]])
    # Gini of 1, 2, 3, 4: mean difference of all pairs over twice the mean, 20 / 16 / 2 / 2.5.
    np.testing.assert_allclose(explain.sparseness(maps), [0.75, 0, 0.25, np.nan], atol=1e-12)
    p = np.array([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(explain.complexity(maps), [0, np.log(4), -(p * np.log(p)).sum(), np.nan], atol=1e-12)


def test_the_pointing_game():
    maps = np.zeros((5, 6, 6))
    maps[0, 2, 3] = maps[1, 0, 0] = maps[2, 5, 5] = 1
    maps[3, 1, 1] = maps[3, 4, 4] = 2  # two largest places
    boxes = [(2, 3, 3, 4), (2, 2, 6, 6), [(0, 0, 1, 1), (5, 5, 6, 6)], (0, 0, 3, 3), (0, 0, 6, 6)]
    np.testing.assert_array_equal(explain.pointing_game(maps, boxes=boxes), [1, 0, 1, 0.5, np.nan])
    masks = np.zeros((5, 6, 6), bool)
    masks[:2, 2:, 2:], masks[2, 0] = True, True
    np.testing.assert_array_equal(explain.pointing_game(maps, masks=masks), [1, 0, 0, np.nan, np.nan])
    distance = np.hypot(2, 2)
    assert explain.pointing_game(maps, masks=masks, tolerance=distance)[1] == 1
    assert explain.pointing_game(maps, masks=masks, tolerance=distance - 0.01)[1] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either `boxes` or `masks`"),
        ({"boxes": [(0, 0, 1, 1)]}, "one entry per map. Received: 1 for 2"),
        ({"boxes": [(0, 0, 1, 1), (0, 0, 5, 1)]}, r"within maps of 4×4.*Received: \[0.0, 0.0, 5.0, 1.0\]"),
        ({"boxes": [(0, 0, 1), (0, 0, 1)]}, "whole pixels"),
        ({"masks": np.ones((2, 3, 3))}, r"the maps' shape \(2, 4, 4\)"),
        ({"masks": np.full((2, 4, 4), 0.5)}, "boolean, or 0 and 1"),
    ],
)
def test_regions_have_to_fit(options, message):
    with pytest.raises(ValueError, match=message):
        explain.pointing_game(np.zeros((2, 4, 4)), **options)


# --- randomisation ---------------------------------------------------------------------------------------------------


def gradients(model, x, target):
    """Gradient × input, summed over channels."""
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        score = tf.gather(model(x, training=False), target, batch_dims=1)
    return tf.reduce_sum(x * tape.gradient(score, x), axis=-1).numpy()


def test_randomisation_leaves_the_callers_model_and_lowers_the_similarity():
    model, x = cnn(3), images()
    before = [weight.copy() for weight in model.get_weights()]
    result = explain.model_randomisation(model, x, gradients)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert result.layers == ("head", "high", "low")
    assert set(result.similarity) == {"spearman", "cosine", "ssim"}
    lowest = {name: np.nanmean(rows[-1]) for name, rows in result.similarity.items()}
    assert all(value < 0.7 for value in lowest.values()), lowest
    again = explain.model_randomisation(model, x, gradients)
    np.testing.assert_array_equal(result.similarity["cosine"], again.similarity["cosine"])
    json.dumps(result.to_dict(), allow_nan=False)
    assert [line[0] for line in result.table()] == ["random down to", "head", "high", "low"]
    assert "similarity to the explanations of 'cnn'" in str(result)


def test_an_explanation_that_ignores_the_model_does_not_change():
    result = explain.model_randomisation(cnn(), images(), lambda model, x, target: x[..., 0], layers=["low"])
    assert result.layers == ("low",)
    for rows in result.similarity.values():
        np.testing.assert_allclose(rows, 1)


def test_weights_keep_their_scale_and_every_weight_of_a_layer_is_replaced():
    seen = []

    def watch(model, x, target):
        seen.append([weight.copy() for weight in model.get_weights()])
        return x[..., 0]

    model = cnn(2)
    model.get_layer("head").set_weights([np.full((6, 3), 2.0), np.array([1.0, 2.0, 3.0])])
    explain.model_randomisation(model, images(), watch)
    trained, head, high, low = seen
    np.testing.assert_array_equal(trained[-1], [1, 2, 3])
    assert sorted(head[-1]) == [1, 2, 3]  # a vector is shuffled
    assert not np.isclose(head[-2], trained[-2]).any()  # a kernel is drawn
    np.testing.assert_allclose(np.sqrt((head[-2] ** 2).mean()), 2, rtol=0.5)
    np.testing.assert_array_equal(head[0], trained[0])
    np.testing.assert_array_equal(high[0], trained[0])  # the lowest layer comes last
    assert (high[2] != trained[2]).all()
    assert (low[0] != trained[0]).all()
    assert len(seen) == 4


def test_the_layers_of_a_subclassed_model_go_from_the_last_called_to_the_first():
    keras.utils.set_random_seed(0)
    model = Subclassed()
    result = explain.model_randomisation(model, images(), "grad_cam")
    assert result.layers == ("head", "conv")


def test_weights_of_cells_and_nested_models_are_found():
    recurrent = keras.Sequential([keras.Input((5, 3)), layers.LSTM(4, name="lstm")], name="body")
    model = keras.Sequential([keras.Input((5, 3)), recurrent, layers.Dense(2, name="head")])
    x = np.random.default_rng(0).normal(size=(3, 5, 3))
    result = explain.model_randomisation(model, x, lambda model, x, target: x)
    assert result.layers == ("head", "body/lstm/lstm_cell")


def test_what_prepares_the_data_stays_and_statistics_of_batches_do_not():
    scale, batches = layers.Normalization(), layers.BatchNormalization(name="batches")
    x = table(50) * np.arange(1, 7) + 3
    scale.adapt(x)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), scale, layers.Dense(5, name="low"), batches, layers.Dense(2)])
    batches.set_weights([np.arange(1.0, 6), *[np.arange(5.0)] * 2, np.arange(1.0, 6)])
    seen = []

    def watch(model, x, target):
        seen.append((model.layers[0](x), *model.get_layer("batches").get_weights()))
        return x

    result = explain.model_randomisation(model, x, watch)
    assert result.layers == (model.layers[-1].name, "low")
    first, *_, last = seen
    np.testing.assert_allclose(first[0], scale(x), rtol=1e-6)
    np.testing.assert_allclose(last[0], scale(x), rtol=1e-6)
    for before, after in zip(first[1:], last[1:], strict=True):
        assert (before != after).any()
        np.testing.assert_array_equal(np.sort(before), np.sort(after))


def test_a_model_that_cannot_be_cloned_is_refused():
    class Odd(Subclassed):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

    with pytest.raises(ValueError, match="cannot be cloned, and the caller's own is never made random"):
        explain.model_randomisation(Odd(object()), images(), "grad_cam")
    with pytest.raises(ValueError, match=r"weights of their own, such as \['head', 'high', 'low'\]"):
        explain.model_randomisation(cnn(), images(), gradients, layers=["pool"])


# --- together --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report():
    """Grad-CAM of a model, with one map that is zero and one that is constant."""
    model, x = cnn(1), images(6)
    explanation = explain.attribute(model, x)
    explanation.maps[0], explanation.maps[1] = 0, 0.5
    boxes = [(0, 0, 5, 5)] * 6
    options = {"steps": 6, "samples": 20, "neighbours": 2, "boxes": boxes, "randomise": True, "seed": 4}
    return model, x, explanation, explain.faithfulness(model, x, explanation, **options)


def test_one_call_gives_what_the_measures_give(report):
    model, x, explanation, whole = report
    given = model, x, explanation
    expected = {
        "deletion": explain.deletion(*given, steps=6, seed=4).area,
        "insertion": explain.insertion(*given, steps=6, seed=4).area,
        "mu_fidelity": explain.mu_fidelity(*given, samples=20, seed=4),
        "infidelity": explain.infidelity(*given, samples=20, seed=4, rescale=True),
        "max_sensitivity": explain.max_sensitivity(*given, samples=2, seed=4),
        "average_stability": explain.average_stability(*given, samples=2, seed=4),
        "sparseness": explain.sparseness(explanation),
        "complexity": explain.complexity(explanation),
        "pointing_game": explain.pointing_game(explanation, boxes=[(0, 0, 5, 5)] * 6),
    }
    assert list(whole.measures) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(whole.measures[name], values, rtol=1e-6, err_msg=name)
    assert whole.randomisation.layers == ("head", "high", "low")


def test_the_record_counts_sums_up_and_prints(report):
    *_, whole = report
    assert (whole.zeros, whole.constants) == (1, 1)
    deletion = whole.measures["deletion"]
    np.testing.assert_array_equal(np.isnan(deletion)[:2], True)
    summary, left = whole.summary["deletion"], deletion[~np.isnan(deletion)]
    assert summary.n == len(left) == 4
    half = 3.182446 * left.std(ddof=1) / 2  # Student's t of 3 degrees of freedom
    np.testing.assert_allclose(summary.interval, [left.mean() - half, left.mean() + half], rtol=1e-6)
    table = whole.table()
    assert table[0] == ("measure", "mean", "95 % interval", "better", "random maps", "samples")
    random = f"{whole.control.measures['deletion'].mean():.3f}"
    assert (table[1][0], *table[1][-2:]) == ("deletion area", random, "4")
    assert len(table) == 1 + 9
    assert "1 zero everywhere, 1 constant" in str(whole)
    assert str(whole).startswith("Grad-CAM of 6 samples by 'cnn'")
    record = json.loads(json.dumps(whole.to_dict(), allow_nan=False))
    assert record["measures"]["deletion"][0] is None
    assert record["summary"]["deletion"]["n"] == 4
    whole.plot().canvas.draw()
    axes = whole.plot().axes
    assert [axis.get_title().split(":")[0] for axis in axes] == ["Deletion", "Insertion"]
    assert {"random maps", "mean of 4"} < {text.get_text() for text in axes[0].get_legend().get_texts()}


def test_the_control_is_what_random_maps_get(report):
    model, x, explanation, whole = report
    random = np.random.default_rng(4).random(explanation.maps.shape)
    alone = explain.faithfulness(model, x, random, explanation.target, steps=6, samples=20, seed=4, control=False)
    assert alone.control is None
    for name in ("deletion", "insertion", "mu_fidelity", "infidelity"):
        np.testing.assert_allclose(whole.control.measures[name], alone.measures[name], rtol=1e-6)
    assert alone.table()[1][4] == ""


def test_a_table_and_a_batch_of_one():
    x = table(1)
    model = linear(np.ones((6, 1)), "sigmoid")
    whole = explain.faithfulness(model, x, x, explainer=lambda model, x, target: x, samples=20)
    np.testing.assert_allclose(whole.measures["mu_fidelity"], 1, atol=1e-5)
    assert whole.deletion.scores.shape == (1, 7)
    assert whole.table()[1][2] == "–"  # one sample has no interval
    assert "pointing_game" not in whole.measures
    whole.plot().canvas.draw()


@pytest.mark.parametrize("kind", ["mixed_float16", "mixed_bfloat16", "subclassed"])
def test_half_precision_and_subclassed_models(kind):
    keras.utils.set_random_seed(1)
    model = Subclassed() if kind == "subclassed" else cnn(1, dtype=kind)
    x = images(2)
    explanation = explain.attribute(model, x)
    whole = explain.faithfulness(
        model, x, explanation, steps=3, samples=10, neighbours=1, radius=0.05, randomise=True, batch_size=8
    )
    assert whole.measures["deletion"].dtype == "float64"
    assert np.isfinite(whole.measures["insertion"]).all()
    last = whole.insertion.scores[:, -1]  # everything is revealed
    np.testing.assert_allclose(last, whole.deletion.scores[:, 0], atol=1e-3)
    p = model.predict(x, verbose=0).astype("float64")
    p = p if kind == "subclassed" else np.exp(p) / np.exp(p).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(last, p.max(axis=1), atol=5e-3)


# --- refusals --------------------------------------------------------------------------------------------------------


def two_inputs():
    inputs = [keras.Input((2,)), keras.Input((2,))]
    return keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(inputs)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: explain.deletion(two_inputs(), [np.ones((1, 2))] * 2, np.ones((1, 2))), "models with one input.* 2"),
        (lambda: explain.deletion(linear(WEIGHTS), ROW, np.ones((1, 3))), r"shape \(1, 3\) for x of shape \(1, 4\)"),
        (lambda: explain.deletion(linear(WEIGHTS), ROW, np.full((1, 4), np.nan)), "attributions contains 4 NaN"),
        (lambda: explain.deletion(linear(WEIGHTS), ROW, ROW, 1), "between 0 and 0"),
        (lambda: explain.deletion(linear(WEIGHTS), ROW, ROW, steps=0), "`steps` must be a whole number"),
        (lambda: explain.deletion(linear(WEIGHTS), ROW, ROW, batch_size=0), "`batch_size` must be a whole number"),
        (lambda: explain.deletion(linear(WEIGHTS), ROW, ROW, score="odds"), "`score` must be 'probability' or 'logit'"),
        (lambda: explain.deletion(linear(WEIGHTS), ROW, ROW, baseline="blur"), "needs images"),
        (lambda: explain.deletion(linear(WEIGHTS), ROW, ROW, baseline="mean"), "a number, an array or 'blur'"),
        (
            lambda: explain.deletion(linear(WEIGHTS), ROW, ROW, baseline=[1, 2]),
            r"broadcasts to x. Received: shape \(2,\)",
        ),
        (lambda: explain.mu_fidelity(linear(WEIGHTS), ROW, ROW, correlation="kendall"), "'spearman' or 'pearson'"),
        (lambda: explain.mu_fidelity(linear(WEIGHTS), ROW, ROW, samples=1), "`samples` must be at least 2"),
        (lambda: explain.mu_fidelity(linear(WEIGHTS), ROW, ROW, share=1), r"in \(0, 1\)"),
        (lambda: explain.infidelity(linear(WEIGHTS), ROW, ROW, perturbation="blur"), "'subsets' or 'noise'"),
        (lambda: explain.infidelity(linear(WEIGHTS), ROW, ROW, perturbation="noise", sd=0), "`sd` must be positive"),
        (lambda: explain.max_sensitivity(linear(WEIGHTS), ROW, "guess"), "must be one of grad_cam"),
        (lambda: explain.max_sensitivity(linear(WEIGHTS), ROW, np.abs, radius=0), "`radius` must be positive"),
        (lambda: explain.faithfulness(linear(WEIGHTS), ROW, ROW, randomise=True), "`explainer`, to explain again"),
        (lambda: explain.sparseness([1.0, 2.0]), r"Received: shape \(2,\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_no_model_or_explainer_is_refused():
    with pytest.raises(TypeError, match=r"must be a `keras.Model`"):
        explain.deletion("model", ROW, ROW)
    with pytest.raises(TypeError, match=r"a function \(model, x, target\)"):
        explain.max_sensitivity(linear(WEIGHTS), ROW, 3)


def test_noise_needs_floats():
    model = keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(9, 2), layers.Flatten()])
    model.add(layers.Dense(2))
    x = np.array([[1, 2, 3, 4]])
    with pytest.raises(ValueError, match=r"floats only. Received: x of int32"):
        explain.max_sensitivity(model, x, lambda model, x, target: x)
    assert explain.deletion(model, x, x).scores.shape == (1, 5)  # token 0 takes their place


def test_scores_of_a_model_that_overflows_are_refused():
    model = linear([[1e38]])
    asked = single_subject(model, np.ones((1, 1)))
    with pytest.raises(ValueError, match="returns NaN or infinite values"):
        scores_of_variants(asked, 1, lambda samples, versions: np.full((1, 1), 1e3), "logit")
