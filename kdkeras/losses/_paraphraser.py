"""The autoencoder of factor transfer, and its training on a teacher's features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kdkeras.signals import Extractor


def encoder(channels: int, factors: int, name: str) -> keras.Sequential:
    """Return three 3×3 convolutions with leaky ReLU, from a layer's features to factors.

    Args:
        channels: Channel count of the layer, and of the first convolution.
        factors: Number of factors, the channel count of the others.
        name: Name of the model.

    Returns:
        The model, built.
    """
    model = keras.Sequential(name=name)
    for width in (channels, factors, factors):
        model.add(keras.layers.Conv2D(width, 3, padding="same", data_format="channels_last", dtype="float32"))
        model.add(keras.layers.LeakyReLU(negative_slope=0.1, dtype="float32"))
    model.build((None, None, None, channels))
    return model


class Paraphraser(keras.layers.Layer):
    """Encodes a teacher's features as fewer factors, and decodes them to train itself.

    Args:
        rate: Number of factors per channel.
        name: Name of the layer.

    Attributes:
        fitted: Whether it was trained. Saved with its weights.
    """

    def __init__(self, rate: float, *, name: str = "paraphraser") -> None:
        super().__init__(name=name, dtype="float32")
        self.rate = rate
        self.channels: int | None = None
        self.fitted = False

    def build(self, input_shape: Any) -> None:
        """Create the variables for features of a shape."""
        self.channels = input_shape[-1]
        factors = max(1, round(self.rate * self.channels))
        self.encoder = encoder(self.channels, factors, "encoder")
        self.decoder = keras.Sequential(name="decoder")
        for place, width in enumerate((factors, self.channels, self.channels)):
            if place:
                self.decoder.add(keras.layers.LeakyReLU(negative_slope=0.1, dtype="float32"))
            self.decoder.add(
                keras.layers.Conv2DTranspose(width, 3, padding="same", data_format="channels_last", dtype="float32")
            )
        self.decoder.build((None, None, None, factors))
        self.built = True

    def call(self, features: Any) -> Any:
        """Return the features as decoded from their factors."""
        return self.decoder(self.encoder(features))

    def save_own_variables(self, store: Any) -> None:
        """Save whether it was trained."""
        super().save_own_variables(store)
        store["fitted"] = np.array(self.fitted)

    def load_own_variables(self, store: Any) -> None:
        """Load whether it was trained."""
        self.fitted = bool(np.asarray(store["fitted"]))


class Reconstruction(keras.Model):
    """Trains paraphrasers to decode a teacher's features; the teacher itself stays as it is.

    Args:
        teacher: The teacher.
        layers: Path of the layer of each paraphraser.
        paraphrasers: The paraphrasers.
    """

    def __init__(self, teacher: keras.Model, layers: Sequence[str], paraphrasers: Sequence[Paraphraser]) -> None:
        super().__init__(name="reconstruction", dtype="float32", autocast=False)
        self.teacher = teacher
        self.layer_names = tuple(layers)
        self.paraphrasers = list(paraphrasers)
        self._read = Extractor(teacher, layers, several_outputs=True)

    def call(self, inputs: Any, training: bool = False) -> list[Any]:
        """Return the mean squared error of each paraphraser at each sample, shapes `(batch, height, width)`."""
        features = self._read(inputs, training=False).features
        errors = []
        for path, paraphraser in zip(self.layer_names, self.paraphrasers, strict=True):
            target = ops.stop_gradient(ops.cast(features[path], "float32"))
            errors.append(ops.mean(ops.square(paraphraser(target) - target), axis=-1))
        return errors

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the sum of the mean squared errors."""
        return sum((ops.mean(error) for error in y_pred[1:]), ops.mean(y_pred[0]))

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """Variables of the paraphrasers."""
        return [variable for paraphraser in self.paraphrasers for variable in paraphraser.trainable_variables]

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """Every other variable, the teacher's among them."""
        ours = {id(variable) for variable in self.trainable_variables}
        return [variable for variable in self.variables if id(variable) not in ours]

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """As `trainable_variables`."""
        return self.trainable_variables
