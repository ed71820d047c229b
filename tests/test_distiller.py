"""The distiller: what it computes, what it leaves alone, what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kdkeras
from kdkeras import losses
from kdkeras.testing import tiny_cnn

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
rng = np.random.default_rng(0)
X = rng.random((40, 8, 8, 1)).astype("float32")
Y = rng.integers(0, 3, 40).astype("int32")


def with_batchnorm(width, name, activation=None, **kwargs):
    layers = [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(width, 3, activation="relu", name="conv", **kwargs),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, activation=activation, name="head"),
    ]
    return keras.Sequential(layers, name=name)


def distiller(student=None, teacher=None, **compile_arguments):
    keras.utils.set_random_seed(0)
    student, teacher = student or with_batchnorm(2, "student"), teacher or with_batchnorm(6, "teacher")
    arguments = {"optimizer": keras.optimizers.SGD(0.1), "loss": CROSSENTROPY, **compile_arguments}
    return kdkeras.Distiller(student=student, teacher=teacher).compile(**arguments)


def weights(model):
    return [variable.numpy().copy() for variable in model.variables]


def assert_same(left, right):
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one, other)


def test_history_names_every_term():
    model = distiller(distillation_loss=[losses.SoftTargets(), losses.Hints("conv", "conv")], metrics=["accuracy"])
    history = model.fit(X, Y, validation_data=(X, Y), verbose=0).history
    names = {"loss", "task_loss", "soft_targets", "hints", "accuracy"}
    assert set(history) == names | {f"val_{name}" for name in names}


def test_total_is_the_weighted_sum_of_the_terms():
    model = distiller(
        student=with_batchnorm(2, "student", kernel_regularizer=keras.regularizers.L2(0.1)),
        distillation_loss=[losses.SoftTargets(weight=0.7), losses.HardTargets(weight=0.2)],
        task_weight=0.3,
    )
    logs = model.evaluate(X, Y, verbose=0, return_dict=True, batch_size=40)
    kernel = model.student.get_layer("conv").kernel.numpy()
    expected = (
        0.3 * logs["task_loss"] + 0.7 * logs["soft_targets"] + 0.2 * logs["hard_targets"] + 0.1 * (kernel**2).sum()
    )
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    signals = [kdkeras.losses.soft_targets(model.student(X), model.teacher(X))]
    np.testing.assert_allclose(logs["soft_targets"], np.mean(signals), rtol=1e-5)


def test_a_step_equals_an_explicit_tape():
    model = distiller(distillation_loss=losses.SoftTargets(weight=0.9), task_weight=0.1)
    twin = with_batchnorm(2, "twin")
    twin.set_weights(model.student.get_weights())
    model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    optimizer = keras.optimizers.SGD(0.1)
    for start in list(range(0, 40, 8)) * 2:
        x, y = X[start : start + 8], Y[start : start + 8]
        with tf.GradientTape() as tape:
            logits = twin(x, training=True)
            loss = 0.1 * CROSSENTROPY(y, logits) + 0.9 * tf.reduce_mean(losses.soft_targets(logits, model.teacher(x)))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, twin.trainable_variables), twin.trainable_variables, strict=True)
        )
    for ours, theirs in zip(model.student.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_one_pass_of_each_model_per_step():
    class Counted(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.counter = (lambda calls: lambda: calls)(tf.Variable(0))  # no weight of the model

        @property
        def calls(self):
            return self.counter()

        def call(self, inputs):
            self.calls.assign_add(1)
            return inputs

    def counting(width, name):
        return keras.Sequential([keras.Input((8, 8, 1)), Counted(), *with_batchnorm(width, name).layers], name=name)

    model = distiller(counting(2, "student"), counting(6, "teacher"), distillation_loss=losses.Hints("conv", "conv"))
    for network in (model.student, model.teacher):
        network.layers[0].calls.assign(0)  # `compile` probed each model once
    model.fit(X, Y, batch_size=8, epochs=1, verbose=0)
    assert int(model.student.layers[0].calls) == int(model.teacher.layers[0].calls) == 5


def test_teacher_never_changes():
    teacher = with_batchnorm(6, "teacher")
    teacher.get_layer("conv").trainable = False
    before, flags = weights(teacher), [layer.trainable for layer in teacher.layers]
    model = distiller(teacher=teacher, distillation_loss=[losses.SoftTargets(), losses.Hints("norm", "norm")])
    model.fit(X, Y, epochs=2, verbose=0)
    model.evaluate(X, Y, verbose=0)
    assert_same(weights(teacher), before)
    assert [layer.trainable for layer in teacher.layers] == flags
    assert teacher.trainable


def test_teacher_stays_frozen_when_the_distiller_is_thawed():
    model = distiller()
    before = weights(model.teacher)
    model.trainable = False
    assert model.trainable_variables == []
    model.trainable = True
    model.compile("sgd", CROSSENTROPY)
    model.fit(X, Y, verbose=0)
    assert_same(weights(model.teacher), before)
    assert not {id(v) for v in model.trainable_variables} & {id(v) for v in model.teacher.variables}


def test_evaluate_leaves_the_student_alone():
    model = distiller(distillation_loss=losses.Hints("norm", "norm"))
    before = weights(model.student)
    model.evaluate(X, Y, verbose=0)
    assert_same(weights(model.student), before)


def test_predict_and_call_are_the_students():
    model = distiller()
    np.testing.assert_allclose(model.predict(X, verbose=0), model.student.predict(X, verbose=0), rtol=1e-6)
    np.testing.assert_allclose(model(X), model.student(X), rtol=1e-6)


def test_projector_is_trained():
    model = distiller(distillation_loss=losses.Hints("conv", "conv"))
    projector = model.distillation_losses[0].projectors[0]
    before = projector.kernel.numpy()
    model.fit(X, Y, verbose=0)
    assert np.abs(projector.kernel.numpy() - before).max() > 1e-4


def test_sample_weights_weigh_every_term():
    model = distiller(distillation_loss=[losses.SoftTargets(), losses.Hints("conv", "conv")])
    half = np.repeat([2.0, 0.0], 20)
    weighted = model.evaluate(X, Y, sample_weight=half, batch_size=40, verbose=0, return_dict=True)
    alone = model.evaluate(X[:20], Y[:20], batch_size=20, verbose=0, return_dict=True)
    for name in ("task_loss", "soft_targets", "hints"):
        np.testing.assert_allclose(weighted[name], alone[name], rtol=1e-4)


def test_learns_from_the_teacher_alone():
    model = distiller(loss=None, distillation_loss=losses.SoftTargets(weight=1))
    history = model.fit(X, epochs=12, verbose=0).history
    assert history["soft_targets"][-1] < 0.7 * history["soft_targets"][0]


def test_save_load_and_go_on(tmp_path):
    model = distiller(
        optimizer="adam",
        metrics=["accuracy"],
        distillation_loss=[losses.SoftTargets(2.0), losses.Hints("conv", "conv")],
    )
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "distiller.keras")
    copy = kdkeras.load_model(tmp_path / "distiller.keras")
    assert copy.evaluate(X, Y, verbose=0) == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-6)
    assert int(copy.optimizer.iterations) == int(model.optimizer.iterations)
    assert copy.distillation_losses[0].temperature == 2.0
    for one in (model, copy):
        one.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    for ours, theirs in zip(model.student.get_weights(), copy.student.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_student_saves_alone(tmp_path):
    model = distiller()
    model.fit(X, Y, verbose=0)
    model.student.save(tmp_path / "student.keras")
    alone = keras.saving.load_model(tmp_path / "student.keras")
    assert alone.count_params() == model.student.count_params()
    np.testing.assert_allclose(alone(X), model.student(X), rtol=1e-6)


def test_the_keras_tutorials_call():
    model = kdkeras.Distiller(student=with_batchnorm(2, "student"), teacher=with_batchnorm(6, "teacher"))
    model.compile(
        optimizer=keras.optimizers.Adam(),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
        student_loss_fn=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        distillation_loss_fn=keras.losses.KLDivergence(),
        alpha=0.1,
        temperature=10,
    )
    model.fit(X, Y, epochs=1, verbose=0)
    logs = model.evaluate(X, Y, batch_size=40, verbose=0, return_dict=True)
    student, teacher = (keras.ops.softmax(network(X) / 10) for network in (model.student, model.teacher))
    expected = 0.1 * CROSSENTROPY(Y, model.student(X)) + 0.9 * 100 * keras.losses.KLDivergence()(teacher, student)
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-3)


def test_tutorial_with_another_loss():
    model = kdkeras.Distiller(student=with_batchnorm(2, "student"), teacher=with_batchnorm(6, "teacher"))
    model.compile("sgd", student_loss_fn=CROSSENTROPY, distillation_loss_fn=keras.losses.MeanSquaredError(), alpha=0.5)
    logs = model.evaluate(X, Y, batch_size=40, verbose=0, return_dict=True)
    student, teacher = (keras.ops.softmax(network(X) / 3) for network in (model.student, model.teacher))
    np.testing.assert_allclose(logs["distillation_loss"], 9 * np.mean((teacher - student) ** 2), rtol=1e-4)


def test_compile_again_replaces_the_terms():
    model = distiller(distillation_loss=[losses.SoftTargets(), losses.Hints("conv", "conv")])
    model.fit(X, Y, verbose=0)
    with_projector = len(model.trainable_variables)
    model.compile("sgd", CROSSENTROPY, distillation_loss=losses.HardTargets())
    assert len(model.trainable_variables) == with_projector - 2
    assert set(model.fit(X, Y, verbose=0).history) == {"loss", "task_loss", "hard_targets"}


@pytest.mark.parametrize("student_head", [None, "softmax"])
@pytest.mark.parametrize("teacher_head", [None, "softmax"])
def test_softmax_heads_are_never_softmaxed_twice(student_head, teacher_head):
    keras.utils.set_random_seed(0)
    student = with_batchnorm(2, "student", student_head)
    teacher = with_batchnorm(6, "teacher", teacher_head)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=student_head is None)
    logs = distiller(student, teacher, loss=loss, distillation_loss=losses.SoftTargets(temperature=2.0)).evaluate(
        X, Y, batch_size=40, verbose=0, return_dict=True
    )
    linear = []
    for network in (student, teacher):
        network.get_layer("head").activation = keras.activations.linear
        linear.append(network(X))
    np.testing.assert_allclose(logs["soft_targets"], np.mean(losses.soft_targets(*linear, temperature=2.0)), rtol=1e-5)
    np.testing.assert_allclose(logs["task_loss"], CROSSENTROPY(Y, linear[0]), rtol=1e-5)


class FromData(keras.Model):
    """Takes data only: no inputs are known before the first batch."""

    def __init__(self, width, name):
        super().__init__(name=name)
        self.flat = keras.layers.Flatten()
        self.hidden = keras.layers.Dense(width, name="hidden")
        self.out = keras.layers.Dense(3)

    def call(self, inputs):
        return self.out(self.hidden(self.flat(inputs)))


def test_subclassed_models_are_connected_at_the_first_batch():
    model = distiller(
        FromData(2, "student"), FromData(4, "teacher"), distillation_loss=losses.Hints("hidden", "hidden")
    )
    history = model.fit(tf.data.Dataset.from_tensor_slices((X, Y)).batch(8), epochs=3, shuffle=False, verbose=0).history
    assert history["hints"][-1] < history["hints"][0]
    assert model.distillation_losses[0].projectors[0].kernel.shape == (2, 4)


def test_mixed_precision_student():
    half = keras.dtype_policies.DTypePolicy("mixed_float16")
    layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3, activation="relu", name="conv", dtype=half)]
    head = keras.layers.Dense(3, dtype="float32")
    student = keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(dtype=half), head], name="student")
    model = distiller(student, distillation_loss=[losses.SoftTargets(), losses.Hints("conv", "conv")])
    before = weights(student)
    history = model.fit(X, Y, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert all(np.abs(one - other).max() > 0 for one, other in zip(before, weights(student), strict=True))


def test_batch_of_one_and_a_ragged_last_batch():
    model = distiller()
    assert np.isfinite(model.train_on_batch(X[:1], Y[:1])).all()
    assert np.isfinite(model.fit(X[:9], Y[:9], batch_size=4, verbose=0).history["loss"][0])


def wider_input(name):
    return keras.Sequential([keras.Input((9, 9, 1)), keras.layers.Flatten(), keras.layers.Dense(3)], name=name)


REFUSED = {
    "class counts": (
        lambda: distiller(tiny_cnn(1, name="s"), tiny_cnn(3, name="t")),
        r"student 's' \(None, 1\), teacher 't'",
    ),
    "inputs": (
        lambda: distiller(teacher=wider_input("t")).fit(X, Y),
        r"need the same inputs. Received: student 'student' \[\(8, 8, 1\)\], teacher 't' \[\(9, 9, 1\)\].*Paired",
    ),
    "missing layer": (lambda: distiller(distillation_loss=losses.Hints("conf", "conv")), "nearest names are .'conv'"),
    "equal names": (
        lambda: distiller(distillation_loss=[losses.SoftTargets(), losses.SoftTargets()]),
        "different names",
    ),
    "negative task weight": (lambda: distiller(task_weight=-1), "finite task_weight of at least 0. Received: -1"),
    "alpha": (
        lambda: kdkeras.Distiller(student=tiny_cnn(), teacher=tiny_cnn()).compile(
            "sgd", student_loss_fn=CROSSENTROPY, alpha=2
        ),
        r"alpha in \[0, 1\]",
    ),
    "mixed spellings": (lambda: distiller(alpha=0.5), "Received both"),
    "double softmax": (
        lambda: distiller(with_batchnorm(2, "s", "softmax")),
        "ends in softmax, which would be applied twice",
    ),
    "no softmax": (lambda: distiller(loss="sparse_categorical_crossentropy"), "Pass from_logits=True"),
    "same model": (lambda: kdkeras.Distiller(**dict.fromkeys(("student", "teacher"), tiny_cnn())), "same object"),
    "empty data": (lambda: distiller().fit(X[:0], Y[:0]), "x has no samples"),
    "NaN": (lambda: distiller().fit(X * np.nan, Y), "NaN"),
    "NaN labels": (lambda: distiller().evaluate(X, Y * np.nan), "y contains 40 NaN"),
    "uint8": (lambda: distiller().fit((X * 255).astype("uint8"), Y), "Divide by 255"),
    "shape": (lambda: distiller().fit(X[:, :4], Y), "takes inputs of shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_before_training(name):
    run, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        run()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            lambda: kdkeras.Distiller(student="resnet", teacher=tiny_cnn()),
            "needs a `keras.Model` as student. Received: str",
        ),
        (lambda: distiller(distillation_loss=keras.losses.KLDivergence()), "Wrap a Keras loss in"),
    ],
)
def test_wrong_types(run, message):
    with pytest.raises(TypeError, match=message):
        run()


def test_float16_students_get_loss_scaling():
    half = keras.dtype_policies.DTypePolicy("mixed_float16")
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(dtype=half), keras.layers.Dense(3, dtype=half)]
    head = keras.layers.Activation("linear", dtype="float32")
    model = distiller(
        keras.Sequential([*layers, head]), task_weight=1e-7, distillation_loss=losses.SoftTargets(weight=1e-7)
    )
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    model.compile(
        keras.optimizers.SGD(1e4), CROSSENTROPY, task_weight=1e-7, distillation_loss=losses.SoftTargets(weight=0)
    )
    before = weights(model.student)
    model.fit(X, Y, verbose=0)
    assert np.abs(weights(model.student)[0] - before[0]).max() > 1e-5
    assert not isinstance(distiller().optimizer, keras.optimizers.LossScaleOptimizer)


@keras.saving.register_keras_serializable(package="tests")
class Saved(FromData):
    def get_config(self):
        return {"width": self.hidden.units, "name": self.name}


def test_save_load_and_go_on_with_subclassed_models(tmp_path):
    hint = losses.Hints("hidden", "hidden")
    model = distiller(Saved(2, "student"), Saved(4, "teacher"), optimizer="adam", distillation_loss=hint)
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "distiller.keras")
    copy = kdkeras.load_model(tmp_path / "distiller.keras")
    assert int(copy.optimizer.iterations) == int(model.optimizer.iterations) > 0
    for one in (model, copy):
        one.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    for ours, theirs in zip(model.student.get_weights(), copy.student.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    model = distiller()
    path = tmp_path / "distiller.keras"
    model.save(path)
    before = path.read_bytes()

    def full(self, filepath, *args, **kwargs):
        filepath.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(OSError, match="No space left"):
        model.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_loss_belongs_to_one_distiller():
    hint = losses.Hints("conv", "conv")
    model = distiller(distillation_loss=hint)
    model.compile("sgd", CROSSENTROPY, distillation_loss=hint)
    with pytest.raises(ValueError, match="belongs to another distiller already"):
        distiller(distillation_loss=hint)


def test_a_refused_compile_changes_nothing():
    model = distiller()
    with pytest.raises(ValueError, match="has no layer 'nope'"):
        model.compile("sgd", CROSSENTROPY, distillation_loss=losses.Hints("conv", "nope"))
    with pytest.raises(ValueError, match="equal rank"):
        model.compile("sgd", CROSSENTROPY, distillation_loss=losses.Hints("conv", "head"))
    assert set(model.fit(X, Y, verbose=0).history) == {"loss", "task_loss", "soft_targets"}


def test_no_task_loss_shows_none():
    assert set(distiller(loss=None).fit(X, verbose=0).history) == {"loss", "soft_targets"}


class Shapeless(losses.DistillationLoss):
    def call(self, student, teacher, labels=None):
        return keras.ops.mean(student.logits - teacher.logits)


def test_steps_refuse_what_would_be_silently_wrong():
    with pytest.raises(ValueError, match="The task loss needs labels"):
        distiller().fit(X, verbose=0)
    with pytest.raises(ValueError, match="one value per sample"):
        distiller(distillation_loss=Shapeless()).fit(X, Y, verbose=0)


def test_shared_layers_are_refused():
    teacher = with_batchnorm(6, "teacher")
    student = keras.Sequential(
        [keras.Input((8, 8, 1)), *teacher.layers[:2], keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    with pytest.raises(ValueError, match="without common weights"):
        kdkeras.Distiller(student=student, teacher=teacher)


def test_dropout_after_the_softmax_is_refused():
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    student = keras.Sequential([*layers, keras.layers.Dropout(0.5)])
    with pytest.raises(ValueError, match="at inference but not in training"):
        distiller(student, loss="sparse_categorical_crossentropy").fit(X, Y, verbose=0)


def test_binary_crossentropy_must_fit_the_head():
    sigmoid, linear = tiny_cnn(1, activation="sigmoid"), tiny_cnn(1)
    with pytest.raises(ValueError, match="ends in sigmoid, which would be applied twice"):
        distiller(sigmoid, tiny_cnn(1, activation="sigmoid"), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="Pass from_logits=True"):
        distiller(linear, tiny_cnn(1, activation="sigmoid"), loss="binary_crossentropy")


def test_tutorial_loss_on_sigmoid_outputs_is_refused():
    models = {role: tiny_cnn(1, activation="sigmoid", name=role) for role in ("student", "teacher")}
    with pytest.raises(ValueError, match="needs exclusive classes"):
        kdkeras.Distiller(**models).compile(
            "sgd", student_loss_fn="binary_crossentropy", distillation_loss_fn=keras.losses.MeanSquaredError()
        )
