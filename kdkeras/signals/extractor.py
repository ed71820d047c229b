"""Reading all signals of a model from one call of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kdkeras import _backend
from kdkeras._recorder import record
from kdkeras._symbolic import output_specs
from kdkeras.inputs import build_for
from kdkeras.layer_paths import find_layer, first_paths
from kdkeras.signals.attributions import Attribution, AttributionError, Explain, needs_pooled_head
from kdkeras.signals.explainer import Explainer, Parts, not_called
from kdkeras.signals.heads import head_candidates
from kdkeras.signals.records import Signals, SignalSpec

_UNKNOWN_SIZE = 32  # stands in for a dimension that a model leaves open, when it is probed


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
    build_for(model, inputs)  # layers that `build` makes have to exist before they can be watched
    # Reversed, so that of the several paths of a shared layer the first one stays.
    paths = first_paths(model)
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
        several_outputs: Whether the model may have more than one output. Default `False`.
        attributions: What to explain, by any name; the `Signals` have it under the same name.

    Attributes:
        heads: Of each output `"softmax"`, `"sigmoid"`, `"linear"`, or `None` where its final activation was not
            recognised, as the latest call showed them.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: A layer does not exist; or, on the first call, a tapped layer was not called, the model has several
            outputs and must not, or it has nothing of the kind that is to be explained.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.signals import Extractor
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax", name="head")])
        >>> signals = Extractor(model, layers=["head"])(np.zeros((2, 4), "float32"))
        >>> tuple(signals.logits.shape), float(signals.logits[0, 0]), round(float(signals.predictions[0, 0]), 4)
        ((2, 3), 0.0, 0.3333)
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Sequence[str] = (),
        *,
        several_outputs: bool = False,
        attributions: Mapping[str, Attribution] | None = None,
    ) -> None:
        if not isinstance(model, keras.Model):
            raise TypeError(f"A model must be a `keras.Model`. Received: {model!r} of type {type(model).__name__}.")
        self.model = model
        self.layers = {path: find_layer(model, path) for path in dict.fromkeys(layers)}
        self.several_outputs = several_outputs
        self._explainer = Explainer(model, attributions or {})
        self._classifiers: list[keras.layers.Layer | None] = []  # the `Dense` layer that each output comes from
        self._problem: str | None = None
        self.heads: tuple[str | None, ...] = ()
        self._connected: tuple[str | None, ...] | None = None

    @property
    def head(self) -> str | None:
        """The head of a model with one output, as the latest call showed it."""
        return self.heads[0] if len(self.heads) == 1 else None

    def __call__(self, inputs: Any, training: bool = False, explain: Mapping[str, Explain] | None = None) -> Signals:
        """Run the model on `inputs` and return its `Signals`.

        Args:
            inputs: Tensors, nested as the model takes them.
            training: Whether it runs in training mode.
            explain: Of each attribution at which classes it is taken; by default those that the model finds most
                likely.

        Returns:
            The `Signals`.
        """
        signals = self._read(inputs, training, explain)
        self._check(signals)
        if self._connected is not None and self._connected != self.heads:
            raise ValueError(
                f"Model '{self.model.name}' ends in {_words(self._connected)} at inference but not in training. Let "
                "its softmax or sigmoid be the last layer, with any dropout before it."
            )
        return signals

    def spec(self, inputs: Any) -> SignalSpec:
        """Return shapes and head for symbolic `inputs`, without running the model.

        Args:
            inputs: `keras.KerasTensor`s, nested as the model takes them.

        Returns:
            The `SignalSpec`.

        Raises:
            ValueError: A tapped layer was not called, or the model has several outputs and must not.
        """
        signals = output_specs(self._read, inputs)
        self._check(signals)
        several = [path for path, value in signals.features.items() if keras.tree.is_nested(value)]
        if several:
            raise ValueError(f"Layers {several} of model '{self.model.name}' return several tensors: tap others.")
        self._connected = self.heads
        features = {path: tuple(value.shape) for path, value in signals.features.items()}
        attributions = {name: tuple(value.shape) for name, value in signals.attributions.items()}
        shapes = [tuple(value.shape) for value in keras.tree.flatten(signals.logits)]
        if len(shapes) == 1:
            return SignalSpec(self.model.name, self.head, shapes[0], features, attributions=attributions)
        names = _output_names(self.model, signals.predictions)
        outputs = {
            name: SignalSpec(f"{self.model.name}/{name}", head, shape, features, attributions=attributions)
            for name, head, shape in zip(names, self.heads, shapes, strict=True)
        }
        return SignalSpec(self.model.name, None, (), features, outputs, attributions)

    def _read(self, inputs: Any, training: bool = False, explain: Mapping[str, Explain] | None = None) -> Signals:
        self._problem = None  # raised by `_check`, where Keras does not wrap it
        explainer = self._explainer
        if not explainer.attributions:
            return self._run(inputs, training)[0]
        if explainer.of_inputs:
            inputs = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)

        def run(mark: Callable[[str, Any], Any]) -> tuple[list[Any], Any]:
            signals, sources = self._run(explainer.marked(mark, inputs), training, mark)
            return keras.tree.flatten(signals.logits), (signals, sources)

        if explainer.by_gradient:
            _, (signals, sources), gradient = _backend.differentiable(run, self.model)
        else:
            (_, (signals, sources)), gradient = run(lambda _, tensor: tensor), None
        parts = Parts(
            _output_names(self.model, signals.predictions),
            keras.tree.flatten(signals.logits),
            inputs,
            sources,
            self._classifiers,
            gradient,
        )
        try:
            return signals._replace(attributions=explainer.explain(parts, explain or {}))
        except AttributionError as error:
            self._problem = str(error)
            return signals

    def _run(
        self, inputs: Any, training: bool, mark: Callable[[str, Any], Any] | None = None
    ) -> tuple[Signals, dict[str, Any]]:
        """Return the signals without attributions, and the outputs of the layers that are explained."""
        candidates = head_candidates(self.model)
        layers = [*self.layers.values(), *self._explainer.layers.values()]
        watched = [(layer, "call") for layer in layers] + [(owner, name) for owner, name, _ in candidates]
        watched += [(layer, "compute_mask") for layer in self.layers.values()]
        with record(watched, self._explainer.changes(mark) if mark is not None else None) as records:
            predictions = self.model(inputs, training=training)
        outputs = keras.tree.flatten(predictions)
        # A linear activation returns the very tensor it was given, perhaps a softmax's: the others have the last word.
        ends = {id(output): (output, None) for output in outputs}
        for owner, name, kind in sorted(candidates, key=lambda candidate: candidate[2] != "linear"):
            for given, returned in records.get((id(owner), name), ()):
                if id(returned) in ends:
                    ends[id(returned)] = (given, kind)
        logits = [ends[id(output)][0] for output in outputs]
        self.heads = tuple(ends[id(output)][1] for output in outputs)
        calls = {path: records.get((id(layer), "call")) for path, layer in self.layers.items()}
        features = {path: call[-1][1] for path, call in calls.items() if call}
        # A mask on a tensor does not last: attention takes it off its inputs. What the layer said of it does.
        said = {path: records.get((id(layer), "compute_mask"), [(None, None)]) for path, layer in self.layers.items()}
        said = {path: calls[-1][1] for path, calls in said.items()}
        masks = {path: mask for path, mask in said.items() if keras.ops.is_tensor(mask)}
        masks |= _masks({**features, **_keys(outputs)})
        if self._explainer.attributions:
            self._classifiers = [_classifier(candidates, records, each) for each in logits]
        calls = {path: records.get((id(layer), "call")) for path, layer in self._explainer.layers.items()}
        sources = {path: call[-1][1] for path, call in calls.items() if call}
        if len(outputs) == 1:
            return Signals(outputs[0], logits[0], features, masks), sources
        return Signals(predictions, keras.tree.pack_sequence_as(predictions, logits), features, masks), sources

    def _check(self, signals: Signals) -> None:
        outputs = len(keras.tree.flatten(signals.predictions))
        if outputs != 1 and not self.several_outputs:
            raise ValueError(
                f"Model '{self.model.name}' must have exactly one output. Received: {outputs}. "
                "Wrap the one that you want in `keras.Model(model.inputs, model.outputs[i])`."
            )
        missing = [path for path in self.layers if path not in signals.features]
        if missing:
            raise ValueError(not_called(missing, self.model.name))
        if self._problem is not None:
            raise ValueError(self._problem)

    def refuse_hidden_probabilities(self, inputs: Any) -> None:
        """Raise if the model returns probabilities whose logits cannot be recovered.

        Only where a final activation was not recognised is the model run, on two random samples: rows that are
        non-negative and sum to one are a softmax, whatever the data; values that all lie in (0, 1) are sigmoids.

        Args:
            inputs: `keras.KerasTensor`s, nested as the model takes them.

        Raises:
            ValueError: The outputs are probabilities and no final activation was recognised.
        """
        if self.heads and None not in self.heads:
            return
        signals = self._probe(inputs)
        for predictions, head in zip(keras.tree.flatten(signals.predictions), self.heads, strict=True):
            if head is None:
                _refuse(np.asarray(keras.ops.convert_to_numpy(predictions), dtype="float32"), self.model.name)

    def check_attributions(self, inputs: Any) -> None:
        """Raise if, on two random samples, there is no gradient, or class maps do not add up to the logits.

        Args:
            inputs: `keras.KerasTensor`s, nested as the model takes them.

        Raises:
            ValueError: What is to be explained is not there.
        """
        if not self._explainer.attributions:
            return
        # The mean of all class maps is the logits, but for the bias: the same number for both samples.
        maps = {
            name: each if each.by_gradient else dataclasses.replace(each, method="class_maps")
            for name, each in self._explainer.attributions.items()
        }
        signals = Extractor(self.model, several_outputs=True, attributions=maps)._probe(inputs)
        names = _output_names(self.model, signals.predictions)
        for name, each in self._explainer.attributions.items():
            logits = keras.tree.flatten(signals.logits)[each.place(names, self.model.name)]
            if not each.by_gradient and not _is_mean(signals.attributions[name], logits):
                raise ValueError(needs_pooled_head(each, self.model.name))

    def _probe(self, inputs: Any) -> Signals:
        """Return the signals of two random samples."""
        random = np.random.default_rng(0)

        def sample(spec: Any) -> np.ndarray:
            shape = [_UNKNOWN_SIZE if size is None else size for size in spec.shape[1:]]
            return random.random((2, *shape)).astype(keras.backend.standardize_dtype(spec.dtype))

        return self(keras.tree.map_structure(sample, inputs))


def _refuse(outputs: np.ndarray, name: str) -> None:
    refuse_probabilities(outputs, name)
    if outputs.min() > 0 and outputs.max() < 1:
        raise ValueError(
            f"Model '{name}' returns values in (0, 1) only, as a sigmoid does, but its logits could not be found. End "
            "the model in `keras.layers.Dense(units, activation='sigmoid')`, or let it return logits."
        )


def _classifier(candidates: list[Any], records: dict[Any, Any], logits: Any) -> keras.layers.Dense | None:
    """Return the `Dense` layer that returned the logits; if a cast stands between, the last of their shape."""
    dense = {(id(owner), name): owner for owner, name, _ in candidates if isinstance(owner, keras.layers.Dense)}
    found = None
    for key, calls in records.items():
        if key in dense and tuple(calls[-1][1].shape) == tuple(logits.shape):
            found = dense[key]
            if any(tensor is logits for tensor in calls[-1]):
                break
    return found


def _is_mean(class_maps: Any, logits: Any) -> bool:
    """Whether logits are the mean of class maps over all positions, but for what is the same in both samples."""
    maps, logits = (np.asarray(keras.ops.convert_to_numpy(tensor), dtype="float64") for tensor in (class_maps, logits))
    rest = logits - maps.mean(axis=tuple(range(1, maps.ndim - 1)))
    return bool(np.abs(rest[0] - rest[1]).max() <= 1e-2 * max(np.abs(maps).max(), 1e-6))


def _keys(outputs: list[Any]) -> dict[str, Any]:
    """Name outputs as `Signals.masks` does."""
    return {"": outputs[0]} if len(outputs) == 1 else {f"#{i}": output for i, output in enumerate(outputs)}


def _masks(tensors: dict[str, Any]) -> dict[str, Any]:
    masks = {path: _mask_reader()(tensor) for path, tensor in tensors.items() if not keras.tree.is_nested(tensor)}
    return {path: mask for path, mask in masks.items() if mask is not None}


@functools.cache
def _mask_reader() -> keras.layers.Layer:
    return _MaskOf()


class _MaskOf(keras.layers.Layer):
    """Returns the mask of its input: Keras tells it to layers only, and keeps it in another place on each backend."""

    def __init__(self) -> None:
        super().__init__(name="mask_of", autocast=False, dtype="float32")
        self.supports_masking = True
        self.built = True

    def call(self, values: Any, mask: Any = None) -> Any:
        return mask


def _output_names(model: keras.Model, predictions: Any) -> list[str]:
    """Return a name for each output: a dict's keys, a Functional model's output names, or positions."""
    paths = ["/".join(map(str, path)) for path, _ in keras.tree.flatten_with_path(predictions)]
    names = getattr(model, "output_names", None)  # Functional models have them
    return list(names) if isinstance(predictions, (list, tuple)) and names and len(names) == len(paths) else paths


def _words(heads: tuple[str | None, ...]) -> str:
    return " and ".join(head or "no known activation" for head in heads)


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
