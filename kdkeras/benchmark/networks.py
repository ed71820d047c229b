"""The pairs of networks that losses are compared on, with layers of the same names throughout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
from keras import layers

_MOMENTUM = 0.9  # few epochs: statistics of Keras' 0.99 would lag behind the weights


@dataclass(frozen=True)
class NetworkPair:
    """A teacher and a student to be.

    Attributes:
        name: What the two have in common.
        teacher: Returns an untrained teacher for an input shape and a number of classes.
        student: Returns an untrained student.
        kind: `"convolution"` or `"transformer"`.
    """

    name: str
    teacher: Callable[[tuple[int, ...], int], keras.Model]
    student: Callable[[tuple[int, ...], int], keras.Model]
    kind: str


def _network(shape: tuple[int, ...], classes: int, widths: tuple[int, ...], name: str, stage: Callable) -> keras.Model:
    """Three stages, each of half the size of the one before; `stageN` is after the ReLU, `normN` before it."""
    inputs = features = keras.Input(shape)
    for place, width in enumerate(widths, start=1):
        features = stage(features, width, strides=1 if place == 1 and min(shape[:2]) < 16 else 2)
        features = layers.BatchNormalization(momentum=_MOMENTUM, name=f"norm{place}")(features)
        features = layers.ReLU(name=f"stage{place}")(features)
    pooled = layers.GlobalAveragePooling2D(name="pool")(features)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(pooled), name=name)


def _doubled(features: keras.KerasTensor, width: int, strides: int) -> keras.KerasTensor:
    features = layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False)(features)
    features = layers.ReLU()(layers.BatchNormalization(momentum=_MOMENTUM)(features))
    return layers.Conv2D(width, 3, padding="same", use_bias=False)(features)


def _single(features: keras.KerasTensor, width: int, strides: int) -> keras.KerasTensor:
    return layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False)(features)


def _separable(features: keras.KerasTensor, width: int, strides: int) -> keras.KerasTensor:
    if features.shape[-1] > 1:
        features = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(features)
        features = layers.ReLU(6.0)(layers.BatchNormalization(momentum=_MOMENTUM)(features))
        return layers.Conv2D(width, 1, use_bias=False)(features)
    return layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False)(features)


def _transformer(shape: tuple[int, ...], classes: int, width: int, blocks: int, name: str) -> keras.Model:
    """A small vision transformer on 16 patches; `attentionN` and, after each block, `hiddenN`."""
    inputs = keras.Input(shape)
    size = (shape[0] // 4, shape[1] // 4)
    tokens = layers.Conv2D(width, size, strides=size, name="patches")(inputs)
    tokens = layers.Reshape((-1, width))(tokens)
    hidden = _Positions(name="embedding")(tokens)
    for block in range(1, blocks + 1):
        normed = layers.LayerNormalization()(hidden)
        hidden = hidden + layers.MultiHeadAttention(4, width // 4, name=f"attention{block}")(normed, normed)
        normed = layers.LayerNormalization()(hidden)
        mixed = layers.Dense(width)(layers.Dense(2 * width, activation="gelu")(normed))
        hidden = layers.Add(name=f"hidden{block}")([hidden, mixed])
    pooled = layers.GlobalAveragePooling1D(name="pool")(layers.LayerNormalization()(hidden))
    return keras.Model(inputs, layers.Dense(classes, name="logits")(pooled), name=name)


@keras.saving.register_keras_serializable(package="kdkeras_benchmark")
class _Positions(layers.Layer):
    """Adds a learned vector to each position."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the vectors."""
        self.vectors = self.add_weight(shape=(1, *input_shape[1:]), initializer="truncated_normal", name="positions")

    def call(self, tokens: keras.KerasTensor) -> keras.KerasTensor:
        """Return the tokens with their positions, shape `(batch, tokens, width)`."""
        return tokens + self.vectors


def _convolutional_teacher(shape: tuple[int, ...], classes: int) -> keras.Model:
    return _network(shape, classes, (32, 64, 128), "teacher", _doubled)


PAIRS = (
    NetworkPair(
        "same family",
        _convolutional_teacher,
        lambda shape, classes: _network(shape, classes, (8, 16, 32), "student", _single),
        "convolution",
    ),
    NetworkPair(
        "different family",
        _convolutional_teacher,
        lambda shape, classes: _network(shape, classes, (16, 32, 64), "student", _separable),
        "convolution",
    ),
    NetworkPair(
        "transformer",
        lambda shape, classes: _transformer(shape, classes, 64, 4, "teacher"),
        lambda shape, classes: _transformer(shape, classes, 32, 2, "student"),
        "transformer",
    ),
)
