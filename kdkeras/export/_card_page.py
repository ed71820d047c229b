"""The card of a TFLite file as a Markdown page."""

from __future__ import annotations

import json
from typing import Any

MARK = "<!-- kdkeras card -->"

_SCORES = ("accuracy", "top_k", "f1", "log_loss", "agreement", "mae", "rmse", "r2", "r2_to_teacher")


def page(record: dict[str, Any]) -> str:
    """Return a card as a page to read.

    Args:
        record: The card.

    Returns:
        Markdown.
    """
    parts = [
        MARK,
        f"# {record['file']}",
        _summary(record),
        "## How to call it",
        _tensors("Input", record["inputs"]),
        _tensors("Output", record["outputs"]),
        *_calling(record),
        "## Does it answer as its Keras model?",
        *_parity(record),
        *_scores(record),
        "## Size and speed",
        _costs(record),
        "## Where it comes from",
        _origin(record),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(record: dict[str, Any]) -> str:
    student, teacher = record["student"], record["teacher"]
    taught = "" if teacher is None else f", taught by `{teacher['name']}` ({teacher['parameters']:,} parameters)"
    return (
        f"TFLite file of `{student['name']}` ({student['parameters']:,} parameters){taught}. "
        f"Weights: {record['quantize'] or 'float32'}. SHA-256: `{record['sha256']}`."
    )


def _tensors(title: str, tensors: list[dict[str, Any]]) -> str:
    rows = []
    for tensor in tensors:
        shape = " × ".join(map(str, tensor["shape"]))
        quantized = tensor["scale"] is not None
        meaning = f"{tensor['scale']:.8g} · (q − {tensor['zero_point']})" if quantized else "the number itself"
        seen = tensor.get("minimum")
        limits = "–" if seen is None else f"{tensor['minimum']:.4g} to {tensor['maximum']:.4g}"
        rows.append((f"`{tensor['name']}`", shape, tensor["dtype"], meaning, *([limits] if title == "Input" else [])))
    headers = [title, "shape", "dtype", "value", *(["checked on values"] if title == "Input" else [])]
    return _table(rows, headers)


def _calling(record: dict[str, Any]) -> list[str]:
    said = record["preprocessing"]
    lines = []
    if said is not None:
        lines.append(f"Before the call: {_cell(said) if isinstance(said, str) else _settings(said)}")
    if record["preprocessing_inside"]:
        layers = (
            f"`{layer['layer']}` ({_settings(layer, 'layer', 'name')})" for layer in record["preprocessing_inside"]
        )
        lines.append(f"Inside the file: {', '.join(layers)}.")
    if not lines:
        lines.append("Preprocessing: not told. Inputs are what the Keras model takes.")
    if record["class_names"] is not None:
        lines.append("Classes, in order: " + ", ".join(map(_cell, record["class_names"])) + ".")
    return lines


def _parity(record: dict[str, Any]) -> list[str]:
    parity = record["parity"]
    agreement = "" if parity["agreement"] is None else f"equal decisions on {parity['agreement']:.2%}, "
    lines = [
        f"On {parity['parity_samples']} {parity['parity_data']} samples: {agreement}largest difference "
        f"{parity['max_abs_error']:.3g}, relative to the largest output {parity['max_rel_error']:.3g}."
    ]
    if parity["failures"]:
        lines.append(f"**It failed the check:** {'; '.join(map(_cell, parity['failures']))}.")
    if record["float_tensors"] is not None:
        lines.append(f"Float tensors left inside: {record['float_tensors']}.")
    return lines


def _scores(record: dict[str, Any]) -> list[str]:
    scores = record["scores"]
    if scores is None:
        return []
    models = scores["models"]
    labels = {
        "top_k": f"top-{scores['k']}",
        "f1": "F1",
        "log_loss": "log-loss",
        "r2": "R²",
        "rmse": "RMSE",
        "mae": "MAE",
    }
    labels |= {
        "agreement": f"agreement with the {scores['reference']}",
        "r2_to_teacher": f"R² to {scores['reference']}",
    }
    rows = [
        (labels.get(name, name), *(f"{figures[name]:.4f}" for figures in models.values()))
        for name in _SCORES
        if all(figures.get(name) is not None for figures in models.values())
    ]
    return [f"On {scores['samples']} labelled test samples:", _table(rows, ["", *models])]


def _costs(record: dict[str, Any]) -> str:
    latency = record["latency"]
    rows = [
        ("size", f"{record['bytes'] / 1000:,.1f} kB"),
        ("in a zip archive", f"{record['zip_bytes'] / 1000:,.1f} kB"),
    ]
    for key, label in (("latency_1_thread", "1 thread"), ("latency_2_threads", "2 threads")):
        rows.append((label, f"{latency[key]['median']:.3f} ms (90 % within {latency[key]['p90']:.3f} ms)"))
    return _table(rows, ["", ""]) + f"\n\nTimes are medians on {latency['machine']}, not on a phone."


def _origin(record: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"Written {record['created']} with {versions}. Settings: {_settings(record['settings'])}."


def _settings(values: Any, *without: str) -> str:
    return ", ".join(f"{key} {_value(value)}" for key, value in values.items() if key not in without)


def _value(value: Any) -> str:
    if value is None:
        return "–"
    return _cell(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def _table(rows: list[tuple[str, ...]], headers: list[str]) -> str:
    from tabulate import tabulate

    cells = [tuple(map(_cell, row)) for row in rows]
    return tabulate(cells, headers=headers, tablefmt="github", disable_numparse=True)


def _cell(text: str) -> str:
    """Text of one line that does not end a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
