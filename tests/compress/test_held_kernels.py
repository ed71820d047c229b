"""Pruning and weight sharing under `fit`: which weights, how many, held by every training, gone when stripped."""

import keras
import numpy as np
import pytest
from keras import layers

import kdkeras
from kdkeras import compress
from kdkeras.compress import masks
from kdkeras.compress.kernels import kernels_of

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(width=8):
    """A tiny one: nearly all of the time of these tests goes into compiling steps."""
    hidden = [layers.Dense(width, activation="relu", name=name) for name in ("first", "second")]
    return keras.Sequential(
        [keras.Input((6,)), *hidden, layers.BatchNormalization(name="norm"), layers.Dense(10, name="head")]
    )


def convolutional():
    return keras.Sequential(
        [
            keras.Input((6, 1, 1)),
            layers.Conv2D(8, (3, 1), name="conv"),
            layers.DepthwiseConv2D((3, 1), name="depthwise"),
            layers.Conv2D(8, 1, activation="relu", name="pointwise"),
            layers.Flatten(name="flat"),
            layers.Dense(10, name="head"),
        ]
    )


def data(count=64):
    generator = np.random.default_rng(0)
    return generator.random((count, 6), "float32"), generator.integers(0, 10, count)


def train(model, callbacks, epochs=3, **options):
    model.compile(keras.optimizers.Adam(1e-2), LOSS)
    return model.fit(*data(), epochs=epochs, batch_size=16, verbose=0, callbacks=callbacks, **options).history


def shares(model):
    return {row.path: row.share for row in compress.sparsity(model).rows}


# --- masks and schedules, by hand ------------------------------------------------------------------------------------


def test_two_of_four_along_the_inputs():
    weights = np.array([[4.0, 1], [3, 2], [2, 3], [1, 4], [0.1, 0.1]])
    expected = [[1, 0], [1, 0], [0, 1], [0, 1], [1, 1]]  # the fifth makes no whole group
    np.testing.assert_array_equal(masks.group_mask(weights, 0.5, axis=0), expected)
    assert masks.group_mask(weights, 0.25, axis=0).sum() == 8
    assert masks.group_mask(weights, 0.2, axis=0).all()


def test_blocks_of_a_kernel_go_as_a_whole():
    kernel = np.random.default_rng(0).random((1, 2, 4, 6))  # 8 rows, 6 columns
    kernel[0, 0, :2, 4:] = 0.01
    mask = masks.block_mask(kernel, 1 / 12, block=(2, 2))
    assert (~mask).sum() == 4
    assert not mask[0, 0, :2, 4:].any()


def test_the_number_of_zeros_is_exact_also_where_weights_are_equal():
    assert masks.magnitude_mask(np.ones((3, 5)), 0.4).sum() == 9


def test_the_polynomial_is_the_one_of_the_paper():
    schedule = compress.polynomial(0.9, epochs=10, start=0.1, delay=2)
    assert [schedule(epoch) for epoch in (0, 2, 12, 20)] == [0, pytest.approx(0.1), 0.9, 0.9]
    assert schedule(7) == pytest.approx(0.9 + (0.1 - 0.9) * 0.5**3)


# --- pruning ---------------------------------------------------------------------------------------------------------


def test_zeros_follow_the_schedule_and_hold():
    keras.utils.set_random_seed(0)
    model = network()
    history = train(model, [compress.PruneLowMagnitude(model, compress.polynomial(0.75, epochs=2))])
    expected = [0, 0.75 * (1 - 0.5**3), 0.75]
    np.testing.assert_allclose(history["sparsity"], expected, atol=0.01)
    np.testing.assert_allclose(list(shares(model).values()), 0.75, atol=0.01)


def test_depthwise_kernels_and_single_layers_when_asked():
    for scope, zero in (
        ("kernels", {"conv", "pointwise", "head"}),
        ("all", {"conv", "depthwise", "pointwise", "head"}),
        (["depthwise"], {"depthwise"}),
    ):
        model = convolutional()
        prune = compress.PruneLowMagnitude(model, compress.constant(0.5), scope=scope)
        prune.on_epoch_begin(0)
        assert {path for path, share in shares(model).items() if share >= 0.5} == zero


def test_every_group_of_four_has_two_zeros():
    model = network()
    train(model, [compress.PruneLowMagnitude(model, compress.constant(0.5), scope=["second"], pattern="2:4")], 1)
    groups = model.get_layer("second").kernel.numpy().reshape(2, 4, 8)
    np.testing.assert_array_equal((groups == 0).sum(1), 2)


def test_within_an_epoch():
    model = network()
    prune = compress.PruneLowMagnitude(model, compress.polynomial(0.8, epochs=1), every=1)
    history = train(model, [prune], epochs=1)  # 4 batches: the last update is at 3/4
    assert history["sparsity"][0] == pytest.approx(0.8 * (1 - 0.25**3), abs=0.01)


def test_a_step_that_was_compiled_before_holds_too_and_so_does_a_later_fit():
    model = network()
    train(model, [], epochs=1)
    model.fit(*data(), verbose=0, callbacks=[compress.PruneLowMagnitude(model, compress.constant(0.5))])
    assert shares(model)["head"] == pytest.approx(0.5, abs=0.01)
    zeros = keras.ops.convert_to_numpy(model.get_layer("head").kernel) == 0
    if keras.backend.backend() != "jax":  # where the callback itself holds them
        model.fit(*data(), verbose=0)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model.get_layer("head").kernel) == 0, zeros)
    plain = compress.strip(model)
    np.testing.assert_array_equal(plain.predict(data()[0], verbose=0), model.predict(data()[0], verbose=0))
    train(plain, [], epochs=1)
    assert shares(plain)["head"] == 0


def test_under_a_distiller_with_a_constraint_of_the_users_own():
    student, teacher = network(), network(16)
    student.get_layer("head").kernel.constraint = keras.constraints.MaxNorm(0.3, axis=0)
    prune = compress.PruneLowMagnitude(student, compress.constant(0.5))
    distiller = kdkeras.Distiller(student=student, teacher=teacher).compile(keras.optimizers.Adam(1e-2), LOSS)
    history = distiller.fit(*data(), epochs=2, verbose=0, callbacks=[prune]).history
    assert history["sparsity"] == [pytest.approx(0.5, abs=0.01)] * 2
    assert shares(student)["head"] == pytest.approx(0.5, abs=0.01)
    assert np.linalg.norm(student.get_layer("head").kernel.numpy(), axis=0).max() < 0.3001


@pytest.mark.parametrize("interrupted", [{"initial": 2}, {"every": 2}], ids=["between epochs", "within an epoch"])
def test_a_resumed_training_ends_as_one_that_was_never_interrupted(tmp_path, interrupted):
    class Interrupt(keras.callbacks.Callback):
        seen = 0

        def on_train_batch_end(self, batch, logs=None):
            self.seen += 1
            if self.seen == 11:  # of 4 a epoch
                raise KeyboardInterrupt

    def run(folder, *extra):
        keras.utils.set_random_seed(0)
        model = network()
        prune = compress.PruneLowMagnitude(model, compress.polynomial(0.8, epochs=3))
        share = compress.ClusterWeights(model, clusters=4, scope=["second"], begin=1)
        resume = kdkeras.callbacks.Resume(folder, every=interrupted.get("every"))
        train(model, [prune, share, *extra, resume], epochs=4)
        return model

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", Interrupt())
    resumed = run(tmp_path / "parts")
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert shares(whole) == shares(resumed)


# --- clustering ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["kmeans", "linear"])
def test_kernels_have_so_many_values_and_these_are_trained(init):
    keras.utils.set_random_seed(0)
    model = network()
    before = [kernel.variable.numpy() for kernel in kernels_of(model)]
    train(model, [compress.ClusterWeights(model, clusters=8, init=init)], epochs=2)
    rows = {row.path: row for row in compress.sparsity(model).rows}
    assert [row.unique for row in rows.values()] == [8, 8, 8]
    assert np.corrcoef(before[-1].ravel(), model.get_layer("head").kernel.numpy().ravel())[0, 1] > 0.8


def test_shared_weights_move_by_the_mean_of_their_updates():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[1.0], [1.0], [-2.0], [-2.0]])])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    x = np.array([[1.0, 0, 0, 0]], "float32")  # the gradient of (w₀ − 0)² is 2, of the others 0
    model.fit(x, np.zeros(1), verbose=0, callbacks=[compress.ClusterWeights(model, clusters=2)])
    np.testing.assert_allclose(model.get_weights()[0].ravel(), [0, 0, -2, -2])


def test_zeros_of_pruning_stay_one_of_the_clusters():
    model = network()
    prune = compress.PruneLowMagnitude(model, compress.constant(0.5))
    share = compress.ClusterWeights(model, clusters=4)
    train(model, [prune, share], epochs=2)
    rows = {row.path: row for row in compress.sparsity(model).rows}
    assert (rows["head"].unique, rows["head"].share) == (4, pytest.approx(0.5, abs=0.01))


def test_with_rounded_kernels():
    model = compress.quantize_aware(network(), 4, calibration=data()[0])
    compress.PruneLowMagnitude(model, compress.constant(0.6)).on_epoch_begin(0)
    head = compress.sparsity(model).rows[-1]
    assert (head.path, head.layer_type) == ("head", "Dense")
    assert head.share >= 0.6
    assert head.unique <= 15


# --- the table, and refusals -----------------------------------------------------------------------------------------


def test_the_table_counts_what_is_there():
    model = network()
    kernel = model.get_layer("second").kernel
    kernel.assign(np.where(np.arange(64).reshape(kernel.shape) % 4, 0.0, 2.0))
    report = compress.sparsity(model)
    row = next(row for row in report.rows if row.path == "second")
    assert (row.weights, row.zeros, row.unique, row.share) == (64, 48, 2, 0.75)
    assert report.share == 48 / (48 + 64 + 80)
    assert report.share_of_parameters == 48 / model.count_params()
    assert report.zip_bytes < report.bytes == 4 * report.weights
    assert "75.0%" in str(report)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda m: compress.PruneLowMagnitude(m, 0.5), TypeError, "Received: float. Write for example"),
        (lambda m: compress.PruneLowMagnitude("m", compress.constant(0.5)), TypeError, "Received: str"),
        (lambda m: compress.PruneLowMagnitude(m, compress.constant(0.5), scope="conv"), ValueError, "'all' or a list"),
        (lambda m: compress.PruneLowMagnitude(m, compress.constant(0.5), scope=["flat"]), ValueError, "no kernels"),
        (lambda m: compress.PruneLowMagnitude(m, compress.constant(0.5), pattern="1:4"), ValueError, "Received: '1:4'"),
        (
            lambda m: compress.PruneLowMagnitude(m, compress.constant(0.5), scope="all", pattern="2:4"),
            ValueError,
            r"depthwise \['depthwise'\]",
        ),
        (lambda m: compress.PruneLowMagnitude(m, compress.constant(0.5), every=0), ValueError, "Received: 0"),
        (lambda m: compress.constant(1.0), ValueError, r"\[0, 1\). Received: 1.0"),
        (lambda m: compress.polynomial(0.5, epochs=0), ValueError, "above 0"),
        (lambda m: compress.ClusterWeights(m, clusters=1), ValueError, "at least 2"),
        (lambda m: compress.ClusterWeights(m, init="random"), ValueError, "Received: 'random'"),
        (lambda m: compress.ClusterWeights(m, begin=-1), ValueError, "Received: -1"),
    ],
)
def test_bad_input_is_one_sentence(make, error, match):
    with pytest.raises(error, match=match):
        make(convolutional())


def test_what_shows_only_in_training():
    model, other = network(), network()
    model.compile("adam", LOSS)
    with pytest.raises(ValueError, match="is not what"):
        model.fit(*data(), verbose=0, callbacks=[compress.ClusterWeights(other)])
    with pytest.raises(ValueError, match=r"Received: 1.5 at epoch 0"):
        model.fit(*data(), verbose=0, callbacks=[compress.PruneLowMagnitude(model, lambda epoch: 1.5)])
