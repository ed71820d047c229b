"""`kdkeras export`: what it writes, what it prints, and how it refuses without losing anything."""

import json
import re
import resource
import subprocess
import sys

import keras
import numpy as np
import pytest

from kdkeras import cli, export


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models, data for them, and a model of two inputs."""
    folder = tmp_path_factory.mktemp("export")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    for name, width in (("small", 4), ("large", 16)):
        parts = [layers.Dense(width, activation="relu"), layers.Dense(3, activation="softmax")]
        keras.Sequential([keras.Input((6,), name="x"), *parts], name=name).save(folder / f"{name}.keras")
    inputs = [keras.Input((2,), name="left"), keras.Input((3,), name="right")]
    keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(inputs))).save(folder / "two.keras")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 6)).astype("float32")
    np.savez(folder / "data.npz", x=x, y=rng.integers(0, 3, 64))
    np.savez(folder / "two.npz", left=rng.random((40, 2)), right=rng.random((40, 3)))
    np.savez(folder / "words.npz", x=np.array(["a", "b"]))
    np.savez(folder / "inputs.npz", x=x)
    np.savez(folder / "named.npz", x=x, y=rng.integers(0, 3, 64), class_names=["ant", "bee", "cat"])
    (folder / "bad.keras").write_text("no model")
    return folder


def run(folder, *arguments, **options):
    """Run the command as a user in `folder` does."""
    command = [sys.executable, "-m", "kdkeras.cli", "export", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=folder, **options)


def test_the_call_of_the_manual(folder, tmp_path):
    out = tmp_path / "new" / "student.tflite"
    arguments = ["small.keras", "-o", out, "--quantize", "int8", "--calibration", "data.npz", "--min-agreement", 0]
    arguments += [
        "--test",
        "data.npz",
        "--teacher",
        "large.keras",
        "--class-names",
        "a, b,c",
        "--preprocessing",
        "none",
    ]
    done = run(folder, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    first, second, *_ = done.stdout.splitlines()
    assert first == f"[1/1] small.keras → {out}"
    assert second.startswith(f"{out}: int8, ")
    data = np.load(folder / "data.npz")
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["class_names"] == ["a", "b", "c"]
    assert (card["preprocessing"], card["teacher"]["name"], card["quantize"]) == ("none", "large", "int8")
    accuracy = np.mean(export.load(out)(data["x"]).argmax(1) == data["y"])
    assert card["scores"]["models"]["file"]["accuracy"] == accuracy


def test_a_full_disk_leaves_what_stood_there(folder, tmp_path):
    for name in ("m.tflite", "m.json"):
        (tmp_path / name).write_text('{"kdkeras_card": 1}')
    # No file of this process may grow over a kilobyte: every write in between fails as on a full disk.
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))}
    done = run(folder, "large.keras", "-o", tmp_path / "m.tflite", **limit)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "File too large" in done.stderr
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("m.tflite", "m.json"), '{"kdkeras_card": 1}'
    )


def command(capsys, *arguments):
    status = cli.main(["export", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_json_stands_alone_on_the_output(folder, tmp_path, capsys):
    models = [folder / "small.keras", folder / "large.keras"]
    status, out, err = command(capsys, *models, "-o", tmp_path, "--format", "saved_model", "--json")
    assert status == 0
    records = json.loads(out)
    assert [record["path"] for record in records] == [str(tmp_path / "small"), str(tmp_path / "large")]
    assert all(record["max_rel_error"] < 1e-4 for record in records)
    assert err.startswith(f"[1/2] {models[0]} → {tmp_path / 'small'}\n")


def test_one_that_fails_leaves_the_others_and_what_stood_there(folder, tmp_path, capsys):
    (tmp_path / "bad.tflite").write_text("the old file")
    models = [folder / f"{name}.keras" for name in ("small", "bad", "large")]
    status, out, err = command(capsys, *models, "-o", tmp_path, "--no-card")
    assert status == 2
    assert err.startswith("kdkeras: 1 of 3 models were not exported. ")
    assert "bad.keras' is damaged or no `.keras` file" in err
    assert len(err.splitlines()) == 1
    assert "[3/3]" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tflite", "large.tflite", "small.tflite"]
    assert (tmp_path / "bad.tflite").read_text() == "the old file"


def test_by_default_a_file_goes_beside_its_model(folder, tmp_path, capsys):
    (tmp_path / "m.keras").write_bytes((folder / "small.keras").read_bytes())
    status, out, _ = command(capsys, tmp_path / "m.keras", "--json")
    assert status == 0
    assert json.loads(out)[0]["path"] == str(tmp_path / "m.tflite")
    assert {path.name for path in tmp_path.iterdir()} == {"m.keras", "m.tflite", "m.json", "m.md"}


def test_names_of_the_classes_come_with_the_test_data(folder, tmp_path, capsys):
    arguments = [folder / "small.keras", "-o", tmp_path / "m.tflite", "--test", folder / "named.npz"]
    for more, names in (([], ["ant", "bee", "cat"]), (["--class-names", "a,b,c"], ["a", "b", "c"])):
        assert command(capsys, *arguments, *more)[0] == 0
        assert json.loads((tmp_path / "m.json").read_text())["class_names"] == names


def test_several_inputs_come_by_name(folder, tmp_path, capsys):
    status, out, err = command(capsys, folder / "two.keras", "-o", tmp_path, "--calibration", folder / "two.npz")
    assert (status, err) == (0, "")
    assert "on 40 calibration samples" in out
    assert export.load(tmp_path / "two.tflite").input_dtypes == {"left": "float32", "right": "float32"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.keras"], "There is no model file 'none.keras'"),
        (["data.npz"], "which ends in .keras. Received: 'data.npz'"),
        (["bad.keras"], "'bad.keras' is damaged or no `.keras` file"),
        (["small.keras", "small.keras", "-o", "out"], "several would be written to one place"),
        (["small.keras", "--quantize", "int8"], "needs `calibration` data"),
        (["small.keras", "--calibration", "none.npz"], "There is no data file 'none.npz'"),
        (["small.keras", "--calibration", "bad.npz"], "There is no data file"),
        (["small.keras", "--calibration", "words.npz"], "needs arrays of numbers. Received: x of <U1"),
        (["small.keras", "--calibration", "two.npz"], "needs the inputs"),
        (["small.keras", "--calibration", "cifar"], "must be one of digits, wine"),
        (["small.keras", "--test", "inputs.npz"], "needs labels y"),
        (["small.keras", "--class-names", "a,b"], r"one name per class of an output; the file's have \[3\]"),
        (["small.keras", "--format", "saved_model", "--quantize", "int8"], "--quantize is of TFLite files"),
        (["small.keras", "--batch-size", "0"], "`batch_size` must be a whole number of at least 1"),
        (["small.keras", "--io-dtype", "int8"], "Received: io_dtype='int8' for quantize=None"),
        (["small.keras", "--min-agreement", "95"], "share from 0 to 1. Received: 95"),
        (["small.keras", "-o", "small.keras/file"], "could not write small.keras/file"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(folder, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    status, _, err = command(capsys, *arguments)
    assert status == 2
    assert re.search(message, err), err
    assert len(err.splitlines()) == 1
    assert sorted(folder.rglob("*")) == before


def test_a_class_that_keras_does_not_know_is_one_sentence(tmp_path, capsys):
    class Mine(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    keras.Sequential([keras.Input((2,)), Mine()]).save(tmp_path / "m.keras")
    status, _, err = command(capsys, tmp_path / "m.keras")
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "cannot be loaded" in err


def test_a_missing_extra_is_one_sentence(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)  # what Python itself does for a package that is not there
    status, _, err = command(capsys, folder / "small.keras", "-o", tmp_path / "m.onnx")
    assert status == 2
    assert "pip install 'kdkeras[onnx]'" in err
    assert list(tmp_path.iterdir()) == []
