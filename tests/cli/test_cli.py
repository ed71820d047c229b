"""The command line: what it prints, and how it refuses."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

import kdkeras
from kdkeras import cli


def kdkeras_command(*arguments, **kwargs):
    command = [sys.executable, "-m", "kdkeras.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **kwargs)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "out"
    return kdkeras_command("demo", "--quick", "--seed", 1, "--out", out), out


def test_demo_prints_stages_and_tables_and_nothing_else(images):
    done, out = images
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for text in ("[1/8] data", "[8/8] soft decision tree", "accuracy", "student-int8.tflite", "best leaf"):
        assert text in done.stdout
    assert done.stdout.rstrip().endswith(f"Report: {out / 'report.html'}")


def test_image_report_shows_grad_cam(images):
    _, out = images
    page = (out / "report.html").read_text()
    for text in ("Grad-CAM", "maps that are all zero", "SSIM", "soft decision tree", "--seed 1 --quick"):
        assert text in page
    assert page.count("data:image/png;base64,") == 3


def test_existing_output_is_refused_and_kept(images):
    _, out = images
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    done = kdkeras_command("demo", "--quick", "--out", out)
    assert done.returncode == 2
    assert (
        done.stderr
        == f"kdkeras: Output folder '{out}' is not empty. Choose another folder, or allow overwriting (--overwrite).\n"
    )
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    done = kdkeras_command("demo", "--quick", "--out", tmp_path / "file" / "out")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "Not a directory" in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_interrupted_run_leaves_nothing(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "kdkeras.cli", "demo", "--out", str(out)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        while "[2/8]" not in process.stdout.readline():
            assert process.poll() is None
        time.sleep(2)
        for _ in range(4):  # on a busy machine TensorFlow's callbacks now and then swallow one
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, errors = process.communicate(timeout=15)
                break
    assert process.returncode == 2, errors
    assert errors == "kdkeras: interrupted. Start the same command again.\n"
    assert not out.exists()


def test_an_interrupt_that_comes_back_as_another_error_is_one(monkeypatch, capsys):
    def run(options):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:  # as C++ code does that called back into Python
            raise RuntimeError("UNKNOWN: KeyboardInterrupt") from error

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("kdkeras.cli.demo._run", run)
    assert cli.main(["demo"]) == 2
    assert capsys.readouterr().err == "kdkeras: interrupted. Start the same command again.\n"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--seed", "-1"], "kdkeras: A seed is a whole number"),
        (["demo", "--seed", "one"], "invalid int value: 'one'"),
        (["demo", "--data", "cifar"], "invalid choice: 'cifar'"),
        (["teach"], "invalid choice: 'teach'"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_words(arguments, message, capsys):
    try:
        status = cli.main(arguments)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"kdkeras {kdkeras.__version__}\n"


def test_errors_of_the_system_name_the_file(monkeypatch, capsys):
    def full(options):
        raise OSError(28, "No space left on device", "out/student.keras")

    monkeypatch.setattr("kdkeras.cli.demo._run", full)
    assert cli.main(["demo"]) == 2
    assert (
        "'out/student.keras': No space left on device. Nothing was written. Free some space" in capsys.readouterr().err
    )


def test_defects_are_not_hidden(monkeypatch):
    def broken(options):
        raise RuntimeError("a defect")

    monkeypatch.setattr("kdkeras.cli.demo._run", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main(["demo"])
