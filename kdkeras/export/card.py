"""The card of a TFLite file: what an app needs to call it, and what was measured, as JSON and as a page to read."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import importlib.metadata
import io
import json
import platform
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

import kdkeras
from kdkeras.comparable import Comparable
from kdkeras.evaluate import compare_all
from kdkeras.export._card_page import MARK, page
from kdkeras.export.benchmark import machine
from kdkeras.export.runtime import TFLiteModel

if TYPE_CHECKING:
    from kdkeras.export.tflite import TFLiteExport

_VERSION = 1
_PREPROCESSING = (
    keras.layers.Rescaling,
    keras.layers.Normalization,
    keras.layers.Resizing,
    keras.layers.CenterCrop,
)
_BOOKKEEPING = ("dtype", "trainable")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What the card of a file shall say, besides what the file and its export show by themselves.

    Attributes:
        class_names: Name of each class, in the order of the output; two names for one sigmoid output.
        preprocessing: What an app does to its data before it calls the file: a sentence, or a dict of settings.
            Layers inside the file, such as `Rescaling`, are found without it.
        teacher: The teacher, to be named and measured.
        test_data: Labelled data `(x, y)`, as for `kdkeras.evaluate.compare`, that was not trained on. The file, its
            Keras model and the teacher are scored on it.

    Raises:
        TypeError: An attribute is of another type.

    Example:
        >>> from kdkeras import export
        >>> export.Card(class_names=["cat", "dog"], preprocessing="RGB, 96 × 96, divided by 255").class_names
        ['cat', 'dog']
    """

    class_names: Sequence[str] | None = None
    preprocessing: str | Mapping[str, Any] | None = None
    teacher: keras.Model | Comparable | None = None
    test_data: Any = None

    def __post_init__(self) -> None:
        names = self.class_names
        if names is not None and (isinstance(names, str) or not all(isinstance(name, str) for name in names)):
            raise TypeError(f"`class_names` needs a list of names. Received: {names!r}.")
        if self.teacher is not None and not isinstance(self.teacher, (keras.Model, Comparable)):
            raise TypeError(f"`teacher` must be a keras.Model. Received: {type(self.teacher).__name__}.")
        if not isinstance(self.preprocessing, (str, Mapping, type(None))):
            raise TypeError(f"`preprocessing` is a sentence or a dict. Received: {type(self.preprocessing).__name__}.")


def card_paths(path: Path) -> tuple[Path, Path]:
    """Return where the card of a file stands: `NAME.md` and `NAME.json`."""
    stem = path.with_suffix("") if path.suffix == ".tflite" else path
    return stem.with_name(f"{stem.name}.md"), stem.with_name(f"{stem.name}.json")


def check_place(path: Path) -> None:
    """Raise unless what stands at the places of a file's card is a card, which may be replaced.

    Args:
        path: The file.

    Raises:
        FileExistsError: Something else stands there.
    """
    for place in card_paths(path):
        if place.exists() and not _is_card(place):
            raise FileExistsError(
                f"`tflite` writes the card of {path.name} to {place}, where something else stands. Move that, choose "
                "another name, or pass card=None."
            )


def companions(
    card: Card | None,
    export: TFLiteExport,
    content: bytes,
    model: keras.Model,
    samples: dict[str, np.ndarray],
    settings: dict[str, Any],
) -> dict[Path, bytes | None]:
    """Return the card as the files that it is written to.

    Args:
        card: What it shall say besides; `None` for no card.
        export: What the parity gate measured.
        content: The bytes of the TFLite file.
        model: The Keras model that the file was compared with.
        samples: Input name → what was compared on.
        settings: Arguments of the export.

    Returns:
        Path → bytes, `None` for a card that shall not be there; for `kdkeras._files.replace_together`.

    Raises:
        ValueError: There are more or fewer class names than classes, or the test data does not fit.
    """
    places = card_paths(export.path)
    if card is None:
        return {place: None for place in places if _is_card(place)}
    record = _record(card, export, content, model, samples) | {"settings": settings, "versions": _versions()}
    text = json.dumps(record, indent=2, ensure_ascii=False, default=str) + "\n"
    return dict(zip(places, (page(record).encode(), text.encode()), strict=True))


def _record(
    card: Card, export: TFLiteExport, content: bytes, model: keras.Model, samples: dict[str, np.ndarray]
) -> dict[str, Any]:
    lite = TFLiteModel(content)
    _check_class_names(card.class_names, lite)
    measured = export.to_dict()
    return {
        "kdkeras_card": _VERSION,
        "file": export.path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "bytes": len(content),
        "zip_bytes": _zipped(content),
        "quantize": export.quantize,
        "inputs": [_tensor(lite, name, lite.input_dtypes[name]) | _range(export, samples[name]) for name in samples],
        "outputs": [_tensor(lite, name, dtype) for name, dtype in lite.output_dtypes.items()],
        "class_names": None if card.class_names is None else list(card.class_names),
        "preprocessing": card.preprocessing,
        "preprocessing_inside": _layers_inside(model),
        "parity": {
            name: measured[name]
            for name in ("agreement", "max_abs_error", "max_rel_error", "parity_samples", "parity_data", "failures")
        },
        "float_tensors": export.float_tensors,
        "scores": None if card.test_data is None else _scores(card, model, lite),
        "latency": {name: measured[name] for name in ("latency_1_thread", "latency_2_threads")}
        | {"machine": machine()},
        "student": _described(model),
        "teacher": None if card.teacher is None else _described(card.teacher),
    }


def _check_class_names(names: Sequence[str] | None, lite: TFLiteModel) -> None:
    """Of several outputs one must have as many units as there are names."""
    classes = [max(lite.shapes[output][-1], 2) for output in lite.output_dtypes if lite.shapes[output]]
    if names is not None and len(names) not in classes:
        raise ValueError(
            f"`class_names` needs one name per class of an output; the file's have {classes}. Received: {len(names)} "
            "names."
        )


def _tensor(lite: TFLiteModel, name: str, dtype: str) -> dict[str, Any]:
    known = lite.quantization.get(name)
    scale, zero_point = (None, None) if known is None else (float(known.scale), int(known.zero_point))
    return {"name": name, "shape": lite.shapes[name], "dtype": dtype, "scale": scale, "zero_point": zero_point}


def _range(export: TFLiteExport, samples: np.ndarray) -> dict[str, Any]:
    """The values that the file was checked on, as a hint of what it takes; those of random samples are none."""
    if export.parity_data != "calibration":
        return {"minimum": None, "maximum": None}
    return {"minimum": samples.min().item(), "maximum": samples.max().item()}


def _layers_inside(model: keras.Model) -> list[dict[str, Any]]:
    """The preprocessing layers of a model and of the models inside it, in their order, with their settings."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += _layers_inside(layer)
        elif isinstance(layer, _PREPROCESSING):
            config = layer.get_config()
            if isinstance(layer, keras.layers.Normalization):  # what `adapt` has learned is in no config
                learned = {"mean": layer.mean, "variance": layer.variance}
                config |= {key: np.ravel(keras.ops.convert_to_numpy(value)).tolist() for key, value in learned.items()}
            told = {key: value for key, value in config.items() if value is not None and key not in _BOOKKEEPING}
            found.append({"layer": type(layer).__name__} | told)
    return found


def _scores(card: Card, model: keras.Model, lite: TFLiteModel) -> dict[str, Any]:
    """The figures of file, model and teacher on the test data, against the teacher if there is one."""
    models = {"teacher": card.teacher, "student": model, "file": lite}
    models = {name: each for name, each in models.items() if each is not None}
    table = compare_all(models, card.test_data, reference=next(iter(models)), latency=False)
    rows = {row.name: dataclasses.asdict(row.scores) for row in table.rows}
    return {"task": table.task, "samples": table.samples, "k": table.k, "reference": table.reference, "models": rows}


def _described(model: keras.Model | Comparable) -> dict[str, Any]:
    if isinstance(model, Comparable):
        return {"name": type(model).__name__, "parameters": model.parameters}
    return {"name": model.name, "parameters": model.count_params()}


def _zipped(content: bytes) -> int:
    """Size of the file in a zip archive, as app packages compress it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("model.tflite", content)
        return archive.getinfo("model.tflite").compress_size


def _versions() -> dict[str, str]:
    packages = ("tensorflow", "keras", "ai-edge-litert", "numpy")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"kdkeras": kdkeras.__version__, "python": platform.python_version()} | found


def _is_card(place: Path) -> bool:
    if not place.is_file():
        return False
    content = place.read_bytes()
    if place.suffix == ".md":
        return content.startswith(MARK.encode())
    try:
        return "kdkeras_card" in json.loads(content)
    except (ValueError, TypeError):  # no JSON, not even text; or a number, which has no keys
        return False
