"""Shapes of a function's outputs, without running it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def output_specs(function: Callable[..., Any], inputs: Any) -> Any:
    """Return the symbolic outputs of a function for symbolic inputs.

    Args:
        function: Any function of one nest of tensors, written in `keras.ops` or calling Keras models.
        inputs: `keras.KerasTensor`s.

    Returns:
        `keras.KerasTensor`s, in the nest that the function returns.

    Example:
        >>> import keras
        >>> from kdkeras._symbolic import output_specs
        >>> output_specs(keras.ops.transpose, keras.KerasTensor((2, 3))).shape
        (3, 2)
    """
    return _Function(function).compute_output_spec(inputs)


class _Function(keras.Operation):
    """Lends `Operation.compute_output_spec` to a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def call(self, inputs: Any) -> Any:
        return self.function(inputs)
