"""What all teachers made of other models share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kdkeras import _backend
from kdkeras.counting import count_macs
from kdkeras.inputs import input_specs, specs_of_shapes
from kdkeras.signals import Extractor, SignalSpec


class TeacherModel(keras.Model):
    """A model that reads the logits of others, its members, and ends like them.

    The members run with `training=False` always; `training` is only handed on to members that are `TeacherModel`s
    themselves, for they may draw a member of their own in each step. What a subclass adds is `_settle`, which checks
    the members once, before any data are seen, and `call`.

    Where the inputs of a member are known (Functional and Sequential models, and other `TeacherModel`s), they are
    `inputs` and `input` of this model too, as Functional models have them, and the model is built at once. Otherwise
    `inputs` is `None` and the first call builds it.

    Args:
        members: The models to read.
        name: Name of the model.
    """

    def __init__(self, members: Sequence[keras.Model], *, name: str) -> None:
        # float32 whatever the global policy, for sums of probabilities; each member casts its inputs itself.
        super().__init__(name=name, dtype="float32", autocast=False)
        self._readers = tuple(Extractor(member) for member in members)
        self._end = _End(name="answer")
        self._head: str | None = None

    @property
    def inputs(self) -> list[Any] | None:
        """Symbolic inputs as a flat list, or `None` where only data can tell."""
        known = self._known_inputs()
        return None if known is None else keras.tree.flatten(known)

    @property
    def input(self) -> Any:
        """Symbolic inputs, nested as the model takes them."""
        known = self._known_inputs()
        return super().input if known is None else known

    @property
    def head(self) -> str | None:
        """The activation that the model ends in: `"softmax"`, `"sigmoid"` or `"linear"`; `None` until it is built."""
        return self._head

    @property
    def stochastic(self) -> bool:
        """Whether a call with `training=True` gives different answers each time."""
        members = [reader.model for reader in self._readers]
        return any(member.stochastic for member in members if isinstance(member, TeacherModel))

    def count_macs(self) -> int:
        """Return the multiply-accumulates of all members for one sample; putting them together has none to speak of.

        Returns:
            Their sum. A step with `combine="random"` runs one member only.

        Raises:
            ValueError: A member cannot be counted, as `kdkeras.counting.count_macs` says.
        """
        return sum(count_macs(reader.model) for reader in self._readers)

    def build(self, input_shape: Any) -> None:
        """Check the members, when their inputs became known only from data."""
        if not self.built:
            self._connect(specs_of_shapes(input_shape))

    def _known_inputs(self) -> Any:
        """Return the inputs of the first member that knows its own. Kept here, Keras would wrap the nest."""
        specs = (input_specs(reader.model) for reader in self._readers)
        return next((spec for spec in specs if spec is not None), None)

    def _connect(self, inputs: Any) -> None:
        specs = []
        for reader in self._readers:
            specs.append(_spec_of_one_output(reader, inputs, asked_by=type(self).__name__))
            if reader.head is None:
                _probe(reader, inputs)
        self._head = self._settle(specs)
        self.built = True

    def _settle(self, specs: Sequence[SignalSpec]) -> str:
        """Check the members and return the head that this model ends in."""
        raise NotImplementedError(f"`{type(self).__name__}` must implement `_settle(specs)`.")

    def _read(self, place: int, inputs: Any, training: bool = False) -> Any:
        """Return the float32 logits of one member."""
        reader = self._readers[place]
        nested = isinstance(reader.model, TeacherModel)
        return keras.ops.cast(reader(inputs, training=bool(training) and nested).logits, "float32")


class _End(keras.layers.Layer):
    """The last layer, from which `Extractor` reads logits and head: every end is there before the head is known."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.ends = {
            "softmax": keras.layers.Activation("softmax", name="softmax", dtype="float32"),
            "sigmoid": keras.layers.Activation("sigmoid", name="sigmoid", dtype="float32"),
            "linear": _Linear(name="linear", dtype="float32"),
        }
        self.built = True

    def call(self, logits: Any, head: str) -> Any:
        return self.ends[head](logits)


class _Linear(keras.layers.Layer):
    """Ends a model in logits, visibly: `Extractor` takes an `Activation("linear")` for a mere cast."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = keras.activations.linear
        self.built = True

    def call(self, logits: Any) -> Any:
        return self.activation(logits)


def _spec_of_one_output(reader: Extractor, inputs: Any, *, asked_by: str) -> SignalSpec:
    name, known = reader.model.name, input_specs(reader.model)
    if known is not None:
        ours = [tuple(spec.shape[1:]) for spec in keras.tree.flatten(inputs)]
        theirs = [tuple(spec.shape[1:]) for spec in keras.tree.flatten(known)]
        if not _agree(ours, theirs):
            raise ValueError(
                f"`{asked_by}` needs models that take the same inputs. Received: {theirs} for model '{name}', {ours} "
                "for those before it. Put a resizing or reshaping layer at the start of one of them."
            )
    return reader.spec(inputs)


def _agree(ours: list[tuple], theirs: list[tuple]) -> bool:
    return len(ours) == len(theirs) and all(
        len(a) == len(b) and all(i == j or None in (i, j) for i, j in zip(a, b, strict=True))
        for a, b in zip(ours, theirs, strict=True)
    )


def _probe(reader: Extractor, inputs: Any) -> None:
    """Refuse probabilities behind an unknown activation, which takes a run of the model, even while Keras traces."""
    with _backend.outside_of_graphs():
        reader.refuse_hidden_probabilities(inputs)
