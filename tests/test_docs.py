"""Every Python block of the training guide runs, in the order of the page; the links of all pages lead somewhere."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


def test_the_training_guide_runs_as_written():
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "training.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 9
    names = {}
    for block in blocks:
        exec(compile(block, "docs/training.md", "exec"), names)
    history = names["distiller"].history.history
    assert set(history) >= {"loss", "task_loss", "soft_targets"}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_exist(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_index_of_losses_is_the_recipe_book():
    from kdkeras.recipes.__main__ import markdown

    page = (DOCS / "losses.md").read_text(encoding="utf-8")
    assert markdown() in page, "run `python -m kdkeras.recipes` and put its output into docs/losses.md"
