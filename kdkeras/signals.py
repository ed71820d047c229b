"""What a model says in one forward pass: predictions, logits and the outputs of chosen layers.

Both the losses and the explanations need more of a model than its predictions: the logits behind a softmax, the
feature map of an inner layer. `Extractor` reads them all from a single call of the model itself, whether it is
Functional, Sequential, nested or subclassed, and leaves the model as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np

from kdkeras._recorder import record, unwrapped
from kdkeras.inputs import is_array_like
from kdkeras.layer_paths import find_layer, layer_paths

# By the function's name: Keras' own, TensorFlow's (`softmax_v2`) and JAX's.
_ACTIVATIONS = {"linear": "linear", "softmax": "softmax", "softmax_v2": "softmax", "sigmoid": "sigmoid"}
_UNKNOWN_SIZE = 32  # stands in for a dimension that a model leaves open, when it is probed


class Signals(NamedTuple):
    """The tensors of one forward pass.

    Attributes:
        predictions: What `model(x)` returns, shape `(batch, ..., units)`.
        logits: The input of the model's own final softmax or sigmoid; the predictions themselves where the model
            ends linearly. Same shape as `predictions`.
        features: Output of each tapped layer, by the path that asked for it.
    """

    predictions: Any
    logits: Any
    features: dict[str, Any]


class Batch(NamedTuple):
    """The inputs of one training step, with what the teacher said of them.

    Attributes:
        inputs: The student's inputs.
        teacher: The teacher's `Signals`, already cut off from any gradient.
    """

    inputs: Any
    teacher: Signals


@dataclass(frozen=True)
class SignalSpec:
    """Shapes and head of a model's `Signals`, known before any data is seen.

    Attributes:
        model: Name of the model.
        head: `"softmax"`, `"sigmoid"`, `"linear"`, or `None` where the final activation was not recognised.
        logits: Shape of the logits, `None` for the batch axis.
        features: Shape of each tapped layer's output, by path.
    """

    model: str
    head: str | None
    logits: tuple[int | None, ...]
    features: dict[str, tuple[int | None, ...]] = field(default_factory=dict)


def called_layers(model: keras.Model, inputs: Any) -> dict[str, tuple[int, ...]]:
    """Run `model` and return which layers it called, in the order in which they finished, with their output shapes.

    A layer that hands on the very tensor of a layer before it (a nested model its last layer's, a Dropout its input)
    is left out, and so are layers that return several tensors.

    Args:
        model: A Keras model. One that is not built yet is built by this call.
        inputs: Arrays or tensors, nested as the model takes them.

    Returns:
        A dict from path, as in `layer_paths`, to the shape of the latest call's output.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.signals import called_layers
        >>> inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden")], name="body")
        >>> called_layers(keras.Sequential([inner, keras.layers.Dense(2, name="head")]), np.zeros((1, 4), "float32"))
        {'body/hidden': (1, 3), 'head': (1, 2)}
    """
    if not model.built:
        model(inputs, training=False)  # layers that `build` makes have to exist before they can be watched
    # Reversed, so that of the several paths of a shared layer the first one stays.
    paths = {layer: path for path, layer in reversed(layer_paths(model).items())}
    with record([(layer, "call") for layer in paths]) as records:
        model(inputs, training=False)
    shapes: dict[str, tuple[int, ...]] = {}
    seen: set[int] = set()
    names = {id(layer): path for layer, path in paths.items()}
    for (owner, _), calls in records.items():
        output = calls[-1][1]
        if keras.ops.is_tensor(output) and id(output) not in seen:
            shapes[names[owner]] = tuple(output.shape)
            seen.add(id(output))
    return shapes


class Extractor:
    """Runs a model once and returns its `Signals`.

    The model's final softmax or sigmoid is recognised by looking at the call itself: the activation whose output *is*
    the model's output. Its input is the logits, exact to the bit, with no logarithm of a probability anywhere.

    Args:
        model: The model to read.
        layers: Paths of the layers to tap.

    Attributes:
        head: `"softmax"`, `"sigmoid"`, `"linear"`, or `None` where the final activation was not recognised, as the
            latest call showed it.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: A layer does not exist; or, on the first call, a tapped layer was not called, or the model has not
            exactly one output.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.signals import Extractor
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax", name="head")])
        >>> signals = Extractor(model, layers=["head"])(np.zeros((2, 4), "float32"))
        >>> tuple(signals.logits.shape), float(signals.logits[0, 0]), round(float(signals.predictions[0, 0]), 4)
        ((2, 3), 0.0, 0.3333)
    """

    def __init__(self, model: keras.Model, layers: Sequence[str] = ()) -> None:
        if not isinstance(model, keras.Model):
            raise TypeError(f"A model must be a `keras.Model`. Received: {model!r} of type {type(model).__name__}.")
        self.model = model
        self.layers = {path: find_layer(model, path) for path in dict.fromkeys(layers)}
        self.head: str | None = None
        self._connected: SignalSpec | None = None

    def __call__(self, inputs: Any, training: bool = False) -> Signals:
        """Run the model on `inputs` and return its `Signals`."""
        signals = self._read(inputs, training)
        self._check(signals)
        if self._connected is not None and self._connected.head != self.head:
            raise ValueError(
                f"Model '{self.model.name}' ends in {self._connected.head} at inference but not in training. Let its "
                "softmax or sigmoid be the last layer, with any dropout before it."
            )
        return signals

    def spec(self, inputs: Any) -> SignalSpec:
        """Return shapes and head for symbolic `inputs`, without running the model.

        Args:
            inputs: `keras.KerasTensor`s, nested as the model takes them.

        Returns:
            The `SignalSpec`.

        Raises:
            ValueError: A tapped layer was not called, or the model has not exactly one output.
        """
        signals = _Symbolic(self._read).compute_output_spec(inputs)
        self._check(signals)
        several = [path for path, value in signals.features.items() if keras.tree.is_nested(value)]
        if several:
            raise ValueError(f"Layers {several} of model '{self.model.name}' return several tensors: tap others.")
        shapes = {path: tuple(value.shape) for path, value in signals.features.items()}
        self._connected = SignalSpec(self.model.name, self.head, tuple(signals.logits.shape), shapes)
        return self._connected

    def _read(self, inputs: Any, training: bool = False) -> Signals:
        heads = _head_candidates(self.model)
        watched = [(layer, "call") for layer in self.layers.values()] + [(owner, name) for owner, name, _ in heads]
        with record(watched) as records:
            predictions = self.model(inputs, training=training)
        logits, self.head = predictions, None
        # A linear activation returns the very tensor it was given, perhaps a softmax's: the others have the last word.
        for owner, name, kind in sorted(heads, key=lambda head: head[2] != "linear"):
            for given, returned in records.get((id(owner), name), ()):
                if returned is predictions:
                    logits, self.head = given, kind
        calls = {path: records.get((id(layer), "call")) for path, layer in self.layers.items()}
        return Signals(predictions, logits, {path: call[-1][1] for path, call in calls.items() if call})

    def _check(self, signals: Signals) -> None:
        outputs = len(keras.tree.flatten(signals.predictions))
        if outputs != 1:
            raise ValueError(
                f"Model '{self.model.name}' must have exactly one output. Received: {outputs}. "
                "Wrap the one that you want in `keras.Model(model.inputs, model.outputs[i])`."
            )
        missing = [path for path in self.layers if path not in signals.features]
        if missing:
            raise ValueError(f"Layers {missing} of model '{self.model.name}' are not called: tap layers that are.")

    def refuse_hidden_probabilities(self, inputs: Any) -> None:
        """Raise if the model returns probabilities whose logits cannot be recovered.

        Only where the final activation was not recognised is the model run, on two random samples: rows that are
        non-negative and sum to one are a softmax, whatever the data; values that all lie in (0, 1) are sigmoids.

        Args:
            inputs: `keras.KerasTensor`s, nested as the model takes them.

        Raises:
            ValueError: The outputs are probabilities and no final activation was recognised.
        """
        if self.head is not None:
            return
        random = np.random.default_rng(0)

        def sample(spec: Any) -> np.ndarray:
            shape = [_UNKNOWN_SIZE if size is None else size for size in spec.shape[1:]]
            return random.random((2, *shape)).astype(keras.backend.standardize_dtype(spec.dtype))

        signals = self(keras.tree.map_structure(sample, inputs))
        outputs = keras.ops.convert_to_numpy(signals.predictions)
        refuse_probabilities(outputs, self.model.name)
        if outputs.min() > 0 and outputs.max() < 1:
            raise ValueError(
                f"Model '{self.model.name}' returns values in (0, 1) only, as a sigmoid does, but its logits could not "
                "be found. End the model in `keras.layers.Dense(units, activation='sigmoid')`, or let it return logits."
            )


def refuse_probabilities(outputs: np.ndarray, name: str) -> None:
    """Raise if `outputs`, of a model that seemed to end linearly, are probabilities.

    Args:
        outputs: Model outputs, shape `(n, ..., units)`.
        name: The model's name, for the message.

    Raises:
        ValueError: Every row is non-negative and sums to one.
    """
    if outputs.ndim < 2 or outputs.shape[-1] < 2 or not outputs.size:
        return
    if outputs.min() >= 0 and np.allclose(outputs.sum(axis=-1), 1, atol=1e-3):
        raise ValueError(
            f"Model '{name}' returns probabilities (rows sum to 1), but its logits could not be found, because its "
            "last operation is not a softmax that Keras knows. End the model in `keras.layers.Dense(units, "
            "activation='softmax')` or `keras.layers.Softmax()`, or let it return logits."
        )


def predict(model: keras.Model, inputs: Any, *, layers: Sequence[str] = (), batch_size: int = 256) -> Signals:
    """Run `model` over `inputs` in batches and return its `Signals` as arrays.

    Args:
        model: A Keras model.
        inputs: Whatever `keras.Model.predict` takes.
        layers: Paths of the layers to tap.
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
    return predict_with_head(model, inputs, layers=layers, batch_size=batch_size)[0]


def predict_with_head(
    model: keras.Model, inputs: Any, *, layers: Sequence[str] = (), batch_size: int = 256
) -> tuple[Signals, str | None]:
    """Do as `predict`, and return the model's head too.

    Args:
        model: A Keras model.
        inputs: Whatever `keras.Model.predict` takes.
        layers: Paths of the layers to tap.
        batch_size: Samples per forward pass, for array inputs.

    Returns:
        The `Signals`, and `"softmax"`, `"sigmoid"`, `"linear"`, or `None` for an unknown final activation.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: As for `predict`.
    """
    reader = _Reader(model, layers)
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


class _Reader(keras.Model):
    """Gives `Extractor` the batching, compiling and data handling of `keras.Model.predict`."""

    def __init__(self, model: keras.Model, layers: Sequence[str]) -> None:
        super().__init__(name="signals", autocast=False)
        self.extractor = Extractor(model, layers)
        self.model = model
        self.built = True

    def call(self, inputs: Any) -> Signals:
        return self.extractor(inputs, training=False)


class _Symbolic(keras.Operation):
    """Lends `Operation.compute_output_spec` to a function: its outputs' shapes without running it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def call(self, inputs: Any) -> Any:
        return self.function(inputs)


def _head_candidates(model: keras.Model) -> list[tuple[Any, str, str]]:
    """Return (owner, attribute, kind) of everything in `model` that could be its final activation."""
    found: list[tuple[Any, str, str]] = []
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Softmax) and layer.axis in (-1, [-1]):
            found.append((layer, "call", "softmax"))
        kind = _ACTIVATIONS.get(getattr(unwrapped(getattr(layer, "activation", None)), "__name__", ""))
        # An `Activation("linear")` shows nothing: it may only cast what a softmax returned in half precision.
        if kind is not None and not (kind == "linear" and isinstance(layer, keras.layers.Activation)):
            found.append((layer, "activation", kind))
        # Only Functional models have a graph of operations, and Keras does not export their class.
        graph = getattr(layer, "operations", ())
        found += [(operation, "call", type(operation).__name__.lower()) for operation in graph if _is_head(operation)]
    return found


def _is_head(operation: Any) -> bool:
    """Whether a node of a Functional graph is `keras.ops.softmax` over the last axis, or `keras.ops.sigmoid`."""
    if isinstance(operation, keras.layers.Layer):
        return False
    kind = type(operation).__name__
    return kind == "Sigmoid" or (kind == "Softmax" and operation.axis == -1)
