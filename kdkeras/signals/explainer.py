"""From one forward pass of a model to what explains it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras

from kdkeras.layer_paths import find_layer
from kdkeras.signals.attributions import Attribution, AttributionError, Explain, attribute


class Parts(NamedTuple):
    """What a forward pass leaves behind, for explanations.

    Attributes:
        names: Name of each output.
        logits: Logits of each output.
        inputs: What the model was given.
        sources: Outputs of the layers that are explained, by path.
        classifiers: The `Dense` layer that each output comes from, where there is one.
        gradient: As `kdkeras._backend.differentiable` returns it; `None` where nothing takes a gradient.
    """

    names: list[str]
    logits: list[Any]
    inputs: Any
    sources: dict[str, Any]
    classifiers: list[keras.layers.Layer | None]
    gradient: Callable[[int, Any, str], Any] | None


class Explainer:
    """Knows what is to be explained of a model; `Extractor` runs the model.

    Args:
        model: The model.
        attributions: What to explain, by any name.

    Attributes:
        attributions: What to explain.
        layers: The layers that are explained, by path.
        by_gradient: Whether any of it takes a gradient.
        of_inputs: Whether any of it takes the gradient by the inputs.

    Raises:
        ValueError: A layer does not exist.
    """

    def __init__(self, model: keras.Model, attributions: Mapping[str, Attribution]) -> None:
        self.model = model
        self.attributions = dict(attributions)
        wanted = self.attributions.values()
        self.layers = {each.layer: find_layer(model, each.layer) for each in wanted if each.layer is not None}
        self.by_gradient = any(each.by_gradient for each in wanted)
        self.of_inputs = any(each.by_gradient and not each.of_layer for each in wanted)

    def marked(self, mark: Callable[[str, Any], Any], inputs: Any) -> Any:
        """Return the inputs, marked where they are differentiated by."""
        tensors = keras.tree.flatten(inputs)
        places = {self._input(each, tensors) for each in self.attributions.values() if each.by_gradient}
        marked = [_marked(mark, str(i), tensor) if i in places else tensor for i, tensor in enumerate(tensors)]
        return keras.tree.pack_sequence_as(inputs, marked)

    def changes(self, mark: Callable[[str, Any], Any]) -> dict[tuple[int, str], Callable[[Any], Any]]:
        """Return what `record` has to do so that the outputs of layers are marked where they are differentiated by."""
        layers = [self.layers[each.layer] for each in self.attributions.values() if each.by_gradient and each.of_layer]
        return {(id(layer), "call"): functools.partial(_marked, mark, _name(layer)) for layer in layers}

    def explain(self, parts: Parts, explain: Mapping[str, Explain]) -> dict[str, Any]:
        """Return every attribution.

        Args:
            parts: What the forward pass left behind.
            explain: At which classes each is taken, and whether at all.

        Returns:
            Tensors, by the name of the attribution.

        Raises:
            AttributionError: The model, or a layer, has nothing of the kind.
        """
        return {
            name: self._explain(each, parts, explain.get(name, Explain())) for name, each in self.attributions.items()
        }

    def _explain(self, attribution: Attribution, parts: Parts, explain: Explain) -> Any:
        place = attribution.place(parts.names, self.model.name)
        source = self._source(attribution, parts)
        if attribution.of_layer:
            mark = _name(self.layers[attribution.layer])
        else:
            mark = str(self._input(attribution, keras.tree.flatten(parts.inputs)))
        return attribute(
            attribution,
            source,
            parts.logits[place],
            lambda weights: parts.gradient(place, weights, mark),
            parts.classifiers[place],
            explain,
            model=self.model.name,
        )

    def _source(self, attribution: Attribution, parts: Parts) -> Any:
        """Return the tensor that an attribution is about: a layer's output, or one of the inputs."""
        if not attribution.of_layer:
            tensors = keras.tree.flatten(parts.inputs)
            place = self._input(attribution, tensors)
            if place is None:
                raise AttributionError(
                    f"'{attribution}' needs a model that takes one tensor. Received: {len(tensors)} of model "
                    f"'{self.model.name}'. Explain a layer."
                )
            return tensors[place]
        if attribution.layer not in parts.sources:
            raise AttributionError(not_called([attribution.layer], self.model.name))
        tensors = keras.tree.flatten(parts.sources[attribution.layer])
        if len(tensors) != 1:
            raise AttributionError(
                f"'{attribution}' needs layer '{attribution.layer}' that returns one tensor. Received: {len(tensors)} "
                f"of model '{self.model.name}'. Explain another layer."
            )
        return tensors[0]

    @staticmethod
    def _input(attribution: Attribution, tensors: list[Any]) -> int | None:
        """Return the place of the input that an attribution is about; `None` where there is none or it is not said."""
        if attribution.of_layer:
            return None
        place = 0 if attribution.input is None and len(tensors) == 1 else attribution.input
        return place if place is not None and 0 <= place < len(tensors) else None


def _name(layer: keras.layers.Layer) -> str:
    """Return what the output of a layer is called as a thing to differentiate by, whichever path led to it."""
    return str(id(layer))


def _marked(mark: Callable[[str, Any], Any], name: str, result: Any) -> Any:
    """Return a tensor as `mark` returns it, and anything that has no gradient as it is."""
    floats = keras.ops.is_tensor(result) and keras.backend.is_float_dtype(keras.backend.standardize_dtype(result.dtype))
    return mark(name, result) if floats else result


def not_called(paths: list[str], model: str) -> str:
    """Return the message for layers that a model holds and does not call.

    Args:
        paths: Their paths.
        model: The model's name.

    Returns:
        The message.
    """
    return f"Layers {paths} of model '{model}' are not called: tap layers that are."
