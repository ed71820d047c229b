"""The package as a whole: light to import, one version, public names that exist."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import kdkeras

ROOT = Path(__file__).parent.parent
HEAVY = (
    "tensorflow",
    "keras",
    "matplotlib",
    "tf_keras_vis",
    "sklearn",
    "ai_edge_litert",
    "jinja2",
    "tensorflow_model_optimization",
)


def modules_after(code):
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sorted(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(found.stdout.split())


def test_import_is_light():
    assert not modules_after("import kdkeras") & set(HEAVY)


def test_help_imports_nothing_heavy():
    code = "import kdkeras.cli\ntry: kdkeras.cli.main(['demo', '--help'])\nexcept SystemExit: pass"
    assert not modules_after(code) & set(HEAVY)


def test_using_a_loss_loads_no_extra():
    assert not modules_after("import kdkeras; kdkeras.losses.SoftTargets") & {
        "tf_keras_vis",
        "ai_edge_litert",
        "jinja2",
    }


@pytest.mark.parametrize("name", kdkeras.__all__)
def test_public_names_exist(name):
    assert getattr(kdkeras, name) is not None


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'distil'"):
        _ = kdkeras.distil


def test_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == kdkeras.__version__
    assert f"## {kdkeras.__version__}" in (ROOT / "CHANGELOG.md").read_text()
