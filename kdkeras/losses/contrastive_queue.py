"""Contrastive distillation with a queue: the samples of the latest batches are negatives too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.losses._batch import weights_of
from kdkeras.losses._embedding import checked_size
from kdkeras.losses._relations import present
from kdkeras.losses.contrastive_loss import ContrastiveLoss, two_ways
from kdkeras.losses.feature_loss import Pair
from kdkeras.ops import flatten_samples, l2_normalize
from kdkeras.signals import Signals, SignalSpec

_EMPTY, _UNKNOWN = -2, -1  # classes in the queue: of a place that is free, and of a sample whose class is not asked for


@keras.saving.register_keras_serializable(package="kdkeras")
class ContrastiveQueue(ContrastiveLoss):
    """`Contrastive` with more negatives than a batch holds: a queue of the teacher's features of the latest samples.

    A student's vector is compared with the teacher's vectors of samples of other classes in its batch and in the queue;
    a teacher's vector with the student's vectors in the batch. The teacher stands still, so that its features do not
    age: they are queued as they are, and embedded anew in each step. MoCo needs a momentum encoder for that, and
    student vectors would age: with them in a queue too, a student was seen to learn less. Training takes in each batch,
    where its samples weigh anything, in the place of the oldest ones; evaluation leaves the queue as it is. On several
    replicas each has a queue of its own.

    Args:
        student_layer: Path of the student's layer, or a list of paths.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 0.8, the setting of CRD with cross-entropy weight 1.
        size: Number of samples in the queue. Default 4096: 8 MB for a teacher's layer of 512 numbers. Where there are
            no labels, keep it below the number of training samples, or a sample meets itself there.
        temperature: Temperature τ > 0 of the scores. Default 0.07, as in CRD and MoCo.
        embedding: Length of the embeddings. Default 128, as in CRD and MoCo.
        by_class: Whether samples of one class are never told apart, where there are labels; `False` for labels that are
            no exclusive classes. Samples without a label have the teacher's top class. Default `True`, as in CRD.
        name: Name in logs and progress bar. Default `"contrastive_queue"`.

    Raises:
        TypeError: A setting is of another type.
        ValueError: A setting is out of range; when connected, the size of a layer is not known; when called, labels
            that are no exclusive classes.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.ContrastiveQueue("pool", "pool", size=1024).size
        1024

    Reference:
        Tian, Krishnan, Isola: Contrastive Representation Distillation, ICLR 2020, arXiv:1910.10699; He et al.: Momentum
        Contrast for Unsupervised Visual Representation Learning, CVPR 2020, arXiv:1911.05722.
    """

    batch_wise = True
    needs = ("sample_weight", "training")

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 0.8,
        *,
        size: int = 4096,
        temperature: float = 0.07,
        embedding: int = 128,
        by_class: bool = True,
        name: str | None = None,
    ) -> None:
        own = {"temperature": temperature, "embedding": embedding, "by_class": by_class}
        super().__init__(student_layer, teacher_layer, weight, name=name, **own)
        self.size = checked_size(type(self).__name__, "size", size)
        self.queues: list[_Queue] = []

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Create the embeddings and empty queues."""
        self.queues = []
        super().connect(student, teacher)

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Create the embeddings and the queue of one pair."""
        super().connect_pair(place, pair)
        self.queues.append(_Queue(self.size, math.prod(pair.teacher[1:])))

    def call(
        self,
        student: Signals,
        teacher: Signals,
        labels: Any = None,
        sample_weight: Any = None,
        training: bool = False,
    ) -> Any:
        """Return the sum over the pairs of layers, a scalar; in training, take the batch into the queues."""
        classes = self.classes(labels, student, teacher)
        temperature = ops.convert_to_tensor(self._temperature)
        values = []
        for place, queue in enumerate(self.queues):
            ours, theirs = self.embed(place, student, teacher)
            weights = weights_of(ours, sample_weight)
            ours, theirs = (l2_normalize(present(vectors, weights)) for vectors in (ours, theirs))
            features, share = queue.others(classes, weights)
            queued = l2_normalize(self.heads[place][1](features)), share
            values.append(
                two_ways(ours, theirs, temperature=temperature, labels=classes, weights=weights, queued=queued)
            )
            if training:
                queue.take_in(teacher.features[self.teacher_layers[place]], classes, weights)
        return sum(values[1:], values[0])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "size": self.size}


class _Queue(keras.layers.Layer):
    """The teacher's features and the classes of the latest samples; where the next one goes."""

    def __init__(self, size: int, length: int) -> None:
        super().__init__(name="queue", dtype="float32")
        self.size = size
        self.features = self._variable("features", (size, length), "float32", 0.0)
        self.classes = self._variable("classes", (size,), "int32", _EMPTY)
        self.next = self._variable("next", (), "int32", 0)
        self.built = True

    def _variable(self, name: str, shape: tuple[int, ...], dtype: str, value: float) -> keras.Variable:
        return self.add_weight(
            shape=shape, initializer=keras.initializers.Constant(value), dtype=dtype, trainable=False, name=name
        )

    def others(self, classes: Any, weights: Any) -> tuple[Any, Any]:
        """Return the queued features, and which of them are wrong for which sample of a batch, 1 or 0."""
        queued = ops.convert_to_tensor(self.classes)[None, :]
        wrong = queued != _EMPTY if classes is None else ops.logical_and(queued != _EMPTY, queued != classes[:, None])
        # A copy, for PyTorch assigns in place what its backward pass still needs.
        features = ops.copy(ops.convert_to_tensor(self.features))
        return features, ops.ones_like(weights)[:, None] * ops.cast(wrong, weights.dtype)

    def take_in(self, features: Any, classes: Any, weights: Any) -> None:
        """Put the samples that weigh anything in the place of the oldest ones."""
        keep = weights > 0
        count, batch = ops.sum(ops.cast(keep, "int32")), ops.shape(weights)[0]
        places = ops.arange(batch)
        first = ops.argsort(ops.where(keep, places, places + batch))  # what is kept first, in its order
        # Seen from the queue, so that shapes stand fast: the how manieth of them does each place take?
        turn = ops.mod(ops.arange(self.size) - ops.convert_to_tensor(self.next), self.size)
        source, taken = ops.take(first, ops.minimum(turn, batch - 1)), turn < count
        new = ops.take(ops.stop_gradient(flatten_samples(features)), source, axis=0)
        names = ops.full_like(turn, _UNKNOWN) if classes is None else ops.cast(ops.take(classes, source), turn.dtype)
        self.features.assign(ops.where(taken[:, None], new, ops.convert_to_tensor(self.features)))
        self.classes.assign(ops.where(taken, names, ops.convert_to_tensor(self.classes)))
        self.next.assign(ops.mod(self.next + count, self.size))
