"""The variables that make up a training: what they are, their values, and whether a state fits them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np


def variable_groups(model: keras.Model) -> dict[str, list[keras.Variable]]:
    """Return everything that a train step reads and writes.

    Args:
        model: A built, compiled model.

    Returns:
        The variables `"model"` (weights, other state and random seeds), `"optimizer"`, `"metrics"`, and `"seed"`:
        the one of Keras' global seed generator, once it exists.
    """
    # The global seed generator has no public name.
    from keras.src.backend.common.global_state import get_global_attribute
    from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR

    optimizer, seed = model.optimizer, get_global_attribute(GLOBAL_SEED_GENERATOR)
    return {
        "model": _unique(model.variables),
        "optimizer": [] if optimizer is None else _unique(optimizer.variables),
        "metrics": _unique(model.metrics_variables),
        "seed": [] if seed is None else [seed.state],
    }


def make_global_seed() -> None:
    """Make Keras' global seed generator, which Keras does when it is first needed."""
    from keras.src.random.seed_generator import global_seed_generator

    global_seed_generator()


def values(variables: Iterable[keras.Variable], constant: set[int], arrays: list[np.ndarray]) -> list[dict[str, Any]]:
    """Describe variables, and append their values to `arrays`.

    Args:
        variables: The variables.
        constant: `id` of those that never change: they are described by a checksum only.
        arrays: Receives the values.

    Returns:
        Name, shape and type of each, with the position of its value or its checksum.
    """
    described = []
    for variable in variables:
        value = np.asarray(keras.ops.convert_to_numpy(variable))
        entry = description(variable)
        if id(variable) in constant:
            entry["checksum"] = _checksum(value)
        else:
            entry["array"] = len(arrays)
            arrays.append(value)
        described.append(entry)
    return described


def description(variable: keras.Variable) -> dict[str, Any]:
    """Return name, shape and type of a variable, without the numbers that Keras adds to names."""
    name = re.sub(r"_\d+(?=[/_]|$)", "", variable.path)
    return {"name": name, "shape": list(variable.shape), "dtype": str(variable.dtype)}


def misfit(group: str, variables: list[keras.Variable], saved: list[dict[str, Any]]) -> str | None:
    """Return why saved values are not of these variables, in words, or `None` if they are."""
    if len(variables) != len(saved):
        return f"it has {len(saved)} {group} variables, this training {len(variables)}"
    for variable, entry in zip(variables, saved, strict=True):
        here = description(variable)
        if any(entry[key] != here[key] for key in here):
            there, here = (f"'{one['name']}' {tuple(one['shape'])} {one['dtype']}" for one in (entry, here))
            return f"it has {group} variable {there} where this training has {here}"
        if "checksum" in entry and entry["checksum"] != _checksum(keras.ops.convert_to_numpy(variable)):
            return f"constant {group} variable '{here['name']}' has another value now"
    return None


def assign(variables: list[keras.Variable], saved: list[dict[str, Any]], arrays: list[np.ndarray]) -> None:
    """Put saved values back."""
    for variable, entry in zip(variables, saved, strict=True):
        if "array" in entry:
            variable.assign(arrays[entry["array"]].copy())  # torch wants arrays that it could write to


def _unique(variables: Iterable[keras.Variable]) -> list[keras.Variable]:
    return list({id(variable): variable for variable in variables}.values())


def _checksum(value: Any) -> int:
    return zlib.crc32(np.ascontiguousarray(value).tobytes())
