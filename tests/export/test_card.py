"""The card beside a file: every line of it is true of the file, and the two never disagree."""

import errno
import hashlib
import json
import os
import pathlib
import zipfile

import keras
import numpy as np
import pytest

from kdkeras import export

NAMES = [f"digit {digit}" for digit in range(10)]


def card_of(path):
    return json.loads(path.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def written(cnn, digits, tmp_path_factory):
    """An int8 file with integer borders and a full card."""
    keras.utils.set_random_seed(0)
    teacher = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)], name="big")
    images, labels = digits
    path = tmp_path_factory.mktemp("cards") / "digits.v2.tflite"
    card = export.Card(
        class_names=NAMES,
        preprocessing={"range": [0, 1], "note": "grey | no alpha"},
        teacher=teacher,
        test_data=(images[1400:], labels[1400:]),
    )
    return export.tflite(cnn, path, quantize="int8", io_dtype="int8", calibration=images[:300], card=card)


def test_the_json_says_what_the_file_is(written, cnn):
    record = card_of(written.path)
    content = written.path.read_bytes()
    assert record["file"] == "digits.v2.tflite"
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    assert record["bytes"] == len(content) == written.bytes
    assert record["class_names"] == NAMES
    assert record["preprocessing"] == {"range": [0, 1], "note": "grey | no alpha"}
    assert record["preprocessing_inside"] == []
    settings = {"quantize": "int8", "io_dtype": "int8", "batch_size": 1, "min_agreement": 0.95, "float_ops": []}
    assert record["settings"] == settings
    assert record["versions"]["keras"] == keras.__version__
    assert record["student"] == {"name": cnn.name, "parameters": cnn.count_params()}
    assert record["teacher"] == {"name": "big", "parameters": 650}
    assert record["parity"]["agreement"] == written.agreement
    assert record["latency"]["latency_1_thread"]["median"] == written.latency_1_thread.median


def test_an_app_can_call_the_file_by_its_card_alone(written, digits):
    from ai_edge_litert.interpreter import Interpreter

    record = card_of(written.path)
    (source,), (result,) = record["inputs"], record["outputs"]
    assert (source["name"], source["shape"], source["dtype"]) == ("image", [1, 8, 8, 1], "int8")
    assert (source["minimum"], source["maximum"]) == (0, 1)
    runner = Interpreter(str(written.path)).get_signature_runner()
    lite = export.load(written.path)
    for image in digits[0][1400:1420]:
        q = np.clip(np.round(image[None] / source["scale"]) + source["zero_point"], -128, 127).astype(source["dtype"])
        answer = runner(**{source["name"]: q})[result["name"]]
        np.testing.assert_allclose(
            result["scale"] * (answer.astype(float) - result["zero_point"]), lite(image[None]), atol=1e-6
        )


def test_scores_are_those_of_evaluate(written, cnn, digits):
    scores = card_of(written.path)["scores"]
    data = (digits[0][1400:], digits[1][1400:])
    table = export.evaluate(written.path, data, student=cnn, latency=False)
    assert (scores["samples"], scores["reference"]) == (len(data[1]), "teacher")
    assert scores["models"]["file"]["accuracy"] == table["digits.v2.tflite"].scores.accuracy
    assert scores["models"]["student"]["log_loss"] == pytest.approx(table["student"].scores.log_loss)
    assert list(scores["models"]) == ["teacher", "student", "file"]


def test_zip_size_is_that_of_an_archive(written, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.write(written.path)
        assert card_of(written.path)["zip_bytes"] == archive.infolist()[0].compress_size < written.bytes


def test_the_page_says_the_same(written):
    text = written.path.with_suffix(".md").read_text()
    record = card_of(written.path)
    for part in (
        "# digits.v2.tflite",
        record["sha256"],
        "taught by `big` (650 parameters)",
        "| `image` | 1 × 8 × 8 × 1 | int8",
        f"{record['inputs'][0]['scale']:.8g} · (q − {record['inputs'][0]['zero_point']})",
        "digit 0, digit 1",
        "note grey \\| no alpha",
        f"{written.latency_1_thread.median:.3f} ms",
        f"{written.agreement:.2%}",
        f"{record['scores']['models']['file']['accuracy']:.4f}",
    ):
        assert part in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


def test_preprocessing_inside_the_file_is_found(tmp_path):
    keras.utils.set_random_seed(0)
    normalization = keras.layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(5, 2, (500, 3)))
    layers = [normalization, keras.layers.Rescaling(0.5, offset=1), keras.layers.Dense(4)]
    model = keras.Sequential([keras.Input((3,)), keras.Sequential(layers[:2]), layers[2]])
    path = export.tflite(model, tmp_path / "m.tflite").path
    record = card_of(path)
    inside = {layer["layer"]: layer for layer in record["preprocessing_inside"]}
    assert (inside["Rescaling"]["scale"], inside["Rescaling"]["offset"]) == (0.5, 1)
    assert inside["Normalization"]["mean"] == pytest.approx([5, 5, 5], abs=0.4)
    assert inside["Normalization"]["variance"] == pytest.approx([4, 4, 4], abs=0.9)
    assert record["inputs"][0]["minimum"] is None  # random samples say nothing of real ones
    page = path.with_suffix(".md").read_text()
    assert "Inside the file: `Normalization`" in page
    assert "–" in page


def test_a_failed_check_stands_on_the_card(cnn, digits, tmp_path):
    mixed = (digits[0][:512] + digits[0][512:1024]) / 2
    path = tmp_path / "m.tflite"
    options = {"quantize": "dynamic", "calibration": mixed, "min_agreement": 1}
    result = export.tflite(cnn, path, on_parity_failure="keep", **options)
    assert card_of(path)["parity"]["failures"] == list(result.failures) != []
    assert "**It failed the check:** agreement" in path.with_suffix(".md").read_text()


def test_a_new_file_takes_the_card_of_the_old_one_along(cnn, tmp_path):
    path = tmp_path / "m.tflite"
    export.tflite(cnn, path)
    first = card_of(path)
    export.tflite(cnn, path, quantize="float16")
    assert card_of(path)["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() != first["sha256"]
    export.tflite(cnn, path, card=None)
    assert [file.name for file in tmp_path.iterdir()] == ["m.tflite"]


@pytest.mark.parametrize("name", ["m.json", "m.md"])
@pytest.mark.parametrize("content", ["[1, 2]", "7", "# My notes on the model", "\udcff"])
def test_what_is_no_card_is_never_replaced(cnn, tmp_path, name, content):
    (tmp_path / name).write_bytes(os.fsencode(content))
    with pytest.raises(FileExistsError, match=rf"writes the card of m.tflite to .*{name}, where something else stands"):
        export.tflite(cnn, tmp_path / "m.tflite")
    assert [file.name for file in tmp_path.iterdir()] == [name]
    export.tflite(cnn, tmp_path / "m.tflite", card=None)
    assert (tmp_path / name).read_bytes() == os.fsencode(content)


def test_a_full_disk_leaves_file_and_card_as_they_were(cnn, tmp_path, monkeypatch):
    path = tmp_path / "m.tflite"
    export.tflite(cnn, path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    write, written = pathlib.Path.write_bytes, []

    def full(self, data):
        if self.suffix == ".tflite" and self.parent == tmp_path:  # after the card's temporary files
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(self.suffix)
        return write(self, data)

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device"):
        export.tflite(cnn, path, quantize="float16")
    assert {".json", ".md"} <= set(written)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_one_sigmoid_takes_two_class_names(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")])
    export.tflite(model, tmp_path / "m.tflite", card=export.Card(class_names=["no", "yes"]))
    assert card_of(tmp_path / "m.tflite")["class_names"] == ["no", "yes"]


def test_class_names_of_one_among_several_outputs(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, {"box": keras.layers.Dense(4)(inputs), "kind": keras.layers.Dense(3)(inputs)})
    export.tflite(model, tmp_path / "m.tflite", card=export.Card(class_names=["a", "b", "c"]))
    record = card_of(tmp_path / "m.tflite")
    assert {output["name"]: output["shape"] for output in record["outputs"]} == {"box": [1, 4], "kind": [1, 3]}


def test_card_errors(cnn, digits, tmp_path):
    with pytest.raises(ValueError, match=r"one name per class of an output; the file's have \[10\]. Received: 3 names"):
        export.tflite(cnn, tmp_path / "m.tflite", card=export.Card(class_names=["a", "b", "c"]))
    test_data = (digits[0][:50], digits[1][:50] + 5)
    with pytest.raises(ValueError, match="whole numbers in 0…9"):
        export.tflite(cnn, tmp_path / "m.tflite", card=export.Card(test_data=test_data))
    assert list(tmp_path.iterdir()) == []
    for options, match in (
        ({"class_names": "abc"}, "list of names. Received: 'abc'"),
        ({"class_names": [1, 2]}, "list of names"),
        ({"teacher": "t.keras"}, "keras.Model. Received: str"),
        ({"preprocessing": 255}, "sentence or a dict. Received: int"),
    ):
        with pytest.raises(TypeError, match=match):
            export.Card(**options)
