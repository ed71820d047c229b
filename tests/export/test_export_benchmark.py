"""Timing a file: in a process without TensorFlow, as a readable record, and refusals in one sentence."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from foreign_files import inverse_file

from kdkeras import export
from kdkeras.export import _measure
from kdkeras.latency import summary


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tiny model and one of 8 MB of weights, with their files."""
    folder = tmp_path_factory.mktemp("benchmark")
    keras.utils.set_random_seed(0)
    small = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    large = keras.Sequential([keras.Input((1000,)), keras.layers.Dense(2000), keras.layers.Dense(3)])
    paths = {"small": folder / "a small one's.tflite", "large": folder / "large.tflite"}
    for name, model in (("small", small), ("large", large)):
        export.tflite(model, paths[name])
    return {"small": small, "large": large}, paths


def test_every_number_of_threads_and_keras_are_timed(models):
    result = export.benchmark(models[1]["small"], model=models[0]["small"], threads=[2, 1, 2], runs=20)
    assert [run.threads for run in result.runs] == [1, 2]
    assert all(run.latency.runs == 20 and 0 < run.latency.median <= run.latency.p90 for run in result.runs)
    # A call of `tf.function` alone costs more than this whole model does in LiteRT.
    assert result.keras.median > result.runs[0].latency.median
    record = json.loads(json.dumps(result.to_dict()))
    assert record["runs"][1]["latency"]["median"] == result.runs[1].latency.median
    assert record["bytes"] == models[1]["small"].stat().st_size
    header, keras_line, *lines = result.table()
    assert header[-1] == "faster"
    assert keras_line[0] == "Keras, tf.function"
    assert lines[0][-1] == f"{result.keras.median / result.runs[0].latency.median:.1f}×"
    assert "benchmark_model" in str(result)


def test_peak_memory_grows_with_the_weights(models):
    small, large = (export.benchmark(models[1][name], threads=[1], runs=3).runs[0] for name in ("small", "large"))
    weights = 4 * (1000 * 2000 + 2000 * 3)
    assert 0.9 * weights < large.peak_memory - small.peak_memory < 4 * weights
    assert 0 < small.peak_memory < 40e6  # LiteRT itself; a process with TensorFlow holds ten times that


def test_by_default_one_two_and_all_threads(models):
    result = export.benchmark(models[1]["small"], runs=1)
    assert [run.threads for run in result.runs] == sorted({1, 2, os.cpu_count()})
    assert (result.keras, result.batch_size) == (None, 1)
    assert "faster" not in str(result)


def test_a_file_for_batches_is_timed_beside_keras_on_as_many_samples(models, tmp_path):
    model = keras.Sequential([keras.Input((200,)), keras.layers.Dense(2000), keras.layers.Dense(2)])
    export.tflite(model, tmp_path / "batch.tflite", batch_size=200)
    result = export.benchmark(tmp_path / "batch.tflite", model=model, threads=[1], runs=5)
    assert result.batch_size == 200
    assert "cores; batch 200" in str(result)
    single = export.benchmark(models[1]["small"], model=model, threads=[1], runs=5)
    assert result.keras.median > 2 * single.keras.median


def test_the_process_imports_no_tensorflow(models, tmp_path):
    command = [sys.executable, "-P", "-X", "importtime", _measure.__file__, str(models[1]["small"]), "1", "2", "1"]
    done = subprocess.run([*command, str(tmp_path / "o.json")], capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert {"numpy", "ai_edge_litert"} <= imported
    assert not {"tensorflow", "keras", "kdkeras", "sklearn"} & imported
    assert len(json.loads((tmp_path / "o.json").read_text())["times"]) == 2


def test_phone_commands_survive_names_that_a_shell_would_split(models):
    push, *_, run, memory = export.benchmark(models[1]["small"], threads=[1], runs=7).phone
    assert push.endswith("""a small one'"'"'s.tflite' /data/local/tmp/a_small_one_s.tflite""")
    assert run == (
        "adb shell /data/local/tmp/benchmark_model --graph=/data/local/tmp/a_small_one_s.tflite --warmup_runs=10 "
        "--num_runs=7 --num_threads=1"
    )
    assert memory == f"{run} --report_peak_memory_footprint=true"


def test_median_and_90th_percentile_by_hand():
    assert summary([5.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]) == (6.0, 10.0, 11)


@pytest.mark.parametrize(("flex", "name"), [(True, "FlexMatrixInverse"), (False, "MatrixInverse")])
def test_ops_that_the_runtime_lacks_are_named(tmp_path, flex, name):
    path = inverse_file(tmp_path / "inverse.tflite", flex=flex)
    for run in (lambda: export.benchmark(path, threads=[1]), lambda: export.load(path)):
        with pytest.raises(ValueError, match=rf"file of builtin ops. Received: .*\({name}\)"):
            run()


def test_file_errors(models, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        export.benchmark(tmp_path / "none.tflite")
    (tmp_path / "bad.tflite").write_bytes(b"not a model at all")
    with pytest.raises(ValueError, match="Received: 18 bytes of something else"):
        export.benchmark(tmp_path / "bad.tflite")
    (tmp_path / "half.tflite").write_bytes(models[1]["large"].read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cannot read .*half.tflite, which may be damaged"):
        export.benchmark(tmp_path / "half.tflite", threads=[1])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"threads": []}, ValueError, "one number at least"),
        ({"threads": [0]}, ValueError, "`threads` must be a whole number of at least 1"),
        ({"runs": 0}, ValueError, "`runs` must be a whole number of at least 1"),
        ({"model": "student.keras"}, TypeError, "must be a keras.Model. Received: str"),
    ],
)
def test_option_errors(models, options, error, match):
    with pytest.raises(error, match=match):
        export.benchmark(models[1]["small"], **options)


def test_integer_and_quantized_inputs_are_drawn_in_their_range():
    generator = np.random.default_rng(0)
    ids = {"shape": np.array([1, 500]), "dtype": np.int32, "quantization": (0.0, 0)}
    assert set(np.unique(_measure._drawn(generator, ids))) == {0, 1}
    quantized = ids | {"dtype": np.int8, "quantization": (0.1, -3)}
    drawn = _measure._drawn(generator, quantized)
    assert drawn.dtype == np.int8
    assert drawn.min() < -100
    assert drawn.max() > 100
