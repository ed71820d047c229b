"""What passes between models, losses and data: tensors in named places."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras


class Signals(NamedTuple):
    """The tensors of one forward pass.

    Attributes:
        predictions: What `model(x)` returns, shape `(batch, ..., units)`; nested where the model has several outputs.
        logits: The input of the model's own final softmax or sigmoid; the predictions themselves where the model
            ends linearly. Same nest and shapes as `predictions`.
        features: Output of each tapped layer, by the path that asked for it.
        masks: Keras masks, shape `(batch, positions)`: of tapped layers by path, of the output under `""`. Only what
            is masked is there.
        attributions: What the model looked at, by the name of the loss that asked for it; see `Attribution`.
    """

    predictions: Any
    logits: Any
    features: dict[str, Any]
    masks: dict[str, Any] = {}  # noqa: RUF012  (never changed in place)
    attributions: dict[str, Any] = {}  # noqa: RUF012

    def output(self, index: int) -> Signals:
        """Return these signals with one of several outputs in place of all.

        Args:
            index: Place among the outputs, as `keras.tree.flatten` orders them.

        Returns:
            `Signals` of a model with one output.
        """
        masks = {path: mask for path, mask in self.masks.items() if not path.startswith("#")}
        if (own := self.masks.get(f"#{index}")) is not None:
            masks[""] = own
        predictions, logits = (keras.tree.flatten(nest)[index] for nest in (self.predictions, self.logits))
        return Signals(predictions, logits, self.features, masks, self.attributions)


class Batch(NamedTuple):
    """The inputs of one training step, with what the teacher said of them.

    Attributes:
        inputs: The student's inputs.
        teacher: The teacher's `Signals`, already cut off from any gradient.
        index: Number of each sample among the training data, shape `(batch,)`, where the data say it.
    """

    inputs: Any
    teacher: Signals
    index: Any = None


class Paired(NamedTuple):
    """Different inputs for student and teacher, in place of x in the data that `Distiller.fit` takes.

    For teachers that look at a larger image, at another sensor, or at privileged inputs that the student will not have.

    Attributes:
        student: What the student takes.
        teacher: What the teacher takes, sample by sample the same cases.

    Example:
        >>> import numpy as np, kdkeras
        >>> x = kdkeras.Paired(student=np.zeros((8, 16)), teacher=np.zeros((8, 64)))
        >>> x.teacher.shape
        (8, 64)

    Reference:
        Vapnik, Vashist: A new learning paradigm: learning using privileged information, Neural Networks 22, 2009.
    """

    student: Any
    teacher: Any


class Cached(NamedTuple):
    """Inputs with the teacher's answers to them, in place of x in the data that `Distiller.fit` takes.

    The teacher is not run then: a step costs what the student costs. The answers hold for these very inputs: augment
    before the teacher is asked, not after.

    Attributes:
        inputs: What the student takes.
        logits: The teacher's logits, shape `(n, ..., units)`; nested where it has several outputs.
        features: Outputs of the teacher's tapped layers by path, for losses that compare features; and its
            explanations, for losses that compare those, by the name of the `Attribution`, such as `"grad_cam:conv5"`.

    Example:
        >>> import numpy as np, kdkeras
        >>> x = kdkeras.Cached(inputs=np.zeros((8, 16)), logits=np.zeros((8, 3)))
        >>> x.logits.shape
        (8, 3)
    """

    inputs: Any
    logits: Any
    features: dict[str, Any] = {}  # noqa: RUF012  (never changed in place)


class Indexed(NamedTuple):
    """Inputs with the number of each sample among the training data, in place of x in the data that `fit` takes.

    For losses that remember something of each sample, such as `kdkeras.losses.ContrastiveMemory`.

    Attributes:
        inputs: Plain inputs, `Paired` or `Cached`.
        index: Whole numbers from 0, shape `(n,)`.

    Example:
        >>> import numpy as np, kdkeras
        >>> x = kdkeras.Indexed(np.zeros((8, 16)), np.arange(8))
        >>> x.index.shape
        (8,)
    """

    inputs: Any
    index: Any


@dataclass(frozen=True)
class SignalSpec:
    """Shapes and head of a model's `Signals`, known before any data is seen.

    Attributes:
        model: Name of the model.
        head: `"softmax"`, `"sigmoid"`, `"linear"`, or `None` where the final activation was not recognised, and where
            the model has several outputs.
        logits: Shape of the logits, `None` for the batch axis; empty where the model has several outputs.
        features: Shape of each tapped layer's output, by path.
        outputs: Where the model has several outputs, the `SignalSpec` of each by name, in the order in which
            `keras.tree.flatten` gives them.
        attributions: Shape of each attribution, by the name of the loss that asked for it.
    """

    model: str
    head: str | None
    logits: tuple[int | None, ...]
    features: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    outputs: dict[str, SignalSpec] = field(default_factory=dict)
    attributions: dict[str, tuple[int | None, ...]] = field(default_factory=dict)

    def place(self, output: str | None, *, asked_by: str) -> int | None:
        """Return the place of an output among several; `None` where the model has one only.

        Args:
            output: Name of the output.
            asked_by: Who asks, for the message.

        Returns:
            Its index.

        Raises:
            ValueError: The model has several outputs, and `output` is none of their names.
        """
        if not self.outputs:
            return None
        if output not in self.outputs:
            raise ValueError(
                f"`{asked_by}` needs one of the outputs {list(self.outputs)} of model '{self.model}'. Received: "
                f"output={output!r}. Pass its name."
            )
        return list(self.outputs).index(output)
