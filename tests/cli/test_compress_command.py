"""`kdkeras compress`: a smaller model file out of a model file."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from kdkeras import cli, compress, export, saving


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained classifier, a regression model and data."""
    folder = tmp_path_factory.mktemp("compress")
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 6)).astype("float32")
    y = (x[:, 0] > 0) + (x[:, 1] > 0).astype(int)
    np.savez(folder / "data.npz", x=x, y=y)
    parts = [layers.Dense(32, activation="relu", name="hidden"), layers.Dense(3, activation="softmax", name="head")]
    model = keras.Sequential([keras.Input((6,), name="x"), *parts], name="student")
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=15, verbose=0)
    model.save(folder / "student.keras")
    keras.Sequential([keras.Input((6,)), layers.Dense(1)]).save(folder / "regression.keras")
    return folder


def run(folder, *arguments):
    words = ["compress", str(folder / "student.keras"), "--train", str(folder / "data.npz"), *map(str, arguments)]
    return cli.main([*words, "--epochs", "2"])


@pytest.mark.parametrize("by", ["prune", "cluster", "channels"])
def test_a_smaller_model_is_written_beside_the_model(folder, by, capsys):
    before = (folder / "student.keras").read_bytes()
    assert run(folder, "--by", by, "--test", folder / "data.npz", "--clusters", 4, "--json") == 0
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert "epoch 2/2: loss" in printed.err
    model = saving.load_model(folder / f"student-{by}.keras")
    found = compress.sparsity(model)
    if by == "prune":
        assert record["sparsity"] == found.share == pytest.approx(0.5, abs=0.01)
    elif by == "cluster":
        assert all(row.unique <= 4 for row in found.rows)
    else:
        assert model.get_layer("hidden").units == 16
    data = np.load(folder / "data.npz")
    accuracy = np.mean(model.predict(data["x"], verbose=0).argmax(1) == data["y"])
    rows = {row["name"]: row for row in record["comparison"]["rows"]}
    assert rows["compressed"]["scores"]["accuracy"] == pytest.approx(accuracy)
    assert accuracy > 0.7
    assert (folder / "student.keras").read_bytes() == before


def test_a_quantized_model_becomes_a_file_for_the_phone(folder, tmp_path, capsys):
    out = tmp_path / "student.tflite"
    assert run(folder, "--by", "quantize", "--bits", 4, "-o", out, "--test", folder / "data.npz") == 0
    assert f"{out}: int8" in capsys.readouterr().out
    assert export.load(out)(np.load(folder / "data.npz")["x"]).shape == (256, 3)
    assert run(folder, "--by", "quantize", "-o", tmp_path / "q.keras") == 0
    assert saving.load_model(tmp_path / "q.keras").count_params() > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--by", "prune", "-o", "s.tflite"], "--by prune writes a file that ends in .keras"),
        (["--by", "prune", "--share", "1"], "--share must lie between 0 and 1. Received: 1.0"),
        (["--by", "cluster", "--clusters", "1"], "--clusters must be at least 2. Received: 1"),
        (["--by", "prune", "--alpha", "2"], "--alpha must lie in 0…1"),
        (["--by", "prune", "--teacher", "none.keras"], "There is no model file 'none.keras'"),
        (["--by", "prune", "--test", "none.npz"], "There is no data file 'none.npz'"),
    ],
)
def test_bad_input_is_one_sentence(folder, arguments, said, capsys):
    names = sorted(folder.iterdir())
    assert run(folder, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len([line for line in error.splitlines() if line.startswith("kdkeras: ")]) == 1
    assert sorted(folder.iterdir()) == names


def test_a_place_that_cannot_be_written_is_said_before_the_training(folder, capsys):
    assert run(folder, "--by", "prune", "-o", folder / "data.npz" / "s.keras") == 2
    printed = capsys.readouterr()
    assert "data.npz/s.keras': File exists. Nothing was written. Check the path" in printed.err
    assert "epoch" not in printed.out + printed.err


def test_a_model_that_is_no_classifier_is_refused(folder, capsys):
    words = ["compress", folder / "regression.keras", "--by", "prune", "--train", folder / "data.npz"]
    assert cli.main([str(word) for word in words]) == 2
    assert "needs a classifier that ends in a softmax or logits" in capsys.readouterr().err
