"""Structured pruning: planted useless channels go, the answers stay, and the arithmetic really falls."""

import keras
import numpy as np
import pytest
from keras import layers

import kdkeras
from kdkeras import compress
from kdkeras.counting import count_macs


def block(x, filters, name):
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=name)(x)
    return layers.BatchNormalization(name=f"{name}_norm")(x)


def network():
    """Sums, a product, a join, depthwise and separable convolutions, a nested model, and features laid flat."""
    inputs = keras.Input((6, 6, 2), name="image")
    x = layers.ReLU()(block(inputs, 8, "stem"))
    y = layers.ReLU()(block(x, 6, "inner"))
    x = layers.ReLU(name="sum")(layers.Add()([x, block(y, 8, "tied")]))
    gate = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(x))
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="expand")(layers.Dense(4, "relu", name="squeeze")(gate))
    x = layers.Multiply()([x, gate])
    z = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, use_bias=False, name="depthwise")(x)
    x = layers.Concatenate()([z, y])
    body = [keras.Input((6, 6, 22)), layers.SeparableConv2D(10, 3, 2, activation="relu", name="separable")]
    x = keras.Sequential([*body, layers.Conv2DTranspose(4, 2, activation="elu", name="up")], name="body")(x)
    x = layers.Dense(12, activation="elu", name="hidden")(layers.Flatten()(layers.MaxPooling2D()(x)))
    return keras.Model(inputs, layers.Dense(5, name="head")(x), name="net")


def plant(model, useless):
    """Make channels useless: their filters are zero."""
    for path, places in useless.items():
        layer = kdkeras.layer_paths.find_layer(model, path)
        kernel = layer.pointwise_kernel if path == "body/separable" else layer.kernel
        values = kernel.numpy()
        filters = np.swapaxes(values, -1, -2) if path == "body/up" else values
        filters[..., places] = 0
        kernel.assign(values)


def randomised(model):
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):  # of zeros it makes zeros
            size = layer.gamma.shape[0]
            layer.set_weights([generator.uniform(0.5, 2, size), *np.zeros((2, size)), generator.uniform(0.5, 2, size)])
    return model


def test_useless_channels_go_and_the_answers_stay():
    keras.utils.set_random_seed(0)
    model = randomised(network())
    tied = [1, 3, 4, 7]
    useless = {"stem": tied, "tied": tied, "expand": tied, "inner": [0, 1, 5], "squeeze": [1, 2], "hidden": [*range(6)]}
    useless |= {"body/separable": [0, 2, 4, 6, 8], "body/up": [1, 3]}
    plant(model, useless)
    before = model.get_weights()
    result = compress.remove_channels(model, 0.5)
    rows = {row.path: row for row in result.rows}
    assert {path: row.before - row.after for path, row in rows.items()} == {
        path: len(useless.get(path, ())) for path in rows
    }
    assert rows["head"].reason == "they are outputs of 'net'"
    x = 30 * np.random.default_rng(1).normal(size=(7, 6, 6, 2)).astype("float32")
    expected = model.predict(x, verbose=0)
    assert np.ptp(expected, axis=0).min() > 0.01
    np.testing.assert_allclose(result.model.predict(x, verbose=0), expected, atol=1e-5)
    assert result.macs == (count_macs(model), count_macs(result.model))
    assert result.macs[1] < 0.35 * result.macs[0]
    assert result.parameters[1] == result.model.count_params()
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_which_channels_stay_is_seen_in_their_weights():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, name="a"), layers.Dense(2, name="b")])
    kernel, head = np.array([[1.0, 5, -3], [1, 0, -3]]), np.arange(6.0).reshape(3, 2)
    model.set_weights([kernel, np.array([7.0, 8, 9]), head, np.zeros(2)])
    first, bias, second, _ = compress.remove_channels(model, 0.4).model.get_weights()
    np.testing.assert_array_equal(first, kernel[:, 1:])
    np.testing.assert_array_equal(bias, [8, 9])
    np.testing.assert_array_equal(second, head[1:])


def test_the_scale_of_the_normalisation_decides_when_asked():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 1))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(block(inputs, 4, "conv")))
    model = keras.Model(inputs, layers.Dense(2)(x))
    model.get_layer("conv_norm").gamma.assign([0.1, -2, 3, 0.2])
    smaller = compress.remove_channels(model, {"conv": 0.5}, importance="bn_scale").model
    np.testing.assert_allclose(smaller.get_layer("conv_norm").gamma, [-2, 3])


def test_one_layer_takes_those_that_are_tied_to_it_along():
    result = compress.remove_channels(network(), {"tied": 0.25})
    changed = {row.path for row in result.rows if row.after < row.before}
    assert changed == {"stem", "tied", "expand"}


def test_what_cannot_be_followed_stays_whole_and_is_named():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(6, 1, name="first")(inputs)
    x = layers.LayerNormalization(name="across")(layers.Conv2D(8, 1, name="second")(x))
    result = compress.remove_channels(keras.Model(inputs, layers.Conv2D(3, 1, name="head")(x)), 0.5)
    rows = {row.path: row for row in result.rows}
    assert rows["first"].after == 3
    assert rows["second"].after == 8
    assert rows["second"].reason == "'across' (LayerNormalization) cannot be followed"
    assert "whole: 'across'" in str(result)


def test_half_precision_and_shared_layers():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((4,))
        shared = layers.Dense(6, "relu", name="shared")
        body = layers.Dense(6, "relu", name="body")(inputs)
        outputs = layers.Dense(2, name="head")(layers.Subtract()([shared(body), shared(layers.ReLU()(body))]))
        model = keras.Model(inputs, outputs)
    finally:
        keras.config.set_dtype_policy("float32")
    result = compress.remove_channels(model, 0.5)
    assert [(row.path, row.after) for row in result.rows] == [("body", 3), ("shared", 3), ("head", 2)]
    assert result.model(np.ones((1, 4))).dtype == "float16"


def test_distillation_brings_the_accuracy_back():
    keras.utils.set_random_seed(0)
    data = kdkeras.datasets.digits()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    convolutions = [layers.Conv2D(16, 3, activation="relu") for _ in range(2)]
    teacher = keras.Sequential([keras.Input((8, 8, 1)), *convolutions, layers.Flatten(), layers.Dense(10)])
    teacher.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    teacher.fit(*data.arrays("train"), epochs=6, verbose=0)
    result = compress.remove_channels(teacher, 0.5)
    distiller = kdkeras.Distiller(student=result.model, teacher=teacher)
    distiller.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    whole = teacher.evaluate(*data.arrays("test"), verbose=0)[1]
    cut = distiller.evaluate(*data.arrays("test"), verbose=0, return_dict=True)["accuracy"]
    distiller.fit(*data.arrays("train"), epochs=4, verbose=0)
    taught = distiller.evaluate(*data.arrays("test"), verbose=0, return_dict=True)["accuracy"]
    assert result.macs[1] < 0.35 * result.macs[0]
    assert cut < whole - 0.05
    assert taught > whole - 0.03


@pytest.mark.parametrize(
    ("share", "options", "match"),
    [
        (0, {}, r"above 0 and below 1. Received: 0"),
        ({}, {}, r"Received: {}"),
        ({"stem_norm": 0.5}, {}, r"paths of dense or convolutional layers. Received: \['stem_norm'\]"),
        ({"stem": 0.5, "tied": 0.25}, {}, r"one share. Received: \[0.25, 0.5\] for \['stem', 'tied', 'expand'\]"),
        ({"head": 0.5}, {}, "found nothing to remove in 'net'"),
        (0.5, {"importance": "size"}, "'l1' or 'bn_scale'. Received: 'size'"),
        ({"hidden": 0.5}, {"importance": "bn_scale"}, r"behind \['hidden'\]"),
    ],
)
def test_bad_input_is_one_sentence(share, options, match):
    with pytest.raises(ValueError, match=match):
        compress.remove_channels(network(), share, **options)
