"""Starting values for a student: its own random ones, or weights of its teacher.

A student starts from its random initialisation if nothing is called. `initialize` copies weights of the teacher
instead: of layers that match by name and shape, or, for a student that is the same network with fewer blocks, of
evenly spaced teacher blocks, the way DistilBERT is made.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import keras
from tabulate import tabulate

_BLOCK_PATTERN = r"(?:block|layer|stage|unit)s?_?(\d+)"


@dataclass(frozen=True)
class CopyRow:
    """What became of one student layer.

    Attributes:
        student: Path of the student layer.
        teacher: Path of the teacher layer that it was matched with; `None` if there is none.
        parameters: Number of weights of the student layer.
        reason: Why nothing was copied; empty if the layer was copied.
    """

    student: str
    teacher: str | None
    parameters: int
    reason: str = ""


@dataclass(frozen=True)
class CopyReport:
    """What `initialize` copied, and what it left alone and why. `print(report)` shows a table.

    Attributes:
        rows: One row per student layer that has weights, in the student's order.
    """

    rows: tuple[CopyRow, ...]

    @property
    def copied(self) -> tuple[CopyRow, ...]:
        """The rows whose weights were copied."""
        return tuple(row for row in self.rows if not row.reason)

    @property
    def skipped(self) -> tuple[CopyRow, ...]:
        """The rows that keep their own initialisation."""
        return tuple(row for row in self.rows if row.reason)

    @property
    def copied_parameters(self) -> int:
        """Number of weights that were copied."""
        return sum(row.parameters for row in self.copied)

    @property
    def total_parameters(self) -> int:
        """Number of weights of the student."""
        return sum(row.parameters for row in self.rows)

    def __str__(self) -> str:
        body = [(row.student, row.teacher or "-", row.parameters, row.reason or "copied") for row in self.rows]
        table = tabulate(body, headers=("student layer", "teacher layer", "parameters", "result"), intfmt=",")
        return (
            f"{table}\n{len(self.copied)} of {len(self.rows)} layers copied: "
            f"{self.copied_parameters:,} of {self.total_parameters:,} parameters."
        )


def initialize(
    student: keras.Model,
    teacher: keras.Model,
    *,
    method: Literal["matching", "evenly_spaced"] = "matching",
    pattern: str | None = None,
) -> CopyReport:
    """Copy weights of the teacher into the student, in place, and report layer by layer.

    With `method="matching"`, a student layer takes the weights of the teacher layer of the same path, such as
    `"backbone/conv1"`, or else of the only teacher layer of the same name; both must be of one type and have weights
    of equal shapes. All weights are copied, the moving statistics of BatchNormalization too.

    With `method="evenly_spaced"`, layers whose path carries a block index, such as `"block_3_conv"` or
    `"encoder/layer_3/attention"`, take the weights of another block of the teacher, and all other layers are matched
    as above. Student block j of n takes teacher block (both counted from 0 in the order of their indices)

        round(j (m - 1) / (n - 1)),  halves rounded up; block 0 if n = 1,

    of m: the first and the last block always come along. For 6 of 12 this gives blocks 0, 2, 4, 7, 9, 11, the ones
    that DistilBERT's published extraction script takes; its paper says "one layer out of two".

    For a random start, do not call this function; `keras.utils.set_random_seed` before the student is built makes it
    repeatable.

    Args:
        student: The built model whose weights are overwritten.
        teacher: The built model to copy from; it is left as it is.
        method: `"matching"` or `"evenly_spaced"`.
        pattern: Regular expression with one group, the block index, searched for in the layer paths; for
            `"evenly_spaced"` only. Default: `block`, `layer`, `stage` or `unit`, an optional `_`, then digits. Blocks
            are counted apart for each text in front of the index, so that encoder and decoder do not mix.

    Returns:
        A `CopyReport`. Layers that were not copied stand in it with the reason.

    Raises:
        TypeError: `student` or `teacher` is not a Keras model.
        ValueError: A model is not built, `method` or `pattern` is wrong, the student has more blocks than the
            teacher, or no layer matches at all.

    Example:
        >>> import keras
        >>> from kdkeras.initialization import initialize
        >>> def mlp(depth):
        ...     blocks = [keras.layers.Dense(8, name=f"block_{i}") for i in range(depth)]
        ...     return keras.Sequential([keras.Input((8,)), *blocks, keras.layers.Dense(3, name="head")])
        >>> print(initialize(mlp(2), mlp(3), method="evenly_spaced"))
        student layer    teacher layer      parameters  result
        ---------------  ---------------  ------------  --------
        block_0          block_0                    72  copied
        block_1          block_2                    72  copied
        head             head                       27  copied
        3 of 3 layers copied: 171 of 171 parameters.

    Reference:
        Sanh, Debut, Chaumond and Wolf, DistilBERT, a distilled version of BERT (2019), section 3,
        https://arxiv.org/abs/1910.01108.
    """
    if method not in ("matching", "evenly_spaced"):
        raise ValueError(f"`method` must be 'matching' or 'evenly_spaced'. Received: method={method!r}.")
    if pattern is not None and (method == "matching" or re.compile(pattern).groups != 1):
        raise ValueError(
            "`pattern` needs method='evenly_spaced' and exactly one group, the block index. "
            f"Received: method={method!r}, pattern={pattern!r}."
        )
    ours, theirs = _units(student, "student"), _units(teacher, "teacher")
    wanted = {path: path for path in ours}
    if method == "evenly_spaced":
        wanted = _evenly_spaced_paths(list(ours), list(theirs), pattern or _BLOCK_PATTERN)
    pairs = [(unit, _partner(path, wanted[path], theirs)) for path, unit in ours.items()]
    report = CopyReport(tuple(_row(unit, partner) for unit, partner in pairs))
    if not report.copied:
        raise ValueError(_nothing_matches(pairs, theirs))
    for row, (unit, partner) in zip(report.rows, pairs, strict=True):
        if not row.reason:
            for target, source in zip(unit.weights, partner.weights, strict=True):
                target.assign(source)
    return report


def evenly_spaced(count: int, total: int) -> tuple[int, ...]:
    """Return `count` of the indices 0 … `total` - 1, evenly spaced, first and last included.

    Args:
        count: How many to choose, at least 1.
        total: How many there are.

    Returns:
        round(j (total - 1) / (count - 1)) for j = 0 … count - 1, halves rounded up; `(0,)` if `count` is 1.

    Raises:
        ValueError: `count` is not in 1 … `total`.

    Example:
        >>> from kdkeras.initialization import evenly_spaced
        >>> evenly_spaced(6, 12)
        (0, 2, 4, 7, 9, 11)
    """
    if not 1 <= count <= total:
        raise ValueError(f"`count` must lie in 1 … total. Received: count={count}, total={total}.")
    gaps = max(count - 1, 1)
    return tuple((2 * j * (total - 1) + gaps) // (2 * gaps) for j in range(count))


class _Unit(NamedTuple):
    """Weights that are copied together: those of a layer, or those that a model holds itself."""

    path: str
    kind: str
    weights: list[Any]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [tuple(weight.shape) for weight in self.weights]


def _units(model: keras.Model, role: str) -> dict[str, _Unit]:
    """Return everything that has weights by its path, in the order of the model."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"`{role}` must be a keras.Model. Received: {type(model).__name__}.")
    if not model.built or not model.weights:
        raise ValueError(
            f"The {role} '{model.name}' has no weights yet: call it on a batch or build it with an input shape first."
        )
    units: dict[str, _Unit] = {}

    def walk(parent: keras.Model, prefix: str) -> None:
        inner: set[int] = set()
        for layer in parent.layers:
            path = prefix + layer.name
            inner.update(id(weight) for weight in layer.weights)
            if isinstance(layer, keras.Model):
                walk(layer, path + "/")
            elif layer.weights:
                units[path] = _Unit(path, type(layer).__name__, layer.weights)
        own = [weight for weight in parent.weights if id(weight) not in inner]  # a subclassed model may have some
        if own:
            path = f"{prefix}(own weights)"
            units[path] = _Unit(path, type(parent).__name__, own)

    walk(model, "")
    return units


def _partner(path: str, wanted: str, teacher: dict[str, _Unit]) -> _Unit | None:
    """Return the teacher's unit at the wanted path, or else its only one of the student layer's name."""
    if wanted in teacher or wanted != path:  # in another block, a namesake would be the wrong layer
        return teacher.get(wanted)
    name = path.rpartition("/")[2]
    namesakes = [unit for unit in teacher.values() if unit.path.rpartition("/")[2] == name]
    return namesakes[0] if len(namesakes) == 1 else None


def _row(unit: _Unit, partner: _Unit | None) -> CopyRow:
    parameters = sum(math.prod(shape) for shape in unit.shapes)
    if partner is None:
        return CopyRow(unit.path, None, parameters, "no teacher layer of this path, nor exactly one of this name")
    reason = ""
    if unit.kind != partner.kind:
        reason = f"types differ: {unit.kind} and {partner.kind}"
    elif unit.shapes != partner.shapes:
        reason = f"shapes differ: {_spell(unit.shapes)} and {_spell(partner.shapes)}"
    return CopyRow(unit.path, partner.path, parameters, reason)


def _evenly_spaced_paths(student: list[str], teacher: list[str], pattern: str) -> dict[str, str]:
    """Return the teacher path wanted by each student path."""
    ours, theirs = _blocks(student, pattern), _blocks(teacher, pattern)
    common = [family for family in ours if family in theirs]
    if not common:
        raise ValueError(
            f"method='evenly_spaced' found no block of one name in both models with pattern '{pattern}'. "
            f"Received: student blocks {sorted(ours)}, teacher blocks {sorted(theirs)}; name the layers 'block_0…', "
            "'block_1…' or pass `pattern`."
        )
    chosen: dict[tuple[str, int], int] = {}
    for family in common:
        mine, other = ours[family], theirs[family]
        if len(mine) > len(other):
            raise ValueError(
                f"The student must not have more blocks '{family}…' than the teacher. "
                f"Received: {len(mine)} and {len(other)}; use method='matching'."
            )
        picks = evenly_spaced(len(mine), len(other))
        chosen |= {(family, index): other[pick] for index, pick in zip(mine, picks, strict=True)}
    wanted = {}
    for path in student:
        found = re.search(pattern, path)
        key = (path[: found.start(1)], int(found[1])) if found else None
        wanted[path] = f"{key[0]}{chosen[key]}{path[found.end(1) :]}" if key in chosen else path
    return wanted


def _blocks(paths: list[str], pattern: str) -> dict[str, list[int]]:
    """Return the sorted block indices by the text in front of them."""
    families: dict[str, set[int]] = {}
    for path in paths:
        found = re.search(pattern, path)
        if found is None:
            continue
        if not (found[1] or "").isdecimal():
            raise ValueError(f"The group of `pattern` must be a number. Received: {found[1]!r} in '{path}'.")
        families.setdefault(path[: found.start(1)], set()).add(int(found[1]))
    return {family: sorted(indices) for family, indices in families.items()}


def _nothing_matches(pairs: list[tuple[_Unit, _Unit | None]], teacher: dict[str, _Unit]) -> str:
    """Word the error with the nearest names, and with teacher layers of the same shapes."""
    hints = []
    for unit, _ in pairs[:3]:
        near = difflib.get_close_matches(unit.path, teacher, n=1, cutoff=0.0)
        same = [other.path for other in teacher.values() if other.shapes == unit.shapes][:1]
        nearest = f"nearest name '{near[0]}' {_spell(teacher[near[0]].shapes)}"
        fitting = f"same shapes in '{same[0]}'" if same else "no teacher layer of these shapes"
        hints.append(f"'{unit.path}' {_spell(unit.shapes)}: {nearest}, {fitting}")
    return (
        "No student layer matches a teacher layer by name, type and shape. "
        f"Received: {'; '.join(hints)}. Give matching layers the same name in both models."
    )


def _spell(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join("×".join(str(size) for size in shape) or "scalar" for shape in shapes)
