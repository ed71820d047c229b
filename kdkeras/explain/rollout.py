"""Attention rollout: how much of each token a transformer hands on to its output."""

from __future__ import annotations

import math
from typing import ClassVar

import keras
import numpy as np

from kdkeras.explain.method import Method
from kdkeras.explain.subject import Subject
from kdkeras.layer_paths import layer_paths
from kdkeras.ops import scaled_dot_products
from kdkeras.signals import called_layers

_PARTS = ("query", "key")
_MASKED = "attention_output"  # the sub-layer that has the mask of padding


class AttentionRollout(Method):
    """The product of all layers' attention, `Π_l (½ A_l + ½ I)`, with A_l the mean over the heads.

    The half of the identity is the residual connection. Of a model of images with a class token (one token more than a
    square, the first), the map is that token's row; of any other, the mean over all rows, as pooling takes it. It is
    the same for every class: rollout says where the information comes from, not what it speaks for.

    Only bidirectional self-attention by `keras.layers.MultiHeadAttention` is understood: the attention is computed from
    queries and keys again, which knows the mask of padding, but none that a model passes to the layer itself.

    Example:
        >>> from kdkeras import explain
        >>> explain.AttentionRollout().title
        'Attention rollout'

    Reference:
        Abnar, Zuidema: Quantifying Attention Flow in Transformers, 2020, arXiv:2005.00928.
    """

    name: ClassVar[str] = "attention_rollout"
    title: ClassVar[str] = "Attention rollout"

    def maps(self, subject: Subject, layer: str | None) -> np.ndarray:
        """Return one number per token, at least 0; those of a sample sum to 1."""
        layers = layer_paths(subject.model).items()
        paths = [path for path, each in layers if isinstance(each, keras.layers.MultiHeadAttention)]
        if not paths:
            raise ValueError(
                f"`AttentionRollout` needs a model with `keras.layers.MultiHeadAttention`. Received: model "
                f"'{subject.model.name}' without. Take 'grad_cam', or a method of the input."
            )
        signals = subject.tapped(*(f"{path}/{part}" for path in paths for part in (*_PARTS, _MASKED)))
        called = list(called_layers(subject.model, subject.rows(0, 1)))
        paths = sorted(paths, key=lambda path: called.index(f"{path}/query"))
        rolled = None
        for path in paths:
            query, key = (signals.features[f"{path}/{part}"] for part in _PARTS)
            if query.shape[1] != key.shape[1] or (rolled is not None and rolled.shape[1] != query.shape[1]):
                raise ValueError(
                    f"`AttentionRollout` needs self-attention of one sequence all through the model. Received: "
                    f"'{path}' from {query.shape[1]} to {key.shape[1]} positions. Take 'grad_cam', or a method of the "
                    "input."
                )
            attention = _attention(query, key, signals.masks.get(f"{path}/{_MASKED}"))
            step = 0.5 * attention + 0.5 * np.eye(attention.shape[-1])
            rolled = step if rolled is None else step @ rolled
        length = rolled.shape[1]
        has_class_token = subject.array.ndim == 4 and math.isqrt(length) ** 2 != length
        return (rolled[:, 0] if has_class_token else rolled.mean(axis=1)).astype("float32")


def _attention(query: np.ndarray, key: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return attention probabilities, the mean over the heads, float64 `(n, length, length)`."""
    scores = np.asarray(scaled_dot_products(query, key), dtype="float64")  # (n, heads, length, length)
    if mask is not None:
        scores = np.where(np.asarray(mask, dtype=bool)[:, None, None, :], scores, -np.inf)
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (shifted / shifted.sum(axis=-1, keepdims=True)).mean(axis=1)
