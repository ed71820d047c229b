"""Files as columns of the comparison table: every figure against Keras or against arithmetic by hand."""

import keras
import numpy as np
import pytest

from kdkeras import evaluate, export
from kdkeras.counting import count_macs
from kdkeras.export import _anatomy
from kdkeras.testing import tiny_cnn

rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def files(cnn, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    calibration = digits[0][:300]
    export.tflite(cnn, folder / "float32.tflite", calibration=calibration)
    export.tflite(cnn, folder / "int8.tflite", quantize="int8", calibration=calibration)
    export.tflite(cnn, folder / "io.tflite", quantize="int8", calibration=calibration, io_dtype="int8")
    return [folder / f"{name}.tflite" for name in ("float32", "int8", "io")]


@pytest.fixture(scope="module")
def table(cnn, files, digits):
    keras.utils.set_random_seed(1)
    teacher = tiny_cnn(10, 8, activation="softmax")
    return export.evaluate(files, (digits[0][1400:], digits[1][1400:]), teacher=teacher, student=cnn)


def test_a_float_file_has_the_figures_of_its_keras_model(table):
    assert [row.name for row in table.rows] == ["teacher", "student", "float32.tflite", "int8.tflite", "io.tflite"]
    student, file = table["student"].scores, table["float32.tflite"].scores
    assert file.accuracy == student.accuracy > 0.8
    assert file.agreement == student.agreement < 1  # with the teacher, which is untrained
    for name in ("top_k", "f1", "log_loss", "calibration_error", "kl_to_teacher"):
        assert getattr(file, name) == pytest.approx(getattr(student, name), rel=1e-4)


def test_integer_files_are_scored_on_what_their_integers_stand_for(table, files, digits):
    images, labels = digits[0][1400:], digits[1][1400:]
    for path in files[1:]:
        scores = table[path.name].scores
        p = export.load(path)(images).astype("float64")
        assert scores.accuracy == np.mean(p.argmax(1) == labels)
        p = np.maximum(p / p.sum(1, keepdims=True), 1e-7)
        p /= p.sum(1, keepdims=True)
        assert scores.log_loss == pytest.approx(-np.log(p[np.arange(len(p)), labels]).mean(), rel=1e-3)
        assert scores.accuracy > table["student"].scores.accuracy - 0.03
    assert export.load(files[2]).input_dtypes == {"image": "int8"}


def test_costs_of_a_file(table, cnn, files):
    costs = {row.name: row.cost for row in table.rows}
    for path in files:
        cost = costs[path.name]
        assert cost.file_bytes == path.stat().st_size
        assert cost.compression == pytest.approx(costs["teacher"].file_bytes / cost.file_bytes)
        assert cost.macs == costs["student"].macs == count_macs(cnn)
        assert 0 < cost.latency.median <= cost.latency.p90
        # The statistics of the BatchNormalization are folded: its four vectors become one bias.
        assert cost.parameters == cnn.count_params() - 3 * 16
    assert "KL to teacher" in str(table)


def test_without_a_teacher_the_student_is_the_reference_and_without_both_there_is_none(cnn, files, digits):
    data = (digits[0][1400:], digits[1][1400:])
    beside = export.evaluate(files[0], data, student=cnn, latency=False)
    assert beside["float32.tflite"].scores.agreement == 1
    assert "KL to student" in str(beside)
    alone = export.evaluate({"f": files[0], "i": files[1]}, data, latency=False)
    assert alone.reference is None
    assert alone["f"].scores.agreement is None
    assert alone["i"].scores.accuracy == export.evaluate(files[1], data, latency=False)["int8.tflite"].scores.accuracy
    assert "KL" not in str(alone)
    assert "agreement" not in str(alone)


def test_compare_takes_a_loaded_file_as_a_student(cnn, files, digits):
    data = (digits[0][1400:], digits[1][1400:])
    result = evaluate.compare(cnn, {"file": export.load(files[0])}, data, latency=False)
    assert result["file"].scores.agreement == 1


def exported(model, folder, **options):
    path = folder / "m.tflite"
    export.tflite(model, path, on_parity_failure="keep", **options)
    return path


@pytest.mark.parametrize("activation", ["sigmoid", "linear"])
def test_one_unit(tmp_path, activation):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, activation=activation)])
    x = rng.normal(size=(60, 5)).astype("float32")
    path = exported(model, tmp_path, quantize="int8", calibration=x)
    assert export.load(path).head == activation
    y = (rng.random(60) > 0.5).astype(int) if activation == "sigmoid" else rng.normal(size=60)
    result = export.evaluate(path, (x, y), student=model, latency=False)
    assert result.task == ("classification" if activation == "sigmoid" else "regression")
    answers = export.load(path)(x)[:, 0]
    if activation == "sigmoid":
        assert result["m.tflite"].scores.accuracy == np.mean((answers > 0.5) == y)
    else:
        assert result["m.tflite"].scores.rmse == pytest.approx(np.sqrt(np.mean((answers - y) ** 2)), rel=1e-5)
        assert result["m.tflite"].scores.r2_to_teacher > 0.99


def test_several_inputs_come_by_the_names_of_keras(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = {"left-eye": keras.Input((3,), name="left-eye"), "right": keras.Input((2,), name="right")}
    outputs = keras.layers.Dense(4)(keras.layers.Concatenate()(list(inputs.values())))
    model = keras.Model(inputs, outputs)
    x = {"left-eye": rng.random((40, 3), "float32"), "right": rng.random((40, 2), "float32")}
    path = exported(model, tmp_path)
    result = export.evaluate(path, (x, np.arange(40) % 4), student=model)
    assert result["m.tflite"].scores.agreement == 1


def test_macs_of_products_that_are_no_layer_and_of_loops(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 8))
    attended = keras.layers.MultiHeadAttention(2, 4)(inputs, inputs)
    model = keras.Model(inputs, keras.layers.Conv1DTranspose(3, 2, strides=2)(attended))
    assert _anatomy.macs(exported(model, tmp_path).read_bytes()) == count_macs(model)
    batch = exported(model, tmp_path, batch_size=3)
    assert _anatomy.macs(batch.read_bytes()) == count_macs(model)
    loop = keras.Sequential([keras.Input((5, 3)), keras.layers.GRU(4)])
    path = exported(loop, tmp_path)
    assert _anatomy.macs(path.read_bytes()) is None
    result = export.evaluate(path, (rng.random((40, 5, 3), "float32"), np.arange(40) % 4), latency=False)
    assert result.table()[-3][1] == "unknown"


def test_errors(cnn, files, digits, tmp_path):
    data = (digits[0][:50], digits[1][:50])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        export.evaluate(tmp_path / "none.tflite", data)
    with pytest.raises(ValueError, match="one file at least"):
        export.evaluate([], data)
    with pytest.raises(ValueError, match=r"\['student'\] twice"):
        export.evaluate({"student": files[0]}, data, student=cnn)
    with pytest.raises(ValueError, match=r"Received: \(50, 4, 4, 1\)"):
        export.evaluate(files[0], (digits[0][:50, :4, :4], digits[1][:50]))
    with pytest.raises(ValueError, match="whole numbers in 0…9"):
        export.evaluate(files[0], (digits[0][:50], digits[1][:50] + 5))
    (tmp_path / "bad.tflite").write_text("not a model")
    with pytest.raises(ValueError, match="needs a TFLite file"):
        export.evaluate(tmp_path / "bad.tflite", data)
    with pytest.raises(ValueError, match="name of a model: one of"):
        evaluate.compare_all({"a": cnn}, data, reference="b")


def test_a_file_of_several_outputs_is_refused(tmp_path):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(2)(inputs)])
    with pytest.raises(ValueError, match="Received: one with 2 outputs"):
        export.evaluate(exported(model, tmp_path), (rng.random((40, 3)), np.arange(40) % 2))
