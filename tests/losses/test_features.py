"""Losses between feature maps, against loops in numpy."""

import functools
import itertools

import keras
import numpy as np
import pytest
from scipy import integrate, stats

import kdkeras
from kdkeras import losses
from kdkeras._symbolic import output_specs
from kdkeras.losses._connector import Connector
from kdkeras.losses._maps import pool_to_smaller
from kdkeras.signals import Signals, SignalSpec
from kdkeras.testing import check_gradient, check_loss, tiny_stages

BOTH = ["norm1", "norm2"]
IMAGES = np.random.default_rng(0).random((8, 8, 8, 1)).astype("float32")


def loud_stages(width=4, name="tiny"):
    """As `tiny_stages`, with features so large that the contract's step is a small part of their norm."""
    model = tiny_stages(width=width, name=name)
    gamma = model.get_layer("norm1").gamma
    gamma.assign(np.full(gamma.shape, 100.0, "float32"))  # what comes after it is as large
    return model


@functools.cache
def taught():
    """A teacher as it was, the teacher now, a loss whose paraphraser has learned of it, and the history of that."""
    keras.utils.set_random_seed(0)
    teacher = tiny_stages(width=6)
    before = [weight.copy() for weight in teacher.get_weights()]
    loss = losses.FactorTransfer("norm2", "norm2", rate=0.25)
    adam = keras.optimizers.Adam(0.01)
    history = loss.fit_paraphraser(teacher, IMAGES, epochs=8, optimizer=adam, verbose=0).history
    return before, teacher, loss, history["loss"]


def factor_transfer():
    loss = losses.FactorTransfer("norm2", "norm2", rate=0.25)
    loss.paraphrasers = taught()[2].paraphrasers
    return loss


LOSSES = {
    "attention_transfer": (lambda: losses.AttentionTransfer("norm2", "norm2"), 0.0, loud_stages),
    "neuron_selectivity": (lambda: losses.NeuronSelectivity("norm2", "norm2"), 0.0, loud_stages),
    "factor_transfer": (factor_transfer, None, loud_stages),
    "activation_boundaries": (lambda: losses.ActivationBoundaries("norm2", "norm2"), None, tiny_stages),
    "overhaul": (lambda: losses.Overhaul(BOTH, BOTH, margin=[-0.5, [-0.8] * 12]), None, tiny_stages),
    "variational_information": (lambda: losses.VariationalInformation("pool", "pool"), None, loud_stages),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_keeps_the_contract(name):
    make, minimum, network = LOSSES[name]
    check_loss(make, minimum=minimum, network=network)


def features(seed, *shape):
    return np.random.default_rng(seed).normal(scale=2, size=shape).astype("float32")


def numbers(value):
    return np.asarray(keras.ops.convert_to_numpy(value), "float64")


def same(actual, expected, rtol=2e-5, atol=1e-6):
    np.testing.assert_allclose(numbers(actual), numbers(expected), rtol=rtol, atol=atol)


def pixels(maps):
    """Return one sample's maps as (positions, channels)."""
    return maps.reshape(-1, maps.shape[-1])


def connected(loss, student, teacher):
    sides = (("a", loss.student_layers, student), ("b", loss.teacher_layers, teacher))
    loss.connect(*(SignalSpec(name, None, (None, 3), dict.fromkeys(paths, shape)) for name, paths, shape in sides))
    loss.built = True
    return loss


def called(loss, student, teacher, **context):
    signals = [
        Signals(None, None, {paths[0]: keras.ops.convert_to_tensor(values)})
        for paths, values in ((loss.student_layers, student), (loss.teacher_layers, teacher))
    ]
    return numbers(loss(*signals, **context))


# --- attention transfer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
def test_attention_transfer_is_the_mean_squared_difference_of_normalised_maps(power):
    student, teacher = features(0, 3, 4, 5, 2), features(1, 3, 4, 5, 7)
    expected = []
    for s, t in zip(student, teacher, strict=True):
        maps = []
        for channels in (pixels(s), pixels(t)):
            attention = np.array([np.mean([abs(value) ** power for value in pixel]) for pixel in channels])
            maps.append(attention / np.sqrt((attention**2).sum()))
        expected.append(((maps[0] - maps[1]) ** 2).mean())
    same(losses.attention_transfer(student, teacher, power=power), expected)


def test_attention_transfer_does_not_see_scale_order_or_number_of_channels():
    student, teacher = features(0, 2, 3, 3, 4), features(1, 2, 3, 3, 5)
    value = numbers(losses.attention_transfer(student, teacher))
    changed = np.concatenate([-student, student[..., ::-1]], axis=-1) * 1e-4
    same(losses.attention_transfer(changed, 1e4 * teacher), value)
    same(losses.attention_transfer(changed, student), np.zeros(2))


def test_attention_transfer_pools_the_larger_map():
    student, teacher = features(0, 2, 4, 4, 3), features(1, 2, 2, 2, 3)
    pooled = student.reshape(2, 2, 2, 2, 2, 3).mean((2, 4))
    expected = numbers(losses.attention_transfer(pooled, teacher))
    same(losses.attention_transfer(student, teacher), expected)
    same(losses.attention_transfer(teacher, student), expected)


# --- neuron selectivity ----------------------------------------------------------------------------------------------


# Few positions and many channels, and the reverse: they are computed in different ways.
@pytest.mark.parametrize("channels", [(2, 3), (2, 7), (9, 3)])
def test_neuron_selectivity_is_the_squared_mmd_of_channels(channels):
    student, teacher = features(0, 2, 2, 3, channels[0]), features(1, 2, 2, 3, channels[1])
    expected = []
    for s, t in zip(student, teacher, strict=True):
        s, t = ([c / np.sqrt(c @ c) for c in pixels(maps).T] for maps in (s, t))

        def kernel(one, other):
            return np.mean([(x @ y) ** 2 for x, y in itertools.product(one, other)])

        expected.append(kernel(t, t) + kernel(s, s) - 2 * kernel(s, t))
    same(losses.neuron_selectivity(student, teacher), expected)


def test_neuron_selectivity_does_not_see_scale_order_or_number_of_channels():
    student, teacher = features(0, 2, 3, 3, 4), features(1, 2, 3, 3, 5)
    value = numbers(losses.neuron_selectivity(student, teacher))
    changed = np.concatenate([3 * student, student[..., ::-1]], axis=-1)
    same(losses.neuron_selectivity(changed, 5 * teacher), value)
    same(losses.neuron_selectivity(changed, student), np.zeros(2))


# --- factor transfer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_factor_transfer_is_the_mean_distance_of_normalised_factors(power):
    student, teacher = features(0, 3, 2, 2, 5), features(1, 3, 2, 2, 5)
    expected = []
    for s, t in zip(student, teacher, strict=True):
        s, t = (f.ravel() / np.sqrt((f**2).sum()) for f in (s, t))
        expected.append(np.mean([abs(a - b) ** power for a, b in zip(s, t, strict=True)]))
    same(losses.factor_transfer(student, teacher, power=power), expected)
    same(losses.factor_transfer(3 * student, student, power=power), np.zeros(3))


def test_paraphraser_learns_to_reconstruct_and_leaves_the_teacher_alone():
    before, teacher, loss, history = taught()
    assert len(history) == 8 and history[-1] < 0.5 * history[0]
    assert loss.paraphrasers[0].encoder.output_shape[-1] == 3  # of 12 channels
    assert not loss.trainable_variables  # until there is a translator
    assert len(teacher.trainable_variables) == 10
    for now, then in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_an_untrained_paraphraser_is_refused():
    loss = connected(losses.FactorTransfer("s", "t"), (None, 4, 4, 2), (None, 4, 4, 6))
    with pytest.raises(ValueError, match=r"untrained one for layer 't'. Call `fit_paraphraser\(teacher, x\)` first"):
        called(loss, features(0, 2, 4, 4, 2), features(1, 2, 4, 4, 6))


def test_a_paraphraser_stays_what_it_is(tmp_path):
    loss = factor_transfer()
    encode = loss.paraphrasers[0].encoder
    kernel = numbers(encode.layers[0].kernel)
    student, teacher = tiny_stages(name="student"), tiny_stages(width=6, name="teacher")
    distiller = kdkeras.Distiller(student=student, teacher=teacher)
    for _ in range(2):  # compiled anew, it keeps what it has
        distiller.compile("sgd", distillation_loss=loss, task_weight=0)
    assert loss.paraphrasers[0].encoder is encode
    assert {id(v) for v in loss.trainable_variables} == {id(v) for v in loss.translators[0].variables}
    distiller.save(tmp_path / "distiller.keras")
    (loaded,) = kdkeras.load_model(tmp_path / "distiller.keras").distillation_losses
    assert loaded.paraphrasers[0].fitted
    np.testing.assert_array_equal(numbers(loaded.paraphrasers[0].encoder.layers[0].kernel), kernel)
    with pytest.raises(ValueError, match="has a paraphraser for 12 channels"):
        connected(factor_transfer(), (None, 4, 4, 2), (None, 4, 4, 5))


# --- activation boundaries -------------------------------------------------------------------------------------------


def boundary(s, t, margin):
    if t > 0:
        return (s - margin) ** 2 if s <= margin else 0.0
    return (s + margin) ** 2 if s > -margin else 0.0


def test_activation_boundaries_is_the_mean_squared_hinge():
    student, teacher = features(0, 3, 2, 2, 4), features(1, 3, 2, 2, 4)
    teacher[:, 0, 0, 0] = 0.0  # does not fire
    expected = [
        np.mean([boundary(*pair, 1.5) for pair in zip(s.ravel(), t.ravel(), strict=True)])
        for s, t in zip(student, teacher, strict=True)
    ]
    same(losses.activation_boundaries(student, teacher, margin=1.5), expected)


def test_activation_boundaries_is_0_beyond_the_margin_on_the_teachers_side():
    teacher = features(1, 3, 2, 2, 4)
    student = np.where(teacher > 0, 1.0, -1.0) * np.random.default_rng(0).uniform(1, 9, teacher.shape)
    np.testing.assert_array_equal(numbers(losses.activation_boundaries(student, teacher)), np.zeros(3))
    np.testing.assert_array_equal(
        numbers(losses.activation_boundaries(student, 7 * teacher)), np.zeros(3)
    )  # how strongly the teacher fires does not matter
    same(losses.activation_boundaries(0 * teacher, teacher), np.ones(3))


def test_activation_boundaries_connects_only_where_channels_differ():
    plain = connected(losses.ActivationBoundaries("s", "t"), (None, 4, 4, 5), (None, 2, 2, 5))
    assert plain.connectors == [None]
    student, teacher = features(0, 2, 4, 4, 5), features(1, 2, 2, 2, 5)
    pooled = student.reshape(2, 2, 2, 2, 2, 5).mean((2, 4))
    expected = numbers(losses.activation_boundaries(pooled, teacher))
    same(called(plain, student, teacher).mean((1, 2)), expected)
    other = connected(losses.ActivationBoundaries("s", "t"), (None, 2, 2, 3), (None, 2, 2, 5))
    assert other.connectors[0].projection.kernel.shape == (3, 5)


# --- overhaul --------------------------------------------------------------------------------------------------------


def test_overhaul_is_the_mean_partial_distance_to_the_margin_relu():
    student, teacher, margin = features(0, 3, 2, 2, 4), features(1, 3, 2, 2, 4), np.float32([-0.1, -1, -2, 0])
    expected = []
    for s, t in zip(student, teacher, strict=True):
        distances = []
        for pixel_s, pixel_t in zip(pixels(s), pixels(t), strict=True):
            for a, b, m in zip(pixel_s, pixel_t, margin, strict=True):
                target = b if b > m else m
                distances.append(0.0 if a <= target <= 0 else (target - a) ** 2)
        expected.append(np.mean(distances))
    same(losses.overhaul(student, teacher, margin=margin), expected)
    target = np.maximum(teacher, margin)
    np.testing.assert_array_equal(numbers(losses.overhaul(target, teacher, margin=margin)), np.zeros(3))
    quieter = np.where(target <= 0, target - 5, target)  # more silent than the teacher is as good
    np.testing.assert_array_equal(numbers(losses.overhaul(quieter, teacher, margin=margin)), np.zeros(3))


def norm_model(gamma, beta):
    model = keras.Sequential([keras.Input((len(gamma),)), keras.layers.BatchNormalization(name="norm")])
    model.get_layer("norm").gamma.assign(np.asarray(gamma, "float32"))
    model.get_layer("norm").beta.assign(np.asarray(beta, "float32"))
    return model


def test_margins_are_the_expectation_of_what_is_negative():
    gamma, beta = [1.0, -0.5, 2.0, 0.3, 1.0, 1.5], [0.0, 0.7, -1.0, 0.9, 5.0, -8.0]
    expected = []
    for scale, mean in zip(np.abs(np.float32(gamma)), np.float32(beta), strict=True):
        normal = stats.norm(mean, scale)
        low = min(mean - 12 * scale, -4 * scale)
        part = [integrate.quad(lambda x, n=n, p=normal: x**n * p.pdf(x), low, 0, epsabs=0)[0] for n in (1, 0)]
        expected.append(part[0] / part[1])
    same(losses.batch_norm_margins(norm_model(gamma, beta), "norm"), expected)


def test_margins_of_channels_that_hardly_vary():
    gamma, beta = [0.0, 0.0, 0.0, 1e-6, 1e-6, 1e-3, 1e-38], [0.0, 2.0, -2.0, 3.0, -3.0, 0.3, 1.0]
    margins = losses.batch_norm_margins(norm_model(gamma, beta), "norm")
    # Nothing is negative, or everything: then the mean; just below 0 the density falls off as exp(βx/γ²).
    expected = [0, 0, -2, -1e-12 / 3, -3, -1e-6 / 0.3, 0]
    same(margins, expected, rtol=1e-4, atol=1e-20)


def test_margins_of_a_norm_without_scale_and_centre():
    norm = keras.layers.BatchNormalization(scale=False, center=False, name="norm")
    model = keras.Sequential([keras.Input((2,)), norm])
    same(losses.batch_norm_margins(model, "norm"), [-np.sqrt(2 / np.pi)] * 2)


def test_margins_need_a_batch_norm():
    with pytest.raises(TypeError, match="layer 'relu1' of type ReLU"):
        losses.batch_norm_margins(tiny_stages(), "relu1")


@pytest.mark.parametrize(
    ("layers", "margin", "error", "message"),
    [
        ("a", 0.5, ValueError, "finite margins of at most 0. Received: 0.5"),
        ("a", float("nan"), ValueError, "finite margins"),
        ("a", "low", TypeError, "margins as numbers. Received: 'low'"),
        ("a", [[-1.0], [-1.0]], ValueError, "one margin per channel"),
        (["a", "b"], [-1.0], ValueError, "each of its 2 pairs of layers. Received: 1"),
    ],
)
def test_margins_are_checked(layers, margin, error, message):
    with pytest.raises(error, match=message):
        losses.Overhaul(layers, layers, margin=margin)


def test_margins_are_of_the_teachers_channels():
    with pytest.raises(ValueError, match=r"one margin for each of the teacher's channels.*There are 2"):
        connected(losses.Overhaul("s", "t", margin=[-1.0, -1.0]), (None, 2, 2, 3), (None, 2, 2, 3))


def test_overhaul_connects_pools_and_takes_its_margins():
    loss = connected(losses.Overhaul("s", "t", margin=np.array([-1.0, 0.0])), (None, 4, 4, 3), (None, 2, 2, 2))
    student, teacher = features(0, 2, 4, 4, 3), features(1, 2, 2, 2, 2)
    ours = numbers(loss.connectors[0](student)).reshape(2, 2, 2, 2, 2, 2).mean((2, 4))
    expected = numbers(losses.overhaul(ours, teacher, margin=[-1.0, 0.0]))
    same(called(loss, student, teacher).mean((1, 2)), expected)


# --- the connector's BatchNorm ---------------------------------------------------------------------------------------


def test_connector_is_a_projection_and_batch_norm():
    connector = Connector(4)
    connector.build((None, 2, 2, 3))
    x = features(0, 5, 2, 2, 3)
    projected = x @ numbers(connector.projection.kernel)
    same(connector(x), projected / np.sqrt(1 + 1e-5), rtol=1e-4, atol=1e-5)
    mean, variance = projected.mean((0, 1, 2)), projected.var((0, 1, 2))
    ones = keras.ops.ones((5,))
    for weights in (None, ones, 3 * ones):
        values = connector(x, sample_weight=weights, training=True)
        same(values, (projected - mean) / np.sqrt(variance + 1e-5), rtol=1e-4, atol=1e-5)


def test_a_sample_of_weight_0_has_no_part_in_the_batch_statistics():
    x = features(0, 5, 2, 2, 3)
    weights = keras.ops.convert_to_tensor([1.0, 0.5, 0.0, 2.0, 1.0])
    results = []
    for shown in (x, np.where(np.arange(5).reshape(5, 1, 1, 1) == 2, 1e3, x).astype("float32")):
        keras.utils.set_random_seed(0)
        connector = Connector(4)
        connector.build((None, 2, 2, 3))
        values = numbers(connector(shown, sample_weight=weights, training=True))
        results.append((values[[0, 1, 3, 4]], numbers(connector.norm.moving_mean)))
    for one, other in zip(*results, strict=True):
        same(one, other)
    nothing = connector(x, sample_weight=0 * weights, training=True)  # as if all counted
    same(nothing, connector(x, training=True), rtol=1e-4, atol=1e-5)
    assert np.abs(results[0][1]).max() > 1e-3


def test_fit_trains_what_is_inside_of_losses_and_evaluate_does_not():
    keras.utils.set_random_seed(0)
    student, teacher = tiny_stages(name="student"), tiny_stages(width=6, name="teacher")
    overhaul = losses.Overhaul("conv1", "norm1", margin=losses.batch_norm_margins(teacher, "norm1"))
    information = losses.VariationalInformation("relu2", "relu2")
    both = [overhaul, information, losses.SoftTargets()]
    distiller = kdkeras.Distiller(student=student, teacher=teacher)
    distiller.compile(keras.optimizers.Adam(0.1), distillation_loss=both, task_weight=0)
    connector = overhaul.connectors[0]
    projected = numbers(connector.projection(student.get_layer("conv1")(IMAGES)))

    def statistics():
        return [numbers(connector.norm.moving_mean), numbers(connector.norm.moving_variance)]

    distiller.fit(IMAGES, batch_size=8, verbose=0)
    after = statistics()
    expected = [0.1 * projected.mean((0, 1, 2)), 0.9 + 0.1 * projected.var((0, 1, 2))]  # gathered once
    same(after, expected, rtol=1e-3, atol=1e-5)
    variance = numbers(information.regressors[0].variance())
    assert (variance < 4.95).all()  # 5 at the start
    distiller.evaluate(IMAGES, batch_size=8, verbose=0)
    np.testing.assert_array_equal(statistics(), after)


# --- variational information -----------------------------------------------------------------------------------------


def test_variational_information_is_the_negative_log_likelihood():
    mean, teacher, variance = features(0, 3, 2, 2, 4), features(1, 3, 2, 2, 4), np.array([0.1, 1.0, 2.0, 30.0])
    likelihood = stats.norm(mean, np.sqrt(variance)).logpdf(teacher)
    expected = -likelihood.mean((1, 2, 3)) - 0.5 * np.log(2 * np.pi)
    same(losses.variational_information(mean, teacher, variance=variance), expected)
    known = 0.5 * np.log(variance).mean()
    at_minimum = losses.variational_information(teacher, teacher, variance=variance)
    same(at_minimum, [known] * 3)


def test_variational_information_predicts_and_weighs_by_channel():
    loss = connected(losses.VariationalInformation("s", "t"), (None, 4, 4, 3), (None, 2, 2, 2))
    (regressor,) = loss.regressors
    same(regressor.variance(), [5.0, 5.0])
    regressor.spread.assign(np.array([0.3, -1.0], "float32"))
    student, teacher = features(0, 2, 4, 4, 3), features(1, 2, 2, 2, 2)
    mean = student.reshape(2, 2, 2, 2, 2, 3).mean((2, 4))
    for place, convolution in enumerate(regressor.convolutions):
        mean = mean @ numbers(convolution.kernel)
        mean = np.maximum(mean, 0) if place < 2 else mean
    variance = np.log1p(np.exp([0.3, -1.0])) + 1e-5
    expected = 0.5 * ((teacher - mean) ** 2 / variance + np.log(variance)).mean(-1)
    same(called(loss, student, teacher), expected, rtol=1e-4)


# --- what all share --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras takes means in float32 there")
@pytest.mark.parametrize(
    "function",
    [
        losses.attention_transfer,
        lambda s, t: losses.attention_transfer(s, t, power=3),
        losses.neuron_selectivity,
        losses.factor_transfer,
        losses.activation_boundaries,
        lambda s, t: losses.overhaul(s, t, margin=np.array([-0.5, -0.1, -2.0])),
        lambda s, t: losses.variational_information(s, t, variance=np.array([0.5, 1.0, 3.0])),
    ],
)
def test_gradients(function):
    check_gradient(function, features(0, 2, 2, 2, 3), features(1, 2, 2, 2, 3))


@pytest.mark.parametrize("channels", [2, 9])  # both ways of `neuron_selectivity`
@pytest.mark.parametrize("name", ["attention_transfer", "neuron_selectivity", "factor_transfer"])
def test_gradients_where_features_are_0(name, channels):
    function, teacher = getattr(losses, name), features(1, 2, 2, 2, channels)
    for student in (0 * teacher, np.where(np.arange(channels) > 0, teacher, 0).astype("float32"), 1e-30 * teacher):
        gradient = numbers(gradient_of(lambda s: keras.ops.sum(function(s, teacher)), student))
        assert np.isfinite(gradient).all()


def gradient_of(function, array):
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function)(array)
    if keras.backend.backend() == "torch":
        import torch

        tensor = torch.tensor(array, requires_grad=True)
        return torch.autograd.grad(function(tensor), tensor)[0]
    import tensorflow as tf

    variable = tf.Variable(array)
    with tf.GradientTape() as tape:
        value = function(variable)
    return tape.gradient(value, variable)


def test_maps_are_pooled_to_the_smaller_size_of_each_axis():
    student, teacher = features(0, 2, 8, 3, 1), features(1, 2, 4, 6, 5)
    ours, theirs = pool_to_smaller(student, teacher)
    same(ours, student.reshape(2, 4, 2, 3, 1).mean(2))
    same(theirs, teacher.reshape(2, 4, 3, 2, 5).mean(3))


MAKE = {
    "AttentionTransfer": losses.AttentionTransfer,
    "NeuronSelectivity": losses.NeuronSelectivity,
    "FactorTransfer": losses.FactorTransfer,
    "ActivationBoundaries": losses.ActivationBoundaries,
    "Overhaul": lambda s, t: losses.Overhaul(s, t, margin=-1.0),
    "VariationalInformation": losses.VariationalInformation,
}


@pytest.mark.parametrize("name", sorted(set(MAKE) - {"FactorTransfer"}))
def test_open_sizes_are_equal_sizes(name):
    loss = connected(MAKE[name]("s", "t"), (None, None, None, 2), (None, None, None, 3))
    assert np.isfinite(called(loss, features(0, 2, 3, 3, 2), features(1, 2, 3, 3, 3))).all()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="sizes are known there when a step is traced")
def test_open_sizes_of_several_pairs_are_not_added():
    loss = connected(losses.ActivationBoundaries(["s", "u"], ["t", "v"]), (None, None, None, 2), (None, None, None, 2))

    def value(maps):
        return loss(*(Signals(None, None, dict.fromkeys(names, maps)) for names in ("su", "tv")))

    assert output_specs(value, keras.KerasTensor((None, None, None, 2))).shape == (None,)


@pytest.mark.parametrize(
    ("names", "student", "teacher", "message"),
    [
        (list(MAKE)[:3], (None, 64), (None, 64), "maps of shape|3 or 4 or 5 axes|with 4 axes"),
        (list(MAKE)[:3], (None, 9, 4), (None, 3, 3, 4), "layers of equal rank|layers with 4 axes"),
        (list(MAKE)[3:], (None, 64), (None, 2, 2, 2), "equal rank"),
        (list(MAKE), (None, None, None, 2), (None, 2, 2, 2), "equal or known"),
        (list(MAKE)[1:], (None, 2, 2, None), (None, 2, 2, 2), "known channel counts"),
        (list(MAKE)[3:5], (None, 2, 2, 2), (None, 4, 4, 2), "at least the teacher's size"),
    ],
)
def test_layers_that_do_not_fit(names, student, teacher, message):
    for name in names:
        with pytest.raises(ValueError, match=rf"`{name}` needs.*({message}).*Received: student 's'"):
            connected(MAKE[name]("s", "t"), student, teacher)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: losses.AttentionTransfer("s", "t", power=0.5), ValueError, "power of at least 1"),
        (lambda: losses.FactorTransfer("s", "t", power=0), ValueError, "power of at least 1"),
        (lambda: losses.FactorTransfer("s", "t", rate=0), ValueError, "rate above 0"),
        (lambda: losses.FactorTransfer("s", "t", rate="half"), TypeError, "needs a number as rate"),
        (lambda: losses.ActivationBoundaries("s", "t", margin=-1), ValueError, "margin of at least 0"),
        (lambda: losses.VariationalInformation("s", "t", initial_variance=0), ValueError, "initial_variance above"),
    ],
)
def test_settings_are_checked_when_built(make, error, message):
    with pytest.raises(error, match=message):
        make()
