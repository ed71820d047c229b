"""Models in every form, on every backend: `KERAS_BACKEND=jax pytest tests/test_every_model.py` runs the same."""

import keras
import numpy as np
import pytest

import kdkeras
from kdkeras import losses

LAYERS = keras.layers
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
rng = np.random.default_rng(0)
X = rng.random((24, 6)).astype("float32")
CLASSES = rng.integers(0, 3, 24).astype("int32")
AMOUNTS = rng.random((24, 1)).astype("float32")
TAGS = rng.integers(0, 2, (24, 4)).astype("float32")
IMAGES = rng.random((8, 6, 6, 1)).astype("float32")
PIXELS = rng.integers(0, 3, (8, 6, 6)).astype("int32")


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


def numbers(value):
    return np.asarray(keras.ops.convert_to_numpy(value), dtype="float64")


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def kl(teacher, student, temperature=1.0):
    p, q = log_softmax(numbers(teacher) / temperature), log_softmax(numbers(student) / temperature)
    return temperature**2 * (np.exp(p) * (p - q)).sum(-1)


def crossentropy(labels, logits):
    return -np.take_along_axis(log_softmax(numbers(logits)), labels[..., None], -1)[..., 0]


def dense(width, units, name, inputs=6, activation=None):
    layers = [keras.Input((inputs,)), LAYERS.Dense(width, "relu", name="hidden"), LAYERS.Dense(units, activation)]
    return keras.Sequential(layers, name=name)


def distiller(student, teacher, *, inputs=None, **arguments):
    arguments = {"optimizer": keras.optimizers.SGD(0.05), "loss": SPARSE, **arguments}
    return kdkeras.Distiller(student=student, teacher=teacher, teacher_inputs=inputs).compile(**arguments)


def measured(model, x, y=None, **kwargs):
    return model.evaluate(x, y, batch_size=len(keras.tree.flatten(x)[0]), verbose=0, return_dict=True, **kwargs)


def two_headed(width, name, *, as_dict=False):
    inputs = keras.Input((6,))
    hidden = LAYERS.Dense(width, "relu", name="hidden")(inputs)
    kind = LAYERS.Dense(3, activation="softmax", name="kind")(hidden)
    amount = LAYERS.Dense(1, name="amount")(hidden)
    return keras.Model(inputs, {"kind": kind, "amount": amount} if as_dict else [kind, amount], name=name)


@pytest.mark.parametrize("as_dict", [False, True])
def test_outputs_with_their_own_losses_and_weights(as_dict):
    student, teacher = two_headed(3, "student", as_dict=as_dict), two_headed(8, "teacher", as_dict=as_dict)
    model = distiller(
        student,
        teacher,
        loss={"kind": "sparse_categorical_crossentropy", "amount": "mse"},
        loss_weights={"kind": 0.25, "amount": 2.0},
        metrics={"kind": ["accuracy"]},
        task_weight=0.5,
        distillation_loss=[
            losses.SoftTargets(2.0, weight=0.7, output="kind"),
            losses.LogitMatching(weight=0.3, output="amount"),
            losses.Hints("hidden", "hidden", weight=0.1),
        ],
    )
    y = {"kind": CLASSES, "amount": AMOUNTS} if as_dict else [CLASSES, AMOUNTS]
    logs = measured(model, X, y)
    ours, theirs = student(X), teacher(X)
    if not as_dict:
        ours, theirs = ({"kind": kind, "amount": amount} for kind, amount in (ours, theirs))
    logits = [np.log(numbers(answers["kind"])) for answers in (ours, theirs)]
    soft = kl(logits[1], logits[0], 2.0).mean()
    match = ((numbers(ours["amount"]) - numbers(theirs["amount"])) ** 2).mean()
    task = 0.25 * crossentropy(CLASSES, logits[0]).mean() + 2 * ((numbers(ours["amount"]) - AMOUNTS) ** 2).mean()
    np.testing.assert_allclose(logs["soft_targets_kind"], soft, rtol=1e-4)
    np.testing.assert_allclose(logs["logit_matching_amount"], match, rtol=1e-4)
    np.testing.assert_allclose(logs["task_loss"], task, rtol=1e-4)
    total = 0.5 * task + 0.7 * soft + 0.3 * match + 0.1 * logs["hints"]
    np.testing.assert_allclose(logs["loss"], total, rtol=1e-4)
    history = model.fit(X, y, epochs=3, batch_size=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert "kind_accuracy" in history


def test_outputs_are_found_by_name_where_the_teacher_has_one():
    student, teacher = two_headed(3, "student"), dense(8, 3, "teacher", activation="softmax")
    loss = losses.SoftTargets(1.0, output="kind")
    model = distiller(student, teacher, loss=["sparse_categorical_crossentropy", "mse"], distillation_loss=loss)
    logs = measured(model, X, [CLASSES, AMOUNTS])
    expected = kl(np.log(numbers(teacher(X))), np.log(numbers(student(X)[0]))).mean()
    np.testing.assert_allclose(logs["soft_targets_kind"], expected, rtol=1e-4)


def test_outputs_of_different_names_are_paired():
    teacher = keras.Sequential([keras.Input((6,)), two_headed(8, "inner", as_dict=True)], name="teacher")
    loss = losses.SoftTargets(1.0, output=("0", "kind"), name="soft")
    inputs = keras.Input((6,))

    class TwoLists(keras.Model):
        def __init__(self):
            super().__init__(name="student")
            self.heads = [LAYERS.Dense(3, "softmax"), LAYERS.Dense(1)]

        def call(self, inputs):
            return [head(inputs) for head in self.heads]

    student = TwoLists()
    student(inputs)
    model = distiller(student, teacher, loss=None, distillation_loss=loss)
    expected = kl(np.log(numbers(teacher(X)["kind"])), np.log(numbers(student(X)[0]))).mean()
    np.testing.assert_allclose(measured(model, X)["soft"], expected, rtol=1e-4)


def test_sample_weights_per_output():
    student, teacher = two_headed(3, "student"), two_headed(8, "teacher")
    weights = [np.repeat([1.0, 0.0], 12), np.repeat([0.0, 1.0], 12)]
    terms = [losses.SoftTargets(1.0, output="kind"), losses.LogitMatching(output="amount")]
    model = distiller(student, teacher, loss=["sparse_categorical_crossentropy", "mse"], distillation_loss=terms)
    logs = measured(model, X, [CLASSES, AMOUNTS], sample_weight=weights)
    ours, theirs = student(X), teacher(X)
    soft = kl(np.log(numbers(theirs[0])), np.log(numbers(ours[0])))
    match = (numbers(ours[1]) - numbers(theirs[1]))[:, 0] ** 2
    np.testing.assert_allclose(logs["soft_targets_kind"], soft[:12].sum() / 24, rtol=1e-4)
    np.testing.assert_allclose(logs["logit_matching_amount"], match[12:].sum() / 24, rtol=1e-4)


def test_an_output_must_be_named():
    with pytest.raises(ValueError, match=r"`SoftTargets` needs one of the outputs \['kind', 'amount'\] of model 'stud"):
        distiller(two_headed(3, "student"), two_headed(8, "teacher"), loss=None)
    with pytest.raises(ValueError, match="output='knd'"):
        distiller(
            two_headed(3, "student"),
            two_headed(8, "teacher"),
            loss=None,
            distillation_loss=losses.SoftTargets(output="knd"),
        )


def test_each_output_has_its_own_softmax_check():
    with pytest.raises(ValueError, match="student 'student/kind' ends in softmax, which would be applied twice"):
        distiller(
            two_headed(3, "student"),
            two_headed(8, "teacher"),
            loss=[SPARSE, "mse"],
            distillation_loss=losses.SoftTargets(output="kind"),
        )


def test_several_inputs():
    def network(width, name):
        inputs = {"numbers": keras.Input((6,), name="numbers"), "image": keras.Input((6, 6, 1), name="image")}
        image = LAYERS.GlobalAveragePooling2D()(LAYERS.Conv2D(width, 3)(inputs["image"]))
        joined = LAYERS.Concatenate()([LAYERS.Dense(width)(inputs["numbers"]), image])
        return keras.Model(inputs, LAYERS.Dense(3)(joined), name=name)

    student, teacher = network(2, "student"), network(5, "teacher")
    x = {"numbers": X[:8], "image": IMAGES}
    model = distiller(student, teacher, distillation_loss=losses.SoftTargets(2.0))
    logs = measured(model, x, CLASSES[:8])
    np.testing.assert_allclose(logs["soft_targets"], kl(teacher(x), student(x), 2.0).mean(), rtol=1e-4)
    assert np.isfinite(model.fit(x, CLASSES[:8], verbose=0).history["loss"]).all()


def test_multi_label_outputs_have_binary_divergences():
    student, teacher = (dense(w, 4, name, activation="sigmoid") for w, name in ((3, "student"), (8, "teacher")))
    model = distiller(student, teacher, loss="binary_crossentropy", distillation_loss=losses.SoftTargets(1.0))
    p, q = numbers(teacher(X)), numbers(student(X))
    divergence = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(-1).mean()
    logs = measured(model, X, TAGS)
    np.testing.assert_allclose(logs["soft_targets"], divergence, rtol=1e-3)
    np.testing.assert_allclose(logs["task_loss"], -np.log(np.where(TAGS > 0, q, 1 - q)).mean(), rtol=1e-4)


def test_a_binary_task_from_logits_means_independent_units():
    student, teacher = dense(3, 4, "student"), dense(8, 4, "teacher")
    binary = keras.losses.BinaryCrossentropy(from_logits=True)
    model = distiller(student, teacher, loss=binary, distillation_loss=losses.SoftTargets(1.0))
    p, q = (1 / (1 + np.exp(-numbers(network(X)))) for network in (teacher, student))
    divergence = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(-1).mean()
    np.testing.assert_allclose(measured(model, X, TAGS)["soft_targets"], divergence, rtol=1e-3)


def test_every_metric_leaves_out_what_is_not_labelled():
    student, teacher = (dense(w, 1, name, activation="sigmoid") for w, name in ((3, "student"), (8, "teacher")))
    metrics = [keras.metrics.AUC(name="auc"), keras.metrics.Precision(0.4, name="precision"), "accuracy"]
    model = distiller(student, teacher, loss="binary_crossentropy", metrics=metrics)
    labels = TAGS[:, :1].copy()
    labels[1::2] = -1
    logs = measured(model, X, labels)
    ours = numbers(student(X[::2]))
    for metric in (keras.metrics.AUC(name="auc"), keras.metrics.Precision(0.4, name="precision")):
        metric.update_state(TAGS[::2, :1], ours)
        np.testing.assert_allclose(logs[metric.name], numbers(metric.result()), rtol=1e-5, err_msg=metric.name)
    np.testing.assert_allclose(logs["accuracy"], ((ours > 0.5) == TAGS[::2, :1]).mean(), rtol=1e-5)


def test_regression():
    student, teacher = dense(3, 1, "student"), dense(8, 1, "teacher")
    model = distiller(student, teacher, loss="mse", distillation_loss=losses.LogitMatching(weight=0.5))
    logs = measured(model, X, -AMOUNTS)  # negative targets are targets
    error = ((numbers(student(X)) - numbers(teacher(X))) ** 2).mean()
    task = ((numbers(student(X)) + AMOUNTS) ** 2).mean()
    np.testing.assert_allclose([logs["logit_matching"], logs["task_loss"]], [error, task], rtol=1e-4)
    np.testing.assert_allclose(logs["loss"], task + 0.5 * error, rtol=1e-4)


def pixelwise(width, name):
    layers = [keras.Input((6, 6, 1)), LAYERS.Conv2D(width, 3, padding="same", name="conv"), LAYERS.Conv2D(3, 1)]
    return keras.Sequential(layers, name=name)


def test_per_pixel_outputs_and_their_weights():
    student, teacher = pixelwise(2, "student"), pixelwise(5, "teacher")
    model = distiller(student, teacher, distillation_loss=[losses.SoftTargets(2.0), losses.Hints("conv", "conv")])
    divergence, task = kl(teacher(IMAGES), student(IMAGES), 2.0), crossentropy(PIXELS, student(IMAGES))
    logs = measured(model, IMAGES, PIXELS)
    np.testing.assert_allclose([logs["soft_targets"], logs["task_loss"]], [divergence.mean(), task.mean()], rtol=1e-4)
    per_image = np.arange(8).astype("float32")
    logs = measured(model, IMAGES, PIXELS, sample_weight=per_image)
    weights = per_image[:, None, None]
    expected = [(divergence * weights).mean(), (task * weights).mean()]
    np.testing.assert_allclose([logs["soft_targets"], logs["task_loss"]], expected, rtol=1e-4)
    per_pixel = rng.random((8, 6, 6)).astype("float32")
    model = distiller(student, teacher, distillation_loss=[losses.SoftTargets(2.0)])
    logs = measured(model, IMAGES, PIXELS, sample_weight=per_pixel)
    expected = [(divergence * per_pixel).mean(), (task * per_pixel).mean()]
    np.testing.assert_allclose([logs["soft_targets"], logs["task_loss"]], expected, rtol=1e-4)


def test_pixels_without_a_label_are_left_out_of_the_task_alone():
    student, teacher = pixelwise(2, "student"), pixelwise(5, "teacher")
    model = distiller(student, teacher, metrics=["accuracy"])
    labels = PIXELS.copy()
    labels[:, :3] = -1
    logs = measured(model, IMAGES, labels)
    logits = numbers(student(IMAGES))
    np.testing.assert_allclose(logs["task_loss"], crossentropy(PIXELS, logits)[:, 3:].mean(), rtol=1e-4)
    np.testing.assert_allclose(logs["accuracy"], (logits.argmax(-1) == PIXELS)[:, 3:].mean(), rtol=1e-5)
    np.testing.assert_allclose(logs["soft_targets"], kl(teacher(IMAGES), logits, 4.0).mean(), rtol=1e-4)


def test_per_token_outputs_ignore_padding():
    def tagger(width, name):
        layers = [
            keras.Input((None,), dtype="int32"),
            LAYERS.Embedding(10, width, mask_zero=True, name="embed"),
            LAYERS.Dense(3),
        ]
        return keras.Sequential(layers, name=name)

    student, teacher = tagger(2, "student"), tagger(5, "teacher")
    model = distiller(student, teacher, distillation_loss=[losses.SoftTargets(1.0), losses.Hints("embed", "embed")])
    tokens = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0]], "int32")
    tags = np.array([[0, 1, 2, 0, 0], [1, 1, 0, 0, 0]], "int32")
    shown = tokens > 0
    logs = measured(model, tokens, tags)
    divergence, task = kl(teacher(tokens), student(tokens)), crossentropy(tags, student(tokens))
    np.testing.assert_allclose(logs["soft_targets"], divergence[shown].mean(), rtol=1e-4)
    np.testing.assert_allclose(logs["task_loss"], task[shown].mean(), rtol=1e-4)
    longer = [np.pad(array, ((0, 0), (0, 4))) for array in (tokens, tags)]
    for name, value in measured(model, *longer).items():
        np.testing.assert_allclose(value, logs[name], rtol=1e-4, err_msg=name)


def test_padding_of_a_sample_without_weight_has_no_influence():
    def tagger(width, name):
        embedding = LAYERS.Embedding(10, width, mask_zero=True, name="embed")
        return keras.Sequential([keras.Input((None,), dtype="int32"), embedding, LAYERS.Dense(3)], name=name)

    terms = [losses.SoftTargets(1.0), losses.Hints("embed", "embed")]
    model = distiller(tagger(2, "student"), tagger(5, "teacher"), distillation_loss=terms)
    tokens = np.array([[1, 0, 0], [4, 5, 0]], "int32")
    tags, weight = np.array([[0, 1, 2], [1, 1, 0]], "int32"), np.array([0.0, 1.0])
    short = measured(model, tokens, tags, sample_weight=weight)
    tokens[0] = [1, 2, 3]
    for name, value in measured(model, tokens, tags, sample_weight=weight).items():
        np.testing.assert_allclose(value, short[name], rtol=1e-5, err_msg=name)


class OwnCrossentropy(keras.losses.SparseCategoricalCrossentropy):
    pass


def test_a_subclass_of_a_keras_loss_is_of_its_kind():
    student, teacher = dense(3, 3, "student"), dense(8, 3, "teacher")
    labels = np.where(np.arange(24) % 3, CLASSES, -1)
    logs = measured(distiller(student, teacher, loss=OwnCrossentropy(from_logits=True)), X, labels)
    known = labels >= 0
    np.testing.assert_allclose(logs["task_loss"], crossentropy(CLASSES, student(X))[known].mean(), rtol=1e-4)


def test_the_running_task_loss_is_the_mean_over_what_is_labelled():
    student, teacher = dense(3, 3, "student"), dense(8, 3, "teacher")
    labels = np.where(np.arange(24) < 10, -1, CLASSES)
    logs = distiller(student, teacher).evaluate(X, labels, batch_size=8, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["task_loss"], crossentropy(CLASSES, student(X))[10:].mean(), rtol=1e-4)


def test_pixels_of_an_ignored_class():
    student, teacher = pixelwise(2, "student"), pixelwise(5, "teacher")
    ignoring = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    labels = PIXELS.astype("uint8")
    labels[:, :2] = 255
    logs = measured(distiller(student, teacher, loss=ignoring), IMAGES, labels)
    expected = crossentropy(PIXELS, student(IMAGES))[:, 2:].mean()
    np.testing.assert_allclose(logs["task_loss"], expected, rtol=1e-4)


def test_labels_of_eight_bits():
    student, teacher = dense(3, 256, "student"), dense(8, 256, "teacher")
    labels = np.arange(24).astype("uint8") + 230
    logs = measured(distiller(student, teacher), X, labels)
    np.testing.assert_allclose(logs["task_loss"], crossentropy(labels.astype("int64"), student(X)).mean(), rtol=1e-4)


@pytest.mark.parametrize("activation", ["softplus", "tanh", "relu"])
def test_regressions_may_end_in_any_activation(activation):
    student, teacher = (dense(w, 1, name, activation=activation) for w, name in ((3, "student"), (8, "teacher")))
    model = distiller(student, teacher, loss="mse", distillation_loss=losses.LogitMatching())
    error = ((numbers(student(X)) - numbers(teacher(X))) ** 2).mean()
    np.testing.assert_allclose(measured(model, X, AMOUNTS)["logit_matching"], error, rtol=1e-4)


def test_a_loss_meets_another_task_after_another_compile():
    student, teacher, soft = dense(3, 3, "student"), dense(8, 3, "teacher"), losses.SoftTargets(1.0)
    model = distiller(student, teacher, loss=keras.losses.BinaryCrossentropy(from_logits=True), distillation_loss=soft)
    model.compile("sgd", SPARSE, distillation_loss=soft)
    np.testing.assert_allclose(
        measured(model, X, CLASSES)["soft_targets"], kl(teacher(X), student(X)).mean(), rtol=1e-4
    )


def test_weights_in_a_list_of_one():
    student, teacher = dense(3, 3, "student"), dense(8, 3, "teacher")
    weight = np.arange(24) / 24
    logs = measured(distiller(student, teacher), X, CLASSES, sample_weight=[weight])
    expected = (kl(teacher(X), student(X), 4.0) * weight).mean()
    np.testing.assert_allclose(logs["soft_targets"], expected, rtol=1e-4)


def test_taps_reach_into_nested_models():
    def network(width, name):
        backbone = keras.Sequential([keras.Input((6, 6, 1)), LAYERS.Conv2D(width, 3, name="conv4")], name="backbone")
        return keras.Sequential([backbone, LAYERS.GlobalAveragePooling2D(), LAYERS.Dense(3)], name=name)

    student, teacher = network(4, "student"), network(4, "teacher")
    loss = losses.Hints("backbone/conv4", "backbone/conv4")
    logs = measured(distiller(student, teacher, distillation_loss=loss), IMAGES, PIXELS[:, 0, 0])
    ours, theirs = (numbers(model.layers[0](IMAGES)) for model in (student, teacher))
    np.testing.assert_allclose(logs["hints"], ((ours - theirs) ** 2).mean(), rtol=1e-4)


class FromData(keras.Model):
    def __init__(self, width, name):
        super().__init__(name=name)
        self.hidden = LAYERS.Dense(width, "relu", name="hidden")
        self.out = LAYERS.Dense(3)

    def call(self, inputs):
        return self.out(self.hidden(inputs))


def test_subclassed_models_are_built_by_the_data():
    student, teacher = FromData(2, "student"), FromData(5, "teacher")
    model = distiller(student, teacher, distillation_loss=losses.Hints("hidden", "hidden"), metrics=["accuracy"])
    history = model.fit(X, CLASSES, batch_size=8, epochs=4, verbose=0, validation_data=(X, CLASSES)).history
    assert history["hints"][-1] < history["hints"][0]
    assert set(history) == {f"{v}{k}" for v in ("", "val_") for k in ("loss", "task_loss", "hints", "accuracy")}


# --- different inputs -------------------------------------------------------------------------------------------------


def test_a_function_makes_the_teachers_inputs():
    student, teacher = dense(3, 3, "student"), dense(8, 3, "teacher", inputs=12)

    def doubled(x):
        return keras.ops.concatenate([x, 10 * x], axis=-1)

    model = distiller(student, teacher, inputs=doubled, distillation_loss=losses.SoftTargets(1.0))
    logs = measured(model, X, CLASSES)
    expected = kl(teacher(np.concatenate([X, 10 * X], -1)), student(X)).mean()
    np.testing.assert_allclose(logs["soft_targets"], expected, rtol=1e-4)
    assert np.isfinite(model.fit(X, CLASSES, verbose=0).history["loss"]).all()


def test_pairs_carry_privileged_and_cross_modal_inputs():
    student = dense(3, 3, "student")
    teacher = keras.Sequential([keras.Input((6, 6, 1)), LAYERS.Flatten(), LAYERS.Dense(3)], name="teacher")
    model = distiller(student, teacher, distillation_loss=losses.SoftTargets(1.0))
    pair = kdkeras.Paired(student=X[:8], teacher=IMAGES)
    logs = measured(model, pair, CLASSES[:8])
    np.testing.assert_allclose(logs["soft_targets"], kl(teacher(IMAGES), student(X[:8])).mean(), rtol=1e-4)
    model.fit(pair, CLASSES[:8], validation_data=(pair, CLASSES[:8]), verbose=0)
    np.testing.assert_allclose(model.predict(X[:8], verbose=0), numbers(student(X[:8])), rtol=1e-5)
    np.testing.assert_allclose(model.predict(pair, verbose=0), numbers(student(X[:8])), rtol=1e-5)
    with pytest.raises(ValueError, match=r"need the same inputs. .*Paired"):
        model.fit(X[:8], CLASSES[:8], verbose=0)


def test_pairs_of_different_length_are_refused():
    student, teacher = dense(3, 3, "student"), dense(3, 3, "teacher", inputs=2)
    with pytest.raises(ValueError, match=r"same number of samples. Received: \[8, 24\]"):
        distiller(student, teacher).fit(kdkeras.Paired(X, X[:8, :2]), CLASSES, verbose=0)


def test_subclassed_models_on_pairs():
    model = distiller(FromData(2, "student"), FromData(5, "teacher"))
    pair = kdkeras.Paired(student=X[:, :2], teacher=X)
    assert np.isfinite(model.fit(pair, CLASSES, verbose=0).history["soft_targets"]).all()
    assert model.student.hidden.kernel.shape == (2, 2)
    assert model.teacher.hidden.kernel.shape == (6, 5)


class PairedStream(keras.utils.PyDataset):
    """Batches of pairs and nothing else."""

    def __init__(self, pair):
        super().__init__()
        self.pair = pair

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return (self.pair,)


def test_pairs_without_labels_are_not_taken_for_inputs_and_labels():
    student, teacher = dense(3, 3, "student"), dense(8, 3, "teacher")
    model = distiller(student, teacher, loss=None, distillation_loss=losses.SoftTargets(1.0))
    pair = kdkeras.Paired(student=X, teacher=X + 5)
    expected = kl(teacher(X + 5), student(X)).mean()
    assert abs(expected - kl(teacher(X), student(X)).mean()) > 0.01
    for data in (pair, PairedStream(pair)):
        logs = model.evaluate(data, batch_size=24 if data is pair else None, verbose=0, return_dict=True)
        np.testing.assert_allclose(logs["soft_targets"], expected, rtol=1e-4)
    keras.utils.set_random_seed(0)
    model.compile(keras.optimizers.SGD(0.0), None, distillation_loss=losses.SoftTargets(1.0))
    for data in (pair, (pair,)):
        history = model.fit(pair, validation_data=data, validation_batch_size=24, verbose=0).history
        np.testing.assert_allclose(history["val_soft_targets"], [expected], rtol=1e-4)


def test_class_counts_may_differ_where_only_features_are_compared():
    student, teacher = dense(3, 3, "student"), dense(8, 7, "teacher")
    model = distiller(student, teacher, distillation_loss=losses.Hints("hidden", "hidden"))
    assert np.isfinite(model.fit(X, CLASSES, verbose=0).history["hints"]).all()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_students_of_another_dtype(policy):
    half = keras.dtype_policies.DTypePolicy(policy)
    layers = [keras.Input((6,)), LAYERS.Dense(3, "relu", name="hidden", dtype=half), LAYERS.Dense(3, dtype="float32")]
    student, teacher = keras.Sequential(layers, name="student"), dense(8, 3, "teacher")
    model = distiller(student, teacher, distillation_loss=[losses.SoftTargets(), losses.Hints("hidden", "hidden")])
    logs = measured(model, X, CLASSES)
    np.testing.assert_allclose(logs["soft_targets"], kl(teacher(X), student(X), 4.0).mean(), rtol=0.02)
    before = student.get_weights()
    assert np.isfinite(model.fit(X, CLASSES, epochs=2, verbose=0).history["loss"]).all()
    assert all(np.abs(one - other).max() > 0 for one, other in zip(before, student.get_weights(), strict=True))


# --- cached answers ---------------------------------------------------------------------------------------------------


def hidden_of(model, x):
    return numbers(model.get_layer("hidden")(x)).astype("float32")


@pytest.mark.parametrize("with_teacher", [True, False])
def test_cached_answers_train_as_the_teacher_itself(with_teacher):
    results = []
    for cached in (False, True):
        keras.utils.set_random_seed(1)
        student, teacher = dense(3, 3, "student"), dense(8, 3, "teacher")
        answers = kdkeras.Cached(X, numbers(teacher(X)).astype("float32"), {"hidden": hidden_of(teacher, X)})
        hint = losses.Hints("hidden", "hidden")
        model = distiller(
            student,
            None if cached and not with_teacher else teacher,
            distillation_loss=[losses.SoftTargets(2.0), hint],
        )
        x = answers if cached else X
        model.evaluate(x, CLASSES, verbose=0)  # makes the projector
        for variable in hint.projectors[0].weights:
            variable.assign(np.full(variable.shape, 0.1))
        model.fit(x, CLASSES, batch_size=8, epochs=2, shuffle=False, verbose=0)
        results.append(student.get_weights())
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_cached_answers_must_hold_what_the_losses_read():
    model = distiller(dense(3, 3, "s"), dense(8, 3, "t"), distillation_loss=losses.Hints("hidden", "hidden"))
    with pytest.raises(ValueError, match=r"layers \['hidden'\]. Received: cached features \[\]"):
        model.fit(kdkeras.Cached(X, np.zeros((24, 3), "float32")), CLASSES, verbose=0)


def test_without_a_teacher_the_data_must_answer():
    model = distiller(dense(3, 3, "student"), None)
    with pytest.raises(ValueError, match="needs its answers in the data"):
        model.fit(X, CLASSES, verbose=0)
    with pytest.raises(ValueError, match="outputs of equal shape"):
        model.fit(kdkeras.Cached(X, np.zeros((24, 5), "float32")), CLASSES, verbose=0)


def test_save_and_load_without_a_teacher(tmp_path):
    model = distiller(dense(3, 3, "student"), None, optimizer="adam")
    cached = kdkeras.Cached(X, rng.random((24, 3)).astype("float32"))
    model.fit(cached, CLASSES, verbose=0)
    model.save(tmp_path / "distiller.keras")
    copy = kdkeras.load_model(tmp_path / "distiller.keras")
    assert measured(copy, cached, CLASSES) == pytest.approx(measured(model, cached, CLASSES), rel=1e-5)
