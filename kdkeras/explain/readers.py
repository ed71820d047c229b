"""The compiled readers of a model that is explained: its answers, layers and attributions."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kdkeras.inputs import build_for
from kdkeras.signals import Attribution, Explain, Extractor, Reader, Signals


class Readers:
    """The compiled readers of one model, each made when it is first asked for.

    Args:
        model: The model.
        freeze: Whether its weights become constants of what is compiled, on TensorFlow.
    """

    def __init__(self, model: keras.Model, *, freeze: bool = False) -> None:
        self._model, self._freeze = model, freeze
        self._made: dict[tuple[str, tuple[str, ...]], Asked] = {}
        self._kept: dict[str, Any] = {}

    def get(self, attribution: Attribution | None = None, layers: tuple[str, ...] = ()) -> Asked:
        """Return a reader.

        Args:
            attribution: What it explains, if anything.
            layers: The layers whose outputs it returns.

        Returns:
            The reader.
        """
        key = str(attribution), layers
        if key not in self._made:
            self._made[key] = Asked(self._model, attribution, layers, freeze=self._freeze)
        return self._made[key]

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what else was made of the model, so that it too is made, and compiled, once.

        Args:
            name: What it is.
            make: Makes it.

        Returns:
            What `make` returned the first time.
        """
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]


class Asked(Reader):
    """A `Reader` that is told which logit of each sample to explain.

    Args:
        model: The model.
        attribution: What it explains, if anything.
        layers: The layers whose outputs it returns.
        freeze: Whether the weights become constants of what is compiled, on TensorFlow.

    Attributes:
        units: Number of units of the output; `None` before the first look.
    """

    def __init__(
        self,
        model: keras.Model,
        attribution: Attribution | None = None,
        layers: tuple[str, ...] = (),
        *,
        freeze: bool = False,
    ) -> None:
        super().__init__(model, layers, [attribution] if attribution else [])
        self._freeze = freeze and keras.backend.backend() == "tensorflow"
        self._forward = functools.partial(self.extractor, training=False)
        self._attribution = str(attribution)
        self._seen: set[Any] = set()  # shapes and dtypes of samples
        self.units: int | None = None

    def call(self, inputs: dict[str, Any]) -> Signals:
        """Return the signals of a batch: inputs `"x"`, and the `"target"` of each where something is explained."""
        explain = {self._attribution: Explain(classes=inputs["target"])} if "target" in inputs else {}
        return self._forward(inputs["x"], explain=explain)

    def look(self, sample: Any) -> None:
        """Run one sample, not compiled, where messages are not wrapped: the first time that its shape is seen.

        Args:
            sample: Inputs of one sample, nested as the model takes them.

        Raises:
            ValueError: The output is not `(batch, units)`, or the weights cannot become constants.
        """
        shapes = tuple((array.shape, array.dtype.name) for array in keras.tree.flatten(sample))
        if shapes in self._seen:
            return
        sample = keras.tree.map_structure(keras.ops.convert_to_tensor, sample)
        build_for(self.model, sample)  # `build` may make layers
        shape = self.extractor(sample, training=False).logits.shape
        if len(shape) != 2:
            raise ValueError(
                f"An explanation needs a model whose output is (batch, units). Received: model '{self.model.name}', "
                f"whose output is {tuple(shape)}. Pool it, or explain a model of the part that you want."
            )
        if self._freeze and self.units is None:
            self._forward = _frozen(self.extractor, sample)
        self.units = int(shape[-1])
        self._seen.add(shapes)

    def run(self, x: Any, target: np.ndarray | None, batch_size: int) -> Signals:
        """Return the `Signals` of all samples as float32 arrays.

        Args:
            x: Inputs, nested as the model takes them.
            target: Index of the explained logit of each sample, shape `(n,)`; `None` where nothing is explained.
            batch_size: Samples per pass.

        Returns:
            The signals.
        """
        inputs = {"x": x} if target is None else {"x": x, "target": target}
        size = len(keras.tree.flatten(x)[0])
        # Batch by batch: `predict` takes longer to start than a small model to run, and some methods ask 500 times.
        batches = [slice(start, start + batch_size) for start in range(0, size, batch_size)]
        parts = [self.predict_on_batch(keras.tree.map_structure(operator.itemgetter(b), inputs)) for b in batches]
        return keras.tree.map_structure(lambda *values: np.concatenate(values).astype("float32"), *parts)


def _frozen(extractor: Extractor, sample: Any) -> Callable[..., Signals]:
    """Return the model's forward pass with its weights as constants."""
    from kdkeras._frozen import HARD_LIMIT, FreezeError, freeze

    specs = keras.tree.map_structure(lambda array: keras.KerasTensor((None, *array.shape[1:]), array.dtype), sample)
    try:
        return freeze(extractor, specs, probe=sample, limit=HARD_LIMIT)
    except FreezeError as error:
        raise ValueError(
            f"Model '{extractor.model.name}' cannot be explained with constant weights: {error}. Pass freeze=False."
        ) from error
