"""What is explained: a model, inputs, and one logit of each sample."""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np

from kdkeras.explain.readers import Asked, Readers
from kdkeras.inputs import check_arrays, check_count, input_specs, is_array_like
from kdkeras.labels import refuse_hidden_sigmoid
from kdkeras.signals import Attribution, Signals, refuse_probabilities

Score = Literal["probability", "logit"]


class Subject:
    """A model with the inputs that are explained of it, and its compiled answers.

    Args:
        model: A Keras model that returns `(batch, units)`.
        x: Inputs, as `kdkeras.explain.attribute` takes them.
        target: Index of the unit to explain: one integer, one per sample, or `None` for the model's own top class.
        batch_size: Samples per pass.
        readers: Readers of the model to use again; by default new ones.

    Attributes:
        model: The model.
        inputs: The inputs as checked arrays, nested as the model takes them.
        array: The one among them that is explained: the images where there are any.
        asked: The targets that were asked for, shape `(n,)`, or `None` for the model's own top classes.
        batch_size: Samples per pass.
        readers: The compiled readers of the model.

    Raises:
        TypeError: `model` is not a Keras model, or x is not of arrays.
        ValueError: `target` or the inputs do not fit the model, or it has not one output of shape `(batch, units)`.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.explain.subject import Subject
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        >>> subject = Subject(model, np.ones((5, 4)), 2)
        >>> subject.target, subject.head
        (array([2, 2, 2, 2, 2]), 'softmax')
    """

    def __init__(
        self, model: keras.Model, x: Any, target: Any = None, *, batch_size: int = 32, readers: Readers | None = None
    ) -> None:
        if not isinstance(model, keras.Model):
            raise TypeError(f"A model must be a `keras.Model`. Received: {model!r} of type {type(model).__name__}.")
        check_count("batch_size", batch_size)
        self.model, self.batch_size = model, batch_size
        self.inputs = prepared(model, x)
        self.array = _explained(self.inputs)
        self.readers = Readers(model) if readers is None else readers
        self._answers = self.readers.get()
        self._answers.look(self.rows(0, 1))
        self._signals: Signals | None = None
        units = np.zeros((len(self.array), self._answers.units))
        self.asked = None if target is None else targets_of(target, units, model.name)

    @property
    def signals(self) -> Signals:
        """What the model says of the inputs; asked for once, and not at all where an attribution has told it."""
        if self._signals is None:
            self.learn(self._answers.run(self.inputs, None, self.batch_size))
        return self._signals

    def learn(self, signals: Signals) -> None:
        """Keep what the model said of the inputs.

        Args:
            signals: Its signals.

        Raises:
            ValueError: They are probabilities whose logits are not known.
        """
        if self.head is None:
            refuse_probabilities(signals.predictions, self.model.name)
            refuse_hidden_sigmoid(signals.predictions, self.head, self.model.name)
        self._signals = signals

    @property
    def head(self) -> str | None:
        """`"softmax"`, `"sigmoid"`, `"linear"`, or `None` for an unknown final activation."""
        return self._answers.extractor.head

    @property
    def predictions(self) -> np.ndarray:
        """What the model returns, float32 `(n, units)`."""
        return self.signals.predictions

    @property
    def target(self) -> np.ndarray:
        """Index of the explained logit, shape `(n,)`."""
        return targets_of(None, self.signals.logits, self.model.name) if self.asked is None else self.asked

    @property
    def place(self) -> int | None:
        """Place of `array` among the model's inputs, as `keras.tree.flatten` has them; `None` where it is alone."""
        places = [array is self.array for array in keras.tree.flatten(self.inputs)]
        return places.index(True) if len(places) > 1 else None

    def __len__(self) -> int:
        return len(self.array)

    def rows(self, start: int, stop: int) -> Any:
        """Return the inputs of some samples.

        Args:
            start: The first.
            stop: The one after the last.

        Returns:
            Arrays, nested as the model takes them.
        """
        return keras.tree.map_structure(lambda array: array[start:stop], self.inputs)

    def scores(
        self, changed: np.ndarray | None = None, score: Score = "logit", *, samples: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the target's score of samples, with other values in the place of `array`.

        Args:
            changed: Values, shape `(k, ...)`; by default the samples as they are.
            score: `"logit"`, or `"probability"`: the softmax or sigmoid of the logits, by the model's own head, softmax
                where it ends in several linear units, and the output itself where it is a single linear unit.
            samples: Index of the sample that each row of `changed` is in the place of, shape `(k,)`. By default each
                sample's own row, in order.

        Returns:
            float64, shape `(k,)`.

        Raises:
            ValueError: `score` is neither, or the model returns NaN or infinite values.
        """
        if score not in ("probability", "logit"):
            raise ValueError(f"`score` must be 'probability' or 'logit'. Received: score={score!r}.")
        target = self.target if samples is None else self.target[samples]
        if changed is None:
            logits = self.signals.logits
        else:
            logits = self._answers.run(self._with(changed, samples), None, self.batch_size).logits
        if not np.isfinite(logits).all():
            raise ValueError(
                f"Model '{self.model.name}' returns NaN or infinite values for some inputs. Check its weights, and the "
                "scale of the inputs and of the baseline or noise."
            )
        values = self.probabilities(logits) if score == "probability" else logits.astype("float64")
        return values[np.arange(len(values)), target]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return class probabilities: by the model's own head, a softmax where it ends in several linear units.

        Args:
            logits: Shape `(n, units)`.

        Returns:
            float64, same shape; the logits themselves of a linear single output, which is no probability.
        """
        from scipy import special

        logits = logits.astype("float64")
        if self.head == "sigmoid":
            return special.expit(logits)
        return special.softmax(logits, axis=1) if logits.shape[1] > 1 else logits

    def attributions(self, attribution: Attribution) -> _Compiled:
        """Return a compiled function from inputs to an attribution of the target.

        Args:
            attribution: Which one.

        Returns:
            A function of values in the place of `array`; of none, for the inputs themselves.

        Raises:
            ValueError: The model has nothing of the kind.
        """
        return _Compiled(self, attribution)

    def tapped(self, *layers: str) -> Signals:
        """Return the model's signals with the outputs of layers.

        Args:
            *layers: Their paths.

        Returns:
            `Signals` of float32 arrays.
        """
        return self.readers.get(layers=layers).run(self.inputs, None, self.batch_size)

    def _with(self, changed: np.ndarray | None, samples: np.ndarray | None = None) -> Any:
        if changed is None:
            return self.inputs

        def leaf(array: np.ndarray) -> np.ndarray:
            if array is self.array:
                return changed
            return array if samples is None else array[samples]

        return keras.tree.map_structure(leaf, self.inputs)


class _Compiled:
    """An attribution of a subject's target, compiled once and run on any values."""

    def __init__(self, subject: Subject, attribution: Attribution) -> None:
        self._subject, self._attribution = subject, attribution
        self._reader = subject.readers.get(attribution)
        self._reader.look(subject.rows(0, 1))  # what is wrong shows here, in plain words

    def __call__(self, changed: np.ndarray | None = None) -> np.ndarray:
        """Return the attribution, float32, and refuse what is not finite."""
        subject = self._subject
        # The inputs themselves are explained at the top classes that this very pass finds, unless others are asked for.
        target = subject.asked if changed is None else subject.target
        with np.errstate(over="ignore", invalid="ignore"):
            signals = self._reader.run(subject._with(changed), target, subject.batch_size)
        if changed is None:
            subject.learn(signals)
        values = signals.attributions[str(self._attribution)]
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if bad.any():
            raise ValueError(
                f"'{self._attribution}' of model '{subject.model.name}' is not finite for {int(bad.sum())} of "
                f"{len(bad)} samples: the model overflows on them. Check its weights, and the scale of the inputs."
            )
        return values


def units_of(model: keras.Model, x: Any) -> int:
    """Return how many units a model has, from a forward pass of the first sample.

    Args:
        model: The model.
        x: Inputs, as `attribute` takes them.

    Returns:
        The number of units.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: The inputs do not fit the model.
    """
    first = keras.tree.map_structure(lambda array: array[:1], prepared(model, x))
    asked = Asked(model)
    asked.look(first)
    return asked.units


def prepared(model: keras.Model, x: Any) -> Any:
    """Return inputs as checked arrays, floats as float32.

    Args:
        model: The model that takes them.
        x: Arrays or tensors; for several inputs, a list or dict of them.

    Returns:
        Arrays, nested as the model takes them.

    Raises:
        TypeError: They are not arrays.
        ValueError: They do not fit the model.
    """
    if not is_array_like(x):
        raise TypeError(
            f"x must be arrays or tensors. Received: {type(x).__name__}. Take some samples out of it first."
        )
    # A list of arrays is several inputs; any other list is one input written out.
    if not isinstance(x, (list, tuple, dict)) or not all(np.ndim(leaf) for leaf in keras.tree.flatten(x)):
        x = np.asarray(x)
    arrays = keras.tree.map_structure(np.asarray, x)
    check_arrays(model, arrays)
    flat = keras.tree.flatten(arrays)
    if len({len(array) for array in flat}) > 1:
        raise ValueError(f"All inputs need the same number of samples. Received: {[len(array) for array in flat]}.")
    specs = input_specs(model)
    # Only floats have gradients; where a model declares no inputs, integers too are meant as numbers.
    declared = ["float32"] * len(flat) if specs is None else [spec.dtype for spec in keras.tree.flatten(specs)]
    dtypes = ["float32" if keras.backend.is_float_dtype(dtype) else dtype for dtype in declared]
    flat = [array.astype(dtype) for array, dtype in zip(flat, dtypes, strict=True)]
    # Nested as declared, because Keras warns of a dict in another order.
    same_kind = specs is not None and isinstance(specs, dict) == isinstance(arrays, dict)
    return keras.tree.pack_sequence_as(specs if same_kind else arrays, flat)


def _explained(inputs: Any) -> np.ndarray:
    """Return the input that is explained: the one with most axes, the images where there are any."""
    return max(keras.tree.flatten(inputs), key=lambda array: array.ndim)


def targets_of(target: Any, logits: np.ndarray, name: str) -> np.ndarray:
    """Return the index of the logit to explain of each sample.

    Args:
        target: As `attribute` takes it.
        logits: Shape `(n, units)`.
        name: Name of the model, for messages.

    Returns:
        int64, shape `(n,)`.

    Raises:
        ValueError: The target is no index of a unit.
    """
    samples, units = logits.shape
    if target is None:
        return logits.argmax(axis=1)  # 0 where there is a single unit
    targets = np.asarray(target)
    if targets.dtype.kind not in "iu" or targets.shape not in ((), (samples,)):
        raise ValueError(
            f"`target` must be an integer, or one integer per sample, shape ({samples},). "
            f"Received: shape {targets.shape} of {targets.dtype}."
        )
    if targets.min() < 0 or targets.max() >= units:
        raise ValueError(
            f"`target` must be between 0 and {units - 1}, the units of model '{name}'. "
            f"Received: {targets.min()} … {targets.max()}."
        )
    return np.broadcast_to(targets.astype("int64"), (samples,)).copy()
