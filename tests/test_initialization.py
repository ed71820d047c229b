import keras
import numpy as np
import pytest

from kdkeras.initialization import CopyReport, CopyRow, evenly_spaced, initialize

layers = keras.layers


def mlp(depth, width=6, prefix="block_", classes=3):
    blocks = [layers.Dense(width, activation="relu", name=f"{prefix}{i}") for i in range(depth)]
    return keras.Sequential([keras.Input((6,)), *blocks, layers.Dense(classes, name="head")])


def nested(depth, width=4):
    """A backbone inside a model, with BatchNormalization, whose moving statistics are not trainable."""
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(width, 3, name="stem")(image)
    for i in range(depth):
        x = layers.Conv2D(width, 3, padding="same", name=f"block_{i}_conv")(x)
        x = layers.BatchNormalization(name=f"block_{i}_bn")(x)
    backbone = keras.Model(image, layers.GlobalAveragePooling2D()(x), name="backbone")
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, layers.Dense(3, name="head")(backbone(inputs)))


def assert_same_weights(one, other):
    for first, second in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def with_random_weights(model, seed):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in model.get_weights()])
    return model


def test_matching_copies_nested_layers_and_moving_statistics_so_that_the_models_agree():
    teacher, student = with_random_weights(nested(2), 1), with_random_weights(nested(2), 2)
    report = initialize(student, teacher)
    assert_same_weights(student, teacher)
    assert not report.skipped
    assert report.copied_parameters == report.total_parameters == student.count_params()
    assert [row.student for row in report.rows][:3] == ["backbone/stem", "backbone/block_0_conv", "backbone/block_0_bn"]
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(student(x), teacher(x), rtol=1e-6)


def test_matching_finds_the_only_namesake_in_another_nesting():
    teacher = with_random_weights(nested(1), 1)
    flat = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3, name="stem")])
    report = initialize(flat, teacher)
    assert report.rows == (CopyRow("stem", "backbone/stem", 40),)
    assert_same_weights(flat.get_layer("stem"), teacher.get_layer("backbone").get_layer("stem"))


def test_layers_that_do_not_match_stay_and_are_reported_with_the_reason():
    teacher, student = mlp(2), mlp(3, classes=5)
    before = {layer.name: layer.get_weights() for layer in student.layers}
    report = initialize(student, teacher)
    assert [row.student for row in report.copied] == ["block_0", "block_1"]
    assert [row.reason for row in report.skipped] == [
        "no teacher layer of this path, nor exactly one of this name",
        "shapes differ: 6×5, 5 and 6×3, 3",
    ]
    for name in ("block_2", "head"):
        np.testing.assert_array_equal(student.get_layer(name).get_weights()[0], before[name][0])
    assert report.copied_parameters == 2 * 42


def test_equal_shapes_of_another_type_of_layer_are_not_copied():
    student = keras.Sequential([keras.Input((6,)), layers.Dense(6, name="a"), layers.LayerNormalization(name="n")])
    teacher = keras.Sequential(
        [keras.Input((6,)), layers.Dense(6, name="a"), layers.BatchNormalization(scale=False, center=False, name="n")]
    )
    assert initialize(student, teacher).skipped[0].reason == "types differ: LayerNormalization and BatchNormalization"


def test_the_teacher_and_the_trainable_flags_are_left_alone():
    teacher, student = mlp(2), mlp(2)
    teacher.trainable = False
    before = teacher.get_weights()
    initialize(student, teacher)
    for first, second in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    assert student.trainable
    assert not teacher.trainable


@pytest.mark.parametrize(
    ("count", "total", "expected"),
    [
        (6, 12, (0, 2, 4, 7, 9, 11)),  # DistilBERT's extraction script
        (3, 12, (0, 6, 11)),  # 5.5 is rounded up
        (2, 12, (0, 11)),
        (1, 12, (0,)),
        (4, 4, (0, 1, 2, 3)),
        (3, 6, (0, 3, 5)),
    ],
)
def test_evenly_spaced_by_hand(count, total, expected):
    assert evenly_spaced(count, total) == expected


def test_evenly_spaced_never_repeats_a_block():
    for total in range(1, 30):
        for count in range(1, total + 1):
            assert len(set(evenly_spaced(count, total))) == count


@pytest.mark.parametrize(("count", "total"), [(0, 3), (4, 3)])
def test_evenly_spaced_refuses_what_cannot_be_chosen(count, total):
    with pytest.raises(ValueError, match=rf"count={count}, total={total}"):
        evenly_spaced(count, total)


def test_six_of_twelve_blocks_are_the_ones_of_distilbert():
    teacher, student = mlp(12), mlp(6)
    report = initialize(student, teacher, method="evenly_spaced")
    for mine, other in enumerate((0, 2, 4, 7, 9, 11)):
        assert_same_weights(student.get_layer(f"block_{mine}"), teacher.get_layer(f"block_{other}"))
        assert report.rows[mine].teacher == f"block_{other}"
    assert_same_weights(student.get_layer("head"), teacher.get_layer("head"))


def test_evenly_spaced_inside_a_nested_model_moves_all_layers_of_a_block_together():
    teacher, student = with_random_weights(nested(4), 1), with_random_weights(nested(2), 2)
    assert not initialize(student, teacher, method="evenly_spaced").skipped
    for kind in ("conv", "bn"):
        mine, other = student.get_layer("backbone"), teacher.get_layer("backbone")
        assert_same_weights(mine.get_layer(f"block_1_{kind}"), other.get_layer(f"block_3_{kind}"))


def test_evenly_spaced_with_indices_that_do_not_start_at_zero_and_another_pattern():
    def model(indices):
        blocks = [layers.Dense(6, name=f"h{index}") for index in indices]
        return keras.Sequential([keras.Input((6,)), *blocks])

    teacher, student = model((1, 5, 9)), model((1, 2))
    with pytest.raises(ValueError, match="found no block of one name"):
        initialize(student, teacher, method="evenly_spaced")
    initialize(student, teacher, method="evenly_spaced", pattern=r"^h(\d+)$")
    assert_same_weights(student.get_layer("h2"), teacher.get_layer("h9"))


def test_encoder_and_decoder_blocks_are_counted_apart():
    def model(encoder, decoder):
        blocks = [layers.Dense(6, name=f"encoder_layer_{i}") for i in range(encoder)]
        blocks += [layers.Dense(6, name=f"decoder_layer_{i}") for i in range(decoder)]
        return keras.Sequential([keras.Input((6,)), *blocks])

    report = initialize(model(2, 1), model(6, 3), method="evenly_spaced")
    assert [row.teacher for row in report.rows] == ["encoder_layer_0", "encoder_layer_5", "decoder_layer_0"]


def test_a_block_of_another_shape_is_reported_under_its_teacher_block():
    teacher = keras.Sequential(
        [keras.Input((6,)), *(layers.Dense(width, name=f"block_{i}") for i, width in enumerate((6, 7, 8)))]
    )
    report = initialize(mlp(2), teacher, method="evenly_spaced")
    assert report.rows[1] == CopyRow("block_1", "block_2", 42, "shapes differ: 6×6, 6 and 7×8, 8")


class Scaled(keras.Model):
    """A subclassed model with a weight of its own beside those of its layer."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3, name="dense")
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, inputs):
        return self.scale * self.dense(inputs)


def test_subclassed_models_and_their_own_weights_are_copied():
    teacher, student = Scaled(), Scaled()
    for model in (teacher, student):
        model(np.zeros((1, 2), "float32"))
    teacher.scale.assign(5.0)
    report = initialize(student, teacher)
    assert [(row.student, row.parameters) for row in report.rows] == [("dense", 9), ("(own weights)", 1)]
    assert float(student.scale) == 5.0


def test_composite_layers_are_copied_whole():
    def model():
        inputs = keras.Input((5, 4))
        return keras.Model(inputs, layers.Bidirectional(layers.LSTM(3), name="both")(inputs))

    teacher, student = model(), model()
    assert initialize(student, teacher).copied_parameters == student.count_params()
    assert_same_weights(student, teacher)


def test_the_report_is_an_aligned_table_with_totals():
    report = CopyReport((CopyRow("a", "b", 1200), CopyRow("long_name", None, 34, "no partner")))
    assert str(report).splitlines() == [
        "student layer    teacher layer      parameters  result",
        "---------------  ---------------  ------------  ----------",
        "a                b                       1,200  copied",
        "long_name        -                          34  no partner",
        "1 of 2 layers copied: 1,200 of 1,234 parameters.",
    ]


def test_nothing_in_common_names_the_nearest_layers():
    student = keras.Sequential([keras.Input((6,)), layers.Dense(6, name="blok_1")])
    with pytest.raises(
        ValueError, match=r"'blok_1' 6×6, 6: nearest name 'block_1' 6×6, 6, same shapes in 'block_0'.*the same name"
    ):
        initialize(student, mlp(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "random"}, "'matching' or 'evenly_spaced'.*'random'"),
        ({"pattern": r"b(\d)"}, "`pattern` needs method='evenly_spaced'"),
        ({"method": "evenly_spaced", "pattern": r"b\d"}, "exactly one group"),
        ({"method": "evenly_spaced", "pattern": r"(block)_"}, "must be a number.*'block'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        initialize(mlp(2), mlp(2), **arguments)


def test_a_student_deeper_than_the_teacher_is_refused_for_evenly_spaced_blocks():
    with pytest.raises(ValueError, match=r"more blocks 'block_…' than the teacher. Received: 4 and 3"):
        initialize(mlp(4), mlp(3), method="evenly_spaced")


def test_models_without_weights_and_other_objects_are_refused():
    with pytest.raises(ValueError, match=r"The student .* has no weights yet: call it"):
        initialize(keras.Sequential([layers.Dense(3)]), mlp(2))
    with pytest.raises(ValueError, match=r"The teacher .* has no weights yet"):
        initialize(mlp(2), keras.Sequential([layers.Dense(3)]))
    with pytest.raises(TypeError, match=r"`teacher` must be a keras.Model. Received: ndarray"):
        initialize(mlp(2), np.zeros(3))
