"""The HTML page of a report: one file, no network, no scripts, every name escaped."""

from __future__ import annotations

import base64
import importlib.resources
from pathlib import Path

from kdkeras._files import atomic_path
from kdkeras.report.record import Report


def render(report: Report) -> str:
    """Return the page as HTML.

    Args:
        report: The record to show. Its texts are escaped: a class named `<script>` is shown, not run.

    Returns:
        One HTML document with its pictures and styles inside.

    Example:
        >>> from kdkeras.report import Report, Section, render
        >>> page = render(Report("Digits & co", "It works.", (Section("<b>"),)))
        >>> "Digits &amp; co" in page, "&lt;b&gt;" in page
        (True, True)
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["data_uri"] = _data_uri
    source = importlib.resources.files("kdkeras.report").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(report=report)


def write(report: Report, path: str | Path) -> Path:
    """Write the page, replacing an older one only when the new one is whole.

    Args:
        report: The record to show.
        path: The HTML file.

    Returns:
        The path.

    Raises:
        OSError: The file cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> from kdkeras.report import Report, write
        >>> write(Report("Empty", "", ()), pathlib.Path(tempfile.mkdtemp()) / "report.html").name
        'report.html'
    """
    page = render(report)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
