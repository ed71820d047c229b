"""Teacher and student of the demo."""

from __future__ import annotations

import keras
from keras import layers

from kdkeras.datasets import Dataset


def teacher(data: Dataset) -> keras.Model:
    """Return an untrained teacher for `data`: a convolutional network for images, a perceptron for tables."""
    if data.kind == "tabular":
        return _perceptron(data, width=128, depth=3, name="teacher")
    stages = [
        *_conv(32), *_conv(32), layers.MaxPooling2D(),
        *_conv(64), *_conv(64), layers.Dropout(0.3),
    ]  # fmt: skip
    if min(data.input_shape[:2]) >= 16:  # a smaller image has nothing left to pool
        stages += [layers.MaxPooling2D(), *_conv(128)]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(128, activation="relu"), layers.Dropout(0.3)]
    return _classifier(data, [*stages, *head], "teacher")


def student(data: Dataset) -> keras.Model:
    """Return an untrained student for `data`: depthwise-separable, or a narrow perceptron."""
    if data.kind == "tabular":
        return _perceptron(data, width=8, depth=1, name="student")
    stages = [
        *_conv(16, strides=2 if min(data.input_shape[:2]) >= 16 else 1),
        *_separable(16),
        layers.MaxPooling2D(),
        *_separable(24),
    ]
    return _classifier(data, [*stages, layers.GlobalAveragePooling2D()], "student")


def _classifier(data: Dataset, stages: list[layers.Layer], name: str) -> keras.Model:
    # Linear: the task loss and the distillation loss both take logits.
    return keras.Sequential(
        [keras.Input(data.input_shape), *stages, layers.Dense(data.num_classes, name="logits")], name=name
    )


def _perceptron(data: Dataset, *, width: int, depth: int, name: str) -> keras.Model:
    hidden = [layer for _ in range(depth) for layer in (layers.Dense(width, activation="relu"), layers.Dropout(0.2))]
    return _classifier(data, hidden if depth > 1 else hidden[:1], name)


def _conv(filters: int, *, strides: int = 1) -> list[layers.Layer]:
    return [
        layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
    ]


def _separable(filters: int) -> list[layers.Layer]:
    depthwise = layers.DepthwiseConv2D(3, padding="same", use_bias=False)
    pointwise = layers.Conv2D(filters, 1, use_bias=False)
    return [
        depthwise,
        layers.BatchNormalization(),
        layers.ReLU(),
        pointwise,
        layers.BatchNormalization(),
        layers.ReLU(),
    ]
