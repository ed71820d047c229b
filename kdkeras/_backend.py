"""What differs between TensorFlow, JAX and PyTorch and has no name in Keras."""

from __future__ import annotations

import contextlib
from typing import Any

import keras


def name() -> str:
    """Return `"tensorflow"`, `"jax"` or `"torch"`."""
    return keras.backend.backend()


def replicas() -> int:
    """Return how many replicas of the step run at once under the current `tf.distribute` strategy."""
    if name() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def outside_of_graphs() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which operations run at once, even while TensorFlow traces a step."""
    if name() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.init_scope()


def without_gradient() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which PyTorch keeps nothing for a backward pass; the others decide that elsewhere."""
    if name() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def number(variable: keras.Variable) -> float:
    """Return the value of a scalar variable, whichever strategy holds it."""
    return float(keras.ops.convert_to_numpy(variable))
