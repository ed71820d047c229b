"""Plain state of Python objects and of global random generators, as JSON values and arrays."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

import keras
import numpy as np

# Keras' monitoring callbacks turn the sign of this setting once, on their first epoch in a process.
_TURNED = "min_delta"


class NotPlainError(TypeError):
    """A value is no number, text, array, random generator, or list, tuple or dict of these."""


def encode(value: Any, arrays: list[np.ndarray]) -> Any:
    """Return `value` as a JSON value; arrays go to `arrays`, and their positions stand for them.

    Args:
        value: `None`, a number, text, a numpy array or generator, or a list, tuple or dict of these.
        arrays: Receives the arrays.

    Returns:
        The JSON value.

    Raises:
        NotPlainError: `value` is something else.
    """
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise NotPlainError(f"an array of {array.dtype}")
        arrays.append(array)
        return {"array" if isinstance(value, np.ndarray) else "scalar": len(arrays) - 1}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [encode(item, arrays) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [encode(item, arrays) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(key, arrays), encode(item, arrays)] for key, item in value.items()]}
    return {"generator": encode(_generator_state(value), arrays)}


def decode(value: Any, arrays: list[np.ndarray], current: Any = None) -> Any:
    """Return what `encode` was given. A random generator is put back in place: `current` is moved and returned."""
    if isinstance(value, list):
        return [decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return arrays[content].copy()
    if kind == "scalar":
        return arrays[content][()]
    if kind == "tuple":
        return tuple(decode(item, arrays) for item in content)
    if kind == "dict":
        return {decode(key, arrays): decode(item, arrays) for key, item in content}
    _set_generator_state(current, decode(content, arrays))
    return current


def _generator_state(value: Any) -> Any:
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False)
    if isinstance(value, random.Random):
        return value.getstate()
    raise NotPlainError(f"a {type(value).__name__}")


def _set_generator_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        raise ValueError(
            f"A random generator was saved, and there is {type(generator).__name__} in its place. Make the object as "
            "it was when the training was started."
        )


def fingerprints(owner: Any) -> dict[str, str]:
    """Return a checksum of every plain attribute of `owner`, to see later which have changed."""
    return {name: _checksum(*encoded) for name, encoded in _plain_attributes(owner).items()}


def changed_attributes(owner: Any, before: dict[str, str], arrays: list[np.ndarray]) -> dict[str, Any]:
    """Return the plain attributes of `owner` that are not as they were, encoded.

    Settings given by the user stay out of it: a state must not bring back an old setting.

    Args:
        owner: A callback, a `PyDataset`, or any object.
        before: What `fingerprints` said at the beginning.
        arrays: Receives the arrays.

    Returns:
        Encoded values by attribute name.
    """
    now = _plain_attributes(owner)
    changed = [name for name, encoded in now.items() if before.get(name) != _checksum(*encoded)]
    return {name: encode(vars(owner)[name], arrays) for name in changed}


def restore_attributes(owner: Any, saved: dict[str, Any], arrays: list[np.ndarray]) -> None:
    """Put back what `changed_attributes` returned."""
    for name, value in saved.items():
        setattr(owner, name, decode(value, arrays, vars(owner).get(name)))


def random_states() -> dict[str, Any]:
    """Return the state of Python's, numpy's and (on the torch backend) torch's global random generator."""
    return {"python": random.getstate(), "numpy": np.random.get_state(legacy=False), **step_random_states()}


def step_random_states() -> dict[str, Any]:
    """Return the state of the global generators that a train step draws from.

    On the torch backend this is torch's, for dropout without a seed. The others are drawn from by the data, at times
    in a thread that runs ahead.
    """
    if keras.backend.backend() != "torch":
        return {}
    import torch

    return {"torch": torch.get_rng_state().numpy().copy()}


def restore_random_states(states: dict[str, Any]) -> None:
    """Put back what `random_states` or `step_random_states` returned."""
    if "python" in states:
        random.setstate(states["python"])
        np.random.set_state(states["numpy"])
    if "torch" in states:
        import torch

        torch.set_rng_state(torch.from_numpy(states["torch"]))


def _plain_attributes(owner: Any) -> dict[str, tuple[Any, list[np.ndarray]]]:
    found = {}
    for name, value in vars(owner).items():
        if name == _TURNED:
            continue
        arrays: list[np.ndarray] = []
        try:
            found[name] = (encode(value, arrays), arrays)
        except NotPlainError:  # models, functions and the like are made anew by the program
            continue
    return found


def _checksum(encoded: Any, arrays: list[np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(encoded).encode())
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
