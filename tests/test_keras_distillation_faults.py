"""What keras.distillation 3.15.1 and the Keras tutorial do wrong, each point a test of `kdkeras.Distiller`.

Only ours is asserted. What `keras.distillation` does with the same models is measured beside it and recorded as a
property of the test (`pytest --junitxml=FILE` shows it), so that nothing fails here when Keras mends a fault.
"""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import kdkeras
from kdkeras import losses
from kdkeras.testing import tiny_cnn

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
rng = np.random.default_rng(0)
X = rng.random((40, 8, 8, 1)).astype("float32")
Y = rng.integers(0, 3, 40).astype("int32")


def table(logits, name, activation=None):
    """A model of one weight: sample i has the logits in row i, so that an SGD step shows their gradient."""
    logits = np.asarray(logits, "float32")
    model = keras.Sequential([keras.Input((), dtype="int32"), layers.Embedding(*logits.shape)], name=name)
    if activation:
        model.add(layers.Activation(activation))
    model.layers[0].set_weights([logits])
    return model


def gradient_of(distiller, classes=None, **fit):
    """The gradient of the distiller's loss by the student's logits, from one step of SGD at learning rate 1."""
    before = distiller.student.get_weights()[0]
    labels = np.zeros(len(before), "int32") if classes is None else classes
    distiller.fit(np.arange(len(before)), labels, batch_size=len(before), shuffle=False, verbose=0, **fit)
    return before - distiller.student.get_weights()[0]


def from_tables(student, teacher, loss, heads=(None, None), task_weight=0.0, task=None):
    models = {"student": table(student, "student", heads[0]), "teacher": table(teacher, "teacher", heads[1])}
    return kdkeras.Distiller(**models).compile(
        keras.optimizers.SGD(1.0), task, distillation_loss=loss, task_weight=task_weight
    )


def keras_from_tables(student, teacher, loss, heads=(None, None), **kwargs):
    models = {"student": table(student, "student", heads[0]), "teacher": table(teacher, "teacher", heads[1])}
    distiller = keras.distillation.Distiller(
        **models, distillation_losses=loss, **{"student_loss_weight": 0.0, **kwargs}
    )
    distiller.compile(keras.optimizers.SGD(1.0), CROSSENTROPY, run_eagerly=True)
    return distiller


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def keras_shows(request):
    """Records what a call gives, or how it fails, and never fails itself."""

    def show(call):
        try:
            with warnings.catch_warnings(action="ignore"):
                value = call()
        except Exception as error:  # whatever Keras raises is the finding
            value = f"{type(error).__name__}: {error}"
        request.node.user_properties.append(("keras.distillation", str(value)[:300]))

    return show


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(z_t, z_s, temperature):
    p, q = softmax(z_t / temperature), softmax(z_s / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1)


def network(width, name, first=(), **conv):
    stack = [
        keras.Input((8, 8, 1)),
        *first,
        layers.Conv2D(width, 3, activation="relu", name="conv", **conv),
        layers.BatchNormalization(name="norm"),
        layers.GlobalAveragePooling2D(name="pool"),
        layers.Dense(3, name="head"),
    ]
    return keras.Sequential(stack, name=name)


def distiller_of(student, teacher, terms=None, **compile_arguments):
    arguments = {"optimizer": keras.optimizers.SGD(0.1), "loss": CROSSENTROPY, **compile_arguments}
    return kdkeras.Distiller(student=student, teacher=teacher).compile(distillation_loss=terms, **arguments)


def keras_distiller_of(student, teacher, loss, **kwargs):
    distiller = keras.distillation.Distiller(teacher, student, loss, **kwargs)
    distiller.compile(keras.optimizers.SGD(0.1), CROSSENTROPY, run_eagerly=True)
    return distiller


def test_01_softmax_and_t_squared_by_default(keras_shows):
    """The default loss is T²·KL of softened outputs: no gradient of a logit is 0, and students come to agree.

    There: 66 % of the gradients are 0, and pure distillation reached 7.9 % agreement.
    """
    z_s, z_t = (rng.normal(size=(64, 10)).astype("float32") * 3 for _ in range(2))
    distiller = from_tables(z_s, z_t, losses.SoftTargets(weight=1))
    temperature = distiller.distillation_losses[0].temperature
    logs = distiller.evaluate(np.arange(64), batch_size=64, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["loss"], kl(z_t, z_s, temperature).mean(), rtol=1e-5)
    gradient = gradient_of(distiller)
    expected = temperature * (softmax(z_s / temperature) - softmax(z_t / temperature)) / 64
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert (gradient != 0).mean() > 0.99
    keras_shows(
        lambda: {
            "share of logits without gradient": (
                gradient_of(keras_from_tables(z_s, z_t, keras.distillation.LogitsDistillation())) == 0
            ).mean()
        }
    )


def test_01_pure_distillation_makes_the_student_agree(keras_shows):
    """A linear student of a linear teacher agrees with it on over 90 % of new inputs; there: 7.9 % at the defaults."""
    x, new = (rng.normal(size=(n, 20)).astype("float32") for n in (512, 1000))

    def linear(name, seed):
        start = keras.initializers.RandomNormal(stddev=0.5, seed=seed)
        return keras.Sequential([keras.Input((20,)), layers.Dense(10, kernel_initializer=start)], name=name)

    def agreement(distiller, labels):
        distiller.fit(x, labels, batch_size=64, epochs=12, verbose=0)
        answers = [model.predict(new, verbose=0).argmax(-1) for model in (distiller.student, distiller.teacher)]
        return (answers[0] == answers[1]).mean()

    ours = distiller_of(linear("student", 1), linear("teacher", 2), losses.SoftTargets(weight=1), loss=None)
    ours.optimizer.learning_rate = 0.5
    assert agreement(ours, None) > 0.9

    def theirs():
        logits = keras.distillation.LogitsDistillation()
        distiller = keras.distillation.Distiller(
            linear("t", 2), linear("s", 1), distillation_losses=logits, student_loss_weight=0.0
        )
        distiller.compile(keras.optimizers.SGD(0.5), CROSSENTROPY)
        return {"agreement": agreement(distiller, np.zeros(512, "int32"))}

    keras_shows(theirs)


def test_02_cross_entropy_targets_are_probabilities(keras_shows):
    """A cross-entropy compares softened probabilities, so it is least where the student is the teacher.

    There: raw teacher logits are its targets, and the gradient at the teacher itself is not 0.
    """
    z_t = rng.normal(size=(32, 5)).astype("float32") * 3
    z_s = rng.normal(size=(32, 5)).astype("float32")
    loss = losses.SoftenedOutputs(keras.losses.CategoricalCrossentropy(), temperature=2.0)
    distiller = from_tables(z_s, z_t, loss)
    value = distiller.evaluate(np.arange(32), batch_size=32, verbose=0, return_dict=True)["softened_outputs"]
    expected = -4 * (softmax(z_t / 2) * np.log(softmax(z_s / 2))).sum(-1).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    loss = losses.SoftenedOutputs(keras.losses.CategoricalCrossentropy(), temperature=2.0)
    np.testing.assert_allclose(gradient_of(from_tables(z_t, z_t, loss)), 0, atol=1e-6)
    there = keras.distillation.LogitsDistillation(2.0, "categorical_crossentropy")
    keras_shows(
        lambda: {"largest gradient at the teacher": np.abs(gradient_of(keras_from_tables(z_t, z_t, there))).max()}
    )


def test_03_sample_and_class_weights_weigh_every_term(keras_shows):
    """A gradient is multiplied by its sample's weight, 0 included, and class weights are those of the samples."""
    z_s, z_t = (rng.normal(size=(30, 3)).astype("float32") for _ in range(2))
    classes = np.arange(30) % 3
    sample_weight = np.array([0.0, 1.0, 2.5])[classes]

    def gradient(**fit):
        terms = [losses.SoftTargets(), losses.HardTargets(weight=0.5)]
        return gradient_of(from_tables(z_s, z_t, terms, task=CROSSENTROPY, task_weight=0.3), classes, **fit)

    plain, weighted = gradient(), gradient(sample_weight=sample_weight)
    np.testing.assert_allclose(weighted, plain * sample_weight[:, None], atol=1e-6)
    assert (weighted[classes == 0] == 0).all()
    assert np.abs(plain[classes == 0]).min() > 0
    np.testing.assert_allclose(gradient(class_weight={0: 0.0, 1: 1.0, 2: 2.5}), weighted, atol=1e-6)
    there = keras.distillation.LogitsDistillation(loss=keras.losses.KLDivergence())
    keras_shows(
        lambda: {
            "largest gradient at weight 0": np.abs(
                gradient_of(keras_from_tables(z_s, z_t, there), classes, sample_weight=np.zeros(30))
            ).max()
        }
    )


class Counted(layers.Layer):
    """Counts how often it is run, in no weight of the model."""

    def __init__(self):
        super().__init__()
        self.counter = (lambda calls: lambda: calls)(tf.Variable(0))

    def call(self, inputs):
        self.counter().assign_add(1)
        return inputs


def test_04_named_layers_cost_no_second_pass(keras_shows):
    """With a hint the student runs once per step, and BatchNorm moves by one momentum update; there: twice."""

    def run(make, loss):
        distiller = make(network(6, "student", [Counted()]), network(6, "teacher"), loss)
        student = distiller.student
        student.layers[0].counter().assign(0)
        distiller.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
        return int(student.layers[0].counter()), distiller

    calls, _ = run(distiller_of, [losses.SoftTargets(), losses.Hints("conv", "conv")])
    assert calls == 5

    student = network(4, "student")
    distiller = distiller_of(student, network(4, "teacher"), losses.Hints("norm", "norm"))
    norm, features = student.get_layer("norm"), np.asarray(student.get_layer("conv")(X))
    distiller.fit(X, Y, batch_size=40, verbose=0)
    once = (1 - norm.momentum) * features.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(norm.moving_mean, once, rtol=1e-4)
    moments = norm.momentum + (1 - norm.momentum) * features.var(axis=(0, 1, 2))
    np.testing.assert_allclose(norm.moving_variance, moments, rtol=1e-4)
    there = keras.distillation.FeatureDistillation("mse", "conv", "conv")
    keras_shows(lambda: {"passes in five steps": run(keras_distiller_of, there)[0]})


def test_04_evaluate_runs_the_student_for_inference(keras_shows):
    """`evaluate` leaves BatchNorm's statistics to the bit as they are, and its hint is that of inference."""

    def moved(make, loss):
        distiller = make(network(4, "student"), network(4, "teacher"), loss)
        before = [variable.numpy() for variable in distiller.student.variables]
        logs = distiller.evaluate(X, Y, verbose=0, return_dict=True, batch_size=40)
        after = [variable.numpy() for variable in distiller.student.variables]
        return max(np.abs(a - b).max() for a, b in zip(after, before, strict=True)), logs, distiller

    change, logs, distiller = moved(distiller_of, losses.Hints("norm", "norm"))
    assert change == 0
    taps = [
        np.asarray(keras.Model(model.inputs[0], model.get_layer("norm").output)(X, training=False))
        for model in (distiller.student, distiller.teacher)
    ]
    np.testing.assert_allclose(logs["hints"], np.mean((taps[0] - taps[1]) ** 2), rtol=1e-5)
    there = keras.distillation.FeatureDistillation("mse", "norm", "norm")
    keras_shows(lambda: {"largest change by evaluate": moved(keras_distiller_of, there)[0]})


class SameMask(losses.DistillationLoss):
    """Zero where the tapped dropout and the logits come from one pass."""

    def __init__(self):
        super().__init__()
        self.student_layers = ("drop",)

    def call(self, student, teacher, labels=None):
        return ops.mean(ops.square(student.features["drop"] - student.logits), axis=-1)


def test_04_features_and_predictions_share_a_dropout_mask():
    """What a loss sees of an inner layer belongs to the very prediction that it sees."""
    x = rng.normal(size=(64, 16)).astype("float32")
    exact = layers.Dense(16, use_bias=False, kernel_initializer="identity")
    student = keras.Sequential([keras.Input((16,)), layers.Dropout(0.5, name="drop"), exact], name="student")
    teacher = keras.Sequential([keras.Input((16,)), layers.Dense(16)], name="teacher")
    distiller = distiller_of(student, teacher, SameMask(), loss=None, optimizer=keras.optimizers.SGD(0.0))
    assert distiller.fit(x, batch_size=16, verbose=0).history["same_mask"] == [0.0]


@pytest.mark.parametrize("nest", [list, dict])
def test_05_several_outputs_with_loss_weights(nest, keras_shows):
    """List and dict outputs train, each with its task loss and weight and its distillation; there: they raise."""

    def two_headed(width, name):
        inputs = keras.Input((8, 8, 1))
        hidden = layers.Dense(width, activation="relu")(layers.Flatten()(inputs))
        heads = {"kind": layers.Dense(3, name="kind")(hidden), "size": layers.Dense(1, name="size")(hidden)}
        return keras.Model(inputs, heads if nest is dict else list(heads.values()), name=name)

    def nested(kind, size):
        return {"kind": kind, "size": size} if nest is dict else [kind, size]

    size = rng.random((40, 1)).astype("float32")
    student, teacher = two_headed(4, "student"), two_headed(8, "teacher")
    distiller = distiller_of(
        student,
        teacher,
        [losses.SoftTargets(output="kind", weight=0.7), losses.LogitMatching(output="size", weight=0.2)],
        loss=nested(CROSSENTROPY, "mse"),
        loss_weights=nested(2.0, 0.5),
        task_weight=0.3,
    )
    logs = distiller.evaluate(X, nested(Y, size), batch_size=40, verbose=0, return_dict=True)
    ours, theirs = ([np.asarray(value) for value in keras.tree.flatten(model(X))] for model in (student, teacher))
    task = 2 * float(CROSSENTROPY(Y, ours[0])) + 0.5 * np.mean((size - ours[1]) ** 2)
    np.testing.assert_allclose(logs["task_loss"], task, rtol=1e-5)
    expected = 0.3 * task + 0.7 * kl(theirs[0], ours[0], 4).mean() + 0.2 * np.mean((theirs[1] - ours[1]) ** 2)
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-4)
    history = distiller.fit(X, nested(Y, size), epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]

    def there():
        loss = keras.distillation.LogitsDistillation(loss=nested("mse", "mse"))
        model = keras.distillation.Distiller(two_headed(8, "t"), two_headed(4, "s"), loss)
        model.compile("sgd", nested(CROSSENTROPY, "mse"), run_eagerly=True)
        return model.fit(X, nested(Y, size), verbose=0).history

    keras_shows(there)


class TrueClass(losses.DistillationLoss):
    """−p_t·log p_s at the labelled class: the target part of NKD, which needs labels."""

    def call(self, student, teacher, labels=None):
        true = ops.one_hot(labels, ops.shape(student.logits)[-1])
        p_t = ops.sum(true * ops.softmax(teacher.logits), axis=-1)
        return -p_t * ops.sum(true * ops.log_softmax(student.logits), axis=-1)


def test_06_losses_see_the_labels():
    """A loss on the labelled class can be written: its value and its gradient are those computed by hand."""
    z_s, z_t = (rng.normal(size=(30, 3)).astype("float32") for _ in range(2))
    classes = np.arange(30) % 3
    distiller = from_tables(z_s, z_t, TrueClass())
    p_t, p_s = softmax(z_t)[np.arange(30), classes], softmax(z_s)
    logs = distiller.evaluate(np.arange(30), classes, batch_size=30, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["loss"], -(p_t * np.log(p_s[np.arange(30), classes])).mean(), rtol=1e-5)
    gradient = p_t[:, None] * (p_s - np.eye(3)[classes]) / 30
    np.testing.assert_allclose(gradient_of(distiller, classes), gradient, atol=1e-6)


def test_06_a_warm_up_by_epoch_can_be_written():
    """A callback moves the weight of a loss per epoch, and the compiled step follows."""
    z_s, z_t = (rng.normal(size=(8, 3)).astype("float32") for _ in range(2))
    distiller = from_tables(z_s, z_t, losses.SoftTargets(weight=0))
    distiller.optimizer.learning_rate = 0.0

    def warm_up(epoch, logs=None):
        distiller.distillation_losses[0].weight = 0.25 * epoch

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=warm_up)
    history = distiller.fit(np.arange(8), epochs=4, batch_size=8, verbose=0, callbacks=[callback]).history
    np.testing.assert_allclose(history["loss"], kl(z_t, z_s, 4).mean() * np.array([0, 0.25, 0.5, 0.75]), rtol=1e-5)


def test_07_layers_inside_losses_are_trained(keras_shows, tmp_path):
    """The projector of a hint moves by its gradient and is saved; there: losses are not tracked."""
    student, teacher = tiny_cnn(width=2, name="student"), tiny_cnn(width=5, name="teacher")
    distiller = distiller_of(student, teacher, losses.Hints("conv", "conv"), task_weight=0.0)
    projector = distiller.distillation_losses[0].projectors[0]
    kernel, bias = projector.kernel.numpy(), projector.bias.numpy()
    maps = [np.asarray(model.get_layer("conv")(X)) for model in (student, teacher)]
    distiller.fit(X, Y, batch_size=40, verbose=0)
    error = 2 * (maps[0] @ kernel + bias - maps[1]) / maps[1].size
    np.testing.assert_allclose(bias - projector.bias.numpy(), 0.1 * error.sum((0, 1, 2)), rtol=1e-3, atol=1e-7)
    step = 0.1 * np.einsum("bhwi,bhwo->io", maps[0], error)
    np.testing.assert_allclose(kernel - projector.kernel.numpy(), step, rtol=1e-3, atol=1e-6)
    assert np.abs(step).max() > 1e-4
    distiller.save(tmp_path / "distiller.keras")
    loaded = kdkeras.load_model(tmp_path / "distiller.keras").distillation_losses[0].projectors[0]
    np.testing.assert_array_equal(loaded.kernel, projector.kernel)

    class Projected(keras.distillation.DistillationLoss):
        def __init__(self):
            self.dense = layers.Dense(3)
            self.dense.build((None, 3))

        def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
            return ops.mean(ops.square(self.dense(student_outputs) - teacher_outputs))

    def there():
        loss = Projected()
        before = loss.dense.kernel.numpy()
        model = keras_distiller_of(tiny_cnn(name="s"), tiny_cnn(name="t"), loss)
        model.fit(X, Y, verbose=0)
        return {"largest change of a projector": np.abs(loss.dense.kernel.numpy() - before).max()}

    keras_shows(there)


def test_08_regularisation_counts(keras_shows):
    """The student's own penalty is a term of the loss, un-weighted, and shrinks its weights; the teacher's is not."""
    penalty = {"kernel_regularizer": keras.regularizers.L2(0.5)}
    student = network(2, "student", **penalty)
    distiller = distiller_of(student, network(4, "teacher", **penalty), losses.SoftTargets(weight=0), task_weight=0.0)
    kernel = student.get_layer("conv").kernel.numpy()
    logs = distiller.evaluate(X, Y, batch_size=40, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["loss"], 0.5 * (kernel**2).sum(), rtol=1e-5)
    distiller.fit(X, Y, batch_size=40, verbose=0)  # one step: w − 0.1·2·0.5·w
    np.testing.assert_allclose(student.get_layer("conv").kernel, 0.9 * kernel, rtol=1e-5)

    def there():
        plain, penalised = network(2, "s"), network(2, "s", **penalty)
        penalised.set_weights(plain.get_weights())
        teacher = network(4, "t")
        kl_loss = keras.distillation.LogitsDistillation(loss=keras.losses.KLDivergence())
        values = [keras_distiller_of(s, teacher, kl_loss).evaluate(X, Y, verbose=0) for s in (plain, penalised)]
        return {"loss without and with an L2 penalty": values}

    keras_shows(there)


def test_09_loaded_distillers_go_on_and_students_are_saved_alone(keras_shows, tmp_path):
    """After `load_model` training goes on to the same weights; the student's file holds the student alone.

    There: the optimizer is gone, `fit` raises, and the file holds the teacher too (197 KB for 17.8 KB).
    """
    x = rng.normal(size=(40, 16)).astype("float32")

    def mlp(width, name):
        return keras.Sequential([keras.Input((16,)), layers.Dense(width, "relu"), layers.Dense(3)], name=name)

    plain = mlp(16, "plain")
    plain.compile("adam", CROSSENTROPY)
    plain.save(tmp_path / "plain.keras")
    distiller = distiller_of(mlp(16, "student"), mlp(1500, "teacher"), losses.SoftTargets(), optimizer="adam")
    distiller.fit(x, Y, shuffle=False, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    loaded = kdkeras.load_model(tmp_path / "distiller.keras")
    assert int(loaded.optimizer.iterations) == int(distiller.optimizer.iterations) == 2
    for model in (distiller, loaded):
        model.fit(x, Y, epochs=3, shuffle=False, verbose=0)
    for ours, theirs in zip(distiller.student.get_weights(), loaded.student.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)

    distiller.student.save(tmp_path / "student.keras")
    sizes = {path.stem: path.stat().st_size for path in tmp_path.glob("*.keras")}
    assert sizes["student"] <= 1.05 * sizes["plain"]
    assert sizes["student"] < 0.25 * sizes["distiller"]
    alone = keras.saving.load_model(tmp_path / "student.keras")
    np.testing.assert_array_equal(alone.predict(x, verbose=0), distiller.student.predict(x, verbose=0))

    def there():
        model = keras_distiller_of(mlp(16, "s"), mlp(1500, "t"), keras.distillation.LogitsDistillation())
        model.fit(x, Y, verbose=0)
        model.save(tmp_path / "there.keras")
        sizes["there"] = (tmp_path / "there.keras").stat().st_size
        return sizes, keras.saving.load_model(tmp_path / "there.keras").fit(x, Y, verbose=0).history

    keras_shows(there)


def test_10_different_inputs_by_a_pair_or_a_function(keras_shows):
    """A teacher of 16 inputs teaches a student of 4 of them; both ways give one result, that computed by hand."""
    wide = rng.normal(size=(40, 16)).astype("float32")
    narrow = wide[:, :4]
    teacher = keras.Sequential([keras.Input((16,)), layers.Dense(3)], name="teacher")
    z_t = np.asarray(teacher(wide))

    def student(columns=4):
        start = keras.initializers.RandomNormal(seed=1)
        first = layers.Lambda(lambda x: x[:, :4]) if columns == 16 else layers.Identity()
        return keras.Sequential([keras.Input((columns,)), first, layers.Dense(3, kernel_initializer=start)])

    models = [
        kdkeras.Distiller(student=student(), teacher=teacher),
        kdkeras.Distiller(student=student(), teacher=teacher, teacher_inputs=lambda x: ops.pad(x, [[0, 0], [0, 12]])),
    ]
    padded = np.asarray(teacher(np.pad(narrow, [[0, 0], [0, 12]])))
    data = [(kdkeras.Paired(student=narrow, teacher=wide), z_t), (narrow, padded)]
    for distiller, (x, answers) in zip(models, data, strict=True):
        distiller.compile(keras.optimizers.SGD(0.1), distillation_loss=losses.SoftTargets(weight=1))
        expected = kl(answers, np.asarray(distiller.student(narrow)), 4).mean()
        logs = distiller.evaluate(x, batch_size=40, verbose=0, return_dict=True)
        np.testing.assert_allclose(logs["loss"], expected, rtol=1e-4)
        history = distiller.fit(x, epochs=10, verbose=0).history
        assert history["loss"][-1] < history["loss"][0]
    keras_shows(lambda: keras.distillation.Distiller(teacher, student(), keras.distillation.LogitsDistillation()).name)


def test_10_different_class_counts_for_features(keras_shows):
    """Feature-only distillation does not ask for equal classes: 5 of the teacher's, 3 of the student's."""
    student, teacher = tiny_cnn(3, width=2, name="student"), tiny_cnn(5, width=4, name="teacher")
    distiller = distiller_of(student, teacher, losses.Hints("conv", "conv", weight=2), optimizer="adam")
    history = distiller.fit(X, Y, epochs=10, verbose=0).history
    assert history["hints"][-1] < 0.9 * history["hints"][0]
    there = keras.distillation.FeatureDistillation("mse", "pool", "pool")
    keras_shows(lambda: keras.distillation.Distiller(tiny_cnn(5), tiny_cnn(3), there).name)


def test_10_float32_teacher_of_a_mixed_float16_student(keras_shows):
    """A float32 teacher teaches a mixed_float16 student whose logits are float16."""
    half = keras.dtype_policies.DTypePolicy("mixed_float16")

    def student():
        dense = [layers.Dense(8, "relu", dtype=half, name="hidden"), layers.Dense(3, dtype=half)]
        return keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(dtype=half), *dense], name="student")

    distiller = distiller_of(student(), tiny_cnn(name="teacher"), losses.SoftTargets(weight=1), optimizer="adam")
    logits = distiller.student(X)
    assert logits.dtype == "float16"
    expected = kl(np.asarray(distiller.teacher(X)), np.asarray(logits, "float32"), 4).mean()
    logs = distiller.evaluate(X, Y, batch_size=40, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["soft_targets"], expected, rtol=1e-2)
    history = distiller.fit(X, Y, epochs=30, verbose=0).history
    assert history["soft_targets"][-1] < 0.5 * history["soft_targets"][0]
    there = keras.distillation.LogitsDistillation()
    keras_shows(lambda: keras.distillation.Distiller(tiny_cnn(), student(), there).name)


class TeacherEntropy(losses.DistillationLoss):
    """The entropy of the teacher as the losses see it, in nats."""

    def call(self, student, teacher, labels=None):
        log_p = ops.log_softmax(teacher.logits)
        return -ops.sum(ops.exp(log_p) * log_p, axis=-1)


def test_11_softmax_heads_are_read_before_the_softmax(keras_shows):
    """A softmax head keeps its entropy of .5, and the loss is that of logits; there: 2.30 of at most 2.303."""
    z_s, z_t = (rng.normal(size=(50, 10)) * 5 for _ in range(2))
    heads = ("softmax", "softmax")
    distiller = from_tables(z_s, z_t, [losses.SoftTargets(2.0, weight=1), TeacherEntropy(weight=0)], heads)
    logs = distiller.evaluate(np.arange(50), batch_size=50, verbose=0, return_dict=True)
    p = softmax(z_t)
    entropy = -(p * np.log(p)).sum(-1).mean()
    assert entropy < 0.8
    np.testing.assert_allclose(logs["teacher_entropy"], entropy, rtol=1e-5)
    np.testing.assert_allclose(logs["loss"], kl(z_t, z_s, 2).mean(), rtol=1e-4)
    twice = softmax(p)
    seen = []

    class Seen(keras.losses.KLDivergence):
        def call(self, y_true, y_pred):
            seen.append(np.asarray(y_true))
            return super().call(y_true, y_pred)

    def there():
        loss = keras.distillation.LogitsDistillation(temperature=1.0, loss=Seen())
        keras_from_tables(z_s, z_t, loss, heads).evaluate(np.arange(50), np.zeros(50), batch_size=50, verbose=0)
        return {
            "entropy": -(seen[0] * np.log(seen[0])).sum(-1).mean(),
            "twice": -(twice * np.log(twice)).sum(-1).mean(),
        }

    keras_shows(there)


def test_12_gradients_survive_large_logits(keras_shows):
    """At logits of ±40 against ∓40 the gradient is ±1, exact; there it is about 0."""
    z_s, z_t = np.array([[40.0, -40.0], [-40.0, 40.0]]), np.array([[-40.0, 40.0], [40.0, -40.0]])
    for heads in ((None, None), ("softmax", "softmax")):
        gradient = 2 * gradient_of(from_tables(z_s, z_t, losses.SoftTargets(1.0, weight=1), heads))
        np.testing.assert_allclose(gradient, [[1, -1], [-1, 1]], rtol=1e-5)
    there = keras.distillation.LogitsDistillation(1.0, keras.losses.KLDivergence())
    keras_shows(lambda: {"gradient": 2 * gradient_of(keras_from_tables(z_s, z_t, there))})


class Subclassed(keras.Model):
    def __init__(self, width, name):
        super().__init__(name=name)
        self.body = keras.Sequential([layers.Flatten(), layers.Dense(width, name="hidden")], name="body")
        self.out = layers.Dense(3)

    def call(self, inputs):
        return self.out(self.body(inputs))


def test_13_teachers_flags_are_given_back(keras_shows):
    """The caller's teacher keeps its `trainable` flags, and its weights, to the bit."""
    teacher = network(4, "teacher")
    teacher.get_layer("conv").trainable = False
    flags, before = [layer.trainable for layer in teacher.layers], [v.numpy() for v in teacher.variables]
    distiller_of(network(2, "student"), teacher, losses.SoftTargets()).fit(X, Y, epochs=2, verbose=0)
    assert teacher.trainable
    assert [layer.trainable for layer in teacher.layers] == flags
    for variable, value in zip(teacher.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)

    def there():
        caller = network(4, "teacher")
        keras_distiller_of(network(2, "student"), caller, keras.distillation.LogitsDistillation())
        return {"trainable afterwards": caller.trainable}

    keras_shows(there)


def test_13_layers_inside_nested_and_subclassed_models_are_found(keras_shows):
    """A path finds a layer inside a nested model; models may be subclassed on both sides."""
    nested = keras.Sequential([keras.Input((8, 8, 1)), network(4, "backbone"), layers.Dense(3)], name="teacher")
    loss = losses.Hints("body/hidden", "backbone/pool")
    distiller = distiller_of(Subclassed(4, "student"), nested, loss)
    history = distiller.fit(X, Y, epochs=8, verbose=0).history
    backbone = nested.layers[0]
    taps = distiller.student.body(X), keras.Model(backbone.inputs[0], backbone.get_layer("pool").output)(X)
    logs = distiller.evaluate(X, Y, batch_size=40, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["hints"], np.mean((taps[0] - taps[1]) ** 2), rtol=1e-4)
    assert history["hints"][-1] < 0.8 * history["hints"][0]
    both = distiller_of(Subclassed(2, "student"), Subclassed(4, "teacher"), losses.Hints("body/hidden", "body/hidden"))
    assert np.isfinite(both.fit(X, Y, verbose=0).history["hints"][0])
    there = keras.distillation.FeatureDistillation("mse", "pool", "pool")
    keras_shows(lambda: keras.distillation.Distiller(nested, network(4, "s"), there).name)


def test_14_the_weight_of_a_single_loss_counts(keras_shows):
    """A single loss with weight 5 has five times the gradient; there: `[5.0]` silently becomes `[1.0]`."""
    z_s, z_t = (rng.normal(size=(20, 4)).astype("float32") for _ in range(2))
    one, five = (gradient_of(from_tables(z_s, z_t, losses.SoftTargets(weight=weight))) for weight in (1, 5))
    np.testing.assert_allclose(five, 5 * one, atol=1e-6)
    there = keras.distillation.LogitsDistillation()
    keras_shows(
        lambda: {
            "weights": keras_from_tables(z_s, z_t, there, distillation_loss_weights=[5.0]).distillation_loss_weights
        }
    )


class TutorialDistiller(keras.Model):
    """The class of keras.io/examples/vision/knowledge_distillation, shortened to what trains."""

    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, teacher

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, allow_empty=False, training=True):
        soft = [ops.softmax(z / 3, axis=1) for z in (self.teacher(x, training=False), y_pred)]
        return 0.1 * CROSSENTROPY(y, y_pred) + 0.9 * 9 * keras.losses.KLDivergence()(*soft)

    def call(self, x):
        return self.student(x)


def test_15_the_tutorials_teacher_is_not_trained(keras_shows):
    """In the tutorial's spelling too the teacher stays as it is, whatever `trainable` is set to; there: it moves."""

    def moved(make):
        teacher = network(4, "teacher")
        before = [variable.numpy() for variable in teacher.variables]
        distiller = make(student=network(2, "student"), teacher=teacher)
        distiller.fit(X, Y, epochs=4, verbose=0)
        return max(np.abs(v.numpy() - b).max() for v, b in zip(teacher.variables, before, strict=True))

    def ours(student, teacher):
        distiller = kdkeras.Distiller(student=student, teacher=teacher)
        teacher.trainable = True
        distiller.trainable = False
        distiller.trainable = True
        return distiller.compile(
            optimizer=keras.optimizers.Adam(),
            student_loss_fn=CROSSENTROPY,
            distillation_loss_fn=keras.losses.KLDivergence(),
            alpha=0.1,
            temperature=3,
        )

    def theirs(student, teacher):
        distiller = TutorialDistiller(student, teacher)
        distiller.compile(keras.optimizers.Adam())
        return distiller

    assert moved(ours) == 0
    keras_shows(lambda: {"the Keras tutorial moves the teacher by": moved(theirs)})
