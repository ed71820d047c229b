"""What stands in a TFLite file: its graph, read without running it."""

from __future__ import annotations

from typing import Any

from kdkeras.export._flatbuffer import custom_operators


def parse(content: bytes) -> Any:
    """Return the tables of a TFLite file.

    Args:
        content: The bytes of the file.

    Returns:
        The `Model` of the TFLite schema.

    Raises:
        ValueError: They are no TFLite file.

    Example:
        >>> from kdkeras.export._anatomy import parse
        >>> parse(b"hello")
        Traceback (most recent call last):
        ValueError: A TFLite file is needed. Received: 5 bytes of something else...
    """
    from ai_edge_litert import schema_py_generated as schema

    if len(content) < 8 or not schema.Model.ModelBufferHasIdentifier(content, 0):
        raise ValueError(
            f"A TFLite file is needed. Received: {len(content)} bytes of something else. "
            "Write one with `kdkeras.export.tflite`."
        )
    return schema.Model.GetRootAs(content)


def cannot_start(content: bytes, said: str, *, asked_by: str) -> str:
    """Say in a sentence that the runtime cannot start a file, and which ops it lacks.

    Args:
        content: The bytes of the file.
        said: What the runtime said.
        asked_by: Name of the public function or class that was given the file.

    Returns:
        The sentence.
    """
    foreign = ", ".join(custom_operators(content)) or said.splitlines()[0]
    return (
        f"`{asked_by}` needs a file of builtin ops. Received: one that the runtime cannot start ({foreign}). Export "
        "the model with `kdkeras.export.tflite`."
    )
