"""Watching calls: what went into a function of an object and what came out, while a block runs.

A wrapper stands in for `owner.attribute` only while some thread records. Which thread sees what is decided per thread,
because the replicas of a `tf.distribute` strategy trace the same layers in turns.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_LOCK = threading.RLock()
_INSTALLED: dict[tuple[int, str], int] = {}
_REPLACED: dict[tuple[int, str], Any] = {}
_CLASS_ATTRIBUTE = object()  # stands for: nothing in the instance's own dict
_ACTIVE = threading.local()


@contextlib.contextmanager
def record(
    watched: list[tuple[Any, str]], change: Mapping[tuple[int, str], Callable[[Any], Any]] | None = None
) -> Iterator[dict[tuple[int, str], list[tuple[Any, Any]]]]:
    """Record every call of each `(owner, attribute)` that this thread makes in the block.

    Args:
        watched: Objects with the names of their functions: `call` of a layer or operation, `activation` of a layer.
        change: By `(id(owner), attribute)`, functions of a result that return what takes its place.

    Yields:
        A dict that fills while the block runs: (first argument, result) of each call, by `(id(owner), attribute)`, in
        the order of the latest calls.
    """
    records: dict[tuple[int, str], list[tuple[Any, Any]]] = {}
    recorders = _ACTIVE.__dict__.setdefault("recorders", [])
    installed = []
    try:
        for owner, attribute in watched:
            _install(owner, attribute)
            installed.append((owner, attribute))
        recorders.append((records, {(id(owner), attribute) for owner, attribute in watched}, change or {}))
        yield records
    finally:
        recorders[:] = [entry for entry in recorders if entry[0] is not records]
        for owner, attribute in reversed(installed):
            _uninstall(owner, attribute)


def _install(owner: Any, attribute: str) -> None:
    key = (id(owner), attribute)
    with _LOCK:
        _INSTALLED[key] = _INSTALLED.get(key, 0) + 1
        if _INSTALLED[key] == 1:
            # Written to the instance's dict, past Keras' attribute tracking, which has no part in this.
            _REPLACED[key] = owner.__dict__.get(attribute, _CLASS_ATTRIBUTE)
            owner.__dict__[attribute] = _wrap(getattr(owner, attribute), key)


def _uninstall(owner: Any, attribute: str) -> None:
    key = (id(owner), attribute)
    with _LOCK:
        _INSTALLED[key] -= 1
        if not _INSTALLED[key]:
            del _INSTALLED[key]
            del owner.__dict__[attribute]
            original = _REPLACED.pop(key)
            if original is not _CLASS_ATTRIBUTE:
                owner.__dict__[attribute] = original


def _wrap(original: Callable[..., Any], key: tuple[int, str]) -> Callable[..., Any]:
    @functools.wraps(original)
    def recording(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        first = args[0] if args else next(iter(kwargs.values()), None)
        for _, _, change in getattr(_ACTIVE, "recorders", ()):
            result = change[key](result) if key in change else result
        for records, keys, _ in getattr(_ACTIVE, "recorders", ()):
            if key in keys:
                calls = records.pop(key, [])  # re-inserted: the dict keeps the order of the latest calls
                records[key] = [*calls, (first, result)]
        return result

    return recording


def unwrapped(function: Any) -> Any:
    """The function behind a recording wrapper, so that a model can be read inside a reading of it."""
    return getattr(function, "__wrapped__", function)
