"""Teacher and student of the demo."""

from __future__ import annotations

import keras
from keras import layers

from kdkeras.datasets import Dataset

# Batches are small and epochs few: the statistics of a momentum of 0.99 would lag behind the weights for most of a run.
_MOMENTUM = 0.9


def teacher(data: Dataset) -> keras.Model:
    """Return an untrained teacher for `data`: a convolutional network for images, a perceptron for tables."""
    if data.kind == "tabular":
        return _perceptron(data, width=128, depth=3, name="teacher")
    stages = [*_conv(32), *_conv(32), layers.MaxPooling2D(), *_conv(64), *_conv(64, name="features")]
    if _is_large(data):
        stages[-1] = layers.ReLU()
        stages += [layers.MaxPooling2D(), *_conv(128, name="features")]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(128, activation="relu"), layers.Dropout(0.3)]
    return _classifier(data, [*stages, *head], "teacher")


def student(data: Dataset) -> keras.Model:
    """Return an untrained student for `data`: depthwise-separable, or a narrow perceptron."""
    if data.kind == "tabular":
        return _perceptron(data, width=8, depth=1, name="student")
    stages = [*_conv(16, strides=2 if _is_large(data) else 1), *_separable(32), layers.MaxPooling2D()]
    return _classifier(data, [*stages, *_separable(64, name="features"), layers.GlobalAveragePooling2D()], "student")


def _is_large(data: Dataset) -> bool:
    """Whether the images can be halved twice and still have places to tell apart."""
    return min(data.input_shape[:2]) >= 16


def _classifier(data: Dataset, stages: list[layers.Layer], name: str) -> keras.Model:
    # It ends linearly: task loss and distillation loss both take logits.
    head = layers.Dense(data.num_classes, name="logits")
    return keras.Sequential([keras.Input(data.input_shape), *stages, head], name=name)


def _perceptron(data: Dataset, *, width: int, depth: int, name: str) -> keras.Model:
    hidden = [layer for _ in range(depth) for layer in (layers.Dense(width, activation="relu"), layers.Dropout(0.2))]
    return _classifier(data, hidden if depth > 1 else hidden[:1], name)


def _conv(filters: int, *, strides: int = 1, name: str | None = None) -> list[layers.Layer]:
    convolution = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)
    return [convolution, layers.BatchNormalization(momentum=_MOMENTUM), layers.ReLU(name=name)]


def _separable(filters: int, *, name: str | None = None) -> list[layers.Layer]:
    depthwise = layers.DepthwiseConv2D(3, padding="same", use_bias=False)
    pointwise = layers.Conv2D(filters, 1, use_bias=False)
    norms = [layers.BatchNormalization(momentum=_MOMENTUM) for _ in range(2)]
    return [depthwise, norms[0], layers.ReLU(), pointwise, norms[1], layers.ReLU(name=name)]
