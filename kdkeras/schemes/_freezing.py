"""Layers that are not trained for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras


@contextlib.contextmanager
def frozen(layers: Sequence[keras.layers.Layer]) -> Iterator[None]:
    """Freeze layers, with all inside of them, while this lasts; then every flag is as it was, whatever happened.

    Args:
        layers: The layers.

    Example:
        >>> from kdkeras.schemes._freezing import frozen
        >>> from kdkeras.testing import tiny_cnn
        >>> model = tiny_cnn()
        >>> with frozen(model.layers[:1]):
        ...     len(model.trainable_variables)
        2
        >>> len(model.trainable_variables)
        4
    """
    # Outer layers before inner ones: setting the flag of a layer sets those of all inside.
    all_layers = [inner for layer in layers for inner in layer._flatten_layers()]
    variables = [variable for layer in layers for variable in layer.variables]
    flags = [layer.trainable for layer in all_layers]
    of_variables = [variable.trainable for variable in variables]
    try:
        for layer in layers:
            layer.trainable = False
        yield
    finally:
        for layer, flag in zip(all_layers, flags, strict=True):
            layer.trainable = flag
        for variable, flag in zip(variables, of_variables, strict=True):
            variable.trainable = flag
