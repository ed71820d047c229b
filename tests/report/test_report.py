"""The report page: self-contained, escaped, whole."""

import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from kdkeras.report import Picture, Report, Section, Table, picture, render, training_curves, write

NASTY = "<script>alert('x')</script> & \"quotes\""


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.tags, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]


def page():
    pixel = picture(Figure(figsize=(1, 1)), alt=NASTY, caption=NASTY)
    table = Table((("", NASTY), (NASTY, "1")), NASTY)
    section = Section(NASTY, (NASTY,), (table,), (pixel,), NASTY, NASTY)
    return render(Report(NASTY, NASTY, (section,), {NASTY: NASTY}))


def test_every_text_is_escaped():
    html = page()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 15


def test_nothing_is_loaded_from_elsewhere():
    parser = Links()
    parser.feed(page())
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in parser.links)
    assert len(parser.links) == 3
    assert not re.search(r"https?://|@import|url\(", page())


def test_links_lead_somewhere():
    html = page()
    for anchor in re.findall(r'href="#([^"]+)"', html):
        assert f'id="{anchor}"' in html


def test_fits_a_phone():
    assert 'name="viewport" content="width=device-width' in page()


def test_write_replaces_the_old_page(tmp_path):
    path = tmp_path / "deep" / "report.html"
    for title in ("one", "two"):
        write(Report(title, "", ()), path)
    assert "<title>two</title>" in path.read_text()
    assert list(path.parent.iterdir()) == [path]


def test_same_figure_gives_the_same_bytes():
    first, second = (picture(training_curves({"a": [1, 2]}, ylabel="y"), alt="a").png for _ in range(2))
    assert first == second


def test_curves_show_every_model():
    figure = training_curves({"teacher": [0.1, 0.9], "student": [0.2, 0.8, 0.7]}, ylabel="accuracy")
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["teacher", "student"]
    assert list(lines[1].get_xdata()) == [1, 2, 3]
    with pytest.raises(ValueError, match="at least one curve"):
        training_curves({}, ylabel="accuracy")


def test_dollar_signs_are_shown_as_they_are():
    assert picture(training_curves({"cost $\\bad$": [1, 2]}, ylabel="$y"), alt="a").png


def test_ragged_tables_are_refused():
    with pytest.raises(ValueError, match=r"lines of one width. Received: widths \[1, 2\]"):
        Table((("a", "b"), ("c",)))


def test_pictures_need_no_caption():
    assert "<figcaption>" not in render(Report("t", "", (Section("s", pictures=(Picture(b"", "alt"),)),)))
