"""The page's parts as HTML: every text is escaped, every picture is within the page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np

from kdkeras import explain
from kdkeras.app.overview import Overview
from kdkeras.app.samples import Sample
from kdkeras.app.workbench import Workbench
from kdkeras.explain.pictures import colour_scale, displayable, overlaid

_SHOWN = 448  # pixels that a picture is enlarged to at least, by whole factors, so that its own pixels stay visible
_TOP = 5  # classes in the table
_FEATURES = 12  # rows of a table's explanation
_MEASURES = {
    "cosine": "Cosine",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "ssim": "SSIM",
    "top_k_iou": "Overlap of the top 20%",
    "kl_divergence": "KL divergence, nats",
}
_NOUNS = {"Teacher": "teacher", "Student": "student", "TFLite": "TFLite file", "Tree": "tree"}


def predictions_table(bench: Workbench, sample: Sample, predictions: dict[str, np.ndarray]) -> str:
    """Return a table of the classes that any model finds likely, with a bar for each probability.

    Args:
        bench: Names the classes.
        sample: What was asked about.
        predictions: What `Workbench.predictions` returned.

    Returns:
        HTML.
    """
    rows = _rows(list(predictions.values()), sample.label)
    head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in predictions)
    lines = []
    for row in rows:
        name = html.escape(bench.class_names[row])
        name += ' <span class="kd-label">label</span>' if _is_label(bench, sample, row) else ""
        cells = "".join(_probability(values, row) for values in predictions.values())
        lines.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return (
        '<h3 class="kd-h">What they say</h3>'
        f'<table class="kd-table" id="kd-predictions"><thead><tr><th scope="col">Probability of</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _rows(predictions: Sequence[np.ndarray], label: int | None) -> list[int]:
    """Return the classes to show: those that each model names, the label, and then the likeliest."""
    if len(predictions[0]) == 1:
        return [0]
    mean = np.mean(predictions, axis=0)
    needed = {int(values.argmax()) for values in predictions} | ({label} if label is not None else set())
    others = [int(index) for index in np.argsort(-mean, kind="stable") if index not in needed]
    chosen = [*needed, *others[: max(0, _TOP - len(needed))]]
    return sorted(chosen, key=lambda index: -mean[index])


def _is_label(bench: Workbench, sample: Sample, row: int) -> bool:
    wanted = 1 if len(bench.class_names) == 1 else row  # a single unit is the probability of class 1
    return sample.label == wanted


def _probability(values: np.ndarray, row: int) -> str:
    share = float(values[row])
    named = len(values) == 1 or int(values.argmax()) == row
    mark = ' class="kd-named"' if named and (len(values) > 1 or share > 0.5) else ""
    width = max(0.0, min(1.0, share)) * 100
    return f'<td{mark}><div class="kd-bar" style="width:{width:.1f}%"></div><span>{share:.1%}</span></td>'


def maps(bench: Workbench, sample: Sample, comparison: explain.ExplanationComparison, opacity: float) -> str:
    """Return the sample and both maps side by side, or for a table its features with their relevance.

    Args:
        bench: Names classes and features.
        sample: The sample.
        comparison: What `Workbench.compare` returned.
        opacity: Of the maps over the image, in [0, 1].

    Returns:
        HTML.
    """
    if not bench.samples.of_images:
        return _features(bench, sample, comparison)
    low, high = bench.scale
    picture = displayable(((sample.x.astype("float64") - low) / ((high - low) or 1)).clip(0, 1)[None])[0]
    has_sign = comparison.teacher.has_sign or comparison.student.has_sign
    source = f"sample {sample.index}" if sample.index is not None else "uploaded picture"
    label = f", label {bench.class_names[sample.label]}" if sample.label is not None and _many(bench) else ""
    figures = [_figure(picture, "Sample", f"{source}{label}", "kd-sample")]
    for title, found in (("Teacher", comparison.teacher), ("Student", comparison.student)):
        shown = overlaid(picture, found.maps[0], opacity=opacity, has_sign=has_sign)
        where = f"at {found.layer}" if found.layer else "of the input"
        empty = ": zero everywhere, nothing speaks for the class" if found.zero[0] else ""
        figures.append(_figure(shown, title, f"{where}{empty}", f"kd-{title.lower()}"))
    target = html.escape(bench.class_names[int(comparison.teacher.target[0])])
    return (
        f'<div class="kd-caption">{html.escape(comparison.teacher.title)} of <b>{target}</b></div>'
        f'<div class="kd-maps">{"".join(figures)}</div>{_legend(has_sign=has_sign)}'
    )


def _many(bench: Workbench) -> bool:
    return len(bench.class_names) > 1


def _figure(picture: np.ndarray, title: str, text: str, name: str) -> str:
    words = html.escape(text)
    return (
        f'<figure id="{name}"><figcaption><b>{title}</b></figcaption>'
        f'<img src="{_png(picture)}" alt="{title}: {words}"><figcaption>{words}</figcaption></figure>'
    )


def _legend(*, has_sign: bool) -> str:
    ends = ("against the class", "for the class") if has_sign else ("nothing", "relevance / its maximum")
    colours = ", ".join(colour_scale(has_sign=has_sign))
    return (
        f'<div class="kd-legend"><span>{ends[0]}</span><i style="background:linear-gradient(90deg, {colours})"></i>'
        f"<span>{ends[1]}</span></div>"
    )


def _features(bench: Workbench, sample: Sample, comparison: explain.ExplanationComparison) -> str:
    names = bench.samples.feature_names or tuple(f"x[{place}]" for place in range(len(sample.x)))
    both = np.stack([comparison.teacher.maps[0], comparison.student.maps[0]])
    order = np.argsort(-np.abs(both).max(axis=0), kind="stable")[:_FEATURES]
    lines = [
        f'<tr><th scope="row">{html.escape(names[place])}</th><td>{sample.x[place]:.3g}</td>'
        f"{_relevance(both[0, place])}{_relevance(both[1, place])}</tr>"
        for place in order
    ]
    target = html.escape(bench.class_names[int(comparison.teacher.target[0])])
    left = len(names) - len(order)
    rest = f'<div class="kd-caption">{left} features with less relevance are not shown.</div>' if left else ""
    return (
        f'<div class="kd-caption">{html.escape(comparison.teacher.title)} of <b>{target}</b>: relevance / its maximum, '
        "blue against the class, red for it</div>"
        '<table class="kd-table"><thead><tr><th scope="col">Feature</th><th scope="col">Value</th>'
        f'<th scope="col">Teacher</th><th scope="col">Student</th></tr></thead><tbody>{"".join(lines)}</tbody></table>'
        f"{rest}"
    )


def _relevance(value: float) -> str:
    side = "kd-for" if value >= 0 else "kd-against"
    return f'<td><div class="kd-bar {side}" style="width:{abs(value):.1%}"></div><span>{value:+.2f}</span></td>'


def agreement(comparison: explain.ExplanationComparison) -> str:
    """Return how much the two maps agree, as tiles of numbers.

    Args:
        comparison: What `Workbench.compare` returned.

    Returns:
        HTML.
    """
    tiles = []
    for name, values in comparison.measures.items():
        value = float(values[0])
        text = "–" if np.isnan(value) else f"{value:.2f}"
        tiles.append(f"<div><b>{text}</b><span>{_MEASURES[name]}</span></div>")
    empty = comparison.teacher.zero[0] or comparison.student.zero[0]
    note = '<p class="kd-caption">A map that is zero everywhere has no direction to agree with.</p>' if empty else ""
    title = '<h3 class="kd-h">Do the two maps agree?</h3>'
    return f'{title}<div class="kd-tiles" id="kd-agreement">{"".join(tiles)}</div>{note}'


def overview(found: Overview) -> str:
    """Return the figures over the data in sentences.

    Args:
        found: What `Workbench.overview` is.

    Returns:
        HTML.
    """
    text = f"Over the first {found.samples:,} samples: the teacher's class is named by {_and(found.agreement)}"
    text += f"; the label by {_and(found.accuracy)}." if found.accuracy else "."
    return f'<p class="kd-caption" id="kd-overview">{text}</p>'


def _and(shares: dict[str, float]) -> str:
    parts = [f"the {_NOUNS[title]} on {share:.1%}" for title, share in shares.items()]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def tree(picture: bytes, text: str) -> str:
    """Return the picture of a tree with the sample's path, and the path in words.

    Args:
        picture: A PNG file.
        text: What `Workbench.tree_path` returned.

    Returns:
        HTML.
    """
    data = base64.b64encode(picture).decode()
    return (
        f'<img class="kd-tree" src="data:image/png;base64,{data}" alt="The tree, and the path of the sample">'
        f'<details><summary>The path in words</summary><pre class="kd-path">{html.escape(text)}</pre></details>'
    )


def _png(picture: np.ndarray) -> str:
    """Return an RGB picture in [0, 1] as a data URI, its pixels enlarged by a whole factor."""
    from PIL import Image

    factor = max(1, -(-_SHOWN // max(picture.shape[:2])))
    values = (picture.clip(0, 1) * 255).round().astype("uint8").repeat(factor, axis=0).repeat(factor, axis=1)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
