"""Losses between the stages of convolutional networks, and on dense outputs."""

import keras
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

import kdkeras
from kdkeras.losses import SoftTargets
from kdkeras.losses.channel_wise import ChannelWise, channel_wise
from kdkeras.losses.fsp import FSP, fsp
from kdkeras.losses.orthogonal_projection import OrthogonalProjection, orthogonal_projection, semi_orthogonal
from kdkeras.losses.review import ReviewKD, hierarchical_context
from kdkeras.losses.sim_kd import SimKD
from kdkeras.losses.simple_recipe import SimpleRecipe, simple_recipe
from kdkeras.signals import Extractor, Signals, SignalSpec
from kdkeras.testing import check_gradient, check_loss, tiny_stages


def stages_of_one_width(width=4, name="tiny"):
    return tiny_stages(name=name)


def loud_stages(width=4, name="tiny"):
    """Features so large that the step of the contract's finite differences is small beside them."""
    model = tiny_stages(width=width, name=name)
    for stage in (1, 2):
        model.get_layer(f"norm{stage}").gamma.assign([20.0] * width * stage)
    return model


def segmenter(units=3, width=4, name="tiny"):
    """Dense outputs: logits of each pixel."""
    inputs = keras.Input((8, 8, 1))
    features = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name="conv")(inputs)
    return keras.Model(inputs, keras.layers.Conv2D(units, 1, name="head")(features), name=name)


def smooth_sim_kd():
    """A projector whose ReLUs are all open: finite differences do not see a corner rightly."""
    loss = SimKD("relu2", "relu2")
    connect_pair = loss.connect_pair

    def connect_open(place, pair):
        connect_pair(place, pair)
        for norm in loss.projector.layers[1::3]:
            norm.gamma.assign(numbers(norm.gamma) / 10)
            norm.beta.assign(numbers(norm.beta) + 1)

    loss.connect_pair = connect_open
    return loss


STAGES = ["relu1", "relu2"]
LOSSES = {
    "fsp": (lambda: FSP(STAGES, STAGES), 0.0, stages_of_one_width),
    "channel_wise": (ChannelWise, 0.0, segmenter),
    "channel_wise_maps": (lambda: ChannelWise("relu2", "relu2"), 0.0, stages_of_one_width),
    "channel_wise_projected": (lambda: ChannelWise("relu1", "relu2"), None, tiny_stages),
    "review": (lambda: ReviewKD(STAGES, STAGES), None, tiny_stages),
    "sim_kd": (smooth_sim_kd, None, tiny_stages),
    "orthogonal_projection": (lambda: OrthogonalProjection("relu2", "relu2"), None, tiny_stages),
    "orthogonal_projection_pooled": (lambda: OrthogonalProjection("relu2", "pool"), None, tiny_stages),
    "simple_recipe": (lambda: SimpleRecipe("relu2", "relu2"), None, loud_stages),
    "simple_recipe_pairs": (lambda: SimpleRecipe(STAGES, STAGES, alpha=2), None, loud_stages),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_keeps_the_contract(name):
    make, minimum, network = LOSSES[name]
    check_loss(make, minimum=minimum, network=network)


def maps(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def numbers(values):
    return keras.ops.convert_to_numpy(values)


def spec(model="m", logits=(None, 3), **features):
    return SignalSpec(model, None, logits, features)


def signals(**features):
    return Signals(None, None, features)


def connected(loss, student, teacher):
    """Connect a loss to layers 's…' and 't…' of these features, and return what it says of them."""
    keras.utils.set_random_seed(0)
    shapes = [{path: (None, *values.shape[1:]) for path, values in each.items()} for each in (student, teacher)]
    loss.connect(spec("a", **shapes[0]), spec("b", **shapes[1]))
    loss.built = True
    return loss(signals(**student), signals(**teacher))


def block_means(values, size):
    """Average-pool by loops: a window starts and ends where the even division does, rounded outwards."""
    batch, height, width, channels = values.shape
    out = np.zeros((batch, size, size, channels))
    for i in range(size):
        for j in range(size):
            rows = slice(i * height // size, -(-(i + 1) * height // size))
            columns = slice(j * width // size, -(-(j + 1) * width // size))
            out[:, i, j] = values[:, rows, columns].mean((1, 2))
    return out


GRADIENTS = {
    "fsp": (fsp, [(2, 8, 8, 3), (2, 4, 4, 5), (2, 6, 6, 3), (2, 6, 6, 5)]),
    "channel_wise": (channel_wise, [(2, 4, 3, 5), (2, 4, 3, 5)]),
    "hierarchical_context": (hierarchical_context, [(2, 8, 8, 3), (2, 8, 8, 3)]),
    "hierarchical_context_odd": (hierarchical_context, [(2, 6, 6, 3), (2, 6, 6, 3)]),
    "orthogonal_projection": (
        lambda s, t, kernel: orthogonal_projection(s, t, kernel=kernel),
        [(2, 3, 3), (2, 3, 5), (5, 3)],
    ),
    "orthogonal_projection_narrower": (
        lambda s, t, kernel: orthogonal_projection(s, t, kernel=kernel),
        [(2, 3, 5), (2, 3, 3), (5, 3)],
    ),
    "simple_recipe": (simple_recipe, [(6, 4), (6, 4)]),
    "simple_recipe_weighed": (
        lambda s, t: simple_recipe(s, t, alpha=2, sample_weight=np.array([1.0, 0.5, 0.0, 2.0, 1.0, 1.0])),
        [(6, 4), (6, 4)],
    ),
}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras takes means in float32 there")
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient(name):
    function, shapes = GRADIENTS[name]
    check_gradient(function, *(2 * maps(seed, *shape) for seed, shape in enumerate(shapes)))


# --- FSP -------------------------------------------------------------------------------------------------------------


def by_loops_fsp(first, second):
    size = min(first.shape[1], second.shape[1])
    first, second = block_means(first, size), block_means(second, size)
    matrix = np.zeros((len(first), first.shape[-1], second.shape[-1]))
    for row in range(size):
        for column in range(size):
            matrix += np.einsum("bm,bn->bmn", first[:, row, column], second[:, row, column]) / size**2
    return matrix


def test_fsp_compares_inner_products_of_channels():
    student, teacher = (maps(0, 2, 8, 8, 3), maps(1, 2, 4, 4, 5)), (maps(2, 2, 6, 6, 3), maps(3, 2, 6, 6, 5))
    expected = ((by_loops_fsp(*student) - by_loops_fsp(*teacher)) ** 2).mean((1, 2))
    np.testing.assert_allclose(numbers(fsp(*student, *teacher)), expected, rtol=1e-4)


def test_fsp_does_not_see_where_something_is():
    a, b, places = maps(0, 2, 9, 3), maps(1, 2, 9, 5), np.random.default_rng(0).permutation(9)
    np.testing.assert_allclose(numbers(fsp(a[:, places], b[:, places], a, b)), 0, atol=1e-9)


def test_fsp_sums_over_each_layer_and_the_next():
    student = {f"s{i}": maps(i, 2, 4, 4, i + 2) for i in range(3)}
    teacher = {f"t{i}": maps(9 - i, 2, 8, 8, i + 2) for i in range(3)}
    expected = sum(
        numbers(fsp(student[f"s{i}"], student[f"s{i + 1}"], teacher[f"t{i}"], teacher[f"t{i + 1}"])) for i in (0, 1)
    )
    np.testing.assert_allclose(numbers(connected(FSP(list(student), list(teacher)), student, teacher)), expected)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(8, 8, 3), (4, 4, 5), (8, 8, 3), (4, 4, 6)], r"student 'b' \(None, 4, 4, 5\), teacher 'b' \(None, 4, 4, 6\)"),
        ([(3,), (4, 4, 5), (3,), (4, 4, 5)], "3 or 4 or 5 axes"),
        ([(8, 8, 3), (16, 5), (8, 8, 3), (16, 5)], "model 'student' with 'a' .* Choose other layers"),
        ([(None, None, 3), (4, 4, 5), (8, 8, 3), (4, 4, 5)], "sizes that are equal or known"),
    ],
)
def test_fsp_refuses_layers_that_do_not_fit(shapes, message):
    a, b, c, d = ((None, *shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        FSP(["a", "b"], ["a", "b"]).connect(spec("student", a=a, b=b), spec("teacher", a=c, b=d))


def test_fsp_needs_two_layers():
    with pytest.raises(ValueError, match="two layers or more"):
        FSP(["a"], ["a"])


# --- channel-wise ----------------------------------------------------------------------------------------------------


def by_scipy_channel_wise(student, teacher, temperature):
    values = np.zeros(len(student))
    for sample in range(len(student)):
        for channel in range(student.shape[-1]):
            q, p = (softmax(each[sample, ..., channel].ravel() / temperature) for each in (student, teacher))
            values[sample] += temperature**2 * entropy(p, q) / student.shape[-1]
    return values


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_channel_wise_equals_scipy_kl(temperature):
    student, teacher = 3 * maps(0, 2, 4, 3, 5), 3 * maps(1, 2, 4, 3, 5)
    expected = by_scipy_channel_wise(student, teacher, temperature)
    np.testing.assert_allclose(numbers(channel_wise(student, teacher, temperature=temperature)), expected, rtol=1e-4)


def test_channel_wise_does_not_see_a_shift_of_a_channel():
    student, teacher, shift = maps(0, 2, 4, 4, 5), maps(1, 2, 4, 4, 5), 5 * maps(2, 5)
    np.testing.assert_allclose(
        numbers(channel_wise(student + shift, teacher - shift)), numbers(channel_wise(student, teacher)), rtol=1e-4
    )


def test_channel_wise_pools_and_projects_maps():
    loss, student, teacher = ChannelWise("s", "t"), maps(0, 2, 8, 8, 3), maps(1, 2, 4, 4, 5)
    values = connected(loss, {"s": student}, {"t": teacher})
    kernel, bias = (numbers(variable) for variable in loss.projector.trainable_variables)
    expected = by_scipy_channel_wise(block_means(student, 4) @ kernel + bias, teacher, 4.0)
    np.testing.assert_allclose(numbers(values), expected, rtol=1e-4)


def test_channel_wise_compares_logits_without_layers_and_soft_targets_averages_over_pixels():
    student, teacher = maps(0, 2, 4, 4, 3), maps(1, 2, 4, 4, 3)
    both = [Signals(None, logits, {}) for logits in (student, teacher)]
    channels, pixels = ChannelWise(temperature=2), SoftTargets(temperature=2)
    for loss in (channels, pixels):
        loss.connect(*[spec(logits=(None, 4, 4, 3))] * 2)
        loss.built = True
    np.testing.assert_allclose(numbers(channels(*both)), by_scipy_channel_wise(student, teacher, 2.0), rtol=1e-4)
    # The other way round: a softmax over the classes of each pixel, and a value for each pixel.
    expected = 4 * entropy(softmax(teacher / 2, -1), softmax(student / 2, -1), axis=-1)
    np.testing.assert_allclose(numbers(pixels(*both)), expected, rtol=1e-3)
    np.testing.assert_allclose(
        numbers(kdkeras.losses.soft_targets(student, teacher, temperature=2.0)), expected.mean((1, 2)), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ChannelWise("a"), ValueError, "a layer of each model, or none"),
        (lambda: ChannelWise(["a"], ["b"]), TypeError, "layers by path"),
        (lambda: ChannelWise().connect(spec(), spec()), ValueError, "dense outputs"),
        (
            lambda: ChannelWise("a", "a").connect(spec(a=(None, 4)), spec(a=(None, 4))),
            ValueError,
            "3 or 4 or 5 axes",
        ),
        (lambda: ChannelWise(temperature=0), ValueError, "temperature above 0"),
    ],
)
def test_channel_wise_says_what_it_needs(make, error, message):
    with pytest.raises(error, match=message):
        make()


# --- ReviewKD --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "levels"), [(8, (4, 2, 1)), (6, (4, 2, 1)), (3, (2, 1)), (1, ())])
def test_hierarchical_context_weighs_pooled_errors(size, levels):
    student, teacher = maps(0, 2, size, size, 3), maps(1, 2, size, size, 3)
    errors = [((student - teacher) ** 2).mean((1, 2, 3))]
    errors += [((block_means(student, n) - block_means(teacher, n)) ** 2).mean((1, 2, 3)) for n in levels]
    weights = [1, 0.5, 0.25, 0.125][: len(errors)]
    expected = sum(weight * error for weight, error in zip(weights, errors, strict=True)) / sum(weights)
    np.testing.assert_allclose(numbers(hierarchical_context(student, teacher)), expected, rtol=1e-4)


def batch_norm(values, layer):
    gamma, beta, mean, variance = (numbers(variable) for variable in layer.variables)
    return (values - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta


def convolve(values, kernel):
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = values.shape[1:3]
    return sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))


def repeated(values, factor):
    return values.repeat(factor, axis=1).repeat(factor, axis=2)


def test_review_fuses_from_deep_to_shallow():
    student = {"s1": maps(0, 2, 8, 8, 3), "s2": maps(1, 2, 4, 4, 6)}
    teacher = {"t1": maps(2, 2, 8, 8, 5), "t2": maps(3, 2, 8, 8, 7)}
    loss = ReviewKD(["s1", "s2"], ["t1", "t2"])
    values = connected(loss, student, teacher)
    shallow, deep = loss.fusions
    assert (shallow.width, deep.attention) == (6, None)

    mixed = batch_norm(student["s2"] @ numbers(deep.compress.kernel), deep.compress_norm)
    mixed = repeated(mixed, 2)  # the student's 4×4 to the teacher's 8×8, where it is carried from too
    out_deep = batch_norm(convolve(mixed, numbers(deep.widen.kernel)), deep.widen_norm)
    own = batch_norm(student["s1"] @ numbers(shallow.compress.kernel), shallow.compress_norm)
    kernel, bias = numbers(shallow.attention.kernel), numbers(shallow.attention.bias)
    a, b = np.moveaxis(1 / (1 + np.exp(-(np.concatenate([own, mixed], -1) @ kernel + bias))), -1, 0)
    fused = a[..., None] * own + b[..., None] * mixed
    out_shallow = batch_norm(convolve(fused, numbers(shallow.widen.kernel)), shallow.widen_norm)
    expected = numbers(hierarchical_context(out_deep, teacher["t2"])) + numbers(
        hierarchical_context(out_shallow, teacher["t1"])
    )
    np.testing.assert_allclose(numbers(values), expected, rtol=1e-3)


def test_review_shrinks_to_the_teachers_size_by_the_nearest_position():
    from kdkeras.losses.review import _resized

    values = maps(0, 1, 6, 6, 1)
    np.testing.assert_allclose(numbers(_resized(values, (3, 3))), values[:, ::2, ::2])
    np.testing.assert_allclose(numbers(_resized(values, (4, 6))), values[:, [0, 1, 3, 4]])


def test_review_normalises_by_the_batch_in_training():
    loss, student, teacher = ReviewKD("s", "t"), {"s": maps(0, 2, 4, 4, 3)}, {"t": maps(2, 2, 4, 4, 5)}
    at_rest = numbers(connected(loss, student, teacher))
    before = numbers(loss.fusions[0].widen_norm.moving_mean)
    in_training = numbers(loss(signals(**student), signals(**teacher), training=True))
    assert not np.allclose(at_rest, in_training)
    assert not np.allclose(before, numbers(loss.fusions[0].widen_norm.moving_mean))


@pytest.mark.parametrize("make", [ReviewKD, SimKD])
@pytest.mark.parametrize(
    ("shape", "message"), [((None, 8, 3), "4 axes"), ((None, None, None, 3), "known size"), ((None, 3), "4 axes")]
)
def test_maps_of_known_size_are_needed(make, shape, message):
    with pytest.raises(ValueError, match=message):
        make("a", "a").connect(spec(a=shape), spec(a=(None, 4, 4, 3)))


# --- SimKD -----------------------------------------------------------------------------------------------------------


def as_if_trained(loss, student, teacher):
    """Connect a loss to two models, and move the variables of all three."""
    extractors = (Extractor(student, loss.student_layers), Extractor(teacher, loss.teacher_layers))
    loss.connect(*(extractor.spec(keras.KerasTensor((None, 8, 8, 1))) for extractor in extractors))
    rng = np.random.default_rng(0)
    for variable in [v for each in (student, teacher, loss.projector) for v in each.weights]:
        variable.assign(numbers(variable) + rng.random(variable.shape) / 2)
    return maps(0, 2, 8, 8, 1)


def test_sim_kd_pools_the_larger_map_whichever_it_is():
    for ours, theirs in ((8, 4), (4, 8), (6, 4)):
        loss, student, teacher = SimKD("s", "t"), maps(0, 2, ours, ours, 3), maps(1, 2, theirs, theirs, 4)
        values = connected(loss, {"s": student}, {"t": teacher})
        size = min(ours, theirs)
        projected = numbers(loss.projector(block_means(student, size).astype("float32")))
        expected = ((projected - block_means(teacher, size)) ** 2).mean(-1)
        np.testing.assert_allclose(numbers(values), expected, rtol=1e-3)
        assert projected.min() >= 0
        assert [layer.filters for layer in loss.projector.layers[::3]] == [2, 2, 4]


def test_deployable_student_is_student_projector_and_the_teachers_classifier(tmp_path):
    keras.utils.set_random_seed(0)
    student, teacher = tiny_stages(name="student"), tiny_stages(width=6, name="teacher")
    loss = SimKD("relu2", "relu2", factor=3)
    x = as_if_trained(loss, student, teacher)
    before = teacher.get_weights()
    deployed = loss.deployable_student(student, teacher)

    features = keras.Model(student.input, student.get_layer("relu2").output)(x)
    features = loss.projector(features)
    expected = teacher.get_layer("head")(teacher.get_layer("pool")(features))
    np.testing.assert_allclose(numbers(deployed(x)), numbers(expected), rtol=1e-4, atol=1e-5)
    assert not np.allclose(numbers(deployed(x)), numbers(student(x)))
    for old, new in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)

    deployed.save(tmp_path / "deployed.keras")
    again = keras.saving.load_model(tmp_path / "deployed.keras", custom_objects={})
    np.testing.assert_allclose(again.predict(x, verbose=0), deployed.predict(x, verbose=0), rtol=1e-5)
    own = {id(variable) for variable in deployed.variables}
    assert own.isdisjoint(id(v) for model in (student, teacher, loss) for v in model.variables)


def test_deployable_student_of_nested_and_sequential_models():
    keras.utils.set_random_seed(0)
    body = tiny_stages(name="body")
    student = keras.Sequential([keras.Input((8, 8, 1)), keras.Model(body.input, body.get_layer("relu2").output)])
    backbone = tiny_stages(width=6, name="backbone")
    inputs = keras.Input((8, 8, 1))
    shared = keras.layers.Dense(3, activation="softmax", name="softmax")(backbone(inputs))
    teacher = keras.Model(inputs, shared, name="teacher")
    loss = SimKD("relu1", "backbone/relu1", activation="linear")
    x = as_if_trained(loss, student, teacher)
    deployed = loss.deployable_student(student, teacher)
    features = loss.projector(keras.Model(body.input, body.get_layer("relu1").output)(x))
    for name in ("conv2", "norm2", "relu2", "pool", "head"):
        features = backbone.get_layer(name)(features)
    np.testing.assert_allclose(
        numbers(deployed(x)), numbers(teacher.get_layer("softmax")(features)), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(("ours", "theirs"), [("relu1", "relu2"), ("relu2", "relu1")])
def test_deployable_student_where_sizes_differ(ours, theirs):
    keras.utils.set_random_seed(0)
    student, teacher = tiny_stages(name="student"), tiny_stages(width=6, name="teacher")
    loss = SimKD(ours, theirs)
    x = as_if_trained(loss, student, teacher)
    deployed = loss.deployable_student(student, teacher)
    features = numbers(keras.Model(student.input, student.get_layer(ours).output)(x))
    features = loss.projector(block_means(features, 4).astype("float32"))
    for layer in teacher.layers[teacher.layers.index(teacher.get_layer(theirs)) + 1 :]:
        features = layer(features)
    np.testing.assert_allclose(numbers(deployed(x)), numbers(features), rtol=1e-4, atol=1e-5)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = tiny_stages(name="inner")

    def call(self, inputs):
        return self.inner(inputs)


def with_flatten():
    layers = [keras.layers.Conv2D(3, 3, strides=1, padding="same", name="conv"), keras.layers.Flatten()]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(3)], name="flat")


def with_a_way_around():
    inputs = keras.Input((8, 8, 1))
    first = keras.layers.Conv2D(3, 3, padding="same", name="first")(inputs)
    conv = keras.layers.Conv2D(3, 3, padding="same", name="conv")(first)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([first, conv]))
    return keras.Model(inputs, pooled, name="around")


def with_a_layer_used_twice():
    inputs = keras.Input((8, 8, 1))
    conv = keras.layers.Conv2D(1, 3, padding="same", name="conv")
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(conv(conv(inputs))), name="twice")


def with_its_map_at_the_end():
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(3, 3, name="conv")], name="end")


@pytest.mark.parametrize(
    ("make", "path", "error", "message"),
    [
        (Subclassed, "inner/relu1", TypeError, "Functional or Sequential models"),
        (with_flatten, "conv", ValueError, "reads maps of any size.*'flat' after 'conv'"),
        (with_a_way_around, "conv", ValueError, "'conv' of model 'around', which another path goes around"),
        (with_a_layer_used_twice, "conv", ValueError, "'conv' of model 'twice', called 2 times"),
        (with_its_map_at_the_end, "conv", ValueError, "'conv', the last of model 'end'"),
    ],
)
def test_deployable_student_says_what_it_cannot_cut(make, path, error, message):
    teacher = make()
    teacher(np.zeros((1, 8, 8, 1), "float32"))
    student, loss = tiny_stages(name="student"), SimKD("relu2", path)
    channels = 4 if make is Subclassed else teacher.get_layer("conv").output.shape[-1]
    loss.connect(spec(relu2=(None, 4, 4, 8)), spec(**{path: (None, 8, 8, channels)}))
    with pytest.raises(error, match=message):
        loss.deployable_student(student, teacher)


def test_sim_kd_says_what_it_needs():
    with pytest.raises(TypeError, match="one layer of each model"):
        SimKD(["a"], ["b"])
    with pytest.raises(ValueError, match="factor of at least 1"):
        SimKD("a", "b", factor=0.5)
    with pytest.raises(ValueError, match="nonsense"):
        SimKD("a", "b", activation="nonsense")
    with pytest.raises(RuntimeError, match="no projector yet"):
        SimKD("a", "b").deployable_student(tiny_stages(), tiny_stages())


# --- orthogonal projection -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3), (4, 4), (7, 1)])
def test_semi_orthogonal_is_the_cayley_transform(shape):
    kernel = 3 * maps(0, *shape).astype("float64")
    rows, columns = shape
    upper, lower = kernel[:columns], kernel[columns:]
    skew = np.block([[upper - upper.T, -lower.T], [lower, np.zeros((rows - columns,) * 2)]])
    expected = (np.linalg.inv(np.eye(rows) + skew) @ (np.eye(rows) - skew))[:, :columns]
    values = numbers(semi_orthogonal(keras.ops.convert_to_tensor(kernel.astype("float32"))))
    np.testing.assert_allclose(values, expected, atol=1e-5)
    np.testing.assert_allclose(values.T @ values, np.eye(columns), atol=1e-5)


def by_numpy_projection(student, teacher, projection):
    values = np.zeros(student.shape[:-1])
    for place in np.ndindex(*values.shape):
        target = (teacher[place] - teacher[place].mean()) / np.sqrt(teacher[place].var() + 1e-5)
        for error in student[place] @ projection - target:
            values[place] += (0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5) / len(target)
    return values


@pytest.mark.parametrize(("ours", "theirs"), [(3, 5), (5, 3), (4, 4)])
def test_orthogonal_projection_is_smooth_l1_to_the_normalised_teacher(ours, theirs):
    student, teacher = 2 * maps(0, 2, 3, ours), maps(1, 2, 3, theirs) + 4
    kernel = maps(2, max(ours, theirs), min(ours, theirs))
    orthogonal = numbers(semi_orthogonal(keras.ops.convert_to_tensor(kernel)))
    expected = by_numpy_projection(student, teacher, orthogonal.T if ours <= theirs else orthogonal).mean(-1)

    def loss(student, teacher, kernel):
        return orthogonal_projection(student, teacher, kernel=kernel)

    np.testing.assert_allclose(numbers(loss(student, teacher, kernel)), expected, rtol=1e-4)
    # Scale and offset of the teacher's features at a position are not seen.
    np.testing.assert_allclose(numbers(loss(student, 9 * teacher + 2, kernel)), expected, rtol=1e-3)


def test_orthogonal_projection_is_zero_at_the_turned_teacher():
    teacher, kernel = maps(1, 2, 3, 5), maps(2, 5, 5)
    normal = (teacher - teacher.mean(-1, keepdims=True)) / teacher.std(-1, keepdims=True)
    student = normal @ numbers(semi_orthogonal(keras.ops.convert_to_tensor(kernel)))
    np.testing.assert_allclose(numbers(orthogonal_projection(student, teacher, kernel=kernel)), 0, atol=1e-6)


def test_orthogonal_projection_keeps_distances_of_the_students_features():
    loss, student = OrthogonalProjection("s", "t"), maps(0, 6, 3)
    connected(loss, {"s": student}, {"t": maps(1, 6, 8)})
    assert [tuple(kernel.shape) for kernel in loss.kernels] == [(8, 3)]
    projected = student @ numbers(semi_orthogonal(keras.ops.convert_to_tensor(loss.kernels[0]))).T
    one, other = (np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (student, projected))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_orthogonal_projection_pools_sizes_and_averages_a_sequence_against_a_map():
    keras.utils.set_random_seed(0)
    student, teacher = maps(0, 2, 8, 8, 3), maps(1, 2, 4, 4, 5)
    loss = OrthogonalProjection("s", "t")
    values = numbers(connected(loss, {"s": student}, {"t": teacher}))
    projection = numbers(semi_orthogonal(keras.ops.convert_to_tensor(loss.kernels[0]))).T
    np.testing.assert_allclose(values, by_numpy_projection(block_means(student, 4), teacher, projection), rtol=1e-3)

    sequence, loss = maps(2, 2, 7, 3), OrthogonalProjection("s", "t")
    values = numbers(connected(loss, {"s": sequence}, {"t": teacher}))
    projection = numbers(semi_orthogonal(keras.ops.convert_to_tensor(loss.kernels[0]))).T
    np.testing.assert_allclose(
        values, by_numpy_projection(sequence.mean(1), teacher.mean((1, 2)), projection), rtol=1e-3
    )


# --- simple recipe ---------------------------------------------------------------------------------------------------


def by_numpy_recipe(student, teacher, alpha):
    values = 0.0
    for channel in range(student.shape[-1]):
        s, t = student[:, channel], teacher[:, channel]
        s, t = ((x - x.mean()) / np.sqrt(x.var() + 1e-4) for x in (s, t))
        values += (np.abs(s - t) ** alpha).mean()
    return np.log(values + 1e-5)


@pytest.mark.parametrize("alpha", [2.0, 4.0])
def test_simple_recipe_equals_numpy(alpha):
    student, teacher = maps(0, 6, 4), maps(1, 6, 4)

    def loss(student, teacher):
        return simple_recipe(student, teacher, alpha=alpha)

    np.testing.assert_allclose(numbers(loss(student, teacher)), by_numpy_recipe(student, teacher, alpha), rtol=1e-4)
    np.testing.assert_allclose(numbers(loss(3 * student - 1, teacher)), numbers(loss(student, teacher)), rtol=1e-3)
    np.testing.assert_allclose(numbers(loss(student, student)), np.log(1e-5), rtol=1e-4)


def test_simple_recipe_leaves_out_samples_without_weight():
    student, teacher = maps(0, 6, 4), maps(1, 6, 4)
    student[4:] = np.nan
    weights = np.array([1, 1, 1, 1, 0, 0], "float32")
    expected = by_numpy_recipe(student[:4], teacher[:4], 4.0) * 4 / 6  # as Keras: the sum by the size of the batch
    np.testing.assert_allclose(numbers(simple_recipe(student, teacher, sample_weight=weights)), expected, rtol=1e-4)
    weights = np.array([2, 1, 1, 1], "float32")
    twice = [np.concatenate([x[:1], x[:4]]) for x in (student, teacher)]
    expected = by_numpy_recipe(*twice, 4.0) * 5 / 4
    np.testing.assert_allclose(
        numbers(simple_recipe(student[:4], teacher[:4], sample_weight=weights)), expected, rtol=1e-4
    )


def test_simple_recipe_averages_maps_and_projects():
    loss, student, teacher = SimpleRecipe("s", "t", alpha=2), maps(0, 5, 4, 4, 3), maps(1, 5, 2, 2, 6)
    value = connected(loss, {"s": student}, {"t": teacher})
    kernel, bias = (numbers(variable) for variable in loss.projectors[0].trainable_variables)
    expected = by_numpy_recipe(student.mean((1, 2)) @ kernel + bias, teacher.mean((1, 2)), 2.0)
    np.testing.assert_allclose(numbers(value), expected, rtol=1e-3)


def test_simple_recipe_says_what_it_needs():
    with pytest.raises(ValueError, match="alpha of at least 1"):
        SimpleRecipe("a", "b", alpha=0.5)
    with pytest.raises(ValueError, match="known channel counts"):
        SimpleRecipe("a", "a").connect(spec(a=(None, None)), spec(a=(None, 3)))
    with pytest.raises(ValueError, match="batch of one"):
        simple_recipe(maps(0, 1, 3), maps(1, 1, 3))
