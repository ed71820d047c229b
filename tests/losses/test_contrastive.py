"""Contrastive losses, against loops over pairs; what the queue and the memory take in and give."""

import math

import keras
import numpy as np
import pytest

import kdkeras
from kdkeras import losses
from kdkeras.losses.contrastive_memory import _log_mean_score
from kdkeras.signals import Signals, SignalSpec
from kdkeras.testing import check_gradient, check_loss, tiny_stages


def stages(**options):
    """Return `tiny_stages` with features so large that the contract's central differences are small against them."""
    model = tiny_stages(**options)
    for norm in ("norm1", "norm2"):
        model.get_layer(norm).gamma.assign(np.full(model.get_layer(norm).gamma.shape, 30.0))
    return model


# The temperature is high, for central differences need scores of bounded curvature.
WARM = {"temperature": 1.0, "embedding": 8}
LOSSES = {
    "contrastive": (lambda: losses.Contrastive("pool", "pool", **WARM), None, stages),
    "contrastive_pairs": (lambda: losses.Contrastive(["relu2", "pool"], ["pool", "pool"], **WARM), None, stages),
    "contrastive_queue": (lambda: losses.ContrastiveQueue("pool", "pool", size=7, **WARM), None, stages),
    "contrastive_memory": (
        lambda: losses.ContrastiveMemory("pool", "pool", samples=40, negatives=30, **WARM),
        None,
        stages,
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_contract(name):
    make, minimum, network = LOSSES[name]
    check_loss(make, minimum=minimum, network=network)


def vectors(seed=0, shape=(5, 4)):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def values(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor))


# --- within the batch -------------------------------------------------------------------------------------------------


def slow_contrastive(student, teacher, temperature, labels=None, weights=None):
    """Return the mean over the samples, with sample weights of 0 and 1."""
    batch = len(student)
    labels = np.arange(batch) if labels is None else labels
    weights = np.ones(batch) if weights is None else weights
    scores = unit(student.astype("float64")) @ unit(teacher.astype("float64")).T / temperature
    total = 0.0
    for i in range(batch):
        if weights[i]:
            others = [j for j in range(batch) if labels[j] != labels[i] and weights[j]]
            for row in (scores[i], scores[:, i]):
                total -= math.log(math.exp(row[i]) / sum(math.exp(row[j]) for j in [i, *others]))
    return total / batch


@pytest.mark.parametrize("labels", [None, np.array([0, 1, 0, 2, 1])])
@pytest.mark.parametrize("weights", [None, np.array([1, 0, 1, 1, 1], "float32")])
def test_contrastive_is_that_of_the_definition(labels, weights):
    student, teacher = vectors(0), vectors(1)
    value = losses.contrastive(student, teacher, temperature=0.3, labels=labels, sample_weight=weights)
    np.testing.assert_allclose(values(value), slow_contrastive(student, teacher, 0.3, labels, weights), rtol=1e-4)


def test_contrastive_is_least_where_each_sample_is_nearest_to_itself():
    x = np.eye(5, 4, dtype="float32") - 0.1
    assert values(losses.contrastive(x, x)) < 1e-4
    assert values(losses.contrastive(x, x[::-1])) > 10


def test_contrastive_of_one_class_is_nothing():
    assert values(losses.contrastive(vectors(0), vectors(1), labels=np.zeros(5, "int32"))) == 0


def test_contrastive_does_not_see_the_size_of_a_vector():
    sizes = np.array([[1.0], [2.0], [0.5], [30.0], [1.0]], "float32")
    expected = values(losses.contrastive(vectors(0), vectors(1)))
    np.testing.assert_allclose(values(losses.contrastive(vectors(0) * sizes, vectors(1))), expected, rtol=1e-4)


def test_samples_of_weight_0_may_be_anything():
    student, teacher, weights = vectors(0), vectors(1), np.array([1, 1, 0, 1, 1], "float32")
    expected = values(losses.contrastive(student, teacher, sample_weight=weights))
    student[2] = teacher[2] = float("nan")
    np.testing.assert_allclose(values(losses.contrastive(student, teacher, sample_weight=weights)), expected)
    assert values(losses.contrastive(student, teacher, sample_weight=0 * weights)) == 0


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras takes products in float32 there")
def test_gradients():
    labels, weights = np.array([0, 1, 0, 2, 1]), np.array([1.0, 0.5, 0.0, 2.0, 1.0])
    check_gradient(losses.contrastive, vectors(0), vectors(1), tolerance=1e-5)
    check_gradient(
        lambda s, t: losses.contrastive(s, t, labels=labels, sample_weight=weights),
        vectors(0),
        vectors(1),
        tolerance=1e-5,
    )
    shown = vectors(2, (5, 7)) > 0
    check_gradient(
        lambda p, n: losses.noise_contrastive(p, n, samples=50, shown=shown), vectors(0, (5,)), vectors(1, (5, 7))
    )


# --- classes ----------------------------------------------------------------------------------------------------------


def spec(name, features, logits=(None, 3), head="linear"):
    return SignalSpec(name, head, logits, {"f": features})


def connected(loss, size=4, student=None, teacher=None):
    keras.utils.set_random_seed(0)
    loss.connect(student or spec("small", (None, size)), teacher or spec("large", (None, size)))
    loss.built = True
    return loss


def signals(features, logits=None):
    logits = np.zeros((len(features), 3), "float32") if logits is None else logits
    return Signals(logits, logits, {"f": features})


def embeddings(loss, student, teacher):
    """Return what the heads of a loss make of features, in numpy."""
    pairs = zip(loss.heads[0], (student, teacher), strict=True)
    return [unit(x @ values(head.kernel) + values(head.bias)) for head, x in pairs]


def test_labels_tell_which_samples_are_no_negatives():
    loss = connected(losses.Contrastive("f", "f", embedding=6))
    student, teacher, labels = vectors(0), vectors(1), np.array([0, 1, 0, 2, 1])
    ours, theirs = embeddings(loss, student, teacher)
    for given in (labels, labels[:, None], np.eye(3)[labels]):
        value = values(loss(signals(student), signals(teacher), labels=given))
        np.testing.assert_allclose(value, slow_contrastive(ours, theirs, 0.07, labels), rtol=1e-3)
    value = values(loss(signals(student), signals(teacher)))
    np.testing.assert_allclose(value, slow_contrastive(ours, theirs, 0.07), rtol=1e-3)


def test_samples_without_a_label_have_the_teachers_class():
    loss = connected(losses.Contrastive("f", "f"))
    logits = 9 * np.eye(3, dtype="float32")[[1, 1, 0, 2, 1]]
    given, known = np.array([0, -1, 0, -1, 1]), np.array([0, 1, 0, 2, 1])
    both = [values(loss(signals(vectors(0)), signals(vectors(1), logits), labels=labels)) for labels in (given, known)]
    np.testing.assert_allclose(*both)


def test_labels_beyond_the_teachers_classes_are_the_students():
    large = spec("large", (None, 4), (None, 2))
    loss = connected(losses.Contrastive("f", "f"), teacher=large)
    ours, theirs = embeddings(loss, vectors(0), vectors(1))
    labels = np.array([0, 1, 2, 2, 1])
    value = values(loss(signals(vectors(0)), signals(vectors(1), np.ones((5, 2), "float32")), labels=labels))
    np.testing.assert_allclose(value, slow_contrastive(ours, theirs, 0.07, labels), rtol=1e-3)


@pytest.mark.parametrize(
    "student",
    [spec("small", (None, 4), (None, 1)), spec("small", (None, 4), head="sigmoid"), spec("small", (None, 4), ())],
)
def test_labels_must_be_classes_where_they_count(student):
    loss = connected(losses.Contrastive("f", "f"), student=student)
    with pytest.raises(ValueError, match=r"Received: labels for student 'small' .* Pass by_class=False"):
        loss(signals(vectors(0)), signals(vectors(1)), labels=np.zeros(5))
    loss = connected(losses.Contrastive("f", "f", by_class=False), student=student)
    assert np.isfinite(values(loss(signals(vectors(0)), signals(vectors(1)), labels=np.zeros(5))))


def test_a_batch_of_one_is_refused_where_there_is_nothing_else():
    loss = connected(losses.Contrastive("f", "f"))
    with pytest.raises(ValueError, match="Received: a batch of one"):
        loss(signals(vectors(0)[:1]), signals(vectors(1)[:1]))


# --- the queue --------------------------------------------------------------------------------------------------------


def queue_of(size=7):
    return connected(losses.ContrastiveQueue("f", "f", size=size, embedding=6))


def test_the_queue_takes_in_what_weighs_anything_in_place_of_the_oldest():
    loss = queue_of()
    (queue,) = loss.queues
    student, teacher, labels = vectors(0), vectors(1), np.array([0, 1, 0, 2, 1])
    weights = np.array([1, 1, 0, 0.5, 1], "float32")
    loss(signals(student), signals(teacher), labels=labels, sample_weight=weights)
    assert (values(queue.classes) == -2).all()  # evaluation
    loss(signals(student), signals(teacher), labels=labels, sample_weight=weights, training=True)
    np.testing.assert_array_equal(values(queue.classes), [0, 1, 2, 1, -2, -2, -2])
    loss(signals(student), signals(teacher), labels=labels, training=True)
    np.testing.assert_array_equal(values(queue.classes), [2, 1, 2, 1, 0, 1, 0])
    assert int(values(queue.next)) == 2
    np.testing.assert_array_equal(values(queue.features), teacher[[3, 4, 3, 4, 0, 1, 2]])


def test_queued_samples_of_other_classes_are_negatives():
    loss = queue_of()
    before = [vectors(2), vectors(3), np.array([0, 1, 2, 2, 1])]
    student, teacher, labels = vectors(0), vectors(1), np.array([0, 1, 0, 2, 1])
    loss(signals(before[0]), signals(before[1]), labels=before[2], training=True)
    value = values(loss(signals(student), signals(teacher), labels=labels))
    _, old = embeddings(loss, *before[:2])
    ours, theirs = embeddings(loss, student, teacher)
    expected = 0.0
    for i in range(5):
        for anchor, batch, queued in ((ours[i], theirs, old), (theirs[i], ours, [])):
            others = [x for x, label in zip(batch, labels, strict=True) if label != labels[i]]
            others += [x for x, label in zip(queued, before[2], strict=False) if label != labels[i]]
            scores = [np.exp(anchor @ x / 0.07) for x in [batch[i], *others]]
            expected -= math.log(scores[0] / sum(scores)) / 5
    np.testing.assert_allclose(value, expected, rtol=1e-3)


def test_a_queue_smaller_than_a_batch_keeps_as_many_as_it_can():
    loss = queue_of(3)
    loss(signals(vectors(0)), signals(vectors(1)), training=True)
    assert (values(loss.queues[0].classes) == -1).all()
    assert np.isfinite(values(loss(signals(vectors(0)[:1]), signals(vectors(1)[:1]))))  # a batch of one has negatives


# --- noise contrastive estimation, and the memory ---------------------------------------------------------------------


def slow_noise_contrastive(right, wrong, samples, shown=None):
    noise = wrong.shape[1] / samples
    expected = []
    for i in range(len(right)):
        which = [j for j in range(wrong.shape[1]) if shown is None or shown[i, j]]
        logs = [math.log(noise / (math.exp(wrong[i, j]) + noise + 1e-7)) for j in which]
        share = wrong.shape[1] / len(which) if which else 0
        p = math.exp(right[i])
        expected.append(-math.log(p / (p + noise + 1e-7)) - share * sum(logs))
    return expected


def test_noise_contrastive_is_that_of_the_authors_code():
    right, wrong = vectors(0, (5,)), vectors(1, (5, 7))
    np.testing.assert_allclose(
        values(losses.noise_contrastive(right, wrong, samples=50)), slow_noise_contrastive(right, wrong, 50), rtol=1e-5
    )
    shown = vectors(2, (5, 7)) > 0
    shown[3] = False
    np.testing.assert_allclose(
        values(losses.noise_contrastive(right, wrong, samples=50, shown=shown)),
        slow_noise_contrastive(right, wrong, 50, shown),
        rtol=1e-5,
    )


def test_noise_contrastive_keeps_gradients_of_improbable_pairs():
    right = np.array([-99.0, -101.0], "float32")
    near, far = values(losses.noise_contrastive(right, np.zeros((2, 3), "float32"), samples=9))
    np.testing.assert_allclose((far - near) / 2, 1.0, rtol=1e-4)


@pytest.mark.parametrize(("size", "temperature"), [(128, 0.07), (16, 0.2), (3, 0.5)])
def test_z_is_what_random_vectors_give(size, temperature):
    x = unit(np.random.default_rng(0).normal(size=(100_000, size)))
    expected = math.log(np.exp(x[:, 0] / temperature).mean())
    np.testing.assert_allclose(values(_log_mean_score(size, temperature)), expected, atol=0.02)


def memory_of(samples=20, negatives=12, **options):
    return connected(losses.ContrastiveMemory("f", "f", samples=samples, negatives=negatives, embedding=6, **options))


@pytest.mark.parametrize("training", [False, True])
def test_memory_is_compared_by_noise_contrastive_estimation(training):
    loss = memory_of()
    (memory,) = loss.memories
    labels, index = np.array([0, 1, 0, 2, 1]), np.array([7, 0, 3, 19, 4])
    memory.classes.assign(np.array([*range(-1, 3)] * 5 + [-1]))
    known, memories = values(memory.classes), [values(memory.teacher), values(memory.student)]
    drawn = values(keras.random.randint((12,), 0, 20, seed=keras.random.SeedGenerator(5) if training else 0))
    loss.seed_generator.state.assign(keras.random.SeedGenerator(5).state)
    ours, theirs = embeddings(loss, vectors(0), vectors(1))
    log_z = math.log(20) + values(_log_mean_score(6, 0.07)).item()
    shown = known[drawn] != labels[:, None]
    if training:
        shown &= drawn != index[:, None]
    expected = np.zeros(5)
    for anchors, others, entries in zip((ours, theirs), (theirs, ours), memories, strict=True):
        right = (anchors * (entries[index] if training else others)).sum(1) / 0.07 - log_z
        expected += slow_noise_contrastive(right, anchors @ entries[drawn].T / 0.07 - log_z, 20, shown)
    value = loss(signals(vectors(0)), signals(vectors(1)), labels=labels, index=index, training=training)
    np.testing.assert_allclose(values(value), expected, rtol=1e-3)


def test_memory_takes_in_what_weighs_anything():
    loss = memory_of(momentum=0.25)
    (memory,) = loss.memories
    before = [values(variable) for variable in (memory.student, memory.teacher)]
    index, labels = np.array([3, 0, 19, 7, 3]), np.array([0, 1, 0, 2, 1])
    weights = np.array([1, 2, 0, 0.5, 0], "float32")  # sample 3 comes twice, once without weight
    arguments = {"labels": labels, "index": index, "sample_weight": weights}
    loss(signals(vectors(0)), signals(vectors(1)), **arguments)
    np.testing.assert_array_equal(values(memory.student), before[0])
    loss(signals(vectors(0)), signals(vectors(1)), **arguments, training=True)
    for old, variable, new in zip(
        before, (memory.student, memory.teacher), embeddings(loss, vectors(0), vectors(1)), strict=True
    ):
        expected = old.copy()
        for i in (0, 1, 3):
            expected[index[i]] = unit(0.25 * old[index[i]] + 0.75 * new[i])
        np.testing.assert_allclose(values(variable)[:20], expected[:20], atol=1e-5)
    known = np.full(20, -1)
    known[[3, 0, 7]] = [0, 1, 2]
    np.testing.assert_array_equal(values(memory.classes)[:20], known)


def test_a_sample_is_not_its_own_negative():
    loss = memory_of(samples=1, negatives=1)
    memories = [values(loss.memories[0].teacher)[0], values(loss.memories[0].student)[0]]
    index = np.zeros(5, "int64")
    value = values(loss(signals(vectors(0)), signals(vectors(1)), index=index, training=True))
    right = [x @ entry / 0.07 for x, entry in zip(embeddings(loss, vectors(0), vectors(1)), memories, strict=True)]
    expected = sum(np.log1p(np.exp(values(_log_mean_score(6, 0.07)) - scores)) for scores in right)
    np.testing.assert_allclose(value, expected, rtol=1e-3)


def test_training_draws_anew_and_evaluation_does_not():
    loss = memory_of(samples=2000)
    arguments = {"index": np.full(5, 1999), "sample_weight": np.zeros(5)}  # nothing is taken in
    trained = [values(loss(signals(vectors(0)), signals(vectors(1)), **arguments, training=True)) for _ in range(2)]
    evaluated = [values(loss(signals(vectors(0)), signals(vectors(1)))) for _ in range(2)]
    assert not np.allclose(*trained)
    np.testing.assert_array_equal(*evaluated)


def test_training_needs_an_index_in_range():
    loss = memory_of()
    with pytest.raises(ValueError, match=r"data without an index. Pass x=kdkeras.Indexed\(x, np.arange\(len\(x\)\)\)"):
        loss(signals(vectors(0)), signals(vectors(1)), training=True)
    (memory,) = loss.memories
    before = values(memory.student)
    value = values(loss(signals(vectors(0)), signals(vectors(1)), index=np.array([0, 20, 1, -1, 2]), training=True))
    np.testing.assert_array_equal(np.isnan(value), [False, True, False, True, False])
    np.testing.assert_array_equal((values(memory.student) == before).all(1)[:20], np.arange(20) > 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"samples": 100}, ValueError, "Received: samples=100, negatives=16384. Pass fewer negatives"),
        ({"samples": 0}, ValueError, "samples of at least 1"),
        ({"samples": 9.0}, TypeError, "whole number as samples"),
        ({"samples": 9, "negatives": 0}, ValueError, "negatives of at least 1"),
        ({"samples": 9, "negatives": 9, "momentum": 1.0}, ValueError, "momentum below 1"),
        ({"samples": 9, "negatives": 9, "temperature": 0}, ValueError, "temperature above 0"),
        ({"samples": 9, "negatives": 9, "embedding": 0}, ValueError, "embedding of at least 1"),
        ({"samples": 9, "negatives": 9, "by_class": 1}, TypeError, "by_class=True or False"),
    ],
)
def test_settings_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        losses.ContrastiveMemory("f", "f", **options)


def test_a_layer_must_have_a_known_size():
    with pytest.raises(ValueError, match=r"layers of known size. Received: student 'f' \(None, None, 4\)"):
        losses.Contrastive("f", "f").connect(spec("small", (None, None, 4)), spec("large", (None, 4)))


# --- in training ------------------------------------------------------------------------------------------------------


def test_training_fills_queue_and_memory_and_saves_them(tmp_path):
    keras.utils.set_random_seed(0)
    x, y = np.random.default_rng(0).random((24, 8, 8, 1)).astype("float32"), np.arange(24) % 3
    queue = losses.ContrastiveQueue("pool", "pool", size=30, embedding=6)
    memory = losses.ContrastiveMemory("pool", "pool", samples=24, negatives=9, embedding=6)
    distiller = kdkeras.Distiller(student=tiny_stages(name="small"), teacher=tiny_stages(width=6, name="large"))
    task = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(optimizer="sgd", loss=task, distillation_loss=[queue, memory])
    distiller.fit(kdkeras.Indexed(x, np.arange(24)), y, batch_size=8, epochs=1, verbose=0)
    np.testing.assert_array_equal(values(memory.memories[0].classes)[:24], y)
    np.testing.assert_array_equal(np.sort(values(queue.queues[0].classes)), np.sort([-2] * 6 + list(y)))
    logs = [distiller.evaluate(x, y, batch_size=8, verbose=0, return_dict=True) for _ in range(2)]
    assert logs[0] == logs[1]
    distiller.save(tmp_path / "distiller.keras")
    loaded = kdkeras.load_model(tmp_path / "distiller.keras")
    again = loaded.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)
    np.testing.assert_allclose([*again.values()], [*logs[0].values()], rtol=1e-5)
