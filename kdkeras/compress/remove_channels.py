"""Structured pruning: a model with fewer channels, which really is smaller and faster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from tabulate import tabulate

from kdkeras.compress import _calls
from kdkeras.compress._channels import DEPTHWISE, PRODUCERS, SEPARABLE, TRANSPOSED, Channels
from kdkeras.compress._copying import Copying, clone
from kdkeras.counting import count_macs
from kdkeras.layer_paths import find_layer, first_paths


@dataclass(frozen=True)
class LayerChannels:
    """What became of the channels of one layer.

    Attributes:
        path: Path of the layer.
        before: Channels of the model.
        after: Channels of the smaller one.
        reason: Why all of them had to stay; empty if some could go.
    """

    path: str
    before: int
    after: int
    reason: str = ""


@dataclass(frozen=True)
class SmallerModel:
    """A model with fewer channels. `print(smaller)` shows a table.

    Attributes:
        model: The smaller model, not compiled.
        rows: One row per layer that makes channels, in the order of the model.
        macs: Multiply-accumulates before and after; `None` where they cannot be counted.
        parameters: Weights before and after.
    """

    model: keras.Model
    rows: tuple[LayerChannels, ...]
    macs: tuple[int, int] | None
    parameters: tuple[int, int]

    def __str__(self) -> str:
        body = [(row.path, row.before, row.after, row.reason and f"whole: {row.reason}") for row in self.rows]
        lines = [tabulate(body, headers=("channels of", "before", "after", ""), intfmt=",")]
        counted = {"MACs": self.macs, "parameters": self.parameters}
        found = [(name, *pair) for name, pair in counted.items() if pair is not None]
        changes = (f"{name} {before:,} → {after:,} ({after / before:.0%})" for name, before, after in found)
        return "\n".join([*lines, ", ".join(changes)])


def remove_channels(
    model: keras.Model,
    share: float | Mapping[str, float],
    *,
    importance: Literal["l1", "bn_scale"] = "l1",
) -> SmallerModel:
    """Return a smaller model without the least important channels, with the weights of those that stay.

    Each channel of a dense or convolutional layer is one filter of it. What goes with a channel goes too: its bias, its
    BatchNormalization, its depthwise filters, and its inputs to every layer that reads it. Channels that an addition or
    a product ties together stay or go as one, for the sum of their importance. The outputs of the model stay, and so
    does what meets a layer that cannot be followed; both are named in the result.

    Accuracy falls at once. Train the smaller model afterwards, best as a student of the larger one.

    Args:
        model: A built Functional or Sequential model, nested ones too, with channels last. It is not changed.
        share: Share of the channels to remove in each layer, in (0, 1), rounded down; one channel stays at least. Half
            of the channels is nearly three quarters of the multiply-accumulates. Or a dict from layer path to share;
            only these layers, and those tied to them, are made smaller.
        importance: `"l1"`: sum of the absolute weights of a filter, divided by the mean of its layer. `"bn_scale"`: the
            absolute scale of the BatchNormalization behind it. Default `"l1"`.

    Returns:
        A `SmallerModel`; its `model` is the one to go on with.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: It is not a built Functional or Sequential model, a share is out of range, a path does not exist or
            makes no channels, tied layers are given different shares, `"bn_scale"` finds no scale, or nothing can go.

    Example:
        >>> import keras
        >>> from kdkeras import compress
        >>> layers = [keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(3, name="head")]
        >>> print(compress.remove_channels(keras.Sequential([keras.Input((4,)), *layers], name="net"), 0.5))
        channels of      before    after
        -------------  --------  -------  --------------------------------
        hidden                8        4
        head                  3        3  whole: they are outputs of 'net'
        MACs 56 → 28 (50%), parameters 67 → 35 (52%)

    Reference:
        Li et al.: Pruning Filters for Efficient ConvNets, 2017, arXiv:1608.08710 (`"l1"`). Liu et al.: Learning
        Efficient Convolutional Networks through Network Slimming, 2017, arXiv:1708.06519 (`"bn_scale"`).
    """
    _calls.check_graph(model, "remove_channels")
    if importance not in ("l1", "bn_scale"):
        raise ValueError(f"`importance` must be 'l1' or 'bn_scale'. Received: {importance!r}.")
    shares = share if isinstance(share, Mapping) else {"": share}
    if not shares or not all(0 < each < 1 for each in shares.values()):
        raise ValueError(f"`remove_channels` needs shares above 0 and below 1. Received: {share!r}.")
    channels, paths = Channels(model), first_paths(model)
    removed = _chosen(channels, paths, _shares(model, share, channels), importance)
    if not removed:
        reasons = sorted({channels.lock(group) or "too few" for g in _outputs(channels).values() for group in g})
        raise ValueError(
            f"`remove_channels` found nothing to remove in '{model.name}': {'; '.join(reasons)}. Raise `share`, or "
            "write the model with layers that it can follow."
        )
    smaller = _Narrowing(channels, removed).copy(model)
    outputs = [(paths[channels.layers[key]], groups) for key, groups in _outputs(channels).items()]
    rows = tuple(_row(path, groups, channels, removed) for path, groups in outputs)
    return SmallerModel(smaller, rows, _macs(model, smaller), (model.count_params(), smaller.count_params()))


def _outputs(channels: Channels) -> dict[int, np.ndarray]:
    """Return the groups that each layer makes, by the layer's identity."""
    producers = {key: layer for key, layer in channels.layers.items() if type(layer) in PRODUCERS}
    return {key: channels.ports(layer).outputs for key, layer in producers.items()}


def _shares(model: keras.Model, share: float | Mapping[str, float], channels: Channels) -> dict[int, float]:
    """Return the share of each layer that is to be made smaller, by its identity."""
    outputs = _outputs(channels)
    if not isinstance(share, Mapping):
        return dict.fromkeys(outputs, share)
    layers = {path: find_layer(model, path) for path in share}
    wrong = [path for path, layer in layers.items() if id(layer) not in outputs]
    if wrong:
        raise ValueError(
            f"`share` needs paths of dense or convolutional layers. Received: {wrong}. Name those that make "
            "the channels."
        )
    return {id(layers[path]): each for path, each in share.items()}


def _chosen(channels: Channels, paths: dict[Any, str], shares: dict[int, float], importance: str) -> set[int]:
    """Return the groups that go."""
    outputs, removed = _outputs(channels), set()
    for tied in _families(outputs):
        asked = {shares[key] for key in tied if key in shares}
        if not asked:
            continue
        if len(asked) > 1:
            names = [paths[channels.layers[key]] for key in tied]
            raise ValueError(
                f"Layers whose channels are tied need one share. Received: {sorted(asked)} for {names}. Name "
                "one of them."
            )
        groups = np.unique(np.concatenate([outputs[key] for key in tied]))
        free = np.array([group for group in groups if channels.lock(group) is None], dtype=int)
        if not len(free):
            continue
        scores = _scores(channels, tied, paths, importance)
        count = min(int(asked.pop() * len(free) + 1e-9), len(free) - 1)
        order = np.argsort([scores[group] for group in free], kind="stable")
        removed.update(free[order[:count]].tolist())
    return removed


def _families(outputs: dict[int, np.ndarray]) -> list[list[int]]:
    """Return layers together that have channels in common, directly or through others."""
    families: list[tuple[list[int], set[int]]] = []
    for key, groups in outputs.items():
        keys, all_groups = [key], set(groups.tolist())
        for other in [family for family in families if family[1] & all_groups]:
            families.remove(other)
            keys, all_groups = other[0] + keys, other[1] | all_groups
        families.append((keys, all_groups))
    return [keys for keys, _ in families]


def _scores(channels: Channels, tied: list[int], paths: dict[Any, str], importance: str) -> dict[int, float]:
    """Return the importance of each group that some layers make."""
    wanted = {group for key in tied for group in channels.ports(channels.layers[key]).outputs.tolist()}
    scores = dict.fromkeys(wanted, 0.0)
    if importance == "l1":
        found = [(channels.ports(channels.layers[key]).outputs, _filter_norms(channels.layers[key])) for key in tied]
    else:
        norms = [layer for layer in channels.layers.values() if isinstance(layer, keras.layers.BatchNormalization)]
        with_scale = [(channels.ports(layer).inputs, layer.gamma) for layer in norms if layer.scale]
        found = [(g, np.abs(keras.ops.convert_to_numpy(gamma))) for g, gamma in with_scale if wanted & set(g.tolist())]
        seen = {group for groups, _ in found for group in groups.tolist()}
        if wanted - seen:
            names = [paths[channels.layers[key]] for key in tied]
            raise ValueError(
                f"importance='bn_scale' needs a BatchNormalization with a scale behind every layer. Received: none "
                f"behind {names}. Use importance='l1', or name other layers in `share`."
            )
    for groups, values in found:
        for group, value in zip(groups.tolist(), values / max(values.mean(), 1e-12), strict=True):
            if group in scores:
                scores[group] += float(value)
    return scores


def _filter_norms(layer: keras.layers.Layer) -> np.ndarray:
    """Return the sum of the absolute weights of each filter."""
    kernel = np.abs(keras.ops.convert_to_numpy(layer.pointwise_kernel if type(layer) in SEPARABLE else layer.kernel))
    axis = kernel.ndim - 2 if isinstance(layer, TRANSPOSED) else kernel.ndim - 1
    return kernel.sum(axis=tuple(place for place in range(kernel.ndim) if place != axis))


class _Narrowing(Copying):
    """Copies models without some groups of channels."""

    def __init__(self, channels: Channels, removed: set[int]) -> None:
        super().__init__()
        self._channels, self._removed = channels, sorted(removed)

    def _kept(self, groups: np.ndarray) -> np.ndarray:
        return ~np.isin(groups, self._removed)

    def inputs_of(self, model: keras.Model) -> list[keras.KerasTensor]:
        """Return inputs with the channels that stay: those of a nested model may be fewer."""
        shapes = []
        for tensor, groups in zip(model.inputs, self._channels.inputs(model), strict=True):
            last = [int(self._kept(groups).sum())] if len(groups) else list(tensor.shape[-1:])
            shapes.append((*tensor.shape[:-1], *last))
        return [
            keras.Input(batch_shape=shape, dtype=plain.dtype, name=plain.name)
            for shape, plain in zip(shapes, model.inputs, strict=True)
        ]

    def make(self, operation: Any) -> Any:
        """Return a copy of a layer with fewer channels."""
        if id(operation) not in self._channels.layers:
            return super().make(operation)
        ports = self._channels.ports(operation)
        inputs, outputs = self._kept(ports.inputs), self._kept(ports.outputs)
        if isinstance(operation, keras.layers.Reshape):
            return clone(operation, target_shape=(*operation.target_shape[:-1], int(outputs.sum())))
        settings = {}
        if type(operation) in PRODUCERS:
            settings = {"units" if isinstance(operation, keras.layers.Dense) else "filters": int(outputs.sum())}
        weights = [_sliced(operation, weight, inputs, outputs) for weight in operation.weights]
        return self.with_weights(clone(operation, **settings), weights)


def _sliced(layer: keras.layers.Layer, weight: Any, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return the part of a weight that belongs to the channels that stay."""
    values = keras.ops.convert_to_numpy(weight)
    if values.ndim == 1:  # biases, and all of BatchNormalization
        return values[outputs]
    if type(layer) in DEPTHWISE or weight.name == "depthwise_kernel":
        return values[..., inputs, :]
    if weight.name == "pointwise_kernel":
        return values[..., np.repeat(inputs, layer.depth_multiplier), :][..., outputs]
    if isinstance(layer, TRANSPOSED):
        inputs, outputs = outputs, inputs
    return values[..., inputs, :][..., outputs]


def _row(path: str, groups: np.ndarray, channels: Channels, removed: set[int]) -> LayerChannels:
    locks = [channels.lock(group) for group in groups.tolist()]
    kept = sum(group not in removed for group in groups.tolist())
    return LayerChannels(path, len(groups), kept, locks[0] if all(locks) else "")


def _macs(model: keras.Model, smaller: keras.Model) -> tuple[int, int] | None:
    try:
        return count_macs(model), count_macs(smaller)
    except ValueError:
        return None
