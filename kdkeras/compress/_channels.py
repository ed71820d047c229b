"""Which channels of a model's layers belong together: what must stay or go as one."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np

from kdkeras.compress import _calls
from kdkeras.compress._calls import Call

_LAYERS = keras.layers
TRANSPOSED = (_LAYERS.Conv1DTranspose, _LAYERS.Conv2DTranspose)
SEPARABLE = (_LAYERS.SeparableConv1D, _LAYERS.SeparableConv2D)
PRODUCERS = (_LAYERS.Dense, _LAYERS.Conv1D, _LAYERS.Conv2D, _LAYERS.Conv3D, *TRANSPOSED, *SEPARABLE)
"""Layers that make channels of their own, and can make fewer."""
DEPTHWISE = (_LAYERS.DepthwiseConv1D, _LAYERS.DepthwiseConv2D)
_MERGING = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"}
# Channel by channel the same, by the name of the class: operations of `keras.ops` have no public classes.
_PASSING = {"Activation", "ReLU", "LeakyReLU", "ELU", "Identity", "Dropout", "GaussianNoise", "GaussianDropout"}
_PASSING |= {"Relu", "Relu6", "Silu", "Gelu", "Sigmoid", "Tanh", "HardSilu", "HardSigmoid", "LeakyRelu"}
_PASSING |= {f"SpatialDropout{rank}D" for rank in (1, 2, 3)}
_PASSING |= {f"{kind}Pooling{rank}D" for kind in ("Max", "Average", "GlobalMax", "GlobalAverage") for rank in (1, 2, 3)}
_PASSING |= {f"{kind}{rank}D" for kind in ("ZeroPadding", "Cropping", "UpSampling") for rank in (1, 2, 3)}


class Ports(NamedTuple):
    """The channels that go into a layer and come out of it, each by the number of its group.

    Attributes:
        inputs: Group of each input channel.
        outputs: Group of each output channel.
    """

    inputs: np.ndarray
    outputs: np.ndarray


class Channels:
    """The channels of a model in groups. Those of one group stay or go as one.

    A layer's output channels are groups of their own until something ties them: an addition those of its inputs, a
    depthwise convolution its outputs to its inputs. Groups are locked that reach an input or output of the model, or a
    layer that cannot be followed.

    Args:
        model: A model for which `is_graph` holds.

    Attributes:
        layers: Layers whose weights know channels, by identity, in the order of the model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._parents: list[int] = []
        self._locks: dict[int, str] = {}
        self._inputs: dict[int, list[np.ndarray]] = {}
        self._ports: dict[int, Ports] = {}
        self.layers: dict[int, keras.layers.Layer] = {}
        sources = [self._new(tensor.shape[-1], f"they are inputs of '{model.name}'") for tensor in model.inputs]
        for groups in self._follow(model, sources):
            self._lock(groups, f"they are outputs of '{model.name}'")

    def ports(self, layer: keras.layers.Layer) -> Ports:
        """Return the groups of a layer's channels."""
        ports = self._ports[id(layer)]
        return Ports(self._found(ports.inputs), self._found(ports.outputs))

    def inputs(self, model: keras.Model) -> list[np.ndarray]:
        """Return the groups of the input channels of a model, or of one nested in it."""
        return [self._found(groups) for groups in self._inputs[id(model)]]

    def lock(self, group: int) -> str | None:
        """Return why a group must stay, or `None`."""
        return self._locks.get(group)

    # --- following the calls ------------------------------------------------------------------------------------------

    def _follow(self, model: keras.Model, sources: list[np.ndarray]) -> list[np.ndarray]:
        for before, now in zip(self._inputs.setdefault(id(model), sources), sources, strict=True):
            self._tie(before, now)
        graph = _calls.calls_of(model)
        known = {id(tensor): groups for tensor, groups in zip(graph.inputs, sources, strict=True)}
        for call in graph.calls:
            groups = [known[id(tensor)] for tensor in call.inputs]
            outputs = _calls.tensors(call.outputs)
            made = self._called(call, groups)
            for tensor, channels in zip(outputs, made or self._not_followed(call, groups), strict=True):
                known[id(tensor)] = channels
        return [known[id(tensor)] for tensor in _calls.tensors(graph.outputs)]

    def _called(self, call: Call, groups: list[np.ndarray]) -> list[np.ndarray] | None:
        """Return the groups of what a call returns, or `None` where it cannot be followed."""
        operation, kind = call.operation, type(call.operation).__name__
        if _calls.is_graph(operation):
            return self._follow(operation, groups)
        if not groups or getattr(operation, "data_format", None) == "channels_first":
            return None
        if type(operation) in PRODUCERS:
            return None if getattr(operation, "groups", 1) > 1 else [self._through(operation, groups[0])]
        if type(operation) in DEPTHWISE:
            return [self._through(operation, groups[0], np.repeat(groups[0], operation.depth_multiplier))]
        if type(operation) is _LAYERS.BatchNormalization:
            last = operation.axis in (-1, len(call.inputs[0].shape) - 1)
            return [self._through(operation, groups[0], groups[0])] if last else None
        if kind in _MERGING:
            alike = all(len(each) == len(groups[0]) for each in groups) and _tensors_alone(call)
            return [self._tied(groups)] if alike else None
        if kind == "Concatenate":
            return self._joined(call, groups)
        if isinstance(operation, (_LAYERS.Flatten, _LAYERS.Reshape)):
            return self._reshaped(call, groups[0])
        return [groups[0]] if kind in _PASSING and _activates_one_by_one(operation) else None

    def _through(self, layer: keras.layers.Layer, groups: np.ndarray, outputs: np.ndarray | None = None) -> np.ndarray:
        """Note what goes through a layer; one that is called again has the same channels again."""
        self.layers[id(layer)] = layer
        if id(layer) not in self._ports:
            if outputs is None:
                outputs = self._new(layer.units if isinstance(layer, _LAYERS.Dense) else layer.filters)
            self._ports[id(layer)] = Ports(groups, outputs)
            return outputs
        before = self._ports[id(layer)]
        self._tie(before.inputs, groups)
        return before.outputs if outputs is None else outputs

    def _joined(self, call: Call, groups: list[np.ndarray]) -> list[np.ndarray] | None:
        rank = len(call.inputs[0].shape)
        if call.operation.axis in (-1, rank - 1):
            return [np.concatenate(groups)]
        return [self._tied(groups)]

    def _reshaped(self, call: Call, groups: np.ndarray) -> list[np.ndarray] | None:
        """Follow channels that stay the last axis, or become one axis with all others, place after place."""
        before, after = call.inputs[0].shape, call.outputs.shape
        if None in before[1:] or None in after[1:]:
            return None
        if before[-1] == after[-1]:
            if isinstance(call.operation, _LAYERS.Reshape):
                self._through(call.operation, groups, groups)
            return [groups]
        if len(after) != 2 or (isinstance(call.operation, _LAYERS.Reshape) and call.operation.target_shape != (-1,)):
            return None
        return [np.tile(groups, after[-1] // before[-1])]

    def _not_followed(self, call: Call, groups: list[np.ndarray]) -> list[np.ndarray]:
        reason = f"'{call.operation.name}' ({type(call.operation).__name__}) cannot be followed"
        for each in groups:
            self._lock(each, reason)
        outputs = _calls.tensors(call.outputs)
        return [self._new((tensor.shape[-1] if len(tensor.shape) > 1 else 0) or 0, reason) for tensor in outputs]

    # --- groups -------------------------------------------------------------------------------------------------------

    def _new(self, count: int | None, reason: str | None = None) -> np.ndarray:
        first = len(self._parents)
        groups = np.arange(first, first + (count or 0))
        self._parents.extend(groups.tolist())
        if reason is not None:
            self._lock(groups, reason)
        return groups

    def _find(self, group: int) -> int:
        while self._parents[group] != group:
            self._parents[group] = group = self._parents[self._parents[group]]
        return group

    def _found(self, groups: np.ndarray) -> np.ndarray:
        return np.array([self._find(int(group)) for group in groups], dtype=int)

    def _tie(self, one: np.ndarray, other: np.ndarray) -> None:
        for first, second in zip(one, other, strict=True):
            kept, gone = self._find(int(first)), self._find(int(second))
            if kept == gone:
                continue
            self._parents[gone] = kept
            if gone in self._locks:
                self._locks.setdefault(kept, self._locks.pop(gone))

    def _tied(self, groups: list[np.ndarray]) -> np.ndarray:
        for each in groups[1:]:
            self._tie(groups[0], each)
        return groups[0]

    def _lock(self, groups: np.ndarray, reason: str) -> None:
        for group in groups:
            self._locks.setdefault(self._find(int(group)), reason)


def _tensors_alone(call: Call) -> bool:
    """Whether a call has no arrays among its arguments, which might have a value per channel."""
    leaves = keras.tree.flatten((call.args, call.kwargs))
    return not any(isinstance(leaf, np.ndarray) or keras.ops.is_tensor(leaf) for leaf in leaves)


def _activates_one_by_one(operation: Any) -> bool:
    """Whether each channel's activation depends on that channel alone."""
    names = ("softmax", "log_softmax", "sparsemax", "glu")
    return getattr(getattr(operation, "activation", None), "__name__", "") not in names
