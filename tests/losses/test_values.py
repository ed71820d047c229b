"""Values of the losses against scipy and hand computation."""

import keras
import numpy as np
import pytest
from scipy.special import expit, softmax
from scipy.stats import entropy

import kdkeras
from kdkeras import losses
from kdkeras.signals import Signals, SignalSpec


def spec(name, logits, head=None, **features):
    return SignalSpec(name, head, logits, features)


def random_logits(seed=0, shape=(6, 5)):
    return np.random.default_rng(seed).normal(scale=3, size=shape).astype("float32")


@pytest.mark.parametrize("temperature", [1.0, 4.0, 10.0])
def test_soft_targets_equals_scipy_kl(temperature):
    student, teacher = random_logits(0), random_logits(1)
    expected = temperature**2 * entropy(softmax(teacher / temperature, -1), softmax(student / temperature, -1), axis=-1)
    np.testing.assert_allclose(losses.soft_targets(student, teacher, temperature=temperature), expected, rtol=1e-4)


def test_soft_targets_does_not_see_a_shift_of_the_logits():
    student, teacher = random_logits(0), random_logits(1)
    np.testing.assert_allclose(
        losses.soft_targets(student + 7, teacher - 3), losses.soft_targets(student, teacher), rtol=1e-4
    )


def test_soft_targets_keeps_gradients_at_large_logits():
    teacher = np.array([[40.0, -40.0]], "float32")

    def loss(first, second):
        return float(losses.soft_targets(np.array([[first, second]], "float32"), teacher, temperature=1.0)[0])

    # A loss on clipped probabilities is flat here; in log space it is a straight line of slope -1 and 1.
    slopes = [(loss(-39.0, 40.0) - loss(-41.0, 40.0)) / 2, (loss(-40.0, 41.0) - loss(-40.0, 39.0)) / 2]
    np.testing.assert_allclose(slopes, [-1.0, 1.0], atol=1e-4)


def test_soft_targets_averages_dense_outputs_over_positions():
    student, teacher = random_logits(0, (2, 3, 3, 5)), random_logits(1, (2, 3, 3, 5))
    expected = losses.soft_targets(student.reshape(-1, 5), teacher.reshape(-1, 5))
    np.testing.assert_allclose(
        losses.soft_targets(student, teacher), np.asarray(expected).reshape(2, 9).mean(1), rtol=1e-5
    )


def test_binary_soft_targets_equals_scipy_kl():
    student, teacher = random_logits(0) / 2, random_logits(1) / 2
    p, q = expit(teacher / 2), expit(student / 2)
    expected = 4 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(-1)
    np.testing.assert_allclose(losses.binary_soft_targets(student, teacher, temperature=2.0), expected, rtol=1e-3)


def test_hard_targets_is_the_cross_entropy_at_the_teachers_top_class():
    student, teacher = random_logits(0), random_logits(1)
    expected = -np.log(softmax(student, -1)[np.arange(6), teacher.argmax(-1)])
    np.testing.assert_allclose(losses.hard_targets(student, teacher), expected, rtol=1e-4)


def test_hints_is_the_mean_squared_error():
    student, teacher = random_logits(0, (2, 3, 3, 4)), random_logits(1, (2, 3, 3, 4))
    np.testing.assert_allclose(losses.hints(student, teacher), ((student - teacher) ** 2).mean((1, 2, 3)), rtol=1e-5)


def test_softened_kl_equals_soft_targets():
    student, teacher = random_logits(0), random_logits(1)
    signals = [Signals(z, z, {}) for z in (student, teacher)]
    loss = losses.SoftenedOutputs(keras.losses.KLDivergence(), temperature=4)
    loss.built = True
    np.testing.assert_allclose(loss(*signals), losses.soft_targets(student, teacher, temperature=4.0), rtol=1e-3)


def test_hints_pools_larger_maps_and_projects_channels():
    keras.utils.set_random_seed(0)
    loss = losses.Hints("s", "t")
    loss.connect(spec("a", (None, 3), s=(None, 4, 4, 2)), spec("b", (None, 3), t=(None, 2, 2, 5)))
    loss.built = True
    student, teacher = random_logits(0, (1, 4, 4, 2)), random_logits(1, (1, 2, 2, 5))
    pooled = student.reshape(1, 2, 2, 2, 2, 2).mean((2, 4))
    kernel, bias = (np.asarray(weight) for weight in loss.projectors[0].get_weights())
    expected = ((pooled @ kernel + bias - teacher) ** 2).mean(-1)  # at each position
    logits = np.zeros((1, 3), "float32")
    values = loss(Signals(logits, logits, {"s": student}), Signals(logits, logits, {"t": teacher}))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(values), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (
            (None, 8, 8, 16),
            (None, 64),
            r"equal rank. Received: student 's' \(None, 8, 8, 16\), teacher 't' \(None, 64\)",
        ),
        ((None, None, None, 2), (None, 2, 2, 2), "equal or known"),
        ((None, 2, 2, 2), (None, 4, 4, 2), "at least the teacher's size"),
        ((None, 2, 2, None), (None, 2, 2, 2), "known channel counts"),
    ],
)
def test_hints_refuses_layers_that_do_not_fit(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        losses.Hints("s", "t").connect(spec("a", (None, 3), s=student), spec("b", (None, 3), t=teacher))


def test_class_counts_must_agree():
    with pytest.raises(ValueError, match=r"student 'a' \(None, 1\), teacher 'b' \(None, 10\). Give both models"):
        losses.SoftTargets().connect(spec("a", (None, 1)), spec("b", (None, 10)))


def test_heads_must_agree():
    with pytest.raises(ValueError, match="student 'a' ends in softmax, teacher 'b' in sigmoid"):
        losses.SoftTargets().connect(spec("a", (None, 3), "softmax"), spec("b", (None, 3), "sigmoid"))


def test_one_linear_output_is_no_distribution():
    with pytest.raises(ValueError, match="at least two classes"):
        losses.SoftTargets().connect(spec("a", (None, 1)), spec("b", (None, 1)))
    with pytest.raises(ValueError, match="exclusive classes"):
        losses.HardTargets().connect(spec("a", (None, 3), "sigmoid"), spec("b", (None, 3), "sigmoid"))


def test_sigmoid_heads_give_binary_divergences():
    loss = losses.SoftTargets(temperature=2)
    loss.connect(spec("a", (None, 1), "sigmoid"), spec("b", (None, 1), "sigmoid"))
    loss.built = True
    student, teacher = random_logits(0, (4, 1)), random_logits(1, (4, 1))
    signals = [Signals(z, z, {}) for z in (student, teacher)]
    np.testing.assert_allclose(loss(*signals), losses.binary_soft_targets(student, teacher, temperature=2.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: losses.SoftTargets(temperature=-1), ValueError, "temperature above 0. Received: -1"),
        (lambda: losses.SoftTargets(temperature=0), ValueError, "temperature above 0"),
        (lambda: losses.SoftTargets(temperature=float("nan")), ValueError, "finite temperature"),
        (lambda: losses.SoftTargets(weight=-0.1), ValueError, "weight of at least 0"),
        (lambda: losses.SoftTargets(temperature="hot"), TypeError, "needs a number as temperature"),
        (lambda: losses.SoftenedOutputs("kld"), TypeError, "needs a `keras.losses.Loss`"),
    ],
)
def test_settings_are_checked_when_built(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_hints_takes_several_pairs_of_open_sizes():
    def network(name):
        first = keras.layers.Conv2D(2, 3, name="first")(inputs := keras.Input((None, None, 1)))
        second = keras.layers.Conv2D(2, 3, strides=2, name="second")(first)
        return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(second), name=name)

    hint = losses.Hints(["first", "second"], ["first", "second"])
    models = [network("student"), network("teacher")]
    model = kdkeras.Distiller(student=models[0], teacher=models[1])
    images = random_logits(0, (4, 9, 9, 1))
    history = model.compile("sgd", None, distillation_loss=hint, task_weight=0).fit(images, batch_size=2, verbose=0)
    ours, theirs = (keras.Model(m.input, [m.get_layer(n).output for n in ("first", "second")]) for m in models)
    assert hint.projectors == [None, None]
    assert history.history["hints"][0] > 0
    logs = model.evaluate(images, verbose=0, return_dict=True)
    expected = sum(
        np.mean((keras.ops.convert_to_numpy(a) - keras.ops.convert_to_numpy(b)) ** 2)
        for a, b in zip(ours(images), theirs(images), strict=True)
    )
    assert logs["hints"] == pytest.approx(expected, rel=1e-5)
