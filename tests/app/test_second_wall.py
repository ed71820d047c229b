"""Behind the guard, Gradio by itself opens no path of a client either; and the page of a table is served as well."""

import subprocess
import sys
from pathlib import Path


def test_the_application_without_a_server():
    # In a process of its own: Gradio leaves event loops open, which is a warning, and warnings are errors here.
    script = Path(__file__).parent / "second_wall.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    tests = ["gradio_alone_refuses_paths", "the_guard_stands_before_it", "an_open_page_has_any_name"]
    assert done.stdout.splitlines()[-3:] == tests
