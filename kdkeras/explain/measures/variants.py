"""Many versions of every sample, each given to the model for the score of the sample's target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kdkeras.explain.subject import Score, Subject


def single_subject(model: keras.Model, x: Any, target: Any = None, *, batch_size: int = 32) -> Subject:
    """Return the `Subject` of a model with one input, of samples with at least one axis.

    Args:
        model: The model.
        x: The samples.
        target: As for `Subject`.
        batch_size: Samples per pass.

    Returns:
        The `Subject`.

    Raises:
        TypeError: `model` is not a Keras model, or x is not an array.
        ValueError: The model has several inputs or another output, or x or the target do not fit it.
    """
    subject = Subject(model, x, target, batch_size=batch_size)
    inputs = len(keras.tree.flatten(subject.inputs))
    if inputs != 1:
        raise ValueError(
            f"Explanations are measured on models with one input. Received: model '{model.name}' with {inputs}. Wrap "
            "it in a model of the input that was explained, with the others held constant."
        )
    if subject.array.ndim < 2:
        raise ValueError(f"x needs a sample axis and at least one more. Received: x of shape {subject.array.shape}.")
    return subject


def scores_of_variants(
    subject: Subject, variants: int, make: Callable[[np.ndarray, np.ndarray], np.ndarray], score: Score
) -> np.ndarray:
    """Return the score of several versions of every sample.

    Args:
        subject: The model with its samples and targets.
        variants: Versions of each sample.
        make: Function from sample indices `(k,)` and variant indices `(k,)` to inputs `(k, ...)`.
        score: `"probability"` or `"logit"`.

    Returns:
        float64 `(n, variants)`.

    Raises:
        ValueError: `score` is something else, or the model returns NaN or infinite values.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.explain.measures.variants import scores_of_variants, single_subject
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
        >>> subject = single_subject(model, [[1.0, 2.0], [3.0, 4.0]])
        >>> scores_of_variants(subject, 2, lambda samples, times: subject.array[samples] * times[:, None], "logit")
        array([[0., 3.],
               [0., 7.]])
    """
    scores = np.empty(len(subject) * variants)
    for start in range(0, len(scores), subject.batch_size):
        chunk = np.arange(start, min(start + subject.batch_size, len(scores)))
        samples, versions = np.divmod(chunk, variants)
        changed = make(samples, versions).astype(subject.array.dtype)
        scores[chunk] = subject.scores(changed, score, samples=samples)
    return scores.reshape(len(subject), variants)
