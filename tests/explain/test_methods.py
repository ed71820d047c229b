"""Every method of attribution on models whose true answer is known."""

import keras
import numpy as np
import pytest
from keras import layers

from kdkeras import explain

rng = np.random.default_rng(0)
WEIGHTS = np.array([[2.0, -1.0], [0.5, 0.0], [-3.0, 1.0], [0.0, 0.0]], "float32")
TABLE = rng.normal(size=(5, 4)).astype("float32")


def linear(weights=WEIGHTS, shape=(4,), activation="softmax"):
    dense = layers.Dense(weights.shape[1], activation=activation)
    model = keras.Sequential([keras.Input(shape), layers.Flatten(), dense], name="linear")
    dense.set_weights([weights, np.full(weights.shape[1], 0.3)])
    return model


def bend(seed=0):
    """A smooth model that is not linear."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), layers.Dense(8, "tanh"), layers.Dense(3, activation="softmax")])


def logits(model, x):
    values = np.asarray(model(x))
    return np.log(values)  # up to a constant of each row, which differences between classes do not see


@pytest.mark.parametrize("target", [0, 1])
def test_a_linear_logit_is_explained_by_its_weights(target):
    weights = WEIGHTS[:, target]
    expected = {
        "saliency": np.tile(np.abs(weights), (5, 1)),
        "smooth_grad": np.tile(np.abs(weights), (5, 1)),
        "gradient_times_input": weights * TABLE,
        "integrated_gradients": weights * (TABLE - TABLE.mean(axis=0)),
        "occlusion": weights * (TABLE - TABLE.mean(axis=0)),
    }
    for method, values in expected.items():
        explanation = explain.attribute(linear(), TABLE, target, method)
        np.testing.assert_allclose(explanation.raw, values, atol=1e-5, err_msg=method)
        assert (explanation.layer, explanation.maps.shape) == (None, TABLE.shape)
        largest = np.abs(explanation.maps).max(axis=1)
        np.testing.assert_allclose(largest, 1, atol=1e-6)


def test_baselines_can_be_given():
    start = np.array([1.0, 2.0, 3.0, 4.0])
    for method in (explain.IntegratedGradients(baseline=start), explain.Occlusion(baseline=start)):
        found = explain.attribute(linear(), TABLE, 0, method).raw
        np.testing.assert_allclose(found, WEIGHTS[:, 0] * (TABLE - start), atol=1e-5)
    with pytest.raises(ValueError, match=r"broadcasts to x. Received: shape \(3,\) for x of shape \(5, 4\)"):
        explain.attribute(linear(), TABLE, 0, explain.Occlusion(baseline=np.ones(3)))


def test_integrated_gradients_lose_nothing_of_the_logit():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "tanh"), layers.Dense(3)])
    explanation = explain.attribute(model, 3 * TABLE, 1, explain.IntegratedGradients(baseline=0.0))
    difference = np.asarray(model(3 * TABLE))[:, 1] - np.asarray(model(np.zeros((5, 4))))[:, 1]
    np.testing.assert_allclose(explanation.raw.sum(axis=1), difference, atol=1e-4)
    coarse = explain.attribute(model, 3 * TABLE, 1, explain.IntegratedGradients(steps=1, baseline=0.0))
    assert np.abs(coarse.raw.sum(axis=1) - difference).max() > 1e-2


def test_gradients_are_those_of_finite_differences():
    model, step = bend(), 1e-3
    found = explain.attribute(model, TABLE, 2, "saliency").raw
    ends = []
    for sign in (1, -1):
        moved = np.repeat(TABLE[:, None], 4, axis=1) + sign * step * np.eye(4, dtype="float32")
        z = np.log(np.asarray(model(moved.reshape(-1, 4)), "float64"))
        ends.append((z[:, 2], z[:, 0]))
    # The softmax shifts all logits alike: the difference of two classes is free of it.
    slope = ((ends[0][0] - ends[0][1]) - (ends[1][0] - ends[1][1])).reshape(5, 4) / (2 * step)
    both = [explain.attribute(model, np.ones_like(TABLE) * 0 + TABLE, t, "gradient_times_input").raw for t in (2, 0)]
    np.testing.assert_allclose((both[0] - both[1]) / TABLE, slope, rtol=2e-2, atol=2e-3)
    assert (found >= 0).all()


def test_channels_of_images():
    weights = rng.normal(size=(3 * 3 * 2, 2)).astype("float32")
    x = rng.normal(size=(4, 3, 3, 2)).astype("float32")
    model, cube = linear(weights, (3, 3, 2)), weights[:, 1].reshape(3, 3, 2)
    expected = {
        "saliency": np.broadcast_to(np.abs(cube).max(axis=-1), (4, 3, 3)),
        "gradient_times_input": (cube * x).sum(axis=-1),
        "integrated_gradients": (cube * x).sum(axis=-1),  # from black
        "occlusion": (cube * x).sum(axis=-1),  # a window of one pixel
    }
    for method, values in expected.items():
        explanation = explain.attribute(model, x, 1, method)
        np.testing.assert_allclose(explanation.raw, values, atol=1e-5, err_msg=method)
        assert explanation.maps.shape == (4, 3, 3)


def patch_model():
    """Counts the light in the square from (4, 8), and nothing else."""
    weights = np.zeros((16, 16, 1, 2), "float32")
    weights[4:8, 8:12, :, 1] = 0.3  # so that no probability is nearly 1
    return linear(weights.reshape(-1, 2), (16, 16, 1))


def share_inside(maps):
    positive = np.maximum(maps, 0)
    return positive[:, 4:8, 8:12].sum(axis=(1, 2)) / positive.sum(axis=(1, 2))


@pytest.mark.parametrize(
    ("method", "least"),
    [("occlusion", 0.7), (explain.Occlusion(window=4, stride=4), 0.999), (explain.RISE(masks=300, seed=1), 0.18)],
)
def test_what_is_hidden_finds_a_planted_patch(method, least):
    x = rng.random((3, 16, 16, 1)).astype("float32")
    explanation = explain.attribute(patch_model(), x, 1, method)
    inside = share_inside(explanation.raw)
    assert (inside > least).all()  # of 16 of 256 pixels: 0.06 by chance
    top, left = np.unravel_index(explanation.raw.reshape(3, -1).argmax(axis=1), (16, 16))
    assert ((top >= 3) & (top <= 8) & (left >= 7) & (left <= 12)).all()


def test_rise_is_the_expectation_over_masks():
    explanation = explain.attribute(linear(), TABLE, 0, explain.RISE(masks=1500, seed=0))
    masks = np.array(np.meshgrid(*[[0, 1]] * 4)).reshape(4, -1).T  # all sixteen
    p = np.asarray(linear()((TABLE[:, None] * masks).reshape(-1, 4).astype("float32")))[:, 0].reshape(5, 16)
    expected = ((p - p.mean(axis=1, keepdims=True))[:, :, None] * masks).mean(axis=1) / 0.5
    np.testing.assert_allclose(explanation.raw, expected, atol=0.05)
    again = explain.attribute(linear(), TABLE, 0, explain.RISE(masks=1500, seed=0))
    np.testing.assert_array_equal(again.raw, explanation.raw)


def test_score_cam_weighs_channels_by_what_is_seen_through_them():
    keras.utils.set_random_seed(0)
    convolution, head = layers.Conv2D(3, 3, activation="relu", padding="same", name="conv"), layers.Dense(2)
    model = keras.Sequential([keras.Input((8, 8, 1)), convolution, layers.Flatten(), head])
    x = rng.random((2, 8, 8, 1)).astype("float32")
    explanation = explain.attribute(model, x, 1, "score_cam")
    features = np.asarray(convolution(x))
    expected = np.zeros((2, 8, 8))
    for channel in range(3):
        mask = features[..., channel]
        low, high = mask.min(axis=(1, 2), keepdims=True), mask.max(axis=(1, 2), keepdims=True)
        seen = x * ((mask - low) / (high - low))[..., None]
        z = np.asarray(model(seen), "float64")
        expected += mask * (1 / (1 + np.exp(z[:, 0] - z[:, 1])))[:, None, None]
    np.testing.assert_allclose(explanation.raw, expected, atol=1e-5)
    with pytest.raises(ValueError, match="`ScoreCAM` needs images and a layer of shape"):
        explain.attribute(model, x, 1, "score_cam", layer=model.layers[-1].path.split("/")[-1])


def transformer(class_token):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    tokens = layers.Reshape((16, 6))(layers.Conv2D(6, 2, strides=2, name="patches")(inputs))
    if class_token:
        tokens = layers.Concatenate(axis=1)([0 * tokens[:, :1] + 1, tokens])
    for block in (1, 2):
        normed = layers.LayerNormalization(name=f"norm{block}")(tokens)
        attention = layers.MultiHeadAttention(2, 3, name=f"attention{block}")(normed, normed)
        tokens = layers.Add(name=f"tokens{block}")([tokens, attention])
    pooled = tokens[:, 0] if class_token else layers.GlobalAveragePooling1D()(tokens)
    return keras.Model(inputs, layers.Dense(3)(pooled), name="vit")


@pytest.mark.parametrize("class_token", [True, False])
def test_tokens_of_a_vision_transformer_become_the_image_again(class_token):
    x = rng.random((3, 8, 8, 1)).astype("float32")
    explanation = explain.attribute(transformer(class_token), x, 1)
    assert explanation.layer == "norm2"  # after the last attention, a class token is all that counts
    assert explanation.raw.shape == (3, 17 if class_token else 16)
    assert explanation.maps.shape == (3, 8, 8)
    assert explanation.raw.max() > 0
    tokens = explanation.raw[:, int(class_token) :].reshape(3, 4, 4)
    pooled = explanation.maps.reshape(3, 4, 2, 4, 2).mean(axis=(2, 4))
    for token_map, pixels in zip(tokens, pooled, strict=True):
        if token_map.any():
            assert np.corrcoef(token_map.ravel(), pixels.ravel())[0, 1] > 0.85  # bilinear: smoothed a little


def by_hand(model, x):
    """Attention rollout from the layers' own attention scores."""
    rolled = np.eye(16)
    norms = [keras.Model(model.inputs[0], model.get_layer(f"norm{block}").output)(x) for block in (1, 2)]
    for block, normed in zip((1, 2), norms, strict=True):
        _, scores = model.get_layer(f"attention{block}")(normed, normed, return_attention_scores=True)
        rolled = (0.5 * np.asarray(scores).mean(axis=1) + 0.5 * np.eye(scores.shape[-1])) @ rolled
    return rolled


def test_attention_rollout_is_the_product_of_the_layers_attention():
    x = rng.random((3, 8, 8, 1)).astype("float32")
    pooled, classed = transformer(class_token=False), transformer(class_token=True)
    found = explain.attribute(pooled, x, method="attention_rollout")
    np.testing.assert_allclose(found.raw, by_hand(pooled, x).mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(found.raw.sum(axis=1), 1, atol=1e-5)
    assert found.maps.shape == (3, 8, 8)
    normed = keras.Model(classed.inputs[0], classed.get_layer("norm1").output)(x)
    assert normed.shape[1] == 17
    found = explain.attribute(classed, x, method="attention_rollout")
    assert (found.raw.shape, found.maps.shape) == ((3, 17), (3, 8, 8))
    with pytest.raises(ValueError, match=r"needs a model with `keras.layers.MultiHeadAttention`"):
        explain.attribute(linear(), TABLE, method="attention_rollout")


def test_padding_has_no_part_in_attention_rollout():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype="int32")
    words = layers.Embedding(9, 4, mask_zero=True)(inputs)
    attended = layers.MultiHeadAttention(2, 2, name="attention")(words, words)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(attended)))
    found = explain.attribute(model, np.array([[3, 4, 5, 0, 0, 0]]), method="attention_rollout").raw[0]
    # A padded row keeps half of itself; nothing flows from it to the others.
    assert found[:3].min() > found[3:].max()
    np.testing.assert_allclose(found[3:], 0.5 / 6, atol=1e-6)


def sequence_model():
    """The logit is the number of times that word 3 stands in the text."""
    embedding = layers.Embedding(5, 2, name="words")
    model = keras.Sequential(
        [keras.Input((6,), dtype="int32"), embedding, layers.GlobalAveragePooling1D(), layers.Dense(1)]
    )
    table = np.zeros((5, 2), "float32")
    table[3] = 6
    embedding.set_weights([table])
    model.layers[-1].set_weights([np.array([[1.0], [0.0]]), np.zeros(1)])
    return model


def test_words_are_explained():
    x = np.array([[3, 1, 3, 2, 4, 1], [1, 1, 2, 4, 3, 2]], "int32")
    hidden = explain.attribute(sequence_model(), x, method="occlusion")
    np.testing.assert_allclose(hidden.raw, x == 3, atol=1e-5)
    mapped = explain.attribute(sequence_model(), x)
    assert mapped.layer == "words"
    np.testing.assert_allclose(mapped.raw, x == 3, atol=1e-5)


def test_words_are_explained_by_gradients_through_their_embedding():
    x = np.array([[3, 1, 3, 2, 4, 1], [1, 1, 2, 4, 3, 2]], "int32")
    for method in ("gradient_times_input", "integrated_gradients"):
        found = explain.attribute(sequence_model(), x, method=method)
        np.testing.assert_allclose(found.raw, x == 3, atol=1e-5, err_msg=method)
        np.testing.assert_array_equal(found.maps.shape, x.shape)
    for method in ("saliency", "smooth_grad"):  # the same slope everywhere
        np.testing.assert_allclose(explain.attribute(sequence_model(), x, method=method).raw, 1 / 6, atol=1e-5)
    away = explain.attribute(sequence_model(), x, method=explain.IntegratedGradients(baseline=3)).raw
    np.testing.assert_allclose(away, -1.0 * (x != 3), atol=1e-5)
    for method in (explain.Saliency(), explain.Saliency("tf_keras_vis")):  # a batch of one
        np.testing.assert_allclose(explain.attribute(sequence_model(), x[:1], method=method).raw, 1 / 6, atol=1e-5)


def test_an_explainer_of_words_makes_its_parts_once():
    explainer = explain.Explainer(sequence_model(), "saliency")
    x = np.array([[3, 1, 3, 2, 4, 1], [1, 1, 2, 4, 3, 2]], "int32")
    first = explainer(x)
    made = explainer._readers.once("from embedding", list)
    np.testing.assert_allclose(explainer(x[::-1]).raw, first.raw[::-1])
    assert made and explainer._readers.once("from embedding", list) is made


class _Reader(keras.Model):
    """A small transformer over words, subclassed: positions have an embedding of their own, called first."""

    def __init__(self, masked):
        super().__init__(name="reader")
        self.positions, self.words = layers.Embedding(7, 4), layers.Embedding(9, 4, mask_zero=masked)
        self.attention, self.head = layers.MultiHeadAttention(2, 2), layers.Dense(3, activation="softmax")
        self.pool = layers.GlobalAveragePooling1D()

    def call(self, words):
        positions = self.positions(keras.ops.arange(7)[None])
        vectors = self.words(words) + positions
        return self.head(self.pool(vectors + self.attention(vectors, vectors)))


@pytest.mark.parametrize("masked", [False, True])
def test_integrated_gradients_of_words_lose_nothing_of_the_logit(masked):
    keras.utils.set_random_seed(1)
    model = _Reader(masked)
    model(np.ones((1, 7), "int32"))
    model.words.embeddings.assign(2 * rng.normal(size=(9, 4)))
    x = rng.integers(1, 9, (4, 7))
    found = explain.attribute(model, x, 1, explain.IntegratedGradients(baseline=5)).raw
    between = logits(model, x) - logits(model, np.full_like(x, 5))
    second = explain.attribute(model, x, 2, explain.IntegratedGradients(baseline=5)).raw
    np.testing.assert_allclose((found - second).sum(axis=1), between[:, 1] - between[:, 2], atol=1e-4)
    assert (found.shape, np.abs(found).max() > 0.01) == ((4, 7), True)


def test_integers_without_an_embedding_have_no_gradient():
    model = keras.Sequential([keras.Input((3,), dtype="int32"), layers.CategoryEncoding(5, "multi_hot")])
    model = keras.Sequential([model, layers.Dense(2)])
    with pytest.raises(ValueError, match="needs logits that depend on it"):
        explain.attribute(model, np.array([[1, 2, 3]]), method="saliency")


def test_time_series():
    keras.utils.set_random_seed(0)
    parts = [layers.Conv1D(4, 3, activation="relu", name="conv"), layers.GlobalAveragePooling1D(), layers.Dense(2)]
    model = keras.Sequential([keras.Input((12, 2)), *parts])
    x = rng.normal(size=(3, 12, 2)).astype("float32")
    mapped = explain.attribute(model, x)
    assert (mapped.raw.shape, mapped.maps.shape) == ((3, 10), (3, 12, 2))
    assert explain.attribute(model, x, method="integrated_gradients").raw.shape == (3, 12, 2)


@pytest.mark.parametrize("method", ["occlusion", "gradient_times_input", "integrated_gradients"])
def test_of_several_inputs_the_images_are_explained(method):
    extra, image = keras.Input((2,), name="extra"), keras.Input((4, 4, 1), name="image")
    flat = layers.Concatenate()([layers.Flatten()(image), extra])
    model = keras.Model([extra, image], layers.Dense(2)(flat))
    x = [rng.random((2, 2)).astype("float32"), rng.random((2, 4, 4, 1)).astype("float32")]
    kernel = model.layers[-1].kernel.numpy()[:16, 0].reshape(4, 4)
    found = explain.attribute(model, x, 0, method).raw
    np.testing.assert_allclose(found, kernel * x[1][..., 0], atol=1e-5)


@pytest.mark.parametrize("method", ["saliency", "integrated_gradients", "layer_cam", "grad_cam_plus_plus"])
def test_half_precision(method):
    def network(policy):
        keras.utils.set_random_seed(0)
        parts = [layers.Conv2D(4, 3, activation="relu", dtype=policy), layers.GlobalAveragePooling2D(dtype=policy)]
        return keras.Sequential([keras.Input((8, 8, 1)), *parts, layers.Dense(3, dtype=policy)])

    x = rng.random((2, 8, 8, 1)).astype("float32")
    found, expected = (explain.attribute(network(policy), x, 0, method).raw for policy in ("mixed_float16", "float32"))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())


def test_a_batch_of_one_is_a_row_of_many():
    for method in ("smooth_grad", "rise"):  # the noise of a sample does not depend on which samples stand beside it
        many = explain.attribute(bend(), TABLE, 0, method)
        first = explain.attribute(bend(), TABLE[:1], 0, method)
        np.testing.assert_allclose(first.raw, many.raw[:1], atol=1e-6 if method == "rise" else 0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: explain.SmoothGrad(samples=0), "samples of at least 1"),
        (lambda: explain.SmoothGrad(noise=0), "noise above 0"),
        (lambda: explain.IntegratedGradients(steps=0), "steps of at least 1"),
        (lambda: explain.Occlusion(window=0), "window of at least 1"),
        (lambda: explain.RISE(masks=0), "masks and cells of at least 1"),
        (lambda: explain.RISE(keep=1), "keep between 0 and 1"),
        (lambda: explain.GradCAM(engine="jax"), "needs an engine of"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("method", ["integrated_gradients", "saliency"])
def test_tables_are_drawn_as_cells(method):
    figure = explain.attribute(linear(), TABLE, 0, method).plot(3, class_names=["no", "yes"])
    figure.canvas.draw()
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(names) == 3
    assert all(name.startswith("no, says ") for name in names)
