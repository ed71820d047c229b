"""Targets from a teacher in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt

from kdkeras.signals import predict_logits
from kdkeras.targets.answers import is_foreign_model, logits
from kdkeras.targets.encodings import cluster_encoded, hard, rank_encoded, soft


def from_teacher(
    teacher: Any,
    x: Any,
    encoding: Literal["soft", "hard", "rank", "cluster"] = "soft",
    **options: Any,
) -> np.ndarray:
    """Return the targets that a teacher gives for `x`.

    Args:
        teacher: A Keras classifier, of which the logits are taken, whether it ends in a softmax or not; a fitted
            scikit-learn classifier; an ONNX session or a PyTorch module that returns logits; or any function of `x`
            that returns scores `(n, K)`, such as `forest.predict_proba` with `from_logits=False`.
        x: Inputs of the teacher.
        encoding: `"soft"`, `"hard"`, `"rank"` or `"cluster"`.
        options: Passed on to the function of that encoding.

    Returns:
        Float32 `(n, K)`, rows summing to 1.

    Raises:
        TypeError: `teacher` can not be called, or an option is unknown to the encoding.
        ValueError: The encoding is unknown, or its function refuses the outputs or an option.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import targets
        >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        >>> targets.from_teacher(teacher, np.zeros((2, 4)), encoding="soft", temperature=4.0).shape
        (2, 3)
    """
    encodings: dict[str, Callable[..., np.ndarray]] = {
        "soft": soft,
        "hard": hard,
        "rank": rank_encoded,
        "cluster": cluster_encoded,
    }
    if encoding not in encodings:
        raise ValueError(f"`encoding` must be one of {', '.join(encodings)}. Received: encoding={encoding!r}.")
    return encodings[encoding](_outputs(teacher, x), **options)


def _outputs(teacher: Any, x: Any) -> npt.ArrayLike:
    if isinstance(teacher, keras.Model):
        return predict_logits(teacher, x)
    if is_foreign_model(teacher) or not callable(teacher):
        return logits(teacher, x)  # which says what can be done where it is no teacher at all
    return teacher(x)
