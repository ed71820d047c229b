"""The whole demo, shortened: every stage runs for real."""

import json

import keras
import numpy as np
import pytest

import kdkeras
from kdkeras import demo
from kdkeras.cli.demo import _DATA
from kdkeras.demo import networks
from kdkeras.demo.settings import settings_of

FILES = {
    "record.json",
    "report.html",
    "pictures",
    "teacher.keras",
    "student-alone.keras",
    "student.keras",
    "tree.keras",
}
FILES |= {
    f"student-{mode}.{kind}" for mode in ("float32", "float16", "dynamic", "int8") for kind in ("tflite", "json", "md")
}


@pytest.fixture(scope="module")
def tabular(tmp_path_factory):
    lines = []
    out = tmp_path_factory.mktemp("demo") / "out"
    return demo.run("breast_cancer", out, quick=True, progress=lines.append), out, lines


def test_writes_every_file(tabular):
    _, out, _ = tabular
    assert {path.name for path in out.iterdir()} == FILES
    assert {path.name for path in (out / "pictures").iterdir()} == {"curves.png", "explanation.png", "tree.png"}


def test_says_every_stage(tabular):
    _, _, lines = tabular
    assert [line.split("]")[0] for line in lines if line.startswith("[")] == [f"[{i}/8" for i in range(1, 9)]


def test_record_holds_what_the_models_do(tabular):
    result, out, _ = tabular
    record = json.loads((out / "record.json").read_text())
    data = kdkeras.datasets.breast_cancer()
    student = keras.saving.load_model(out / "student.keras")
    accuracy = float((student.predict(data.x_test, verbose=0).argmax(-1) == data.y_test).mean())
    assert record["comparison"]["rows"][2]["scores"]["accuracy"] == pytest.approx(accuracy)
    int8 = kdkeras.export.load(out / "student-int8.tflite")
    predicted = [int8(sample[None]).argmax() for sample in data.x_test]
    assert record["exports"][3]["accuracy"] == pytest.approx(np.mean(predicted == data.y_test))
    tree = kdkeras.load_model(out / "tree.keras")
    assert record["tree"][0]["accuracy"] == pytest.approx(
        (tree.predict(data.x_test, verbose=0).argmax(-1) == data.y_test).mean()
    )
    assert record == json.loads(json.dumps(result.to_dict()))
    assert result.exports[0].export.path == out / "student-float32.tflite"
    assert result.exports[0].export.path.stat().st_size == record["exports"][0]["bytes"]


def test_report_shows_importances_and_rules(tabular):
    _, out, _ = tabular
    page = (out / "report.html").read_text()
    for text in (
        "Permutation importance",
        "worst radius",
        "student-int8.tflite",
        "--seed 0 --quick",
        "malignant",
        "CART",
    ):
        assert text in page
    assert "Grad-CAM" not in page


def test_students_start_from_the_same_weights():
    data = kdkeras.datasets.digits()
    students = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        students.append(networks.student(data))
    for one, other in zip(*(student.get_weights() for student in students), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", demo.DATA)
def test_quick_changes_sizes_alone(name):
    assert settings_of(name, quick=True).epochs < settings_of(name, quick=False).epochs


def test_the_command_line_offers_the_same_data():
    assert demo.DATA == _DATA


def test_refuses_unknown_data_and_seeds(tmp_path):
    with pytest.raises(ValueError, match="The demo knows the data"):
        demo.run("cifar", tmp_path / "out")
    with pytest.raises(ValueError, match="A seed is a whole number"):
        demo.run("digits", tmp_path / "out", seed=-1)
    assert list(tmp_path.iterdir()) == []
