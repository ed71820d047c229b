"""Contrastive distillation within the batch: which teacher vector belongs to which student vector."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras.losses._batch import refuse_batch_of_one, weights_of
from kdkeras.losses._relations import present
from kdkeras.losses.contrastive_loss import ContrastiveLoss, two_ways
from kdkeras.ops import l2_normalize
from kdkeras.signals import Signals


def contrastive(
    student: Any, teacher: Any, *, temperature: Any = 0.07, labels: Any = None, sample_weight: Any = None
) -> Any:
    """Return `mean_i [−log(e^{s_ii} / Σ_j e^{s_ij}) − log(e^{s_ii} / Σ_j e^{s_ji})]`, where `s_ij = cos(vᵢ, uⱼ) / τ`.

    Both directions: which teacher vector u belongs to a student vector v, and which v to a u. The sums are over the
    sample itself and the samples of other classes.

    Args:
        student: Student embeddings v, shape `(batch, size)`.
        teacher: Teacher embeddings u, same shape.
        temperature: Temperature τ > 0. Default 0.07, as in CRD.
        labels: Class of each sample, integers of shape `(batch,)`; without, each sample is a class of its own.
        sample_weight: Weight of each sample, shape `(batch,)`. It counts in the sums too.

    Returns:
        A scalar.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import contrastive
        >>> x = np.eye(2, dtype="float32")
        >>> round(float(contrastive(x, x, temperature=1)), 4), round(float(contrastive(x, x[::-1], temperature=1)), 4)
        (0.6265, 2.6265)
    """
    weights = weights_of(student, sample_weight)
    student, teacher = (l2_normalize(present(values, weights)) for values in (student, teacher))
    return two_ways(student, teacher, temperature=temperature, labels=labels, weights=weights)


@keras.saving.register_keras_serializable(package="kdkeras")
class Contrastive(ContrastiveLoss):
    """Of all samples of a batch, the student's vector should be nearest to the teacher's vector of the same sample.

    `mean_i [−log(e^{s_ii} / Σ_j e^{s_ij}) − log(e^{s_ii} / Σ_j e^{s_ji})]` with `s_ij = vᵢ·uⱼ / τ`, of linear
    embeddings v of the student's features and u of the teacher's, both trained and of length 1. The wrong pairs are
    those with samples of other classes in the batch, as CRD draws them from its memory: nothing is stored, so the data
    may be of any size and augmented at will. Batches should be large; `ContrastiveQueue` and `ContrastiveMemory` have
    more negatives than a batch holds.

    Args:
        student_layer: Path of the student's layer, or a list of paths. The paper takes the vector before the
            classifier.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 0.8, the setting of CRD with cross-entropy weight 1.
        temperature: Temperature τ > 0 of the scores. Default 0.07, as in CRD.
        embedding: Length of the embeddings. Default 128, as in CRD.
        by_class: Whether samples of one class are never told apart, where there are labels; `False` for labels that are
            no exclusive classes. Samples without a label have the teacher's top class. Default `True`, as in CRD.
        name: Name in logs and progress bar. Default `"contrastive"`.

    Raises:
        TypeError: A setting is of another type.
        ValueError: A setting is out of range; when connected, the size of a layer is not known; when called, a batch of
            one, or labels that are no exclusive classes.

    Example:
        >>> import kdkeras
        >>> loss = kdkeras.losses.Contrastive("pool", "pool")
        >>> round(loss.temperature, 4)
        0.07

    Reference:
        Tian, Krishnan, Isola: Contrastive Representation Distillation, ICLR 2020, arXiv:1910.10699; van den Oord, Li,
        Vinyals: Representation Learning with Contrastive Predictive Coding, 2018, arXiv:1807.03748, equation 4.
    """

    batch_wise = True
    needs = ("sample_weight",)

    def call(self, student: Signals, teacher: Signals, labels: Any = None, sample_weight: Any = None) -> Any:
        """Return the sum over the pairs of layers, a scalar."""
        classes = self.classes(labels, student, teacher)
        values = []
        for place in range(len(self.heads)):
            ours, theirs = self.embed(place, student, teacher)
            refuse_batch_of_one(ours, asked_by=type(self).__name__)
            temperature = ops.convert_to_tensor(self._temperature)
            values.append(
                contrastive(ours, theirs, temperature=temperature, labels=classes, sample_weight=sample_weight)
            )
        return sum(values[1:], values[0])
