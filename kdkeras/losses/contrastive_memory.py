"""Contrastive distillation with a memory of every training sample (CRD, Tian et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.losses._batch import positive, weights_of
from kdkeras.losses._embedding import checked_size
from kdkeras.losses.base import checked_number
from kdkeras.losses.contrastive_loss import ContrastiveLoss
from kdkeras.losses.feature_loss import Pair
from kdkeras.ops import l2_normalize
from kdkeras.signals import Signals, SignalSpec

_EPSILON = 1e-7  # of the authors' code
_UNKNOWN = -1  # class of an entry that was not seen yet


def noise_contrastive(right: Any, wrong: Any, *, samples: int, shown: Any = None) -> Any:
    """Return `−log h(P₀) − Σ_j log(1 − h(P_j))` of each sample, `h(P) = P / (P + M/N + ε)`: right pair or noise?

    Noise contrastive estimation: h is the probability that a pair was drawn as a right one, and not as one of the M
    wrong ones, each of them with probability 1/N. Computed from `log P`, with ε = 1e-7.

    Args:
        right: `log P₀` of the right pair, shape `(batch,)`.
        wrong: `log P_j` of the wrong pairs, shape `(batch, M)`.
        samples: Number N of samples that the wrong ones were drawn from.
        shown: Which of the wrong pairs count, booleans of shape `(batch, M)`; their mean is taken M times.

    Returns:
        Shape `(batch,)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import noise_contrastive
        >>> round(float(noise_contrastive(np.log([0.5]), np.log([[0.5, 0.5]]), samples=4)[0]), 4)
        2.0794

    Reference:
        Tian, Krishnan, Isola: Contrastive Representation Distillation, ICLR 2020, arXiv:1910.10699, equation 18.
    """
    count = wrong.shape[-1]
    noise = count / samples
    level = math.log(noise + _EPSILON)
    # 1 − h is M/N of the same sum in the authors' code, so that ε is missing from it.
    taken_for_right = ops.softplus(wrong - level) + (level - math.log(noise))
    if shown is None:
        return ops.softplus(level - right) + ops.sum(taken_for_right, axis=-1)
    share = ops.cast(shown, right.dtype)
    share = share * count / positive(ops.sum(share, axis=-1, keepdims=True))
    return ops.softplus(level - right) + ops.sum(taken_for_right * share, axis=-1)


@keras.saving.register_keras_serializable(package="kdkeras")
class ContrastiveMemory(ContrastiveLoss):
    """CRD: a student's vector and a teacher's vector belong to one sample, or one of them was drawn from a memory?

    Per sample, `−log h(vᵢ·mᵢ) − Σ_j log(1 − h(vᵢ·m_j))`, and the same with student and teacher exchanged: v is the
    student's linear embedding, m are the teacher's in a memory of all training samples, both of length 1, and `h` is
    that of `noise_contrastive` with `log P = v·m / τ − log Z`. The memory takes in the vectors of each batch with
    momentum. The data must say which sample is which: give `kdkeras.Indexed` as x to `fit`.

    As in the authors' code the right vector is that of the memory too, with which it starts at random: with the
    teacher's present one instead, as the paper's equation reads, all vectors can leave the memory behind, and a student
    was seen to learn little. It needs dozens of epochs; with fewer, `Contrastive` and `ContrastiveQueue` learn faster.

    Other than in that code, one draw serves the whole batch, each sample takes of it the entries of other classes,
    their mean M times, and a matrix product replaces M vectors per sample. Z is the expectation of what the code
    measures in the first batch, so that no batch is special. Classes of the entries are learned from the labels.

    In evaluation the memory stays as it is, the same entries are drawn each time, and the right vector is that of the
    batch, so that no index is needed: its values are no measure of training's. On several replicas each has a memory of
    its own.

    Args:
        student_layer: Path of the student's layer, or a list of paths. The paper takes the vector before the
            classifier.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 0.8, the setting of CRD with cross-entropy weight 1.
        samples: Number N of training samples: indices must lie below it, or the loss is not a number. The memory takes
            `8 · N · embedding` bytes: 51 MB for 50000 samples.
        negatives: Number M of entries that are drawn, at most `samples`. Default 16384, as in CRD.
        momentum: Share of its old vector that an entry keeps, in [0, 1). Default 0.5, as in CRD.
        temperature: Temperature τ > 0 of the scores. Default 0.07, as in CRD.
        embedding: Length of the embeddings. Default 128, as in CRD.
        by_class: Whether samples of one class are never told apart, where there are labels; `False` for labels that are
            no exclusive classes. Samples without a label have the teacher's top class. Default `True`, as in CRD.
        name: Name in logs and progress bar. Default `"contrastive_memory"`.

    Raises:
        TypeError: A setting is of another type.
        ValueError: A setting is out of range, or there are fewer samples than negatives; when connected, the size of a
            layer is not known; when called, there is no index, or labels are no exclusive classes.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.ContrastiveMemory("pool", "pool", samples=50_000).negatives
        16384

    Reference:
        Tian, Krishnan, Isola: Contrastive Representation Distillation, ICLR 2020, arXiv:1910.10699.
    """

    needs = ("sample_weight", "index", "training")

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 0.8,
        *,
        samples: int,
        negatives: int = 16384,
        momentum: float = 0.5,
        temperature: float = 0.07,
        embedding: int = 128,
        by_class: bool = True,
        name: str | None = None,
    ) -> None:
        own = {"temperature": temperature, "embedding": embedding, "by_class": by_class}
        super().__init__(student_layer, teacher_layer, weight, name=name, **own)
        self.samples, self.negatives = (
            checked_size(type(self).__name__, name, value)
            for name, value in (("samples", samples), ("negatives", negatives))
        )
        if negatives > samples:
            raise ValueError(
                f"`ContrastiveMemory` needs a memory of at least as many samples as it draws. Received: samples="
                f"{samples}, negatives={negatives}. Pass fewer negatives."
            )
        self.momentum = checked_number(type(self).__name__, "momentum", momentum, minimum=0.0)
        if momentum >= 1:
            raise ValueError(f"`ContrastiveMemory` needs a momentum below 1. Received: {momentum}.")
        self.seed_generator = keras.random.SeedGenerator()
        self.memories: list[_Memory] = []

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Create the embeddings, and memories of random vectors."""
        self.memories = []
        super().connect(student, teacher)

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Create the embeddings and the memory of one pair."""
        super().connect_pair(place, pair)
        self.memories.append(_Memory(self.samples, self.embedding, self.momentum))

    def call(
        self,
        student: Signals,
        teacher: Signals,
        labels: Any = None,
        sample_weight: Any = None,
        index: Any = None,
        training: bool = False,
    ) -> Any:
        """Return the loss of each sample, shape `(batch,)`; in training, take the batch into the memories."""
        if training and index is None:
            raise ValueError(
                "`ContrastiveMemory` needs to know which training sample is which. Received: data without an index. "
                "Pass x=kdkeras.Indexed(x, np.arange(len(x))) to `fit`, or take `ContrastiveQueue`."
            )
        index = ops.cast(index, "int32") if training else None
        classes = self.classes(labels, student, teacher)
        # Where nothing is learnt, always the same draw: two evaluations of one model agree.
        seed = self.seed_generator if training else 0
        drawn = keras.random.randint((self.negatives,), 0, self.samples, seed=seed)
        values = []
        for place, memory in enumerate(self.memories):
            ours, theirs = self.embed(place, student, teacher)
            values.append(self._both_ways(ours, theirs, memory, drawn, index, classes))
            if training:
                memory.take_in(ours, theirs, index, classes, weights_of(ours, sample_weight))
        return sum(values[1:], values[0])

    def _both_ways(self, ours: Any, theirs: Any, memory: _Memory, drawn: Any, index: Any, classes: Any) -> Any:
        """Return the loss of one pair of layers, shape `(batch,)`."""
        temperature = ops.convert_to_tensor(self._temperature)
        log_z = math.log(self.samples) + _log_mean_score(self.embedding, temperature)
        shown, value = memory.other_classes(drawn, index, classes), 0.0
        for vectors, others, entries in ((ours, theirs, memory.teacher), (theirs, ours, memory.student)):
            if index is not None:
                others = ops.take(ops.convert_to_tensor(entries), memory.row(index), axis=0)
            right = ops.sum(vectors * others, axis=-1) / temperature - log_z
            entries = ops.take(ops.convert_to_tensor(entries), drawn, axis=0)  # (M, size)
            wrong = ops.matmul(vectors, ops.transpose(entries)) / temperature - log_z  # (b, M)
            value = value + noise_contrastive(right, wrong, samples=self.samples, shown=shown)
        return value if index is None else ops.where(memory.holds(index), value, float("nan"))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"samples": self.samples, "negatives": self.negatives, "momentum": self.momentum}
        return {**super().get_config(), **own}


def _log_mean_score(size: int, temperature: Any) -> Any:
    """Return the logarithm of the mean of `exp(v·u / τ)` over unit vectors u of all directions."""
    # A product t of two unit vectors in `size` dimensions has a density proportional to (1 − t²)^((size − 3) / 2).
    products = [(2 * place + 1) / 512 - 1 for place in range(512)]
    density = [(size - 3) / 2 * math.log(1 - t * t) for t in products]
    scores = ops.convert_to_tensor(products, "float32") / temperature + ops.convert_to_tensor(density, "float32")
    return ops.logsumexp(scores) - ops.logsumexp(ops.convert_to_tensor(density, "float32"))


class _Memory(keras.layers.Layer):
    """Both vectors and the class of each training sample."""

    def __init__(self, samples: int, length: int, momentum: float) -> None:
        super().__init__(name="memory", dtype="float32")
        self.samples, self.momentum = samples, momentum
        # One row more than there are samples: what must not be kept is written there.
        self.student, self.teacher = (
            self.add_weight(shape=(samples + 1, length), initializer=_random_unit, trainable=False, name=name)
            for name in ("student", "teacher")
        )
        unknown = keras.initializers.Constant(_UNKNOWN)
        self.classes = self.add_weight(
            shape=(samples + 1,), initializer=unknown, dtype="int32", trainable=False, name="classes"
        )
        self.built = True

    def holds(self, index: Any) -> Any:
        """Return whether there is an entry of each index."""
        return ops.logical_and(index >= 0, index < self.samples)

    def row(self, index: Any, keep: Any = True) -> Any:
        """Return the row of each index; the one that counts for nothing where there is none, or not to be kept."""
        return ops.where(ops.logical_and(self.holds(index), keep), index, self.samples)

    def other_classes(self, drawn: Any, index: Any, classes: Any) -> Any:
        """Return which of the drawn entries are wrong for each sample, shape `(batch, M)`, or `None` for all."""
        shown = None if index is None else drawn[None, :] != index[:, None]
        if classes is None:
            return shown
        others = ops.take(ops.convert_to_tensor(self.classes), drawn)[None, :] != classes[:, None]
        return others if shown is None else ops.logical_and(shown, others)

    def take_in(self, student: Any, teacher: Any, index: Any, classes: Any, weights: Any) -> None:
        """Move the entries of the samples that weigh anything towards their new vectors."""
        row = self.row(index, weights > 0)
        for variable, vectors in ((self.student, student), (self.teacher, teacher)):
            entries = ops.convert_to_tensor(variable)
            moved = self.momentum * ops.take(entries, row, axis=0) + (1 - self.momentum) * ops.stop_gradient(vectors)
            variable.assign(ops.scatter_update(entries, row[:, None], l2_normalize(moved)))
        if classes is not None:
            known = ops.convert_to_tensor(self.classes)
            self.classes.assign(ops.scatter_update(known, row[:, None], ops.cast(classes, "int32")))


def _random_unit(shape: tuple[int, ...], dtype: Any = None) -> Any:
    return l2_normalize(keras.random.normal(shape, dtype=dtype))
