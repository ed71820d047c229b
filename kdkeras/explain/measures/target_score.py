"""The number that an explanation explains: a model's score of one unit for each sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np

from kdkeras.explain.subject import prepared, targets_of
from kdkeras.inputs import input_specs
from kdkeras.labels import refuse_hidden_sigmoid
from kdkeras.signals import Reader, refuse_probabilities

Score = Literal["probability", "logit"]
_SCORES = ("probability", "logit")


class TargetScore:
    """Asks a model for the score of each sample's target, in compiled batches of one size.

    Args:
        model: A Keras model with one input, that returns `(batch, units)`.
        x: The samples.
        target: Index of the unit: one integer, one per sample, or `None` for the class that the model predicts.
        batch_size: Samples per pass.

    Attributes:
        model: The model.
        x: The samples as a checked array, floats as float32.
        target: Index of the unit of each sample, int64 `(n,)`.
        head: The model's final activation, as `kdkeras.signals` names it.

    Raises:
        TypeError: `model` is not a Keras model, or x is not an array.
        ValueError: The model has several inputs or another output, or x or the target do not fit it.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.explain.measures.target_score import TargetScore
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
        >>> TargetScore(model, np.zeros((3, 2)), 1).of_samples("probability")
        array([0.5, 0.5, 0.5])
    """

    def __init__(self, model: keras.Model, x: Any, target: Any = None, *, batch_size: int = 32) -> None:
        if not isinstance(model, keras.Model):
            raise TypeError(f"A model must be a `keras.Model`. Received: {model!r} of type {type(model).__name__}.")
        check_count("batch_size", batch_size)
        self.model = model
        self.x = _one_input(model, x)
        self._batch_size = batch_size
        if not model.built:
            model(keras.ops.convert_to_tensor(self.x[:1]), training=False)  # `build` may make the layers that end it
        self._reader = Reader(model)
        batches = [self.x[start : start + batch_size] for start in range(0, len(self.x), batch_size)]
        logits = np.concatenate([self._logits(batch) for batch in batches])
        self.head = self._reader.extractor.head
        if logits.ndim != 2:
            raise ValueError(
                "An explanation is measured on a model whose output is (batch, units). Received: model "
                f"'{model.name}', whose output is {('batch', *logits.shape[1:])}. Pool it, or wrap the part you want."
            )
        if self.head is None:
            refuse_probabilities(logits, model.name)
            refuse_hidden_sigmoid(logits, self.head, model.name)
        self.target = targets_of(target, logits, model.name)
        self._of_x = logits

    def of_samples(self, score: Score) -> np.ndarray:
        """Return the score of the samples themselves.

        Args:
            score: `"probability"` or `"logit"`.

        Returns:
            float64 `(n,)`.

        Raises:
            ValueError: `score` is something else.
        """
        return self._scores(self._of_x, self.target, score)

    def of_variants(
        self, variants: int, make: Callable[[np.ndarray, np.ndarray], np.ndarray], score: Score
    ) -> np.ndarray:
        """Return the score of several versions of every sample.

        Args:
            variants: Versions of each sample.
            make: Function from sample indices `(k,)` and variant indices `(k,)` to inputs `(k, ...)`.
            score: `"probability"` or `"logit"`.

        Returns:
            float64 `(n, variants)`.
        """
        scores = np.empty(len(self.x) * variants)
        for start in range(0, len(scores), self._batch_size):
            chunk = np.arange(start, min(start + self._batch_size, len(scores)))
            samples, versions = np.divmod(chunk, variants)
            inputs = make(samples, versions).astype(self.x.dtype)
            scores[chunk] = self._scores(self._logits(inputs), self.target[samples], score)
        return scores.reshape(len(self.x), variants)

    def _logits(self, batch: np.ndarray) -> np.ndarray:
        """Return the logits of at most one batch, which is filled up so that one compiled function serves all."""
        missing = self._batch_size - len(batch)
        filled = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
        logits = np.asarray(self._reader.predict_on_batch(filled).logits, dtype="float32")[: len(batch)]
        if not np.isfinite(logits).all():
            raise ValueError(
                f"Model '{self.model.name}' returns NaN or infinite values for some inputs. Check its weights, and the "
                "scale of the inputs and of the baseline or noise."
            )
        return logits

    def _scores(self, logits: np.ndarray, target: np.ndarray, score: Score) -> np.ndarray:
        from scipy import special

        if score not in _SCORES:
            raise ValueError(f"`score` must be 'probability' or 'logit'. Received: score={score!r}.")
        logits = logits.astype("float64")
        if score == "probability" and self.head == "sigmoid":
            logits = special.expit(logits)
        elif score == "probability" and logits.shape[1] > 1:
            logits = special.softmax(logits, axis=1)
        return logits[np.arange(len(logits)), target]


def check_count(name: str, value: int) -> None:
    """Raise unless an argument is a whole number of at least 1.

    Args:
        name: Name of the argument.
        value: Its value.

    Raises:
        ValueError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"`{name}` must be a whole number of at least 1. Received: {name}={value!r}.")


def _one_input(model: keras.Model, x: Any) -> np.ndarray:
    specs = input_specs(model)
    inputs = 1 if specs is None else len(keras.tree.flatten(specs))
    if inputs == 1:
        arrays = keras.tree.flatten(prepared(model, x))
        inputs = len(arrays)
    if inputs != 1:
        raise ValueError(
            f"Explanations are measured on models with one input. Received: model '{model.name}' with {inputs}. Wrap "
            "it in a model of the input that was explained, with the others held constant."
        )
    if arrays[0].ndim < 2:
        raise ValueError(f"x needs a sample axis and at least one more. Received: x of shape {arrays[0].shape}.")
    return arrays[0]
