"""Everything around `fit`: forms of data, weights and masks, and what Keras puts between the data and the weights."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import kdkeras
from kdkeras import losses

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SOFT_CROSSENTROPY = keras.losses.CategoricalCrossentropy(from_logits=True)
rng = np.random.default_rng(0)
X = rng.normal(size=(48, 6)).astype("float32")
Y = rng.integers(0, 3, 48).astype("int32")


def network(width, name, seed, units=3, dtype=None):
    start = {"kernel_initializer": keras.initializers.GlorotUniform(seed=seed), "dtype": dtype}
    stack = [layers.Dense(width, "tanh", name="hidden", **start), layers.Dense(units, name="out", **start)]
    return keras.Sequential([keras.Input((6,)), *stack], name=name)


def distiller(optimizer=None, loss=CROSSENTROPY, student=None, teacher=None, **compile_arguments):
    student, teacher = student or network(4, "student", 1), teacher or network(8, "teacher", 2)
    terms = [losses.SoftTargets(2.0, weight=0.7), losses.Hints("hidden", "hidden", weight=0.3)]
    arguments = {"distillation_loss": terms, "task_weight": 0.5, **compile_arguments}
    keras.utils.set_random_seed(3)  # the projector's
    return kdkeras.Distiller(student=student, teacher=teacher).compile(
        keras.optimizers.SGD(0.1, momentum=0.9) if optimizer is None else optimizer, loss, **arguments
    )


def fitted(model, x=X, y=Y, **arguments):
    arguments = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0, **arguments}
    if not isinstance(x, (np.ndarray, dict, tf.Tensor)):
        del arguments["batch_size"]
    return model.fit(x, y, **arguments).history


def trained(model):
    return [variable.numpy() for variable in model.trainable_variables]


def assert_close(ours, theirs, atol=1e-6):
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=atol)


def assert_same_history(ours, theirs, rtol=1e-5):
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=rtol, atol=1e-6, err_msg=name)


def log_softmax(z):
    z = np.asarray(z, "float64")
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def cross_entropy(z, labels):
    return -np.take_along_axis(log_softmax(z), np.asarray(labels)[..., None], -1)[..., 0]


def kl(z_t, z_s, temperature):
    log_p, log_q = log_softmax(np.asarray(z_t) / temperature), log_softmax(np.asarray(z_s) / temperature)
    return temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(-1)


@pytest.fixture(scope="module")
def reference():
    """A plain run over arrays, with which the others must agree."""
    model = distiller()
    history = fitted(model)
    return trained(model), history


# --- forms of data ---------------------------------------------------------------------------------------------------


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return X[index * 8 : index * 8 + 8], Y[index * 8 : index * 8 + 8]


def generator(epochs):
    for _ in range(epochs):
        yield from (Batches()[i] for i in range(6))


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


DATA = {
    "finite tf.data": (dataset, {}),
    "infinite tf.data": (lambda: dataset().repeat(), {"steps_per_epoch": 6}),
    "PyDataset": (Batches, {}),
    "PyDataset with workers": (lambda: Batches(workers=2, max_queue_size=4), {}),
    "infinite generator": (lambda: generator(10**6), {"steps_per_epoch": 6}),
    "finite generator": (lambda: generator(2), {"steps_per_epoch": 6}),
    "tensors": (None, {}),
}


@pytest.mark.parametrize("form", DATA)
def test_every_form_of_data_gives_the_same_weights(form, reference):
    make, arguments = DATA[form]
    model = distiller()
    history = (
        fitted(model, tf.constant(X), tf.constant(Y)) if make is None else fitted(model, make(), None, **arguments)
    )
    assert_close(trained(model), reference[0])
    assert_same_history(history, reference[1])


class FromData(keras.Model):
    """Shows no inputs before the first batch."""

    def __init__(self, inner):
        super().__init__(name="from_data")
        self.inner = inner

    def call(self, inputs):
        return self.inner(inputs)


def test_a_generator_loses_no_batch_to_models_that_are_built_from_data():
    """The batch that shows the student's inputs is trained on too."""
    terms = {"distillation_loss": losses.SoftTargets(2.0)}
    known = distiller(**terms)
    terms = {"distillation_loss": losses.SoftTargets(2.0)}
    shown = distiller(student=FromData(network(4, "inner", 1)), teacher=FromData(network(8, "inner", 2)), **terms)
    assert_same_history(fitted(shown, generator(2), None, steps_per_epoch=6), fitted(known))
    assert_close(trained(shown), trained(known))


def test_dict_inputs_and_validation_from_a_dataset():
    def two_inputs(width, name):
        parts = {key: keras.Input((3,), name=key) for key in ("a", "b")}
        hidden = layers.Dense(width, "tanh")(layers.Concatenate()(list(parts.values())))
        return keras.Model(parts, layers.Dense(3)(hidden), name=name)

    x = {"a": X[:, :3], "b": X[:, 3:]}
    model = distiller(
        student=two_inputs(4, "student"), teacher=two_inputs(8, "teacher"), distillation_loss=losses.SoftTargets()
    )
    held = tf.data.Dataset.from_tensor_slices((x, Y)).batch(8)
    history = fitted(model, x, Y, validation_data=held)
    logs = model.evaluate(x, Y, verbose=0, return_dict=True)
    assert history["val_loss"][-1] == pytest.approx(logs["loss"], rel=1e-5)
    assert history["loss"][-1] < history["loss"][0]


# --- weights ---------------------------------------------------------------------------------------------------------


def test_class_weights_are_sample_weights():
    by_class = {0: 0.2, 1: 1.0, 2: 3.0}
    models = [distiller(metrics=["accuracy"]) for _ in range(2)]
    ours = fitted(models[0], class_weight=by_class)
    theirs = fitted(models[1], sample_weight=np.array([by_class[y] for y in Y]))
    assert_same_history(ours, theirs)
    assert_close(trained(models[0]), trained(models[1]))
    one_hot = distiller(loss=SOFT_CROSSENTROPY, metrics=["accuracy"])
    assert_same_history(fitted(one_hot, y=np.eye(3, dtype="float32")[Y], class_weight=by_class), ours)


def test_a_sample_of_weight_zero_has_no_influence_at_all():
    """Two of eight in each batch are wild, and weigh 0: the weights are those of six in a batch, each weighing 6/8."""
    out = np.arange(48) % 4 == 1
    x, y = X.copy(), Y.copy()
    x[out] *= 100
    terms = [losses.SoftTargets, losses.HardTargets, losses.LogitMatching, lambda: losses.Hints("hidden", "hidden")]
    models = [distiller(distillation_loss=[make() for make in terms], metrics=["accuracy"]) for _ in range(3)]
    with_it = fitted(models[0], x, y, sample_weight=(~out).astype("float32"))
    without = fitted(models[1], x[~out], y[~out], sample_weight=np.full(36, 0.75), batch_size=6)
    counted = fitted(models[2], x, y)
    assert_close(trained(models[0]), trained(models[1]))
    assert np.abs(trained(models[2])[0] - trained(models[0])[0]).max() > 1e-2
    for name in ("loss", "task_loss", "soft_targets", "hard_targets", "logit_matching", "hints"):
        np.testing.assert_allclose(with_it[name], without[name], rtol=1e-4, atol=1e-6, err_msg=name)
        assert counted[name] != pytest.approx(without[name], rel=1e-2)


# --- labels ----------------------------------------------------------------------------------------------------------


def test_partly_labelled_data():
    """Where the label is −1, the task and the accuracy say nothing and the teacher teaches."""
    y = np.where(np.arange(48) % 3 == 0, Y, -1)
    has = y >= 0
    model = distiller(metrics=["accuracy"], weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="weighted")])
    z_s, z_t = np.asarray(model.student(X)), np.asarray(model.teacher(X))
    weight = rng.random(48)
    logs = model.evaluate(X, y, batch_size=48, verbose=0, return_dict=True)
    right = z_s.argmax(-1) == Y
    np.testing.assert_allclose(logs["task_loss"], cross_entropy(z_s, Y)[has].mean(), rtol=1e-5)
    np.testing.assert_allclose(logs["accuracy"], right[has].mean(), rtol=1e-6)
    np.testing.assert_allclose(logs["soft_targets"], kl(z_t, z_s, 2).mean(), rtol=1e-4)
    logs = model.evaluate(X, y, sample_weight=weight, batch_size=48, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["task_loss"], (cross_entropy(z_s, Y) * weight)[has].sum() / has.sum(), rtol=1e-5)
    np.testing.assert_allclose(logs["soft_targets"], (kl(z_t, z_s, 2) * weight).mean(), rtol=1e-4)
    np.testing.assert_allclose(logs["weighted"], (right * weight)[has].sum() / weight[has].sum(), rtol=1e-5)


def test_labels_of_minus_one_train_as_no_labels_do():
    none, unlabelled, ignored = (distiller(task_weight=weight) for weight in (0.0, 1.0, 0.0))
    fitted(none, X, None)
    fitted(unlabelled, X, np.full(48, -1))
    fitted(ignored, X, Y)
    assert_close(trained(none), trained(ignored))
    assert_close(trained(unlabelled), trained(ignored))


def test_no_labels_and_then_some():
    """Without labels there are the teacher's terms; metrics come when labels do."""
    model = distiller(task_weight=0.0, metrics=["accuracy"])
    history = fitted(model, X, None, epochs=4)
    assert "accuracy" not in history
    assert history["soft_targets"][-1] < history["soft_targets"][0]
    logs = model.evaluate(X, Y, batch_size=48, verbose=0, return_dict=True)
    z_s = np.asarray(model.student(X))
    np.testing.assert_allclose(logs["accuracy"], (z_s.argmax(-1) == Y).mean(), rtol=1e-6)
    np.testing.assert_allclose(logs["task_loss"], cross_entropy(z_s, Y).mean(), rtol=1e-5)


def test_soft_and_mixed_up_labels():
    """Rows of probabilities are targets as they are; a row of −1 is no target."""
    share = rng.beta(0.4, 0.4, (48, 1)).astype("float32")
    other = rng.permutation(48)
    x = share * X + (1 - share) * X[other]
    y = share * np.eye(3, dtype="float32")[Y] + (1 - share) * np.eye(3, dtype="float32")[Y[other]]
    model = distiller(loss=SOFT_CROSSENTROPY, metrics=["accuracy"])
    z_s, z_t = np.asarray(model.student(x)), np.asarray(model.teacher(x))
    entropies = -(y * log_softmax(z_s)).sum(-1)
    logs = model.evaluate(x, y, batch_size=48, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["task_loss"], entropies.mean(), rtol=1e-5)
    np.testing.assert_allclose(logs["soft_targets"], kl(z_t, z_s, 2).mean(), rtol=1e-4)
    partly = y.copy()
    partly[::4] = -1
    has = np.arange(48) % 4 != 0
    logs = model.evaluate(x, partly, batch_size=48, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["task_loss"], entropies[has].mean(), rtol=1e-5)
    np.testing.assert_allclose(logs["accuracy"], (z_s.argmax(-1) == y.argmax(-1))[has].mean(), rtol=1e-6)
    np.testing.assert_allclose(logs["soft_targets"], kl(z_t, z_s, 2).mean(), rtol=1e-4)
    history = fitted(model, x, y, epochs=5)
    assert history["loss"][-1] < history["loss"][0]


def test_labels_of_any_dtype():
    """Also of those that cannot hold a −1, and as a column."""
    model = distiller(metrics=["accuracy"])
    logs = model.evaluate(X, Y, verbose=0)
    for labels in (Y.astype("uint8"), Y.astype("float32")[:, None]):
        np.testing.assert_allclose(model.evaluate(X, labels, verbose=0), logs, rtol=1e-6)


@pytest.mark.parametrize("units", [1, 3])
def test_metrics_of_counts_leave_out_what_is_not_labelled(units):
    """AUC, precision and F1 are those of the labelled samples alone."""
    binary = [lambda: keras.metrics.AUC(from_logits=True, name="m0"), lambda: keras.metrics.Precision(0.0, name="m1")]
    makers = binary if units == 1 else [lambda: keras.metrics.F1Score("macro", name="m0")]
    loss = keras.losses.BinaryCrossentropy(from_logits=True) if units == 1 else SOFT_CROSSENTROPY
    full = (Y > 0).astype("float32")[:, None] if units == 1 else np.eye(3, dtype="float32")[Y]
    y, has = full.copy(), np.arange(48) % 2 == 0
    y[~has] = -1
    model = distiller(
        loss=loss,
        student=network(4, "student", 1, units),
        teacher=network(8, "teacher", 2, units),
        distillation_loss=losses.LogitMatching(),
        metrics=[make() for make in makers],
    )
    logs = model.evaluate(X, y, batch_size=48, verbose=0, return_dict=True)
    for i, make in enumerate(makers):
        metric = make()
        metric.update_state(full[has], np.asarray(model.student(X))[has])
        np.testing.assert_allclose(logs[f"m{i}"], metric.result(), rtol=1e-5)


def test_sample_weights_without_labels():
    """Keras drops them on the way, so they are refused; a batch carries them to the teacher's terms."""
    weight = (np.arange(48) % 2).astype("float32")
    model = distiller(task_weight=0.0, distillation_loss=losses.SoftTargets(2.0, weight=1))
    z_s, z_t = np.asarray(model.student(X)), np.asarray(model.teacher(X))
    for run in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="sample_weight without y"):
            run(X, sample_weight=weight, verbose=0)
    expected = pytest.approx((kl(z_t, z_s, 2) * weight).mean(), rel=1e-4)
    logs = model.evaluate(X, np.full(48, -1), sample_weight=weight, batch_size=48, verbose=0, return_dict=True)
    assert logs["loss"] == expected
    assert model.test_on_batch(X, sample_weight=weight, return_dict=True)["loss"] == expected


def test_rows_of_several_labels_are_labelled_as_a_whole():
    """Multi-label rows of −1 are left out; rows with some −1 are refused before training."""
    y = (rng.random((48, 3)) < 0.4).astype("float32")
    y[::3] = -1
    has = y[:, 0] >= 0
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model = distiller(loss=loss, distillation_loss=losses.LogitMatching())
    z = np.asarray(model.student(X), "float64")
    entropies = (np.logaddexp(0, z) - y * z).mean(-1)
    logs = model.evaluate(X, y, batch_size=48, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["task_loss"], entropies[has].mean(), rtol=1e-5)
    y[1, 1] = -1
    with pytest.raises(ValueError, match="must fill a whole row"):
        fitted(model, y=y)


# --- sequences -------------------------------------------------------------------------------------------------------


def tagger(width, name, seed):
    start = {"kernel_initializer": keras.initializers.GlorotUniform(seed=seed)}
    recurrent = layers.SimpleRNN(
        width,
        return_sequences=True,
        name="rnn",
        recurrent_initializer=keras.initializers.Orthogonal(seed=seed),
        **start,
    )
    embedding = layers.Embedding(
        11, width, mask_zero=True, embeddings_initializer=keras.initializers.RandomNormal(seed=seed)
    )
    return keras.Sequential(
        [keras.Input((None,), dtype="int32"), embedding, recurrent, layers.Dense(3, **start)], name=name
    )


LENGTHS = np.array([2, 5, 7, 1, 4, 7, 3, 6])
SHOWN = np.arange(7) < LENGTHS[:, None]
TOKENS = np.where(SHOWN, rng.integers(1, 11, (8, 7)), 0)
TAGS = rng.integers(0, 3, (8, 7))


def test_padding_has_no_influence():
    """Two paddings, with other labels under them, give equal losses, metrics and weights."""

    def run(extra, tags):
        model = distiller(
            keras.optimizers.SGD(0.5),
            student=tagger(4, "student", 1),
            teacher=tagger(6, "teacher", 2),
            metrics=["accuracy"],
            distillation_loss=[losses.SoftTargets(2.0), losses.Hints("rnn", "rnn")],
        )
        tokens = np.pad(TOKENS, [[0, 0], [0, extra]])
        history = fitted(model, tokens, np.pad(tags, [[0, 0], [0, extra]], constant_values=2), epochs=3, batch_size=4)
        return model, history

    (short, history), (long, padded) = run(0, TAGS), run(5, np.where(SHOWN, TAGS, (TAGS + 1) % 3))
    assert_same_history(padded, history)
    assert_close(trained(long), trained(short))

    logs = short.evaluate(TOKENS, TAGS, batch_size=8, verbose=0, return_dict=True)
    z_s, z_t = np.asarray(short.student(TOKENS)), np.asarray(short.teacher(TOKENS))
    np.testing.assert_allclose(logs["task_loss"], cross_entropy(z_s, TAGS)[SHOWN].mean(), rtol=1e-5)
    np.testing.assert_allclose(logs["soft_targets"], kl(z_t, z_s, 2)[SHOWN].mean(), rtol=1e-4)
    np.testing.assert_allclose(logs["accuracy"], (z_s.argmax(-1) == TAGS)[SHOWN].mean(), rtol=1e-6)


@pytest.mark.parametrize("per_token", [False, True])
def test_masks_with_sample_weights_and_missing_labels(per_token):
    model = distiller(
        student=tagger(4, "student", 1), teacher=tagger(6, "teacher", 2), distillation_loss=losses.SoftTargets(2.0)
    )
    weight = rng.random((8, 7) if per_token else 8).astype("float32")
    w = weight if per_token else np.repeat(weight[:, None], 7, 1)
    tags = np.where(rng.random((8, 7)) < 0.5, TAGS, -1)
    has = SHOWN & (tags >= 0)
    logs = model.evaluate(TOKENS, tags, sample_weight=weight, batch_size=8, verbose=0, return_dict=True)
    z_s, z_t = np.asarray(model.student(TOKENS)), np.asarray(model.teacher(TOKENS))
    np.testing.assert_allclose(logs["task_loss"], (cross_entropy(z_s, TAGS) * w)[has].sum() / has.sum(), rtol=1e-5)
    np.testing.assert_allclose(logs["soft_targets"], (kl(z_t, z_s, 2) * w)[SHOWN].sum() / SHOWN.sum(), rtol=1e-4)


# --- compiling the step ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        {"run_eagerly": True},
        {"jit_compile": True},
        {"steps_per_execution": 3},
        {"steps_per_execution": 4},  # six batches: the last execution is shorter
        {"max_skipped_steps": None},
        {"freeze_teacher": False},
        {"freeze_teacher": True},
    ],
    ids=str,
)
def test_however_it_is_compiled_the_weights_are_the_same(how, reference):
    model = distiller(**how)
    history = fitted(model)
    assert_close(trained(model), reference[0], atol=2e-6)
    if how.get("steps_per_execution") != 4:
        assert_same_history(history, reference[1], rtol=1e-4)


POLICIES = [
    ("mixed_float16", "mixed_bfloat16"),
    ("mixed_bfloat16", "float32"),
    ("float32", "mixed_float16"),
]


@pytest.mark.parametrize(("ours", "theirs"), POLICIES)
def test_dtype_policies(ours, theirs):
    """Losses are those of float32 but for rounding, variables stay float32, and training works."""
    exact = distiller()
    model = distiller(
        keras.optimizers.Adam(0.02),
        student=network(4, "student", 1, dtype=ours),
        teacher=network(8, "teacher", 2, dtype=theirs),
    )
    expected = exact.evaluate(X, Y, batch_size=48, verbose=0, return_dict=True)
    logs = model.evaluate(X, Y, batch_size=48, verbose=0, return_dict=True)
    for name in expected:
        np.testing.assert_allclose(logs[name], expected[name], rtol=0.03, atol=0.003, err_msg=name)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (ours == "mixed_float16")
    history = fitted(model, epochs=6)
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert all(np.isfinite(value).all() and value.dtype == "float32" for value in trained(model))


def test_a_global_policy():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = distiller(keras.optimizers.Adam(0.02))
        history = fitted(model, epochs=6)
    finally:
        keras.config.set_dtype_policy(before)
    assert model.student(X[:1]).dtype == "float16"
    assert model.distillation_losses[1].projectors[0].kernel.dtype == "float32"
    assert history["loss"][-1] < 0.9 * history["loss"][0]


# --- optimizers ------------------------------------------------------------------------------------------------------


def test_gradient_accumulation_is_a_larger_batch():
    small = distiller(keras.optimizers.SGD(0.1, gradient_accumulation_steps=3))
    large = distiller(keras.optimizers.SGD(0.1))
    fitted(small, batch_size=8)
    fitted(large, batch_size=24)
    assert_close(trained(small), trained(large))


def test_gradients_are_clipped():
    limit = 0.02
    plain = distiller(keras.optimizers.SGD(1.0))
    start = trained(plain)
    fitted(plain, batch_size=48, epochs=1)
    gradients = [a - b for a, b in zip(start, trained(plain), strict=True)]
    norms = [np.linalg.norm(gradient) for gradient in gradients]
    assert max(norms) > limit
    expected = {
        "clipnorm": [g * min(1, limit / norm) for g, norm in zip(gradients, norms, strict=True)],
        "clipvalue": [np.clip(g, -limit, limit) for g in gradients],
        "global_clipnorm": [g * min(1, limit / np.linalg.norm(norms)) for g in gradients],
    }
    for clip, steps in expected.items():
        clipped = distiller(keras.optimizers.SGD(1.0, **{clip: limit}))
        fitted(clipped, batch_size=48, epochs=1)
        assert_close([a - b for a, b in zip(start, trained(clipped), strict=True)], steps)


def test_moving_average_of_the_weights():
    """`use_ema` leaves the student with the average of its weights, computed here step by step."""
    model = distiller(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.8))
    seen = []
    record = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs=None: seen.append(trained(model)))
    fitted(model, callbacks=[record])
    average = seen[0]
    for weights in seen[1:]:
        average = [0.8 * a + 0.2 * w for a, w in zip(average, weights, strict=True)]
    assert_close(trained(model), average)
    assert np.abs(average[0] - seen[-1][0]).max() > 1e-3


def test_learning_rates_of_a_schedule_and_of_a_callback():
    decay = keras.optimizers.schedules.ExponentialDecay(0.2, decay_steps=6, decay_rate=0.25, staircase=True)
    by_schedule, by_callback = distiller(keras.optimizers.SGD(decay)), distiller(keras.optimizers.SGD(0.2))
    fitted(by_schedule, epochs=3)
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.2 * 0.25**epoch)
    history = fitted(by_callback, epochs=3, callbacks=[schedule])
    np.testing.assert_allclose(history["learning_rate"], [0.2, 0.05, 0.0125], rtol=1e-6)
    assert_close(trained(by_schedule), trained(by_callback))
    constant = distiller(keras.optimizers.SGD(0.2))
    fitted(constant, epochs=3)
    assert np.abs(trained(constant)[0] - trained(by_schedule)[0]).max() > 1e-3


# --- callbacks -------------------------------------------------------------------------------------------------------


def test_a_callback_list_is_taken_as_by_keras():
    """`fit` takes Keras' own `CallbackList`, and leaves it as it was."""
    model = distiller()
    seen = []
    record = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs=None: seen.append(logs["loss"]))
    callbacks = keras.callbacks.CallbackList([record], add_history=True, model=model, epochs=1, steps=6, verbose=0)
    before = list(callbacks.callbacks)
    for _ in range(2):
        fitted(model, epochs=1, callbacks=callbacks)
    assert len(seen) == 2
    assert callbacks.callbacks == before


def test_early_stopping_restores_the_best_weights():
    model = distiller(keras.optimizers.SGD(0.05))
    worse = keras.callbacks.LearningRateScheduler(lambda epoch: 0.05 if epoch < 3 else 5.0)
    stop = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    history = fitted(model, epochs=30, validation_data=(X, Y), callbacks=[worse, stop])
    assert len(history["loss"]) < 30
    assert history["val_loss"][-1] > 1.005 * min(history["val_loss"])
    value = model.evaluate(X, Y, verbose=0, return_dict=True)["loss"]
    assert value == pytest.approx(min(history["val_loss"]), rel=1e-5)


def test_csv_logger_writes_every_term(tmp_path):
    history = fitted(distiller(metrics=["accuracy"]), callbacks=[keras.callbacks.CSVLogger(tmp_path / "log.csv")])
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(history) == {"accuracy", "loss", "task_loss", "soft_targets", "hints"}
    for name, values in history.items():
        np.testing.assert_allclose([float(row[name]) for row in rows], values, rtol=1e-6)


def test_tensorboard_gets_every_term(tmp_path):
    pytest.importorskip("tensorboard")
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1, update_freq=1)
    history = fitted(distiller(), validation_data=(X, Y), callbacks=[board])
    found = {}
    for path in tmp_path.rglob("*tfevents*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag.startswith("epoch_") and value.metadata.plugin_data.plugin_name == "scalars":
                    found.setdefault((path.parent.name, value.tag[6:]), []).append(float(tf.make_ndarray(value.tensor)))
    for name in ("loss", "task_loss", "soft_targets", "hints"):
        np.testing.assert_allclose(found["train", name], history[name], rtol=1e-5)
        np.testing.assert_allclose(found["validation", name], history[f"val_{name}"], rtol=1e-5)


class Poisoned(losses.DistillationLoss):
    """NaN for samples of class 2."""

    def call(self, student, teacher, labels=None):
        values = ops.mean(ops.square(student.logits - teacher.logits), axis=-1)
        return values * ops.where(ops.equal(labels, 2), float("nan"), 1.0)


@pytest.mark.parametrize("how", [{}, {"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}], ids=str)
def test_terminate_on_nan_has_nothing_to_do_where_steps_are_undone(how):
    """The poisoned batches leave weights and optimizer as without them, and training goes on."""
    y = np.where(np.arange(48) < 16, 2, Y % 2)  # two batches of six
    models = [
        distiller(keras.optimizers.Adam(0.05), distillation_loss=Poisoned(), **(how if poisoned else {}))
        for poisoned in (True, False)
    ]
    history = fitted(models[0], y=y, callbacks=[keras.callbacks.TerminateOnNaN()])
    assert np.isfinite(history["loss"]).all()
    assert len(history["loss"]) == 2
    fitted(models[1], X[16:], y[16:])
    assert_close(trained(models[0]), trained(models[1]))
    assert int(models[0].optimizer.iterations) == int(models[1].optimizer.iterations) == 8


def test_terminate_on_nan_works_without_the_guard():
    model = distiller(distillation_loss=Poisoned(), max_skipped_steps=None)
    history = fitted(model, y=np.full(48, 2), epochs=3, callbacks=[keras.callbacks.TerminateOnNaN()])
    assert len(history["loss"]) == 1


# --- settings that are moved -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"jit_compile": True}], ids=str)
def test_settings_take_effect_between_fits_and_in_callbacks(how):
    """Weights and temperatures are read by the compiled step at every step."""
    soft = losses.SoftTargets(2.0, weight=0.7)
    model = distiller(keras.optimizers.SGD(0.0), distillation_loss=soft, **how)
    z_s, z_t = np.asarray(model.student(X)), np.asarray(model.teacher(X))
    settings = [(0.7, 2.0, 0.5), (0.0, 2.0, 1.0), (2.0, 5.0, 0.0), (1.0, 0.5, 3.0)]
    expected = [t * cross_entropy(z_s, Y).mean() + w * kl(z_t, z_s, T).mean() for w, T, t in settings]

    def move(epoch, logs=None):
        soft.weight, soft.temperature, model.task_weight = settings[epoch]

    values = []
    for epoch in range(4):
        move(epoch)
        values += fitted(model, epochs=1, batch_size=24)["loss"]
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    steps = model.train_function
    callback = keras.callbacks.LambdaCallback(on_epoch_begin=move)
    np.testing.assert_allclose(
        fitted(model, epochs=4, batch_size=24, callbacks=[callback])["loss"], expected, rtol=1e-4
    )
    assert model.train_function is steps  # nothing was compiled anew
    for epoch in range(4):
        move(epoch)
        np.testing.assert_allclose(
            model.evaluate(X, Y, verbose=0, return_dict=True)["loss"], expected[epoch], rtol=1e-4
        )


# --- single batches, validation --------------------------------------------------------------------------------------


def test_single_batches(reference):
    model = distiller()
    before = model.test_on_batch(X, Y, return_dict=True)
    expected = model.evaluate(X, Y, batch_size=48, verbose=0, return_dict=True)
    assert before == pytest.approx(expected, rel=1e-5)
    for x, y in generator(2):
        model.train_on_batch(x, y)
    assert_close(trained(model), reference[0])
    np.testing.assert_allclose(model.predict_on_batch(X), model.student(X), rtol=1e-5, atol=1e-6)
    weight = np.arange(8) % 2
    logs = model.test_on_batch(X[:8], Y[:8], sample_weight=weight, return_dict=True)
    z_s, z_t = np.asarray(model.student(X[:8])), np.asarray(model.teacher(X[:8]))
    np.testing.assert_allclose(logs["soft_targets"], (kl(z_t, z_s, 2) * weight).mean(), rtol=1e-3)


def test_validation_data_and_split():
    split, apart = distiller(metrics=["accuracy"]), distiller(metrics=["accuracy"])
    ours = fitted(split, validation_split=0.25)
    theirs = fitted(apart, X[:36], Y[:36], validation_data=(X[36:], Y[36:]))
    assert_same_history(ours, theirs)
    logs = apart.evaluate(X[36:], Y[36:], verbose=0, return_dict=True)
    assert {name: ours[f"val_{name}"][-1] for name in logs} == pytest.approx(logs, rel=1e-5)
    weighted = fitted(distiller(), validation_data=(X, Y, np.zeros(48)))
    assert weighted["val_loss"] == [0.0, 0.0]
