"""What must not happen in training does not: a changed teacher, steps that are not finite, impossible labels."""

import logging

import keras
import numpy as np
import pytest

import kdkeras
from kdkeras import losses

LAYERS = keras.layers
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
rng = np.random.default_rng(0)
X = rng.random((32, 6)).astype("float32")
Y = rng.integers(0, 3, 32).astype("int32")


class Nowhere(losses.DistillationLoss):
    """Not a number for samples that carry a mark."""

    def call(self, student, teacher, labels=None):
        error = keras.ops.mean((student.logits - teacher.logits) ** 2, axis=-1)
        marked = keras.ops.cast(teacher.features["mark"][:, 0] > 100, "float32")
        return error + keras.ops.log(1 - marked) * 0  # log 0 times 0


def network(width, name, *, mark=False):
    inputs = keras.Input((6,))
    hidden = LAYERS.Activation("linear", name="mark")(inputs)
    hidden = LAYERS.BatchNormalization(name="norm")(LAYERS.Dense(width, "relu", name="hidden")(hidden))
    return keras.Model(inputs, LAYERS.Dense(3)(hidden), name=name)


def distiller(**arguments):
    keras.utils.set_random_seed(0)
    arguments = {"optimizer": "adam", "loss": SPARSE, **arguments}
    return kdkeras.Distiller(student=network(4, "student"), teacher=network(8, "teacher")).compile(**arguments)


def state(model):
    variables = [*model.student.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assert_same(left, right, **kwargs):
    for one, other in zip(left, right, strict=True):
        np.testing.assert_allclose(one, other, **kwargs)


def test_a_step_that_is_not_finite_is_as_if_it_had_not_been():
    bad = X.copy()
    bad[8:16] = np.inf  # the second of four batches
    data = [(X[:8], Y[:8]), (bad[8:16], Y[8:16]), (X[16:24], Y[16:24])]
    models = [distiller(metrics=["accuracy"]), distiller(metrics=["accuracy"])]
    for x, y in data:
        models[0].train_on_batch(x, y)
    for x, y in (data[0], data[2]):
        models[1].train_on_batch(x, y)
    assert_same(state(models[0]), state(models[1]), atol=1e-6)
    assert all(np.isfinite(values).all() for values in state(models[0]))
    logs = [model.train_on_batch(X, Y, return_dict=True) for model in models]
    for name, value in logs[0].items():
        np.testing.assert_allclose(value, logs[1][name], rtol=1e-5, err_msg=name)


class Stream(keras.utils.PyDataset):
    """Batches that `fit` cannot look at before it gets them."""

    def __init__(self, x, y, size=8):
        super().__init__()
        self.x, self.y, self.size = x, y, size

    def __len__(self):
        return len(self.x) // self.size

    def __getitem__(self, index):
        part = slice(index * self.size, (index + 1) * self.size)
        return self.x[part], self.y[part]


def test_skipped_steps_are_told(caplog):
    bad = X.copy()
    bad[8:16] = np.nan
    model = distiller()
    with caplog.at_level(logging.WARNING, logger="kdkeras"):
        history = model.fit(Stream(bad, Y), epochs=2, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    words = [record.getMessage() for record in caplog.records if record.name == "kdkeras"]
    assert words[0].startswith("1 steps of epoch 1 were skipped")
    assert words[1].startswith("1 steps of epoch 2 were skipped")


def test_an_epoch_without_a_sound_step_has_no_loss():
    stop = keras.callbacks.EarlyStopping("loss", patience=0)
    model = distiller(max_skipped_steps=100)
    history = model.fit(Stream(X * np.nan, Y), epochs=2, shuffle=False, verbose=0, callbacks=[stop]).history
    assert np.isnan(history["loss"]).all()


def test_too_many_in_a_row_stop_training_and_name_the_term():
    marked = X.copy()
    marked[:, 0] = 1000
    loss = Nowhere(name="nowhere")
    loss.teacher_layers = ("mark",)
    model = distiller(distillation_loss=[losses.SoftTargets(), loss], max_skipped_steps=3)
    before = model.student.get_weights()
    with pytest.raises(FloatingPointError, match=r"3 steps in a row were skipped, because the loss term 'nowhere' was"):
        model.fit(marked, Y, batch_size=4, epochs=5, verbose=0)
    assert_same(model.student.get_weights(), before)
    assert all(np.isfinite(values).all() for values in state(model))


def test_a_gradient_that_is_not_finite_is_skipped_too():
    class Root(losses.DistillationLoss):
        def call(self, student, teacher, labels=None):
            return keras.ops.sqrt(keras.ops.sum(0 * student.logits**2, axis=-1))  # 0, with the slope 0/0

    model = distiller(distillation_loss=Root(), max_skipped_steps=2)
    before = model.student.get_weights()
    with pytest.raises(FloatingPointError, match="because the gradient was not finite"):
        model.fit(X, Y, batch_size=8, verbose=0)
    assert_same(model.student.get_weights(), before)


def test_without_the_guard_a_step_is_keras_own():
    guarded, plain = distiller(), distiller(max_skipped_steps=None)
    for model in (guarded, plain):
        model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    assert_same(state(guarded), state(plain), atol=1e-7)


def test_half_precision_overflow_is_skipped_with_batchnorm_intact():
    half = keras.dtype_policies.DTypePolicy("mixed_float16")
    layers = [keras.Input((6,)), LAYERS.Dense(4, dtype=half), LAYERS.BatchNormalization(dtype=half)]
    keras.utils.set_random_seed(0)
    student = keras.Sequential([*layers, LAYERS.Dense(3, dtype="float32")], name="student")
    model = kdkeras.Distiller(student=student, teacher=network(8, "teacher")).compile("adam", SPARSE)
    model.train_on_batch(X, Y)
    model.train_on_batch(X * 1e5, Y)  # beyond float16
    model.train_on_batch(X, Y)
    assert all(np.isfinite(values).all() for values in student.get_weights())
    assert np.isfinite(model.evaluate(X, Y, verbose=0)).all()


class Cliff(losses.DistillationLoss):
    """Finite, with a slope that is not, where an input carries a mark."""

    def call(self, student, teacher, labels=None):
        marked = keras.ops.cast(teacher.features["mark"][:, :1] > 100, "float32")
        return keras.ops.sum(keras.ops.sqrt((1 - marked) * student.logits**2), axis=-1)


def test_gathered_gradients_stay_finite():
    loss = Cliff()
    loss.teacher_layers = ("mark",)
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)
    model = distiller(optimizer=optimizer, distillation_loss=loss, max_skipped_steps=3)
    marked = X.copy()
    marked[9, 0] = 1000
    before = model.student.get_weights()
    model.fit(Stream(marked, Y, 4), epochs=3, shuffle=False, verbose=0)
    after = model.student.get_weights()
    assert all(np.isfinite(values).all() for values in after)
    assert np.abs(after[0] - before[0]).max() > 1e-4


class Steep(losses.DistillationLoss):
    """A slope that is finite, but whose square is not, where an input carries a mark."""

    def call(self, student, teacher, labels=None):
        marked = keras.ops.cast(teacher.features["mark"][:, :1] > 100, "float32")
        return keras.ops.sum(1e25 * marked * student.logits, axis=-1)


def test_an_optimizer_never_holds_what_is_not_finite():
    loss = Steep()
    loss.teacher_layers = ("mark",)
    model = distiller(distillation_loss=loss)
    model.fit(X, Y, batch_size=8, verbose=0)
    before, marked = state(model), X[:8].copy()
    marked[0, 0] = 1000
    model.train_on_batch(marked, Y[:8])
    assert_same(state(model), before)
    assert all(np.isfinite(values).all() for values in before)


def test_gradients_of_rows_are_judged_too():
    class OfRows(Cliff):
        def call(self, student, teacher, labels=None):
            marked = keras.ops.cast(keras.ops.max(teacher.features["mark"], axis=(1, 2))[:, None] > 100, "float32")
            return keras.ops.sum(keras.ops.sqrt((1 - marked) * student.logits**2), axis=-1)

    def network(width, name):
        table = LAYERS.Embedding(9, width, embeddings_initializer="ones" if name == "teacher" else "uniform")
        mark = LAYERS.Lambda(lambda rows: rows * 10, name="mark")
        return keras.Sequential(
            [keras.Input((5,), dtype="int32"), table, mark, LAYERS.GlobalAveragePooling1D(), LAYERS.Dense(3)], name=name
        )

    student, teacher = network(4, "student"), network(6, "teacher")
    rows = np.ones((9, 6), "float32")
    rows[8] = 1000  # the word that carries the mark
    teacher.layers[0].set_weights([rows])
    loss = OfRows()
    loss.teacher_layers = ("mark",)
    model = kdkeras.Distiller(student=student, teacher=teacher).compile("adam", SPARSE, distillation_loss=loss)
    words = rng.integers(0, 8, (16, 5)).astype("int32")
    model.train_on_batch(words, Y[:16])
    before = state(model)
    words[3, 2] = 8
    model.train_on_batch(words, Y[:16])
    assert_same(state(model), before)
    words[3, 2] = 7
    model.train_on_batch(words, Y[:16])
    assert np.abs(state(model)[0] - before[0]).max() > 1e-5


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_a_student_that_nothing_trains_is_counted_too():
    model = distiller(max_skipped_steps=2)
    model.student.trainable = False
    with pytest.raises(FloatingPointError, match="2 steps in a row"):
        model.fit(Stream(X * np.nan, Y), verbose=0)


def test_the_optimizer_is_given_back_as_it_was():
    model = distiller()
    model.fit(X, Y, verbose=0)
    assert "apply" not in vars(model.optimizer)
    with pytest.raises(ValueError, match="needs labels"):
        model.train_on_batch(X)
    assert "apply" not in vars(model.optimizer)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow")
@pytest.mark.parametrize("kind", ["MirroredStrategy", "OneDeviceStrategy"])
def test_a_single_replica(kind):
    import tensorflow as tf

    strategies = {
        "MirroredStrategy": lambda: tf.distribute.MirroredStrategy(["/cpu:0"]),
        "OneDeviceStrategy": lambda: tf.distribute.OneDeviceStrategy("/cpu:0"),
    }
    with strategies[kind]().scope():
        model = distiller(max_skipped_steps=3)
    model.fit(X, Y, batch_size=8, verbose=0)
    with pytest.raises(FloatingPointError, match="3 steps in a row"):
        model.fit(Stream(X * np.nan, Y), verbose=0)
    finite = all(np.isfinite(values).all() for values in state(model))
    assert finite == (kind == "OneDeviceStrategy")  # the other merges replicas, be it one: steps are counted only


class Masked(LAYERS.Layer):
    """Adds a constant weight that is not finite where nothing shows it."""

    def __init__(self, value):
        super().__init__()
        self.mask = self.add_weight(shape=(6, 6), initializer=keras.initializers.Constant(value), trainable=False)

    def call(self, inputs):
        mask = keras.ops.convert_to_tensor(self.mask)
        shown = keras.ops.eye(6) * keras.ops.where(keras.ops.eye(6) > 0, 0.0, mask)
        return inputs + keras.ops.matmul(inputs, keras.ops.where(keras.ops.eye(6) > 0, shown, 0.0))


@pytest.mark.parametrize("value", [-np.inf, float(np.finfo("float32").min)])
def test_constant_weights_may_be_infinite(value):
    student = keras.Sequential([keras.Input((6,)), Masked(value), LAYERS.Dense(3)], name="student")
    model = kdkeras.Distiller(student=student, teacher=network(8, "teacher")).compile("sgd", SPARSE)
    before = student.layers[-1].get_weights()
    model.fit(X, Y, epochs=2, verbose=0)
    assert np.abs(student.layers[-1].get_weights()[0] - before[0]).max() > 1e-5


def test_train_on_batch_does_not_keep_silent():
    model = distiller(max_skipped_steps=2)
    with pytest.raises(ValueError, match="32 labels out of range"):
        model.train_on_batch(X, Y + 7)
    model.train_on_batch(X * np.nan, Y)
    with pytest.raises(FloatingPointError, match="2 steps in a row"):
        model.train_on_batch(X * np.nan, Y)
    assert np.isfinite(model.train_on_batch(X, Y)).all()


def test_evaluate_does_not_score_impossible_labels():
    model = distiller()
    logs = model.evaluate(Stream(X, np.full(32, 7)), verbose=0, return_dict=True)
    assert np.isnan(logs["loss"])
    assert np.isnan(logs["task_loss"])
    assert np.isfinite(logs["soft_targets"])


def test_the_distillers_own_functions_are_not_trained():
    projection = keras.Sequential([keras.Input((6,)), LAYERS.Dense(6)])
    model = kdkeras.Distiller(student=network(4, "s"), teacher=network(8, "t"), teacher_inputs=projection)
    model.compile(keras.optimizers.AdamW(weight_decay=0.1), SPARSE)
    before = projection.get_weights()
    model.fit(X, Y, verbose=0)
    assert_same(projection.get_weights(), before)


# --- the teacher ------------------------------------------------------------------------------------------------------


class Meddler(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        kernel = self.model.teacher.get_layer("hidden").kernel
        kernel.assign(kernel * 1.01)


def test_a_teacher_that_something_else_changes_is_found_out():
    with pytest.raises(RuntimeError, match="Teacher 'teacher' was changed while the student was trained"):
        distiller().fit(X, Y, verbose=0, callbacks=[Meddler()])


@pytest.mark.parametrize("thaw", ["distiller", "teacher", "layer"])
def test_no_flag_trains_the_teacher(thaw):
    model = distiller()
    before = model.teacher.get_weights()
    model.trainable = False
    if thaw == "distiller":
        model.trainable = True
    else:
        model.trainable = True
        for layer in [model.teacher] if thaw == "teacher" else model.teacher.layers:
            layer.trainable = True
    model.compile("sgd", SPARSE)
    model.fit(X, Y, verbose=0)
    assert_same(model.teacher.get_weights(), before)


def test_a_teacher_changed_between_fits_teaches_what_it_is_by_then():
    model = distiller(loss=None, distillation_loss=losses.SoftTargets(1.0))
    model.fit(X, verbose=0)
    hidden = model.teacher.get_layer("hidden")
    hidden.kernel.assign(hidden.kernel * 0)
    logs = model.evaluate(X, batch_size=32, verbose=0, return_dict=True)
    theirs, ours = (np.asarray(keras.ops.convert_to_numpy(net(X))) for net in (model.teacher, model.student))
    log_p, log_q = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (theirs, ours))
    np.testing.assert_allclose(logs["soft_targets"], (np.exp(log_p) * (log_p - log_q)).sum(-1).mean(), rtol=1e-4)


def test_train_on_batch_after_fit_follows_a_changing_teacher():
    model = distiller(loss=None, distillation_loss=losses.LogitMatching(weight=1))
    model.fit(X, verbose=0)
    for scale in (1.0, 3.0):
        hidden = model.teacher.layers[-1]
        hidden.kernel.assign(hidden.kernel * scale)
        expected = np.mean(np.asarray(model.test_on_batch(X, return_dict=True)["logit_matching"]))
        theirs, ours = (np.asarray(keras.ops.convert_to_numpy(net(X))) for net in (model.teacher, model.student))
        np.testing.assert_allclose(expected, ((theirs - ours) ** 2).mean(), rtol=1e-4)
        model.reset_metrics()


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.where(Y == 2, 3, Y), r"whole numbers in 0…2, or -1 .* Received: \d+ others of 32, such as 3"),
        (Y - 2, "such as -2"),
        (Y + 0.5, "such as .*5"),
    ],
)
def test_impossible_labels_are_refused_before_the_first_step(labels, message):
    model = distiller()
    before = model.student.get_weights()
    with pytest.raises(ValueError, match=message):
        model.fit(X, labels, verbose=0)
    assert_same(model.student.get_weights(), before)


def test_impossible_labels_in_a_stream_never_reach_the_weights():
    model = distiller()
    before = model.student.get_weights()
    with pytest.raises(ValueError, match=r"Received: 8 labels out of range\. Nothing was learned from them"):
        model.fit(Stream(X[:8], Y[:8] + 7), shuffle=False, verbose=0)
    assert_same(model.student.get_weights(), before)


def test_nothing_is_learned_from_impossible_labels_where_steps_are_not_undone():
    models = [distiller(max_skipped_steps=None) for _ in range(2)]
    impossible, unlabelled = Y.copy(), Y.copy()
    impossible[3], unlabelled[3] = 7, -1
    with pytest.raises(ValueError, match=r"Received: 1 labels out of range\. Nothing was learned from them"):
        models[0].train_on_batch(X, impossible)
    models[1].train_on_batch(X, unlabelled)
    assert_same(models[0].student.get_weights(), models[1].student.get_weights())


def test_binary_labels_out_of_range():
    models = [keras.Sequential([keras.Input((6,)), LAYERS.Dense(1, activation="sigmoid")]) for _ in range(2)]
    model = kdkeras.Distiller(student=models[0], teacher=models[1]).compile("sgd", "binary_crossentropy")
    with pytest.raises(ValueError, match=r"in \[0, 1\], or -1"):
        model.fit(X, Y, verbose=0)


def test_rows_with_some_labels_are_refused():
    models = [keras.Sequential([keras.Input((6,)), LAYERS.Dense(4, activation="sigmoid")]) for _ in range(2)]
    model = kdkeras.Distiller(student=models[0], teacher=models[1]).compile("sgd", "binary_crossentropy")
    tags = rng.integers(0, 2, (32, 4)).astype("float32")
    tags[3, 1] = -1
    with pytest.raises(ValueError, match="fill a whole row"):
        model.fit(X, tags, verbose=0)


def test_weights_without_labels_are_refused():
    model = distiller(loss=None)
    for run in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="sample_weight without y"):
            run(X, sample_weight=np.ones(32), verbose=0)


def test_a_callback_list_of_the_users_own():
    model = distiller()
    history = keras.callbacks.History()
    callbacks = keras.callbacks.CallbackList([history], model=model, epochs=2, steps=1)
    model.fit(X, Y, epochs=2, verbose=0, callbacks=callbacks)
    assert callbacks.callbacks == [history]
    assert len(history.history["loss"]) == 2


def test_raw_images_in_a_stream():
    model = kdkeras.Distiller(student=network(4, "student"), teacher=network(8, "teacher")).compile("sgd", SPARSE)
    with pytest.raises(ValueError, match="Divide by 255"):
        model.fit(Stream((X * 255).astype("uint8"), Y), shuffle=False, verbose=0)
