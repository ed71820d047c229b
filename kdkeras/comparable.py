"""What `kdkeras.evaluate.compare` asks of a model that Keras does not run."""

from __future__ import annotations

import abc
from typing import Any, Literal

import numpy as np

from kdkeras.signals import Signals


class Comparable(abc.ABC):
    """A model that `kdkeras.evaluate.compare` takes beside Keras models, as a column of its own.

    The students of `kdkeras.students` are such models, and so are TFLite files.

    Attributes:
        head: What `answers(x).logits` belong to: `"softmax"`, `"sigmoid"` or `"linear"`.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import evaluate
        >>> from kdkeras.comparable import Comparable
        >>> from kdkeras.signals import Signals
        >>> class Always(Comparable):
        ...     head, parameters, file_bytes = "linear", 1, 8
        ...     def answers(self, x, *, batch_size):
        ...         return Signals(*2 * [np.tile(np.float32([1, 0]), (len(x), 1))], {})
        ...     def predict(self, x):
        ...         return np.zeros(len(x), int)
        >>> teacher = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        >>> data = np.ones((4, 2)), np.array([0, 0, 0, 1])
        >>> evaluate.compare(teacher, Always(), data, latency=False)["student"].scores.accuracy
        0.75
    """

    head: Literal["softmax", "sigmoid", "linear"]

    @abc.abstractmethod
    def answers(self, x: Any, *, batch_size: int) -> Signals:
        """Return predictions and logits, each `(n, units)` in float32; features are not asked for.

        Args:
            x: Samples `(n, ...)`, nested as the Keras models beside it take them.
            batch_size: Samples per call, where several can be taken.

        Returns:
            The `Signals`.

        Raises:
            ValueError: The samples do not fit.
        """

    @abc.abstractmethod
    def predict(self, x: Any) -> np.ndarray:
        """Return the answer to samples `(n, ...)` as a user gets it: what is timed, on one sample."""

    @property
    @abc.abstractmethod
    def parameters(self) -> int:
        """How many numbers it keeps."""

    @property
    @abc.abstractmethod
    def file_bytes(self) -> int:
        """Size of its file, in bytes."""

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of one sample; `None` where they cannot be counted."""
        return None
