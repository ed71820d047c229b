"""Words as the vectors that a model makes of them, so that methods by gradient explain words too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from kdkeras._recorder import record
from kdkeras.explain.readers import Readers
from kdkeras.explain.subject import Subject
from kdkeras.layer_paths import first_paths


class Floats(NamedTuple):
    """What a gradient can be taken by.

    Attributes:
        subject: The subject itself; for words, the rest of the model after its embedding, with the words' vectors.
        of: Turns values in the place of the subject's own into floats: words into vectors.
    """

    subject: Subject
    of: Callable[[np.ndarray], np.ndarray]


class FromEmbedding(keras.Model):
    """A model from the output of its embedding on.

    It takes the words too, because masks and other layers may read them, and runs the whole model; only what the
    embedding returns is replaced.

    Args:
        model: A model of words.
        embedding: Its embedding.
        dtypes: Of the model's inputs, flattened.
    """

    def __init__(self, model: keras.Model, embedding: keras.layers.Layer, dtypes: list[str]) -> None:
        super().__init__(name=model.name)
        self.inner, self.embedding, self._dtypes = model, embedding, tuple(dtypes)
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """Run the model, with `inputs["vectors"]` for what the embedding makes of `inputs["words"]`."""
        place = id(self.embedding), "call"
        flat = zip(keras.tree.flatten(inputs["words"]), self._dtypes, strict=True)
        words = keras.tree.pack_sequence_as(inputs["words"], [keras.ops.cast(each, dtype) for each, dtype in flat])
        with record([(self.embedding, "call")], {place: lambda _: inputs["vectors"]}):
            return self.inner(words, training=training)


def in_floats(subject: Subject) -> Floats:
    """Return a subject whose explained input is floats.

    Args:
        subject: Any subject.

    Returns:
        The subject itself, where no embedding is given what is explained.
    """
    rest = subject.readers.once("from embedding", lambda: _rest_of(subject))
    if rest is None:
        return Floats(subject, lambda values: values)
    model, readers = rest

    def vectors(words: np.ndarray) -> np.ndarray:
        made = model.embedding(np.asarray(words, subject.array.dtype))
        return keras.ops.convert_to_numpy(made).astype("float32")

    inputs = {"vectors": vectors(subject.array), "words": subject.inputs}
    size = subject.batch_size
    return Floats(Subject(model, inputs, subject.target, batch_size=size, readers=readers), vectors)


def _rest_of(subject: Subject) -> tuple[FromEmbedding, Readers] | None:
    embedding = _embedding_of(subject)
    if embedding is None:
        return None
    model = FromEmbedding(subject.model, embedding, [array.dtype.name for array in keras.tree.flatten(subject.inputs)])
    return model, Readers(model)


def _embedding_of(subject: Subject) -> keras.layers.Layer | None:
    """Return the embedding that is given the explained input; another one may be given positions."""
    layers = [layer for layer in first_paths(subject.model) if isinstance(layer, keras.layers.Embedding)]
    if not layers:
        return None
    sample = subject.rows(0, 2)
    words = subject.array[:2]
    with record([(layer, "call") for layer in layers]) as records:
        subject.model(keras.tree.map_structure(keras.ops.convert_to_tensor, sample), training=False)
    for layer in layers:
        for given, _ in records.get((id(layer), "call"), ()):
            if tuple(given.shape) == words.shape and np.array_equal(keras.ops.convert_to_numpy(given), words):
                return layer
    return None
