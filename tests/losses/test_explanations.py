"""Losses between explanations: maps against closed forms, second derivatives, and the step that computes them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import kdkeras
from kdkeras.losses.class_attention import ClassAttention, class_attention
from kdkeras.losses.explanation_matching import ExplanationMatching, explanation_matching
from kdkeras.losses.importance_matching import ImportanceMatching, importance_matching
from kdkeras.signals import Attribution, Explain, Extractor, predict
from kdkeras.testing import _derivative, _double_precision, check_gradient, check_loss, tiny_cnn, tiny_stages

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.filterwarnings("ignore:Gradients do not exist")  # maps do not depend on the head's bias
METHODS = ("grad_cam", "cam", "class_maps", "input_gradient", "gradient_times_input")


def steep(width=4, *, name):
    """A network with maps far larger than the step of the contract's central differences, and none that is empty."""
    model = tiny_cnn(width=width, name=name)
    model.get_layer("head").kernel.assign(1000 * ops.abs(model.get_layer("head").kernel))
    return model


def table(width=4, *, name):
    hidden = layers.Dense(width, activation="tanh", name="hidden")
    model = keras.Sequential([keras.Input((5,)), hidden, layers.Dense(3, name="head")], name=name)
    model.get_layer("head").kernel.assign(300 * model.get_layer("head").kernel)
    return model


LOSSES = {
    "explanation_matching": (lambda: ExplanationMatching("conv", "conv"), 0.0, steep),
    "explanation_matching_every": (lambda: ExplanationMatching("conv", "conv", every=3), 0.0, steep),
    "explanation_matching_cam": (lambda: ExplanationMatching("conv", "conv", method="cam"), 0.0, steep),
    "explanation_matching_jacobian": (
        lambda: ExplanationMatching(method="input_gradient", distance="squared"),
        0.0,
        steep,
    ),
    "class_attention": (lambda: ClassAttention("conv", "conv"), 0.0, steep),
    "class_attention_size": (lambda: ClassAttention("conv", "conv", size=4, normalize=False), 0.0, steep),
    "importance_matching": (ImportanceMatching, 0.0, table),
    "importance_matching_gradient": (lambda: ImportanceMatching(method="input_gradient"), 0.0, table),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_keeps_the_contract(name):
    make, minimum, network = LOSSES[name]
    check_loss(make, minimum=minimum, network=network)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def numbers(values):
    return np.asarray(ops.convert_to_numpy(values))


# --- the functions ---------------------------------------------------------------------------------------------------


def test_explanation_matching_is_one_minus_the_cosine():
    student, teacher = random(4, 3, 5), random(4, 3, 5, seed=1)
    expected = [
        1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(flat(student), flat(teacher), strict=True)
    ]
    np.testing.assert_allclose(numbers(explanation_matching(student, teacher)), expected, rtol=1e-5)
    scaled = explanation_matching(7 * student, teacher / 3)
    np.testing.assert_allclose(numbers(scaled), expected, rtol=1e-5)
    np.testing.assert_allclose(numbers(explanation_matching(-2 * student, student)), 2, rtol=1e-5)


def flat(maps):
    return maps.reshape(len(maps), -1)


def test_the_squared_distance_is_that_of_jacobian_matching():
    student, teacher = random(4, 3, 5, 2), random(4, 3, 5, 2, seed=1)
    expected = []
    for a, b in zip(flat(student), flat(teacher), strict=True):
        expected.append(np.sum((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2))
    squared = numbers(explanation_matching(student, teacher, distance="squared"))
    np.testing.assert_allclose(squared, expected, rtol=1e-5)
    np.testing.assert_allclose(squared, 2 * numbers(explanation_matching(student, teacher)), rtol=1e-5)


@pytest.mark.parametrize("distance", ["cosine", "squared"])
def test_an_empty_map_agrees_with_another_empty_map_only(distance):
    maps = np.array([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    others = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    values = explanation_matching(maps, others, distance=distance)
    np.testing.assert_allclose(numbers(values), [0, 1, 1], atol=1e-6)


@pytest.mark.parametrize("distance", ["cosine", "squared"])
def test_gradient_of_explanation_matching(distance):
    maps = random(3, 4, 4)
    check_gradient(lambda a, b: explanation_matching(a, b, distance=distance), maps, random(3, 4, 4, seed=1))


def pooled(maps, size):
    """Adaptive average pooling of `(h, w)`, written out: cell i covers rows floor(i h / r) to ceil((i + 1) h / r)."""
    result = np.zeros((size, size))
    bounds = [[(i * n // size, -(-(i + 1) * n // size)) for i in range(size)] for n in maps.shape]
    for i, (top, bottom) in enumerate(bounds[0]):
        for j, (left, right) in enumerate(bounds[1]):
            result[i, j] = maps[top:bottom, left:right].mean()
    return result


@pytest.mark.parametrize("normalize", [True, False])
def test_class_attention_against_loops(normalize):
    student, teacher = random(3, 4, 6, 5), random(3, 7, 5, 5, seed=1)
    expected = np.zeros(3)
    for sample in range(3):
        for c in range(5):
            ours, theirs = (pooled(maps[sample, :, :, c], 2) for maps in (student, teacher))
            if normalize:
                ours, theirs = ours / np.linalg.norm(ours), theirs / np.linalg.norm(theirs)
            expected[sample] += np.mean((ours - theirs) ** 2) / 5
    values = numbers(class_attention(student, teacher, normalize=normalize))
    np.testing.assert_allclose(values, expected, rtol=1e-4)


def test_class_attention_does_not_see_the_scale_of_a_class():
    student, teacher = random(3, 4, 4, 5), random(3, 4, 4, 5, seed=1)
    scale = np.array([1.0, 2.0, 3.0, 0.5, 10.0])
    np.testing.assert_allclose(
        numbers(class_attention(student * scale, teacher)), numbers(class_attention(student, teacher)), rtol=1e-5
    )


def test_class_attention_pools_to_no_more_than_there_is():
    student, teacher = random(2, 2, 2, 3), random(2, 4, 4, 3, seed=1)
    np.testing.assert_allclose(
        numbers(class_attention(student, teacher, size=8)), numbers(class_attention(student, teacher)), rtol=1e-5
    )


def test_gradient_of_class_attention():
    check_gradient(class_attention, random(2, 4, 4, 3), random(2, 6, 6, 3, seed=1))


def test_importance_matching_against_loops():
    student, teacher = random(4, 6), random(4, 6, seed=1)
    expected = []
    for a, b in zip(student, teacher, strict=True):
        p, q = np.abs(a) / np.abs(a).sum(), np.abs(b) / np.abs(b).sum()
        # What lies elsewhere than the teacher's.
        expected.append(sum(max(p_i - q_i, 0) for p_i, q_i in zip(p, q, strict=True)))
    np.testing.assert_allclose(numbers(importance_matching(student, teacher)), expected, rtol=1e-5)
    np.testing.assert_allclose(numbers(importance_matching(-3 * student, teacher)), expected, rtol=1e-5)
    np.testing.assert_allclose(numbers(importance_matching(student, -student)), 0, atol=1e-6)


def test_importance_matching_reaches_one_where_no_feature_is_shared():
    student, teacher = np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 5.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(numbers(importance_matching(student, teacher)), [1, 0], atol=1e-6)


def test_gradient_of_importance_matching():
    check_gradient(importance_matching, random(4, 6), random(4, 6, seed=1))


def test_empty_maps_have_no_gradient():
    for function in (explanation_matching, class_attention, importance_matching):

        def of_scale(scale, function=function):
            maps = ops.convert_to_tensor(np.zeros((2, 2, 2, 2)))
            return ops.sum(function(scale * maps, ops.convert_to_tensor(random(2, 2, 2, 2))))

        assert _derivative(of_scale, "float32" if BACKEND == "jax" else "float64") == 0


# --- the explanations ------------------------------------------------------------------------------------------------


def explained(model, x, *methods, layer="conv", explain=None):
    """Return logits and attributions of a model as arrays."""
    wanted = {name: Attribution(name, layer if name in METHODS[:3] else None) for name in methods}
    at = dict.fromkeys(wanted, explain or Explain())
    signals = Extractor(model, attributions=wanted)(ops.convert_to_tensor(x), explain=at)
    return numbers(signals.logits), {name: numbers(value) for name, value in signals.attributions.items()}


def images(n=4, *, seed=0):
    """Return noise with one bright quarter."""
    rng = np.random.default_rng(seed)
    x = rng.random((n, 2, 4, 2, 4, 1)) / 2
    x[np.arange(n), rng.integers(0, 2, n), :, rng.integers(0, 2, n)] += 1
    return x.reshape(n, 8, 8, 1).astype("float32")


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_after_pooling_and_one_dense_layer_grad_cam_is_the_class_activation_map(activation):
    model, x = tiny_cnn(activation=activation), images()
    head = model.get_layer("head")
    head.bias.assign([0.3, -0.2, 0.1])
    logits, found = explained(model, x, *METHODS[:3])
    features = numbers(model.get_layer("conv")(x))  # (b, 6, 6, 4)
    maps = np.einsum("bhwk,kc->bhwc", features, numbers(head.kernel))
    np.testing.assert_allclose(logits, maps.mean((1, 2)) + numbers(head.bias), rtol=1e-4, atol=1e-5)
    of_top = np.stack([maps[i, :, :, c] for i, c in enumerate(logits.argmax(-1))])
    np.testing.assert_allclose(found["class_maps"], maps, atol=1e-5)
    np.testing.assert_allclose(found["cam"], of_top, atol=1e-5)
    np.testing.assert_allclose(found["grad_cam"], np.maximum(of_top, 0) / 36, atol=1e-6)


def test_a_convolution_to_the_classes_gives_the_class_maps_itself():
    parts = [layers.Conv2D(3, 1, name="classes"), layers.GlobalAveragePooling2D(), layers.Softmax()]
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3), *parts])
    x = images()
    logits, found = explained(model, x, "class_maps", "grad_cam", layer="classes")
    np.testing.assert_allclose(found["class_maps"].mean((1, 2)), logits, rtol=1e-4, atol=1e-6)
    of_top = np.stack([found["class_maps"][i, :, :, c] for i, c in enumerate(logits.argmax(-1))])
    np.testing.assert_allclose(found["grad_cam"], np.maximum(of_top, 0) / 36, atol=1e-6)


def slopes(function, x, step=1e-5):
    """Central differences of a function from one sample to a number, in float64."""
    result = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i], down[i] = x[i] + step, x[i] - step
        result[i] = (function(up) - function(down)) / (2 * step)
    return result


def numpy_model():
    """A model of two inner layers in Keras, and what comes after its first one in numpy, in float64."""
    dense = layers.Dense(5, activation="tanh")
    model = keras.Sequential(
        [keras.Input((3, 4)), layers.Dense(2, activation="tanh", name="conv"), layers.Flatten(), dense, layers.Dense(3)]
    )
    weights = [np.asarray(w, "float64") for w in model.get_weights()]

    def first(x):
        return np.tanh(x @ weights[0] + weights[1])

    def rest(features):
        return np.tanh(features.reshape(-1) @ weights[2] + weights[3]) @ weights[4] + weights[5]

    return model, first, rest


@pytest.mark.parametrize("classes", [None, np.array([2, 0, 1])])
def test_gradients_are_those_of_the_chosen_logit(classes):
    model, first, rest = numpy_model()
    x = random(3, 3, 4)
    at = None if classes is None else Explain(ops.convert_to_tensor(classes))
    logits, found = explained(model, x.astype("float32"), "grad_cam", *METHODS[3:], explain=at)
    classes = logits.argmax(-1) if classes is None else classes
    for i, c in enumerate(classes):
        by_features = slopes(lambda a, c=c: rest(a)[c], first(x[i]))
        map_ = np.maximum((by_features.mean(0) * first(x[i])).sum(-1), 0)
        np.testing.assert_allclose(found["grad_cam"][i], map_, rtol=1e-4, atol=1e-6)
        by_input = slopes(lambda a, c=c: rest(first(a))[c], x[i])
        np.testing.assert_allclose(found["input_gradient"][i], by_input, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found["gradient_times_input"][i], by_input * x[i], rtol=1e-3, atol=1e-5)


def test_of_a_layer_that_is_called_twice_the_last_call_counts():
    def model(*, twice):
        inputs = keras.Input((4, 2))
        once = layers.Dense(2, activation="tanh", name="shared")
        again = once if twice else layers.Dense(2, activation="tanh", name="last")
        hidden = again(once(inputs))
        return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(hidden)))

    shared, apart = model(twice=True), model(twice=False)
    kernel, bias, *head = shared.get_weights()
    apart.set_weights([kernel, bias, kernel, bias, *head])
    x = random(3, 4, 2).astype("float32")
    _, found = explained(shared, x, "grad_cam", layer="shared")
    _, expected = explained(apart, x, "grad_cam", layer="last")
    np.testing.assert_allclose(found["grad_cam"], expected["grad_cam"], rtol=1e-5)


def test_a_training_pass_happens_once():
    def run(extract):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((8, 8, 1))
        hidden = layers.Conv2D(4, 3, activity_regularizer="l2", name="conv")(inputs)
        hidden = layers.Dropout(0.5)(layers.BatchNormalization()(hidden))
        model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(hidden)))
        model(images())
        signals = extract(model)(images(), training=True)
        state = [numbers(v) for v in model.non_trainable_variables]
        return numbers(signals.logits), state, [numbers(loss) for loss in model.losses]

    wanted = {"a": Attribution("grad_cam", "conv"), "b": Attribution("input_gradient")}
    plain = run(Extractor)
    found = run(lambda model: Extractor(model, attributions=wanted))
    keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, plain)
    assert len(plain[2]) == 1


def test_predict_gives_maps_under_their_names():
    model, x = tiny_cnn(activation="softmax"), images(5)
    said = predict(model, x, attributions=[Attribution("grad_cam", "conv")], batch_size=2)
    _, expected = explained(model, x, "grad_cam")
    np.testing.assert_allclose(said.attributions["grad_cam:conv"], expected["grad_cam"], rtol=1e-4, atol=1e-7)


# --- second derivatives ----------------------------------------------------------------------------------------------


def smooth(width):
    """A network without kinks, of float64."""
    inputs = keras.Input((6, 6, 2), dtype="float64")
    hidden = layers.Conv2D(width, 3, activation="softplus", name="conv", dtype="float64")(inputs)
    normal = layers.BatchNormalization(name="norm", dtype="float64")(hidden)
    pool = layers.GlobalAveragePooling2D(dtype="float64")
    deep = layers.Dense(5, activation="tanh", dtype="float64")(pool(normal))
    return keras.Model(inputs, layers.Dense(3, dtype="float64")(deep))


def shallow(width):
    inputs = keras.Input((6, 6, 2), dtype="float64")
    hidden = layers.Conv2D(width, 3, activation="softplus", name="conv", dtype="float64")(inputs)
    pool = layers.GlobalAveragePooling2D(dtype="float64")
    return keras.Model(inputs, layers.Dense(3, dtype="float64")(pool(hidden)))


@pytest.mark.parametrize(
    ("network", "method", "function"),
    [
        (smooth, "grad_cam", explanation_matching),
        (smooth, "input_gradient", explanation_matching),
        (smooth, "gradient_times_input", explanation_matching),
        (shallow, "class_maps", class_attention),
        (shallow, "cam", explanation_matching),
    ],
)
def test_gradient_by_the_weights(network, method, function):
    """The loss on a gradient, differentiated by every weight of the student, against central differences."""
    with _double_precision():
        student, teacher, x = network(3), network(4), random(3, 6, 6, 2)
        attribution = Attribution(method, "conv" if method in METHODS[:3] else None)
        theirs = Extractor(teacher, attributions={"a": attribution})(ops.convert_to_tensor(x))
        at = Explain(ops.argmax(theirs.logits, axis=-1))
        target = ops.convert_to_tensor(numbers(theirs.attributions["a"]))
        extractor = Extractor(student, attributions={"a": attribution})
        for place, variable in enumerate(student.trainable_variables):
            direction = ops.convert_to_tensor(random(*variable.shape, seed=place))

            def loss(shift, variable=variable, direction=direction):
                moved = variable.value + shift * direction
                with keras.StatelessScope(state_mapping=[(variable, moved)]):
                    # In training, the second derivative of `tf.nn.moments` is not right: it stops a gradient.
                    signals = extractor(ops.convert_to_tensor(x), training=BACKEND != "tensorflow", explain={"a": at})
                    return ops.sum(function(signals.attributions["a"], target))

            # Keras takes means in float32 on JAX and PyTorch: a smaller step would measure rounding.
            measured = (float(numbers(loss(1e-3))) - float(numbers(loss(-1e-3)))) / 2e-3
            promised = _derivative(loss, "float64")
            assert promised == pytest.approx(measured, rel=1e-2, abs=3e-3), variable.path


# --- in the step -----------------------------------------------------------------------------------------------------

IMAGES = images(24)
SETTINGS = {"epochs": 2, "batch_size": 8, "shuffle": False, "verbose": 0}


def every_loss(student="conv", teacher="relu2"):
    """Return a loss of each kind; the maps of the two layers are of 6×6 and 4×4."""
    return [
        ExplanationMatching(student, teacher),
        ExplanationMatching(student, teacher, method="cam", name="cam"),
        ExplanationMatching(method="input_gradient", name="jacobian"),
        ClassAttention(student, teacher),
        ImportanceMatching(),
    ]


def distiller(loss, *, student=None, teacher=None, optimizer=None, **options):
    teacher = teacher or tiny_stages(width=6, name="teacher")
    student = student or tiny_cnn(name="student")
    options = {"loss": None, "task_weight": 0, **options}
    model = kdkeras.Distiller(student=student, teacher=teacher)
    return model.compile(optimizer or keras.optimizers.SGD(0.0), distillation_loss=loss, **options)


def measured(model, x=IMAGES, y=None, **options):
    """Return the figures of each loss."""
    return {k: v for k, v in model.evaluate(x, y, verbose=0, return_dict=True, **options).items() if k != "loss"}


@pytest.mark.parametrize("of_layers", [True, False])
def test_fit_lowers_every_loss_on_held_out_data(of_layers):
    losses = [each for each in every_loss() if each.student_attribution.of_layer == of_layers]
    models = {} if of_layers else {"student": table(4, name="student"), "teacher": table(6, name="teacher")}
    x, held_out = (IMAGES, images(16, seed=1)) if of_layers else (random(64, 5), random(64, 5, seed=1))
    model = distiller(losses, optimizer=keras.optimizers.Adam(1e-2), **models)
    for each in (model.student, model.teacher) if of_layers else ():  # with negative weights, Grad-CAM may be empty
        each.get_layer("head").kernel.assign(ops.abs(each.get_layer("head").kernel))
    before = measured(model, held_out)
    model.fit(x, epochs=10 if of_layers else 30, batch_size=8, verbose=0)
    after = measured(model, held_out)
    assert all(after[name] < before[name] for name in before), (before, after)


@pytest.mark.parametrize("head", [[layers.Dense(3, activation="softmax")], [layers.Dense(3), layers.Softmax()]])
def test_a_softmax_makes_no_difference(head):
    def network(width, *, softmax):
        body = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(width, 3, name="conv")], name="body")
        end = [layer.__class__.from_config(layer.get_config()) for layer in head] if softmax else [layers.Dense(3)]
        return keras.Sequential([keras.Input((8, 8, 1)), body, layers.GlobalAveragePooling2D(), *end])

    student, teacher = network(4, softmax=False), network(6, softmax=False)
    pairs = [(student, teacher), (network(4, softmax=True), network(6, softmax=True))]
    for copy, original in zip(pairs[1], pairs[0], strict=True):
        copy.set_weights(original.get_weights())

    def losses():
        return [
            ExplanationMatching("body/conv", "conv"),
            ClassAttention("body/conv", "body"),
            ImportanceMatching(),
        ]

    logs = [measured(distiller(losses(), student=ours, teacher=theirs)) for ours, theirs in pairs]
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


def test_a_copy_of_the_teacher_explains_itself_as_the_teacher():
    teacher = tiny_stages(width=6)
    student = keras.models.clone_model(teacher)
    student.set_weights(teacher.get_weights())
    logs = measured(distiller(every_loss("relu2", "relu2"), student=student, teacher=teacher))
    assert logs == pytest.approx(dict.fromkeys(logs, 0.0), abs=1e-4)


def test_each_sample_counts_with_its_weight():
    model = distiller(ExplanationMatching("conv", "relu2"))
    x, weights = IMAGES[:6], np.array([0, 1, 2, 0.5, 3, 0.1], "float32")
    each = [measured(model, one[None])["explanation_matching"] for one in x]
    logs = measured(model, x, np.zeros(6, int), sample_weight=weights)
    assert logs["explanation_matching"] == pytest.approx(np.mean(weights * each), rel=1e-3)


def test_every_nth_step_counts_n_times_and_the_others_nothing():
    model = distiller(ExplanationMatching("conv", "relu2", every=3))
    once = distiller(ExplanationMatching("conv", "relu2"), student=model.student, teacher=model.teacher)
    x = IMAGES[:8]
    value = once.fit(x, batch_size=8, epochs=1, verbose=0).history["explanation_matching"][0]
    history = model.fit(x, batch_size=8, epochs=5, validation_data=(x,), verbose=0).history
    # In training mode, the statistics of the batch are those of the first step each time.
    assert history["explanation_matching"] == pytest.approx([3 * value, 0, 0, 3 * value, 0], rel=1e-3)
    assert min(history["val_explanation_matching"]) > 0


def test_the_count_of_steps_is_saved(tmp_path):
    model = distiller(ExplanationMatching("conv", "relu2", every=3))
    model.fit(IMAGES[:8], batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    loss = kdkeras.load_model(tmp_path / "model.keras").distillation_losses[0]
    assert int(loss._step) == 2
    assert loss.get_config() == model.distillation_losses[0].get_config()


def test_the_teachers_explanations_may_come_with_the_data():
    live, losses = distiller(every_loss(), optimizer=keras.optimizers.SGD(0.1)), every_loss()
    said = predict(live.teacher, IMAGES, attributions=[loss.teacher_attribution for loss in losses])
    cached = kdkeras.Cached(IMAGES, said.logits, features=said.attributions)
    student = keras.models.clone_model(live.student)
    student.set_weights(live.student.get_weights())
    alone = kdkeras.Distiller(student=student, teacher=None)
    alone.compile(keras.optimizers.SGD(0.1), loss=None, distillation_loss=losses, task_weight=0)
    expected, history = live.fit(IMAGES, **SETTINGS).history, alone.fit(cached, **SETTINGS).history
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-3)


def test_maps_that_are_missing_from_the_data_are_named():
    model = kdkeras.Distiller(student=tiny_stages(), teacher=None)
    model.compile("sgd", loss=None, distillation_loss=ExplanationMatching("relu2", "relu2"), task_weight=0)
    x = kdkeras.Cached(IMAGES, np.zeros((24, 3), "float32"), features={"conv": IMAGES})
    with pytest.raises(ValueError, match=r"explanations \['grad_cam:relu2'\]. Received: cached features \['conv'\]"):
        model.fit(x, verbose=0)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow compiles the teacher's weights as constants")
def test_a_frozen_teacher_is_explained_too():
    teacher, student = tiny_stages(width=6), tiny_cnn()
    logs = []
    for freeze in (True, False):
        model = distiller(every_loss(), student=student, teacher=teacher, freeze_teacher=freeze)
        logs.append(measured(model))
        assert model._read_teacher.is_frozen == freeze
    assert logs[0] == pytest.approx(logs[1], rel=1e-3)


def test_half_precision():
    def network(width):
        end = [layers.GlobalAveragePooling2D(), layers.Dense(3), layers.Activation("softmax", dtype="float32")]
        return keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(width, 3, name="conv"), *end])

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        student, teacher = network(4), network(6)
    finally:
        keras.config.set_dtype_policy(before)
    losses = [ExplanationMatching("conv", "conv", every=2), ImportanceMatching(), ClassAttention("conv", "conv")]
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2), initial_scale=8)
    model = distiller(losses, student=student, teacher=teacher, optimizer=optimizer)
    history = model.fit(IMAGES, batch_size=8, epochs=2, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    assert history["class_attention"][1] < history["class_attention"][0]


def two_outputs(width, name):
    inputs = keras.Input((8, 8, 1))
    pooled_ = layers.GlobalAveragePooling2D()(layers.Conv2D(width, 3, activation="relu", name="conv")(inputs))
    outputs = {"kind": layers.Dense(3, name="kind")(pooled_), "size": layers.Dense(4, name="size")(pooled_)}
    return keras.Model(inputs, outputs, name=name)


def test_of_several_outputs_the_named_one_is_explained():
    student, teacher = two_outputs(4, "student"), two_outputs(6, "teacher")
    losses = [
        ExplanationMatching("conv", "conv", method="cam", output="size"),
        ClassAttention("conv", "conv", output="kind"),
    ]
    logs = measured(distiller(losses, student=student, teacher=teacher))
    for name, output, loss in (
        ("explanation_matching_size", "size", ExplanationMatching("conv", "conv", method="cam")),
        ("class_attention_kind", "kind", ClassAttention("conv", "conv")),
    ):
        alone = [keras.Model(model.inputs, model.output[output]) for model in (student, teacher)]
        (expected,) = measured(distiller(loss, student=alone[0], teacher=alone[1])).values()
        assert logs[name] == pytest.approx(expected, rel=1e-4)


# --- what is refused -------------------------------------------------------------------------------------------------


def branched(width=4, name="student"):
    """A model with a layer that has no way to its logits."""
    inputs = keras.Input((8, 8, 1))
    kept, lost = (layers.Conv2D(width, 3, name=name_)(inputs) for name_ in ("kept", "lost"))
    total = layers.GlobalAveragePooling2D()(kept + layers.Lambda(ops.stop_gradient)(lost))
    return keras.Model(inputs, layers.Dense(3)(total), name=name)


def dense_outputs(name="student"):
    return keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(3, 3, name="conv")], name=name)


def two_inputs(name="student"):
    inputs = [keras.Input((4,)), keras.Input((5,))]
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(inputs)), name=name)


def tokens(name="student"):
    parts = [layers.Embedding(9, 4, name="embed"), layers.GlobalAveragePooling1D(), layers.Dense(3)]
    return keras.Sequential([keras.Input((6,), dtype="int32"), *parts], name=name)


@pytest.mark.parametrize(
    ("network", "loss", "message"),
    [
        (tiny_stages, lambda: ExplanationMatching("relu3", "relu2"), "no layer 'relu3'. The nearest names are"),
        (branched, lambda: ExplanationMatching("lost", "lost"), "'grad_cam:lost' of model 'student' needs logits that"),
        (branched, lambda: ExplanationMatching("kept", "lost"), "'grad_cam:lost' of model 'teacher' needs logits that"),
        (
            dense_outputs,
            lambda: ExplanationMatching("conv", "conv"),
            r"\(batch, classes\). Received: model 'student' \(",
        ),
        (dense_outputs, lambda: ClassAttention("conv", "conv"), r"\(batch, classes\). Received: model 'student' \("),
        (two_outputs, lambda: ExplanationMatching("conv", "conv"), r"needs one of the outputs \['kind', 'size'\]"),
        (tiny_stages, lambda: ExplanationMatching("pool", "relu2"), r"positions and channels.*'student' \(None, 8\)"),
        (
            tiny_stages,
            lambda: ClassAttention("relu2", "norm2"),
            "'class_maps:norm2' needs logits that are global average",
        ),
        (tiny_stages, lambda: ExplanationMatching("relu2", "conv1", method="cam"), "'cam:conv1' needs logits that are"),
        (two_inputs, ImportanceMatching, "needs a model that takes one tensor. Received: 2 of model 'student'"),
        (tokens, ImportanceMatching, "'gradient_times_input' needs floats.* Received: int32 in model 'student'"),
    ],
)
def test_models_that_cannot_be_explained_are_refused(network, loss, message):
    models = {
        role: network(name=role) if network is not two_outputs else network(4, role) for role in ("student", "teacher")
    }
    with pytest.raises(ValueError, match=message):
        distiller(loss(), **models)


def test_grad_cam_of_tokens_is_along_the_sequence():
    model = distiller(ExplanationMatching("embed", "embed"), student=tokens(), teacher=tokens("teacher"))
    assert 0 <= measured(model, np.arange(12).reshape(2, 6) % 9)["explanation_matching"] <= 1


def spec(name, logits=(None, 3), **attributions):
    return kdkeras.signals.SignalSpec(name, "linear", logits, attributions=attributions)


@pytest.mark.parametrize(
    ("loss", "name", "ours", "theirs", "message"),
    [
        (
            lambda: ExplanationMatching("a", "b"),
            "explanation_matching",
            (None, None, 4),
            (None, 4, 4),
            r"sizes that are equal or known. Received: student 'grad_cam:a' \(None, None, 4, 1\)",
        ),
        (
            lambda: ExplanationMatching("a", "b"),
            "explanation_matching",
            (None, 4),
            (None, 4, 4),
            "layers of equal rank",
        ),
        (
            lambda: ExplanationMatching(method="input_gradient"),
            "explanation_matching",
            (None, 4, 4, 1),
            (None, 4, 4, 3),
            "equally many channels",
        ),
        (
            lambda: ClassAttention("a", "b"),
            "class_attention",
            (None, None, 4, 3),
            (None, None, 4, 3),
            "known sizes",
        ),
        (ImportanceMatching, "importance_matching", (None, 4), (None, 5), "take the same features.*Select or fill"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(loss, name, ours, theirs, message):
    with pytest.raises(ValueError, match=message):
        loss().connect(spec("student", **{name: ours}), spec("teacher", **{name: theirs}))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ExplanationMatching("a", "b", method="saliency"), ValueError, "needs a method of"),
        (lambda: ExplanationMatching("a", "b", distance="l1"), ValueError, "needs a distance of"),
        (lambda: ExplanationMatching("a", "b", every=0), ValueError, "every of at least 1. Received: 0"),
        (lambda: ExplanationMatching("a", "b", every=2.0), TypeError, "whole number as every"),
        (lambda: ExplanationMatching("a"), ValueError, "'grad_cam' needs the path of a layer. Received: layer=None"),
        (lambda: ExplanationMatching("a", "b", method="input_gradient"), ValueError, "needs no layer"),
        (lambda: ClassAttention("a", "b", size=0), ValueError, "size of at least 1"),
        (lambda: ClassAttention("a", "b", size=1.5), TypeError, "whole number as size"),
        (lambda: ClassAttention("a", "b", normalize=1), TypeError, "normalize=True or False"),
        (lambda: ImportanceMatching(method="shap"), ValueError, "needs a method of"),
        (lambda: Attribution("shap"), ValueError, "An attribution needs a method of"),
    ],
)
def test_settings_are_checked(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.skipif(BACKEND != "torch", reason="the others differentiate what they compile")
def test_compiled_gradients_are_refused_on_pytorch():
    with pytest.raises(ValueError, match=r"\['explanation_matching'\] differentiate the student's gradients"):
        distiller(ExplanationMatching("conv", "relu2"), jit_compile=True)
