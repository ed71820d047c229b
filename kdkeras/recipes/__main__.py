"""`python -m kdkeras.recipes`: the recipe book as Markdown, one line per loss."""

from __future__ import annotations

import sys

from kdkeras import recipes
from kdkeras.recipes import Recipe

_KINDS = {
    "logits": "Logits",
    "features": "Features",
    "relations": "Relations between samples",
    "contrastive": "Contrast",
    "transformers": "Transformers",
    "dense": "Dense outputs",
    "explanations": "Explanations",
}


def markdown() -> str:
    """Return one table per kind of loss.

    Returns:
        Markdown.

    Example:
        >>> from kdkeras.recipes.__main__ import markdown
        >>> markdown().splitlines()[0]
        '### Logits'
    """
    parts = []
    for kind, title in _KINDS.items():
        entries = [(name, recipes.entry(name)) for name in recipes.names() if recipes.entry(name).kind == kind]
        if not entries:
            continue
        lines = [
            f"| `{name}`: `{entry.loss}` | {entry.paper} | {entry.follows} | {_settings(entry.recipes)} |"
            for name, entry in entries
        ]
        head = ["| name: class | paper | what is followed | published settings |", "|---|---|---|---|"]
        parts.append("\n".join([f"### {title}", "", *head, *lines]))
    return "\n\n".join(parts)


def _settings(known: dict[str, Recipe]) -> str:
    """Return the published recipes of one loss in words; the benchmark's own is not published."""
    return "; ".join(f"{name}: {_words(recipe)}" for name, recipe in known.items() if name != "benchmark")


def _words(recipe: Recipe) -> str:
    words = [f"{name} {value}" for name, value in recipe.settings.items()]
    words.append(f"task weight {recipe.task_weight:g}")
    if recipe.warm_up_epochs:
        words.append(f"warm-up {recipe.warm_up_epochs} epochs")
    return ", ".join(words)


if __name__ == "__main__":
    sys.stdout.write(f"{markdown()}\n")
