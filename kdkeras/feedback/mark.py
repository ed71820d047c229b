"""One person's word on one explanation."""

from __future__ import annotations

from dataclasses import dataclass

VERDICTS = ("right", "wrong", "unclear")
_MODELS = ("teacher", "student")
_LONGEST = {"note": 2000, "who": 100}  # characters


@dataclass(frozen=True)
class Mark:
    """An explanation of one sample, and whether a person finds it right.

    Attributes:
        sample: The sample's `sample_id`.
        model: Whose explanation is judged: `"teacher"` or `"student"`.
        method: Name of the method, as `kdkeras.explain.attribute` takes it.
        target: Index of the class that was explained.
        verdict: `"right"`, `"wrong"` or `"unclear"`.
        note: Why, in the person's words; at most 2,000 characters.
        who: The person, where they say it; at most 100 characters.
        layer: Path of the layer that the method looked at; `None` for methods of the input.
        index: Number of the sample in its data; `None` for one that was uploaded.
        data: Name of the data.
        target_name: Name of the class.
        teacher_file: SHA-256 of the teacher's file, in hexadecimal digits.
        student_file: SHA-256 of the student's.
        time: When it was stored, UTC, ISO 8601; the store sets it.

    Raises:
        ValueError: A verdict or a model that is not known, or a text that is too long.

    Example:
        >>> from kdkeras.feedback import Mark
        >>> Mark("00" * 32, "student", "grad_cam", 3, "wrong", note="It looks at the frame.").verdict
        'wrong'
    """

    sample: str
    model: str
    method: str
    target: int
    verdict: str
    note: str = ""
    who: str = ""
    layer: str | None = None
    index: int | None = None
    data: str = ""
    target_name: str = ""
    teacher_file: str = ""
    student_file: str = ""
    time: str = ""

    def __post_init__(self) -> None:
        for name, allowed in (("verdict", VERDICTS), ("model", _MODELS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {', '.join(allowed)}. Received: {getattr(self, name)!r}.")
        for name, longest in _LONGEST.items():
            if len(getattr(self, name)) > longest:
                raise ValueError(
                    f"`{name}` must have at most {longest} characters. Received: {len(getattr(self, name))}."
                )
