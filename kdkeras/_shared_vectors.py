"""A TFLite file written anew, with every repeated vector in it once."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np

_ALIGNMENT = 16  # of the data of tensors, as the schema asks for
_LARGE = 2**16  # bytes; weights of that size are not kept to be compared
_LARGEST = 2**30  # bytes of a file that is written anew: the builder doubles its memory, up to 2 GB


class _SharingBuilder(flatbuffers.Builder):
    """A builder that writes a vector of numbers once, however many tables refer to it."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802  # the name is the library's
        """Return the place of a vector with these numbers."""
        payload = x.astype(x.dtype.newbyteorder("<"), copy=False).tobytes()
        key = x.dtype.str, payload
        if key in self._written:
            return self._written[key]
        self.StartVector(x.itemsize, x.size, _ALIGNMENT if x.dtype == np.uint8 else x.dtype.alignment)
        self.head -= len(payload)
        self.Bytes[self.head : self.head + len(payload)] = payload
        self.vectorNumElems = x.size
        place = self.EndVector()
        if len(payload) < _LARGE:
            self._written[key] = place
        return place


def share_repeated(content: bytes) -> bytes:
    """Return a TFLite file with the same tables, in which equal vectors stand once.

    The converter writes a zero point of eight bytes for every channel of every kernel and of every bias, and all of
    them are zero: in a small file of integers that is a quarter of the whole.

    Args:
        content: The bytes of a TFLite file.

    Returns:
        The bytes of the new file; the given ones where they are not more, over 1 GB, or where weights lie behind the
        tables.
    """
    if len(content) > _LARGEST:
        return content
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    if any(buffer.offset > 1 for buffer in model.buffers):
        return content
    builder = _SharingBuilder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    shared = bytes(builder.Output())
    return shared if len(shared) < len(content) else content
