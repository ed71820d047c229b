"""The page 'which loss when' says what the run in the repository says."""

import re
from pathlib import Path

import pytest

from kdkeras import benchmark

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "which_loss.md").read_text(encoding="utf-8")
PAIRS = ("same family", "different family", "transformer")
SIGNS = {"better": " +", "worse": " −"}


@pytest.fixture(scope="module")
def run():
    return benchmark.load(ROOT / "benchmarks" / "losses")


def lines():
    """The cells of the table of all losses, by the loss."""
    table = PAGE.split("| loss | value against |")[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:] if line]
    return {row[0]: row[1:] for row in rows}


def test_every_row_is_that_of_the_record(run):
    page = lines()
    for place, pair in enumerate(PAIRS, start=1):
        header, *rows = run.table(pair)
        for row in rows:
            cells = dict(zip(header, row, strict=True))
            shown = cells["accuracy, %"] + SIGNS.get(cells["verdict"], "")
            assert page[cells["loss"]][place] == shown, (pair, cells["loss"])
            if pair == PAIRS[0]:
                assert page[cells["loss"]][4] == cells["Grad-CAM cosine"]
        named = {loss for loss, cells in page.items() if cells[place]}
        assert named == {row[0] for row in rows}


def test_the_run_is_whole(run):
    assert len(run.runs) == 249
    assert {each["seed"] for each in run.runs} == {0, 1, 2}
    verdicts = [row.verdict for row in run.rows if row.loss != "student_alone"]
    counted = re.search(r"(\d+) of (\d+) rows are better, (\d+) worse, and (\d+) cannot", PAGE)
    better, worse, even = (verdicts.count(word) for word in ("better", "worse", "even"))
    assert [int(number) for number in counted.groups()] == [better, better + worse + even, worse, even]
    assert run.larger("same family") == {"sim_kd": 55474}


def test_the_tests_that_it_names_exist():
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    named = {cells[0].strip("`") for cells in lines().values()} - {""}
    assert len(named) > 30 and named <= defined


def test_every_loss_has_a_row():
    from kdkeras import recipes

    books = {path.stem for path in Path(recipes.__file__).parent.glob("*.json")}
    assert books <= set(lines())
