"""What each way to quantize needs, and what its file is held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Quantize = Literal["float16", "dynamic", "int8", "int16x8", "int4"]
IODtype = Literal["float32", "int8", "uint8", "int16"]


@dataclass(frozen=True)
class Mode:
    """One value of `quantize`.

    Attributes:
        relative_limit: Largest relative error that passes, where agreement does not decide.
        by_agreement: Whether agreement decides, where the output is a decision and the samples are real.
        calibrated: Whether it needs representative data, because activations get fixed ranges.
        io_dtypes: What the file's inputs and outputs can be, where they need not be the model's.
        crash_advice: What to do where the converter crashes.
    """

    relative_limit: float
    by_agreement: bool = True
    calibrated: bool = False
    io_dtypes: tuple[str, ...] = ()
    crash_advice: str = "Try another `quantize` mode."


_RECURRENT = "Recurrent layers are the known cause: build them with unroll=True, or use quantize='dynamic'."

MODES: dict[str | None, Mode] = {
    None: Mode(1e-4, by_agreement=False),
    "float16": Mode(5e-2, by_agreement=False),
    "dynamic": Mode(1e-1),
    "int8": Mode(1e-1, calibrated=True, io_dtypes=("float32", "int8", "uint8"), crash_advice=_RECURRENT),
    "int16x8": Mode(1e-1, calibrated=True, io_dtypes=("float32", "int16"), crash_advice=_RECURRENT),
    "int4": Mode(2.5e-1),
}
