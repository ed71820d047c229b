"""What `attribute` takes and refuses, and the maps, record and picture that it gives."""

import keras
import numpy as np
import pytest
from keras import layers

from kdkeras import explain


def cnn(shape=(8, 8, 1), units=3, activation="softmax", seed=0, name="cnn"):
    keras.utils.set_random_seed(seed)
    convolution = layers.Conv2D(4, 3, activation="relu", name="conv")
    rest = [layers.GlobalAveragePooling2D(name="pool"), layers.Dense(units, activation=activation, name="logits")]
    return keras.Sequential([keras.Input(shape), convolution, *rest], name=name)


def images(n=4, shape=(8, 8, 1)):
    return np.random.default_rng(0).random((n, *shape)).astype("float32")


def bilinear(values, size):
    """Resize one map by pixel centres, clamped at the borders."""
    out = np.empty(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = np.clip((i + 0.5) * values.shape[0] / size[0] - 0.5, 0, values.shape[0] - 1)
            x = np.clip((j + 0.5) * values.shape[1] / size[1] - 0.5, 0, values.shape[1] - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, values.shape[0] - 1), min(x0 + 1, values.shape[1] - 1)
            top = values[y0, x0] * (1 - (x - x0)) + values[y0, x1] * (x - x0)
            bottom = values[y1, x0] * (1 - (x - x0)) + values[y1, x1] * (x - x0)
            out[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


def test_maps_are_the_raw_maps_resized_and_divided_by_their_maximum():
    explanation = explain.attribute(cnn((9, 12, 1)), images(shape=(9, 12, 1)))
    assert explanation.raw.shape == (4, 7, 10)
    assert not explanation.zero.any()
    for raw, ours in zip(explanation.raw, explanation.maps, strict=True):
        expected = bilinear(raw.astype("float64"), (9, 12))
        np.testing.assert_allclose(ours, expected / expected.max(), atol=1e-5)


def test_maps_of_zeros_stay_zeros_and_are_told():
    model = cnn()
    kernel = np.zeros((4, 3), "float32")
    kernel[:, 0], kernel[:, 1] = 1, -1  # every channel speaks for class 0 and against class 1
    model.get_layer("logits").set_weights([kernel, np.zeros(3)])
    model.get_layer("conv").set_weights([np.ones((3, 3, 1, 4)), np.zeros(4)])
    explanation = explain.attribute(model, images(), [0, 1, 0, 1])
    np.testing.assert_array_equal(explanation.zero, [False, True, False, True])
    np.testing.assert_array_equal(explanation.maps[1], 0)
    np.testing.assert_allclose(explanation.maps[[0, 2]].max(axis=(1, 2)), 1)


def test_the_record_holds_what_was_explained():
    model, x = cnn(), images()
    explanation = explain.attribute(model, x)
    assert (explanation.method, explanation.model, explanation.layer) == ("grad_cam", "cnn", "conv")
    np.testing.assert_array_equal(explanation.inputs, x)
    np.testing.assert_allclose(explanation.predictions, model.predict(x, verbose=0), atol=1e-6)
    np.testing.assert_array_equal(explanation.target, explanation.predictions.argmax(axis=1))
    assert (explanation.raw >= 0).all()


def test_float64_tensors_and_lists_are_taken_as_arrays():
    model, x = cnn(), images()
    expected = explain.attribute(model, x).raw
    for given in (x.astype("float64"), keras.ops.convert_to_tensor(x), x.tolist(), [x]):
        np.testing.assert_allclose(explain.attribute(model, given).raw, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (images()[0], r"shape \(None, 8, 8, 1\). Received: x of shape \(8, 8, 1\)"),
        (images()[..., 0], r"Received: x of shape \(4, 8, 8\)"),
        (images(shape=(9, 8, 1)), r"Received: x of shape \(4, 9, 8, 1\)"),
        (images(0), "no samples"),
        (np.full((4, 8, 8, 1), np.nan), "NaN"),
        ((255 * images()).astype("uint8"), "uint8"),
        ([images(), images()], "takes 1 inputs"),
    ],
)
def test_images_that_do_not_fit_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        explain.attribute(cnn(), x)


def test_datasets_are_refused():
    import tensorflow as tf

    with pytest.raises(TypeError, match="must be arrays"):
        explain.attribute(cnn(), tf.data.Dataset.from_tensor_slices(images()).batch(2))


@pytest.mark.parametrize("target", [3, -1, [0, 1, 2, 3], 1.0, [0, 1], True, [[0], [1], [2], [0]]])
def test_targets_that_do_not_fit_are_refused(target):
    with pytest.raises(ValueError, match="`target` must be"):
        explain.attribute(cnn(), images(), target)


def test_other_arguments_are_checked():
    model, x = cnn(), images()
    with pytest.raises(ValueError, match=r"one of grad_cam, .*rise, .*Received: method='guess'"):
        explain.attribute(model, x, method="guess")
    with pytest.raises(ValueError, match=r"no layer 'convv'.*conv"):
        explain.attribute(model, x, layer="convv")
    with pytest.raises(ValueError, match=r"positions and channels.* Received: model 'cnn' \(None, 4\)"):
        explain.attribute(model, x, layer="pool")
    with pytest.raises(ValueError, match=r"layer 'pool' of model 'cnn', whose output is \(1, 4\)"):
        explain.attribute(model, x, method=explain.GradCAM("tf_keras_vis"), layer="pool")
    with pytest.raises(ValueError, match=r"'saliency' looks at the input, at no layer. Received: layer='conv'"):
        explain.attribute(model, x, method="saliency", layer="conv")
    with pytest.raises(TypeError, match="must be a name, or a method"):
        explain.attribute(model, x, method=explain.RISE)
    with pytest.raises(ValueError, match="batch_size=0"):
        explain.attribute(model, x, batch_size=0)
    with pytest.raises(TypeError, match=r"keras.Model"):
        explain.attribute("cnn", x)


def test_models_without_a_feature_map_are_sent_to_feature_importance():
    for shape in ((8, 8, 1), (5,)):
        model = keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(3)])
        with pytest.raises(ValueError, match="feature_importance"):
            explain.attribute(model, images(shape=shape))


def test_models_with_several_outputs_or_maps_of_outputs_are_refused():
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(3, 3)(inputs)
    with pytest.raises(ValueError, match=r"output is \(batch, units\)"):
        explain.attribute(keras.Model(inputs, x), images())
    with pytest.raises(ValueError, match="exactly one output"):
        explain.attribute(keras.Model(inputs, [layers.Flatten()(x), x]), images())


def test_probabilities_without_logits_are_refused():
    inputs = keras.Input((8, 8, 1))
    x = keras.ops.exp(layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3)(inputs)))
    model = keras.Model(inputs, x / keras.ops.sum(x, axis=-1, keepdims=True))
    with pytest.raises(ValueError, match="returns probabilities"):
        explain.attribute(model, images())


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (3, 3), (9, 4)])
def test_the_picture_has_a_column_per_image(n, columns):
    figure = explain.attribute(cnn(), images(), target=1).plot(n, class_names=["cat", "dog", "owl"])
    figure.canvas.draw()
    titles = [axis.get_title() for axis in figure.axes[:columns]]
    assert titles == ["dog"] * columns
    assert len(figure.axes) == 2 * columns + 1


def test_the_picture_leaves_pyplot_alone():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    explain.attribute(cnn(), images()).plot()
    assert plt.get_fignums() == before


def test_the_picture_of_no_image_is_refused():
    with pytest.raises(ValueError, match="n=0"):
        explain.attribute(cnn(), images()).plot(0)


def test_images_are_shown_by_one_scale():
    from kdkeras.explain.pictures import displayable

    np.testing.assert_allclose(displayable(np.array([[[0.0, 0.5]]]))[0, 0, :, 0], [0, 0.5])
    np.testing.assert_allclose(displayable(np.array([[[0, 255]]]))[0, 0, :, 0], [0, 1])
    np.testing.assert_allclose(displayable(np.array([[[-2.0, 2.0]], [[0.0, 0.0]]]))[:, 0, :, 0], [[0, 1], [0.5, 0.5]])
    np.testing.assert_allclose(displayable(np.full((1, 2, 2, 1), -3.0)), 0)
    assert displayable(images(shape=(4, 4, 3))).shape == displayable(images(shape=(4, 4, 5))).shape == (4, 4, 4, 3)
