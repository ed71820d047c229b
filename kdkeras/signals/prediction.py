"""Reading a model's signals over a whole data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kdkeras.inputs import is_array_like
from kdkeras.signals.attributions import Attribution
from kdkeras.signals.extractor import Extractor, refuse_probabilities
from kdkeras.signals.records import Signals


def predict(
    model: keras.Model,
    inputs: Any,
    *,
    layers: Sequence[str] = (),
    attributions: Sequence[Attribution] = (),
    batch_size: int = 256,
) -> Signals:
    """Run `model` over `inputs` in batches and return its `Signals` as arrays.

    Args:
        model: A Keras model.
        inputs: Whatever `keras.Model.predict` takes.
        layers: Paths of the layers to tap.
        attributions: What to explain of the model, each at its own top class. The `Signals` have it under its name,
            such as `"grad_cam:conv5"`.
        batch_size: Samples per forward pass, for array inputs.

    Returns:
        `Signals` of float32 numpy arrays, in the order of `inputs`.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: A layer does not exist, or the outputs are probabilities whose logits cannot be recovered.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import signals
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        >>> signals.predict(model, np.zeros((5, 4))).logits.shape
        (5, 3)
    """
    return predict_with_head(model, inputs, layers=layers, attributions=attributions, batch_size=batch_size)[0]


def predict_with_head(
    model: keras.Model,
    inputs: Any,
    *,
    layers: Sequence[str] = (),
    attributions: Sequence[Attribution] = (),
    batch_size: int = 256,
) -> tuple[Signals, str | None]:
    """Do as `predict`, and return the model's head too.

    Args:
        model: A Keras model.
        inputs: Whatever `keras.Model.predict` takes.
        layers: Paths of the layers to tap.
        attributions: What to explain.
        batch_size: Samples per forward pass, for array inputs.

    Returns:
        The `Signals`, and `"softmax"`, `"sigmoid"`, `"linear"`, or `None` for an unknown final activation.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: As for `predict`.
    """
    reader = Reader(model, layers, attributions)
    outputs = reader.predict(inputs, batch_size=batch_size if is_array_like(inputs) else None, verbose=0)
    outputs = keras.tree.map_structure(lambda value: np.asarray(value, dtype="float32"), outputs)
    if reader.extractor.head is None:
        refuse_probabilities(outputs.predictions, model.name)
    return outputs, reader.extractor.head


def predict_logits(model: keras.Model, inputs: Any, *, batch_size: int = 256) -> np.ndarray:
    """Return the logits of a classifier over `inputs`, one per exclusive class.

    Args:
        model: A Keras model that ends in logits or in a softmax, with two units or more.
        inputs: Whatever `keras.Model.predict` takes.
        batch_size: Samples per forward pass, for array inputs.

    Returns:
        float32 logits, shape `(n, ..., units)`.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: The outputs are probabilities whose logits cannot be recovered, or they are independent (sigmoid).

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.signals import predict_logits
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        >>> predict_logits(model, np.zeros((1, 4)))
        array([[0., 0., 0.]], dtype=float32)
    """
    signals, head = predict_with_head(model, inputs, batch_size=batch_size)
    units = signals.logits.shape[-1]
    if head == "sigmoid" or units < 2:
        raise ValueError(
            f"Exclusive classes are needed, two or more. Received: model '{model.name}' with {units} units ending in "
            f"{head or 'an unknown activation'}. End it in a softmax over all classes."
        )
    return signals.logits


class Reader(keras.Model):
    """Gives `Extractor` the batching, compiling and data handling of `keras.Model.predict`.

    `predict` makes one for every call; to ask a model many times, keep one and call its `predict_on_batch`.

    Args:
        model: A Keras model.
        layers: Paths of the layers to tap.
        attributions: What to explain of the model.

    Attributes:
        extractor: Reads the model; knows how it ends once the model was run.
        model: The model.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: A layer does not exist.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.signals import Reader
        >>> reader = Reader(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")]))
        >>> reader.predict_on_batch(np.zeros((2, 4), "float32")).logits.shape, reader.extractor.head
        ((2, 3), 'softmax')
    """

    def __init__(
        self, model: keras.Model, layers: Sequence[str] = (), attributions: Sequence[Attribution] = ()
    ) -> None:
        super().__init__(name="signals", autocast=False)
        self.extractor = Extractor(model, layers, attributions={str(each): each for each in attributions})
        self.model = model
        self.built = True

    def call(self, inputs: Any) -> Signals:
        """Return the `Signals` of one batch, without training."""
        return self.extractor(inputs, training=False)
