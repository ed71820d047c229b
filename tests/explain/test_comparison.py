"""Comparing a student's maps with its teacher's."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from kdkeras import explain, metrics
from kdkeras.testing import tiny_cnn

MEASURES = ["cosine", "pearson", "spearman", "ssim", "top_k_iou", "kl_divergence"]


def cnn(seed, name, filters=4, units=3):
    keras.utils.set_random_seed(seed)
    convolution = layers.Conv2D(filters, 3, activation="relu", name="conv")
    rest = [
        layers.GlobalAveragePooling2D(),
        layers.Dense(units, activation="softmax" if units > 1 else None, name="logits"),
    ]
    return keras.Sequential([keras.Input((8, 8, 1)), convolution, *rest], name=name)


def blind(model, column):
    """Let every channel speak against one class, so that its maps are zero."""
    kernel, bias = model.get_layer("logits").get_weights()
    kernel[:, column] = -1
    model.get_layer("logits").set_weights([kernel, bias])
    return model


def images(n=6):
    return np.random.default_rng(0).random((n, 8, 8, 1)).astype("float32")


@pytest.fixture(scope="module")
def comparison():
    """Six images; the teacher's maps of class 1 and the student's of class 2 are zero."""
    teacher, student = blind(cnn(3, "big", filters=8), 1), blind(cnn(4, "small"), 2)
    return explain.compare(teacher, student, images(), target=[0, 0, 1, 2, 0, 0])


def test_a_model_agrees_with_itself():
    model = cnn(0, "model")
    comparison = explain.compare(model, model, images())
    assert comparison.teacher_zeros == comparison.student_zeros == 0
    for name in MEASURES:
        np.testing.assert_allclose(comparison.measures[name], name != "kl_divergence", atol=1e-6)
        assert comparison.summary[name].n == 6


def test_both_maps_answer_the_teachers_question():
    teacher, student, x = cnn(1, "teacher"), cnn(2, "student"), images()
    comparison = explain.compare(teacher, student, x)
    top = teacher.predict(x, verbose=0).argmax(axis=1)
    np.testing.assert_array_equal(comparison.teacher.target, top)
    np.testing.assert_array_equal(comparison.student.target, top)
    np.testing.assert_array_equal(comparison.student.raw, explain.attribute(student, x, top).raw)


def test_measures_are_those_of_the_scaled_maps(comparison):
    student, teacher = comparison.student.maps, comparison.teacher.maps
    for name in ("cosine", "pearson", "spearman", "ssim", "kl_divergence"):
        np.testing.assert_array_equal(comparison.measures[name], getattr(metrics, name)(student, teacher))
    np.testing.assert_array_equal(comparison.measures["top_k_iou"], metrics.top_k_iou(student, teacher, top_k=0.2))


def test_zero_maps_are_counted_and_never_averaged_in(comparison):
    assert (comparison.teacher_zeros, comparison.student_zeros) == (1, 1)
    for name in MEASURES:
        values = comparison.measures[name]
        np.testing.assert_array_equal(np.isnan(values), [False, False, True, True, False, False])
        left = values[[0, 1, 4, 5]]
        np.testing.assert_allclose(comparison.summary[name], (left.mean(), left.std(ddof=1), 4))


def test_all_maps_zero_leaves_no_mean():
    model = blind(cnn(5, "model"), 0)
    comparison = explain.compare(model, model, images(2), target=0)
    assert comparison.teacher_zeros == 2
    assert comparison.summary["cosine"].n == 0
    assert np.isnan(comparison.summary["cosine"].mean)
    assert "2 of 2 pairs left out" in str(comparison)
    comparison.plot().canvas.draw()


def test_the_record_goes_to_json_and_back(comparison):
    record = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert record["teacher"] == {"model": "big", "layer": "conv", "zero_maps": 1}
    assert record["student"]["zero_maps"] == 1
    assert record["measures"]["cosine"][2] is None
    summary = comparison.summary["ssim"]
    assert record["summary"]["ssim"] == {**summary._asdict(), "interval": list(summary.interval)}
    assert record["floor"]["ssim"] == comparison.floor_summary["ssim"]._asdict()
    assert record["by_prediction"]["ssim"]["same"]["n"] + record["by_prediction"]["ssim"]["different"]["n"] == 4
    assert record["target"] == [0, 0, 1, 2, 0, 0]


def test_the_table_is_aligned_and_says_what_was_left_out(comparison):
    lines = str(comparison).splitlines()
    assert lines[0] == "Grad-CAM of 6 images: teacher 'big' at conv, student 'small' at conv"
    same = int(comparison.same_prediction.sum())
    assert lines[-1] == (
        f"same prediction: {same} of 6; all-zero maps: teacher 1, student 1; 2 of 6 pairs left out for them"
    )
    table = lines[1:-1]
    assert len(table) == 2 + len(MEASURES)
    assert len({len(line) for line in table}) == 1
    cosine = comparison.summary["cosine"]
    assert table[2].split()[:5] == [
        "Cosine",
        f"{cosine.mean:.3f}",
        *(f"{cosine.interval[0]:.3f} … {cosine.interval[1]:.3f}".split()),
    ]
    assert table[2].split()[-1] == "4"


def test_the_picture_shows_images_teacher_and_student(comparison):
    figure = comparison.plot(3, class_names=["ant", "bee", "cow"])
    figure.canvas.draw()
    assert len(figure.axes) == 3 * 3 + 1
    assert [axis.get_title() for axis in figure.axes[:3]] == ["ant", "ant", "bee"]
    notes = [[text.get_text() for text in axis.texts] for axis in figure.axes[6:9]]
    assert notes[0] == [f"cosine {comparison.measures['cosine'][0]:.2f}"]
    assert [text.get_text() for text in figure.axes[5].texts] == ["all zero"]  # the teacher's map of a bee


def test_layers_and_top_k_can_be_chosen():
    keras.utils.set_random_seed(6)
    convolutions = [layers.Conv2D(4, 3, name="early"), layers.Conv2D(4, 3, name="late")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *convolutions, layers.Flatten(), layers.Dense(3)])
    comparison = explain.compare(model, model, images(), student_layer="early", top_k=0.1)
    assert (comparison.teacher.layer, comparison.student.layer) == ("late", "early")
    maps = comparison.student.maps, comparison.teacher.maps
    np.testing.assert_array_equal(comparison.measures["top_k_iou"], metrics.top_k_iou(*maps, top_k=0.1))
    with pytest.raises(ValueError, match="top_k"):
        explain.compare(model, model, images(), top_k=20)


def test_images_smaller_than_the_ssim_window():
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(4, 2), layers.Flatten(), layers.Dense(2)])
    comparison = explain.compare(model, model, images()[:, :4, :4])
    assert comparison.summary["ssim"].n == 6 - comparison.teacher_zeros


def test_models_of_different_classes_are_refused():
    with pytest.raises(ValueError, match="teacher 'teacher' 3, student 'student' 5"):
        explain.compare(cnn(0, "teacher"), cnn(0, "student", units=5), images())


def test_images_may_be_a_plain_list():
    images = np.random.default_rng(0).random((3, 8, 8, 1))
    teacher, student = tiny_cnn(3, 6, name="teacher"), tiny_cnn(3, 2, name="student")
    from_list, from_array = (explain.compare(teacher, student, x) for x in (images.tolist(), images))
    np.testing.assert_array_equal(from_list.student.raw, from_array.student.raw)


def test_class_counts_are_compared_before_targets():
    teacher, student = tiny_cnn(10, 6, name="teacher"), tiny_cnn(2, 2, name="student")
    images = np.random.default_rng(0).random((3, 8, 8, 1))
    with pytest.raises(ValueError, match="same number of units"):
        explain.compare(teacher, student, images)


def test_the_floor_is_a_student_that_has_learned_nothing():
    """The student sees a bright spot where the teacher sees it; with random weights it does not know where to look."""
    x = np.zeros((20, 8, 8, 1), "float32")
    for place, image in enumerate(x):
        image[place % 5 + 1, place % 4 + 2] = 1
    teacher, student = cnn(1, "teacher"), cnn(2, "student")
    for model in (teacher, student):
        model.get_layer("conv").set_weights([np.ones((3, 3, 1, 4)), np.zeros(4)])
        model.get_layer("logits").set_weights([np.ones((4, 3)), np.zeros(3)])
    before = student.get_weights()
    found = explain.compare(teacher, student, x)
    assert found.summary["cosine"].mean > 0.999
    assert found.floor_summary["cosine"].mean < 0.9
    for old, new in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    again, other = (explain.compare(teacher, student, x, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(found.floor["cosine"], again.floor["cosine"])
    assert not np.array_equal(found.floor["cosine"], other.floor["cosine"], equal_nan=True)


def test_the_floor_can_be_left_out():
    found = explain.compare(cnn(1, "teacher"), cnn(2, "student"), images(), floor=False)
    assert found.floor is None and found.floor_summary == {} and found.to_dict()["floor"] is None
    assert "random student" not in str(found)


def test_a_student_that_cannot_be_cloned_has_no_floor():
    class Model(keras.Model):
        def __init__(self, width, rest):
            super().__init__()
            self.convolution, self.rest = layers.Conv2D(width, 3), rest

        def call(self, x):
            return self.rest(self.convolution(x))

    student = Model(4, keras.Sequential([layers.GlobalAveragePooling2D(), layers.Dense(3)]))
    student(images())
    with pytest.raises(ValueError, match="cannot be cloned"):
        explain.compare(cnn(1, "teacher"), student, images())
    assert explain.compare(cnn(1, "teacher"), student, images(), floor=False).summary["cosine"].n <= 6


def test_agreement_is_split_by_prediction():
    teacher, student, x = cnn(1, "teacher"), cnn(2, "student"), images(12)
    found = explain.compare(teacher, student, x, floor=False)
    top = [model.predict(x, verbose=0).argmax(axis=1) for model in (teacher, student)]
    np.testing.assert_array_equal(found.same_prediction, top[0] == top[1])
    values = found.measures["cosine"]
    for part, chosen in zip(found.by_prediction["cosine"], (top[0] == top[1], top[0] != top[1]), strict=True):
        left = values[chosen][~np.isnan(values[chosen])]
        assert part.n == len(left)
        np.testing.assert_allclose(part.mean, left.mean() if len(left) else np.nan)


def test_a_single_output_is_not_split():
    found = explain.compare(cnn(1, "teacher", units=1), cnn(2, "student", units=1), images())
    assert found.same_prediction is None and found.by_prediction == {}
    assert "same prediction" not in str(found)
    assert isinstance(found.samples()[0]["teacher"], float)


def test_each_sample_has_its_row(comparison):
    rows = comparison.samples(["ant", "bee", "cow"])
    assert [row["target"] for row in rows] == ["ant", "ant", "bee", "cow", "ant", "ant"]
    assert rows[2]["cosine"] is None
    assert rows[0]["cosine"] == comparison.measures["cosine"][0]
    assert rows[0]["teacher"] == ["ant", "bee", "cow"][comparison.teacher.predictions[0].argmax()]


def test_ssim_of_maps_with_a_sign_knows_their_range():
    teacher, student = cnn(1, "teacher"), cnn(2, "student")
    found = explain.compare(teacher, student, images(), method="gradient_times_input", floor=False)
    wide = metrics.ssim(found.student.maps, found.teacher.maps, data_range=2.0)
    np.testing.assert_array_equal(found.measures["ssim"], wide)


def test_the_histogram_shows_both_groups_and_the_floor(comparison):
    figure = comparison.plot_agreement()
    figure.canvas.draw()
    words = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert any("random weights" in each for each in words)
    assert sum(int(each.split("(")[1].rstrip(")")) for each in words if "prediction" in each) == 4
    with pytest.raises(ValueError, match="`measure` must be one of cosine"):
        comparison.plot_agreement("likeness")
