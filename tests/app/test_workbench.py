"""What the page shows, asked without a page."""

import io
import threading

import keras
import numpy as np
import pytest
from files import network, write
from PIL import Image

import kdkeras
from kdkeras import cli, explain
from kdkeras.app import Samples, Workbench, load_samples, rendering
from kdkeras.app.upload import MAX_BYTES, MAX_PIXELS, decoded, sample_of_picture
from kdkeras.feedback import sample_id

DIGITS = kdkeras.datasets.digits()


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workbench")
    write(folder)
    return {name: folder / f"{name}.keras" for name in ("teacher", "student", "tree")} | {
        "tflite": folder / "student.tflite"
    }


@pytest.fixture(scope="module")
def bench(paths):
    return Workbench.load(**paths, data="digits", feedback=paths["tree"].parent / "feedback.db")


@pytest.fixture(scope="module")
def table():
    data = kdkeras.datasets.wine()
    models = [keras.Sequential([keras.Input((13,)), keras.layers.Dense(3, activation="softmax")]) for _ in range(2)]
    return Workbench(*models, Samples("wine", data.x_test, data.y_test, data.class_names, data.feature_names))


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def png(*size, mode="RGB", colour=0, kind="PNG"):
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, kind)
    return file.getvalue()


def test_predictions_are_the_models_own(bench, paths):
    said = bench.predictions(bench.sample(5))
    x = DIGITS.x_test[5:6]
    assert list(said) == ["Teacher", "Student", "TFLite", "Tree"]
    np.testing.assert_allclose(said["Teacher"], softmax(bench.models["teacher"].predict(x, verbose=0))[0], atol=1e-6)
    np.testing.assert_allclose(said["Student"], softmax(bench.models["student"].predict(x, verbose=0))[0], atol=1e-6)
    np.testing.assert_allclose(said["TFLite"], said["Student"], atol=1e-5)
    np.testing.assert_allclose(said["Tree"], bench.tree.predict(x, verbose=0)[0], atol=1e-6)


def test_maps_are_those_of_compare(bench):
    found = bench.compare(bench.sample(3), "grad_cam", target=4)
    expected = explain.compare(*bench.models.values(), DIGITS.x_test[3:4], target=4)
    np.testing.assert_allclose(found.teacher.maps, expected.teacher.maps, atol=1e-6)
    np.testing.assert_allclose(found.student.maps, expected.student.maps, atol=1e-6)
    for name, value in expected.measures.items():
        np.testing.assert_allclose(found.measures[name], value, atol=1e-6)


def test_maps_are_kept_and_both_explain_the_teachers_answer(bench):
    sample = bench.sample(8)
    found = bench.compare(sample, "saliency")
    assert bench.compare(sample, "saliency") is found
    answer = bench.predictions(sample)["Teacher"].argmax()
    assert (found.teacher.target[0], found.student.target[0]) == (answer, answer)


def test_layers_and_methods(bench, table):
    assert bench.layers == {"teacher": ("early", "late"), "student": ("early", "late")}
    assert "attention_rollout" not in bench.methods
    assert bench.compare(bench.sample(0), "grad_cam", student_layer="early").student.layer == "early"
    assert bench.compare(bench.sample(0), "saliency", student_layer="early").student.layer is None
    assert set(table.methods) == {name for name, each in explain.METHODS.items() if not each.of_layer} - {
        "attention_rollout"
    }


def test_the_overview_counts(bench):
    x, y = DIGITS.arrays("test")
    teacher, student = (model.predict(x, verbose=0).argmax(axis=1) for model in bench.models.values())
    found = bench.overview
    assert found.samples == len(x)
    assert found.agreement["Student"] == pytest.approx((teacher == student).mean())
    assert found.accuracy["Teacher"] == pytest.approx((teacher == y).mean())
    assert found.differing == tuple(np.flatnonzero(teacher != student))
    assert found.wrong == tuple(np.flatnonzero(student != y))


def test_a_mark_says_what_was_seen(bench):
    sample = bench.sample(2)
    found = bench.compare(sample, "grad_cam", target=6, student_layer="early")
    number = bench.mark(sample, found, model="student", verdict="unclear", note=" why \n", who="Ada ")
    mark = bench.store.marks()[number - 1]
    assert (mark.sample, mark.index, mark.data) == (sample_id(DIGITS.x_test[2]), 2, "digits/test")
    assert (mark.method, mark.layer, mark.target, mark.target_name) == ("grad_cam", "early", 6, "6")
    assert (mark.model, mark.verdict, mark.note, mark.who) == ("student", "unclear", "why", "Ada")


def test_many_threads_ask_at_once(bench):
    expected = [bench.predictions(bench.sample(number))["Teacher"] for number in range(8)]
    wrong = []

    def ask(number):
        said = bench.predictions(bench.sample(number))["Teacher"]
        bench.compare(bench.sample(number), "gradient_times_input")
        if not np.allclose(said, expected[number], atol=1e-6):
            wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number % 8,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_tree_tells_its_way(bench):
    text = bench.tree_path(bench.sample(1))
    assert text.startswith("Split 0 leads") and "All leaves together" in text
    with Image.open(io.BytesIO(bench.tree_picture(bench.sample(1)))) as picture:
        assert picture.format == "PNG" and picture.width >= 1000


def test_html_is_escaped_and_whole(table):
    names = ("<script>alert(1)</script>", *table.samples.feature_names[1:])
    samples = Samples("wine", table.samples.x, table.samples.y, ("<i>a</i>", "b", "c"), names)
    bench = Workbench(*table.models.values(), samples)
    sample = bench.sample(0)
    found = bench.compare(sample, "gradient_times_input", target=0)
    page = rendering.maps(bench, sample, found, 0.9) + rendering.agreement(found)
    page += rendering.predictions_table(bench, sample, bench.predictions(sample)) + rendering.overview(bench.overview)
    assert "<script" not in page and "<i>a</i>" not in page and "&lt;i&gt;a&lt;/i&gt;" in page
    assert "SSIM" not in page and "Cosine" in page
    assert page.count("<table") == page.count("</table>") == 2


def test_the_overlay(bench):
    sample = bench.sample(0)
    found = bench.compare(sample, "saliency")
    none, full = (rendering.maps(bench, sample, found, opacity) for opacity in (0.0, 1.0))
    pictures = [part.split('"')[0] for part in none.split('src="')[1:]]
    assert len(pictures) == 3 and len(set(pictures)) == 1  # without an overlay all three are the sample
    assert len({part.split('"')[0] for part in full.split('src="')[1:]}) == 3


def test_a_single_sigmoid_is_the_probability_of_class_1():
    models = [keras.Sequential([keras.Input((30,)), keras.layers.Dense(1, activation="sigmoid")]) for _ in range(2)]
    bench = Workbench(*models, load_samples("breast_cancer"))
    said = bench.predictions(bench.sample(0))["Teacher"]
    np.testing.assert_allclose(said, models[0].predict(bench.samples.x[:1], verbose=0)[0], atol=1e-6)
    assert bench.class_names == ("benign",)
    assert "benign" in rendering.predictions_table(bench, bench.sample(0), {"Teacher": said})


# What cannot be


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ([keras.layers.Flatten(), keras.layers.Dense(7)], "All models need the same classes"),
        ([keras.layers.Flatten(), keras.layers.Dense(1)], "All models need the same classes"),
    ],
)
def test_other_classes_are_refused(teacher, message):
    other = keras.Sequential([keras.Input((8, 8, 1)), *teacher])
    with pytest.raises(ValueError, match=message):
        Workbench(other, network("student", 4), load_samples("digits"))


def test_regressions_and_other_inputs_are_refused():
    linear = keras.Sequential([keras.Input((30,)), keras.layers.Dense(1)], name="line")
    with pytest.raises(ValueError, match=r"The page shows classifiers\. Received: a teacher, 'line', with one linear"):
        Workbench(linear, linear, load_samples("breast_cancer"))
    with pytest.raises(ValueError, match="takes inputs of shape"):
        Workbench(linear, linear, load_samples("wine"))
    with pytest.raises(ValueError, match="The page shows images"):
        Workbench(linear, linear, Samples("sounds", np.zeros((2, 30, 3))))
    with pytest.raises(ValueError, match=r"name 2 classes, the models have 10"):
        Workbench(*[network("both", 4)] * 2, Samples("mine", DIGITS.x_test, None, ("a", "b")))


def test_samples_of_a_file(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, x=DIGITS.x_test[:4], y=DIGITS.y_test[:4, None], class_names=np.array([*"abcdefghij"]))
    found = load_samples(str(path))
    assert found.x.shape == (4, 8, 8, 1) and found.class_names[3] == "d"
    assert found.y.tolist() == DIGITS.y_test[:4].tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros(3)}, "needs an array x of numbers"),
        ({"x": np.zeros((0, 3))}, "needs an array x of numbers"),
        ({"x": np.zeros((2, 3)), "y": np.zeros(3, int)}, "y of 'mine.npz' must be one class index per sample"),
        ({"x": np.array([[{}]], object)}, "damaged, or no `.npz` file of plain arrays"),
    ],
)
def test_files_without_samples(tmp_path, arrays, message):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message):
        load_samples(str(path))


def test_files_that_are_no_arrays(tmp_path):
    path = tmp_path / "mine.npz"
    path.write_bytes(b"PK no zip file")
    with pytest.raises(ValueError, match=r"damaged, or no `\.npz` file"):
        load_samples(str(path))
    with pytest.raises(FileNotFoundError, match="There is no data file"):
        load_samples(str(tmp_path / "none.npz"))


# Pictures that are uploaded


def test_an_uploaded_picture_becomes_a_sample(bench):
    grey = bench.upload(png(64, 32, colour=(128, 128, 128)))
    assert grey.x.shape == (8, 8, 1) and grey.index is None
    np.testing.assert_allclose(grey.x, 128 / 255, atol=1e-6)
    assert bench.uploaded(grey.id).id == grey.id
    assert set(bench.predictions(grey)) == {"Teacher", "Student", "TFLite", "Tree"}


@pytest.mark.parametrize(
    ("mode", "colour", "value"),
    [("L", 51, 51), ("1", 1, 255), ("RGBA", (255, 255, 255, 0), 0), ("LA", (200, 255), 200), ("I;16", 65535, 255)],
)
def test_channels_are_converted(mode, colour, value):
    sample = sample_of_picture(png(9, 9, mode=mode, colour=colour), (4, 6, 3), (0, 255))
    assert sample.shape == (4, 6, 3) and sample.dtype == "float32"
    np.testing.assert_allclose(sample, value, atol=1)


def test_the_range_is_that_of_the_data():
    assert sample_of_picture(png(4, 4, colour="white", kind="JPEG"), (4, 4, 1), (-1, 2)).max() == pytest.approx(2)
    assert sample_of_picture(png(4, 4), (4, 4, 1), (-1, 2)).max() == -1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no PNG or JPEG"),
        (b"/etc/passwd", "no PNG or JPEG"),
        (png(40, 40)[:60], "no PNG or JPEG"),
        (png(4, 4, kind="GIF"), "no PNG or JPEG"),
        (png(4, 4, kind="TIFF"), "no PNG or JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no PNG or JPEG"),
        (bytes(MAX_BYTES + 1), "at most 8 MiB"),
        (png(5000, MAX_PIXELS // 5000 + 1, mode="1"), "at most 20 million pixels"),
        (png(20_000, 20_000, mode="1"), "no PNG or JPEG"),  # Pillow itself calls it a bomb
    ],
)
def test_uploads_that_are_refused(bench, content, message):
    with pytest.raises(ValueError, match=message):
        bench.upload(content)


def test_tables_take_no_pictures(table):
    with pytest.raises(ValueError, match="Pictures fit models of images"):
        table.upload(png(4, 4))


@pytest.mark.parametrize("text", ["/etc/passwd", "data:image/png;base64,%%%", "a" * (MAX_BYTES * 2)])
def test_texts_that_are_no_file(text):
    with pytest.raises(ValueError, match=r"no PNG or JPEG picture|at most 8 MiB"):
        decoded(text)


def test_old_uploads_go(bench):
    first = bench.upload(png(8, 8, colour=(1, 1, 1)))
    for grey in range(2, 67):
        bench.upload(png(8, 8, colour=(grey, grey, grey)))
    with pytest.raises(ValueError, match="not kept any more"):
        bench.uploaded(first.id)


# The command


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"teacher": "none.keras"}, "There is no model file 'none.keras'"),
        ({"data": "cifar"}, "`name` must be one of"),
        ({"port": "70000"}, "A port must be a number in 0…65535"),
        ({"tflite": "none.tflite"}, "none.tflite, which does not exist"),
    ],
)
def test_words_that_cannot_be_used(paths, tmp_path, monkeypatch, capsys, changed, message):
    monkeypatch.chdir(tmp_path)
    words = {"teacher": paths["teacher"], "student": paths["student"], "data": "digits", **changed}
    assert cli.main(["explore", *(f"--{name}={value}" for name, value in words.items())]) == 2
    errors = capsys.readouterr().err
    assert message in errors and len(errors.splitlines()) == 1


def test_without_gradio_the_way_is_told(monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "gradio", None)  # as where it is not installed
    assert cli.main(["explore", "--teacher=t", "--student=s", "--data=digits"]) == 2
    assert capsys.readouterr().err == (
        "kdkeras: The interactive page needs Gradio, which is not installed. Run: pip install 'kdkeras[app]'\n"
    )


def test_a_tree_of_another_kind_is_refused():
    model = network("any", 4)
    with pytest.raises(TypeError, match=r"must be a `kdkeras\.SoftDecisionTree`"):
        Workbench(model, model, load_samples("digits"), tree=model)


def test_nowhere_to_keep_feedback(table):
    found = table.compare(table.sample(0), "saliency")
    with pytest.raises(ValueError, match="There is nowhere to keep feedback"):
        table.mark(table.sample(0), found, model="student", verdict="right")
