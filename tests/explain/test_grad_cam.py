"""Raw Grad-CAM maps against an independent implementation, for every way to build a model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kdkeras import explain
from kdkeras.layer_paths import layer_paths
from kdkeras.signals import called_layers

SHAPE = (12, 12, 3)


def images(n=5, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(size=(n, *shape)).astype("float32")


def reference(front, rear, x, target=None):
    """Grad-CAM of logits = rear(front(x)), on a tape of its own that starts at the feature map."""
    features = front(tf.convert_to_tensor(x))
    with tf.GradientTape() as tape:
        tape.watch(features)
        logits = rear(features)
        target = tf.argmax(logits, axis=1).numpy() if target is None else np.broadcast_to(target, len(x))
        score = tf.reduce_sum(logits * tf.cast(tf.one_hot(target, logits.shape[1]), logits.dtype))
    gradient = tf.cast(tape.gradient(score, features), "float64").numpy()
    features = tf.cast(features, "float64").numpy()
    return np.maximum(np.einsum("nijk,nk->nij", features, gradient.mean(axis=(1, 2))), 0), target


def chain(*parts):
    def run(x):
        for part in parts:
            x = part(x)
        return x

    return run


def body():
    return [
        layers.Conv2D(6, 3, activation="relu", name="conv1"),
        layers.Conv2D(8, 3, activation="relu", name="conv2"),
    ]


def head(units=4, activation=None):
    return [layers.Flatten(name="flatten"), layers.Dense(units, activation=activation, name="logits")]


def linear(dense):
    return lambda x: tf.matmul(x, tf.cast(dense.kernel, x.dtype)) + tf.cast(dense.bias, x.dtype)


def functional_softmax():
    convolutions, (flatten, dense) = body(), head(activation="softmax")
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, chain(*convolutions, flatten, dense)(inputs))
    return model, chain(*convolutions), chain(flatten, linear(dense)), "conv2"


def sequential_logits():
    convolutions, rest = body(), head()
    return keras.Sequential([keras.Input(SHAPE), *convolutions, *rest]), chain(*convolutions), chain(*rest), "conv2"


def sequential_unbuilt():
    convolutions, rest = body(), head()
    return keras.Sequential([*convolutions, *rest]), chain(*convolutions), chain(*rest), "conv2"


def softmax_layer():
    convolutions, rest = body(), head()
    model = keras.Sequential([keras.Input(SHAPE), *convolutions, *rest, layers.Softmax()])
    return model, chain(*convolutions), chain(*rest), "conv2"


def nested_backbone():
    convolutions, rest = body(), head()
    backbone = keras.Sequential([keras.Input(SHAPE), *convolutions], name="backbone")
    top = keras.Sequential([*rest, layers.Activation("softmax")], name="top")
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, top(backbone(inputs)))
    return model, chain(*convolutions), chain(*rest), "backbone/conv2"


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.convolutions = body()
        self.rest = head(activation="softmax")

    def call(self, x):
        return chain(*self.convolutions, *self.rest)(x)


def subclassed():
    model = Subclassed()
    flatten, dense = model.rest
    return model, chain(*model.convolutions), chain(flatten, linear(dense)), "conv2"


def residual():
    """The last map is made by an addition that is a layer, called after a layer that stands behind it in the list."""
    first, second, add = (
        layers.Conv2D(8, 3, padding="same"),
        layers.Conv2D(8, 3, padding="same"),
        layers.Add(name="sum"),
    )
    rest = [layers.GlobalAveragePooling2D(), layers.Dense(4)]
    inputs = keras.Input(SHAPE)
    x = first(inputs)
    x = add([x, second(x)])

    def front(x):
        return add([first(x), second(first(x))])

    return keras.Model(inputs, chain(*rest)(x)), front, chain(*rest), "sum"


BUILDERS = [
    functional_softmax,
    sequential_logits,
    sequential_unbuilt,
    softmax_layer,
    nested_backbone,
    subclassed,
    residual,
]


@pytest.mark.parametrize("engine", ["native", "tf_keras_vis"])
@pytest.mark.parametrize("build", BUILDERS)
def test_raw_maps_agree_with_an_independent_grad_cam(build, engine):
    keras.utils.set_random_seed(1)
    model, front, rear, path = build()
    x = images()
    explanation = explain.attribute(model, x, method=explain.GradCAM(engine))
    expected, target = reference(front, rear, x)
    assert explanation.layer == path
    np.testing.assert_array_equal(explanation.target, target)
    assert expected.max() > 0.01
    np.testing.assert_allclose(explanation.raw, expected, atol=1e-6)


@pytest.mark.parametrize("kind", [explain.GradCAM, explain.GradCAMPlusPlus, explain.LayerCAM])
@pytest.mark.parametrize("build", [functional_softmax, nested_backbone, subclassed])
def test_the_engines_agree(build, kind):
    keras.utils.set_random_seed(1)
    model = build()[0]
    for layer in ("conv1", "conv2"):
        layer = next(path for path in layer_paths(model) if path.endswith(layer))
        native, library = (
            explain.attribute(model, images(), method=kind(engine), layer=layer)
            for engine in ("native", "tf_keras_vis")
        )
        assert native.raw.max() > 0.01
        np.testing.assert_allclose(native.raw, library.raw, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("build", BUILDERS)
def test_saliency_of_both_engines_agrees(build):
    keras.utils.set_random_seed(1)
    model = build()[0]
    native, library = (
        explain.attribute(model, images(), 1, explain.Saliency(engine)) for engine in ("native", "tf_keras_vis")
    )
    assert native.raw.shape == (5, 12, 12) and native.raw.max() > 1e-3
    np.testing.assert_allclose(native.raw, library.raw, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_score_cam_of_both_engines_agrees_where_the_map_is_as_large_as_the_image(activation, capfd):
    keras.utils.set_random_seed(1)
    convolution = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")
    pooled = [layers.GlobalAveragePooling2D(), layers.Dense(3, activation=activation)]
    model = keras.Sequential([keras.Input(SHAPE), convolution, *pooled])
    native, library = (explain.attribute(model, images(), 1, explain.ScoreCAM(e)) for e in ("native", "tf_keras_vis"))
    assert native.raw.max() > 0.01
    np.testing.assert_allclose(native.raw, library.raw, atol=1e-6, rtol=1e-4)
    assert "step" not in capfd.readouterr().out  # no progress bars


def test_score_cam_of_the_library_is_refused_where_its_softmax_is_not_the_models():
    image, extra = keras.Input(SHAPE), keras.Input((2,))
    features = layers.Conv2D(4, 3)(image)
    joined = layers.Concatenate()([layers.GlobalAveragePooling2D()(features), extra])
    several = keras.Model([image, extra], layers.Dense(3)(joined))
    single = keras.Model(image, layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(features)))
    for model, x, message in [(several, [images(), np.ones((5, 2))], "2 inputs"), (single, images(), "1 units")]:
        with pytest.raises(ValueError, match=f"Score-CAM for one input and a softmax.*{message}.*native engine"):
            explain.attribute(model, x, 0, explain.ScoreCAM("tf_keras_vis"))
        assert explain.attribute(model, x, 0, "score_cam").raw.shape == (5, 10, 10)


@pytest.mark.parametrize("build", [functional_softmax, nested_backbone])
def test_targets_and_layers_can_be_chosen(build):
    keras.utils.set_random_seed(2)
    model, _, _, path = build()
    first = model.layers[1] if path == "conv2" else model.get_layer("backbone").layers[0]
    second = model.get_layer("conv2") if path == "conv2" else model.get_layer("backbone").layers[1]
    dense = model.get_layer("logits") if path == "conv2" else model.get_layer("top").layers[1]
    rear = chain(second, layers.Flatten(), linear(dense))
    x = images()
    targets = np.array([3, 1, 0, 2, 2])
    by_sample = explain.attribute(model, x, targets, layer="conv1")
    np.testing.assert_allclose(by_sample.raw, reference(first, rear, x, targets)[0], atol=1e-6)
    by_class = explain.attribute(model, x, 3, layer="conv1")
    np.testing.assert_allclose(by_class.raw, reference(first, rear, x, 3)[0], atol=1e-6)
    np.testing.assert_array_equal(by_class.target, [3] * 5)


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_bfloat16", 1e-6), ("mixed_float16", 1e-6), ("float16", 1e-6), ("float64", 1e-6)]
)
def test_other_precisions(policy, tolerance):
    keras.utils.set_random_seed(3)
    convolutions = [layers.Conv2D(8, 3, activation="relu", dtype=policy, name="conv")]
    pool, dense = layers.GlobalAveragePooling2D(dtype=policy), layers.Dense(4, activation="softmax", dtype=policy)
    model = keras.Sequential([keras.Input(SHAPE, dtype="float32"), *convolutions, pool, dense])
    x = images()
    explanation = explain.attribute(model, x)
    assert explanation.raw.dtype == explanation.maps.dtype == np.float32
    expected, target = reference(chain(*convolutions), chain(pool, linear(dense)), x)
    np.testing.assert_array_equal(explanation.target, target)
    np.testing.assert_allclose(explanation.raw, expected, atol=tolerance)


def test_a_global_mixed_policy_changes_nothing():
    keras.utils.set_random_seed(4)
    model, front, rear, _ = functional_softmax()
    x = images()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        explanation = explain.attribute(model, x)
    finally:
        keras.config.set_dtype_policy(before)
    np.testing.assert_allclose(explanation.raw, reference(front, rear, x)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "layer", "size"), [("MobileNetV2", "out_relu", (3, 3)), ("MobileNet", "conv_pw_13_relu", (3, 3))]
)
def test_mobilenets_are_explained_at_their_last_map_with_height_and_width(name, layer, size):
    keras.utils.set_random_seed(5)
    model = getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3), classes=10)
    x = images(2, (96, 96, 3))
    explanation = explain.attribute(model, x)
    assert explanation.layer == layer
    assert explanation.raw.shape == (2, *size)
    last = model.get_layer("predictions" if name == "MobileNetV2" else "conv_preds")
    front = keras.Model(model.inputs, model.get_layer(layer).output)

    def rear(features):
        return tf.matmul(tf.reduce_mean(features, (1, 2)), tf.reshape(last.kernel, (-1, 10))) + last.bias

    expected, target = reference(front, rear, x)
    np.testing.assert_array_equal(explanation.target, target)
    np.testing.assert_allclose(explanation.raw, expected, rtol=1e-4, atol=1e-6)


def test_batches_change_nothing():
    keras.utils.set_random_seed(6)
    model = functional_softmax()[0]
    x = images(7)
    whole = explain.attribute(model, x)
    parts = explain.attribute(model, x, batch_size=3)
    np.testing.assert_allclose(parts.raw, whole.raw, atol=1e-6)
    np.testing.assert_allclose(explain.attribute(model, x[4:5]).raw, whole.raw[4:5], atol=1e-6)


def test_the_model_is_left_as_it_was():
    model = functional_softmax()[0]
    model.get_layer("conv1").trainable = False
    x, weights, config = images(), model.get_weights(), model.to_json()
    explain.attribute(model, x)
    assert model.to_json() == config
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), weights, strict=True))
    assert "call" not in vars(model.get_layer("conv2"))


def test_single_outputs_are_explained_by_their_one_unit():
    keras.utils.set_random_seed(7)
    for activation in ("sigmoid", None):
        convolutions, (flatten, dense) = body(), head(1, activation)
        model = keras.Sequential([keras.Input(SHAPE), *convolutions, flatten, dense])
        explanation = explain.attribute(model, images())
        np.testing.assert_array_equal(explanation.target, 0)
        expected = reference(chain(*convolutions), chain(flatten, linear(dense)), images(), 0)[0]
        np.testing.assert_allclose(explanation.raw, expected, atol=1e-6)


def test_several_inputs():
    keras.utils.set_random_seed(8)
    picture, table = keras.Input(SHAPE, name="picture"), keras.Input((3,), name="table")
    convolutions, dense = body(), layers.Dense(4)
    features = layers.Flatten()(chain(*convolutions)(picture))
    outputs = dense(layers.Concatenate()([features, table]))
    x, extra = images(), images(5, (3,), seed=1)

    def rear(features):
        return dense(tf.concat([layers.Flatten()(features), extra], axis=1))

    expected = reference(chain(*convolutions), rear, x)[0]
    as_list = explain.attribute(keras.Model([picture, table], outputs), [x, extra])
    as_dict = explain.attribute(
        keras.Model({"table": table, "picture": picture}, outputs), {"picture": x, "table": extra}
    )
    for explanation in (as_list, as_dict):
        np.testing.assert_allclose(explanation.raw, expected, atol=1e-6)
        np.testing.assert_array_equal(explanation.inputs, x)


def test_called_layers_follow_the_calls_and_not_the_list():
    first, second = layers.Conv2D(1, 3, name="first"), layers.Conv2D(1, 1, name="second")
    dropout = layers.Dropout(0.5, name="dropout")
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, layers.Flatten(name="flat")(dropout(second(first(second(inputs))))))
    assert list(called_layers(model, np.zeros((1, 8, 8, 1), "float32"))) == ["first", "second", "flat"]


def test_layers_that_only_prepare_images_are_no_feature_maps():
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(3, activation="softmax")]
    )
    with pytest.raises(ValueError, match="feature_importance"):
        explain.attribute(model, np.ones((2, 8, 8, 1), "uint8"))


def test_raw_uint8_images_are_taken_by_models_that_scale_them():
    keras.utils.set_random_seed(9)
    convolutions, rest = body(), head()
    model = keras.Sequential([keras.Input(SHAPE), layers.Rescaling(1 / 255), *convolutions, *rest])
    x = np.random.default_rng(0).integers(0, 256, (3, *SHAPE)).astype("uint8")
    front = chain(lambda images: tf.cast(images, "float32") / 255, *convolutions)
    np.testing.assert_allclose(explain.attribute(model, x).raw, reference(front, chain(*rest), x)[0], atol=1e-6)


def test_integer_inputs():
    keras.utils.set_random_seed(10)
    convolutions, rest = body(), head()
    model = keras.Sequential([keras.Input(SHAPE, dtype="uint8"), layers.Rescaling(1 / 255), *convolutions, *rest])
    x = np.random.default_rng(0).integers(0, 256, (3, *SHAPE)).astype("uint8")
    front = chain(lambda images: tf.cast(images, "float32") / 255, *convolutions)
    np.testing.assert_allclose(explain.attribute(model, x).raw, reference(front, chain(*rest), x)[0], atol=1e-6)
    with pytest.raises(ValueError, match="float images"):  # the library watches the input
        explain.attribute(model, x, method=explain.GradCAM("tf_keras_vis"))
    with pytest.raises(ValueError, match="needs floats"):
        explain.attribute(model, x, method="saliency")


def test_a_layer_beside_the_path_to_the_output_is_refused():
    inputs = keras.Input(SHAPE)
    aside = layers.Conv2D(2, 3, name="aside")(inputs)
    x = layers.Flatten()(layers.Conv2D(2, 3, name="conv")(inputs))
    outputs = layers.Dense(3)(x) + keras.ops.stop_gradient(keras.ops.mean(aside))
    with pytest.raises(ValueError, match="'grad_cam:aside' of model"):
        explain.attribute(keras.Model(inputs, outputs), images(), layer="aside")


def test_overflow_is_refused():
    model, *_ = sequential_logits()
    model.get_layer("logits").kernel.assign(np.full(model.get_layer("logits").kernel.shape, 3e38, "float32"))
    with pytest.raises(ValueError, match="not finite"):
        explain.attribute(model, 1e3 * np.abs(images()))


def test_nan_weights_are_refused():
    model, *_ = sequential_logits()
    kernel = model.get_layer("logits").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(ValueError, match="not finite"):
        explain.attribute(model, images())
