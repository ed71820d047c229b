"""Features under an orthogonal projection (VkD, Miles et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.losses._positions import average_positions
from kdkeras.losses.feature_loss import FeatureLoss, Pair, Shape, pool_to
from kdkeras.ops import mean_per_sample


def orthogonal_projection(student: Any, teacher: Any, *, kernel: Any) -> Any:
    """Return `mean smooth-L1(F_s P, LN(F_t))` of each sample, where P is orthogonal.

    LN is layer normalisation without learned parameters: each position's channels get mean 0 and variance 1. P keeps
    lengths and angles of the student's features where it has no more channels than the teacher; otherwise its columns
    are orthonormal.

    Args:
        student: Student features F_s, shape `(batch, ..., student_channels)`.
        teacher: Teacher features F_t, shape `(batch, ..., teacher_channels)`, the same but for the channels.
        kernel: Any matrix, shape `(larger, smaller)` of the two channel counts, of which `semi_orthogonal` makes P.

    Returns:
        Means, shape `(batch,)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import orthogonal_projection
        >>> features = np.array([[1.0, -1.0]], "float32")
        >>> np.asarray(orthogonal_projection(features, features, kernel=np.zeros((2, 2), "float32"))).round(3).tolist()
        [0.0]
    """
    return mean_per_sample(_smooth_error(student, teacher, kernel))


def semi_orthogonal(kernel: Any) -> Any:
    """Return a matrix Q with orthonormal columns, made of any matrix by the Cayley transform.

    Of the kernel's upper square K and the rest B, with `S = K − Kᵀ`: `X = (I + S + BᵀB)⁻¹`, `Q = [2X − I; −2BX]`, which
    are the first columns of the Cayley transform `(I + A)⁻¹(I − A)` of the skew-symmetric `A = [S, −Bᵀ; B, 0]`. The
    inverse exists always, and is smooth in the kernel.

    Args:
        kernel: Shape `(rows, columns)`, with at least as many rows as columns.

    Returns:
        Q, same shape, `QᵀQ = I`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses.orthogonal_projection import semi_orthogonal
        >>> q = np.asarray(semi_orthogonal(np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 3.0]])))
        >>> (q.T @ q).round(3).tolist()
        [[1.0, 0.0], [0.0, 1.0]]

    Reference:
        Trockman, Kolter: Orthogonalizing Convolutional Layers with the Cayley Transform, 2021, arXiv:2104.07167.
    """
    kernel = ops.convert_to_tensor(kernel)
    columns = kernel.shape[1]
    upper, lower = kernel[:columns], kernel[columns:]
    identity = ops.eye(columns, dtype=kernel.dtype)
    inverse = ops.inv(identity + upper - ops.transpose(upper) + ops.matmul(ops.transpose(lower), lower))
    return ops.concatenate([2 * inverse - identity, -2 * ops.matmul(lower, inverse)], axis=0)


def _smooth_error(student: Any, teacher: Any, kernel: Any) -> Any:
    """Return the mean over channels, shape `(batch, ...)`."""
    student, teacher = ops.convert_to_tensor(student), ops.convert_to_tensor(teacher)
    orthogonal = semi_orthogonal(kernel)
    widens = student.shape[-1] <= teacher.shape[-1]
    projected = ops.matmul(student, ops.transpose(orthogonal) if widens else orthogonal)
    error = ops.abs(projected - _layer_norm(teacher))
    return ops.mean(ops.where(error < 1, 0.5 * ops.square(error), error - 0.5), axis=-1)


def _layer_norm(values: Any) -> Any:
    centred = values - ops.mean(values, axis=-1, keepdims=True)
    return centred * ops.rsqrt(ops.mean(ops.square(centred), axis=-1, keepdims=True) + 1e-5)


@keras.saving.register_keras_serializable(package="kdkeras")
class OrthogonalProjection(FeatureLoss):
    """The student's features, turned but not distorted, are the teacher's normalised ones (VkD).

    Per position `mean_c smooth-L1(F_s P, LN(F_t))`. A free projector could do the student's work; an orthogonal one
    keeps the distances between the student's features, so that they themselves must become like the teacher's. P is
    learned through the Cayley transform: exactly orthogonal after every step, at the price of one inverse of the size
    of the smaller channel count. Smooth-L1 is `½e²` for `|e| < 1` and `|e| − ½` beyond.

    Layers of equal rank are compared at each position, the larger map average-pooled to the smaller's size; of a
    sequence and a map, the means over all positions are compared, as the paper's code does for transformer students of
    convolutional teachers (masked positions count there). LN is the paper's normalisation for discriminative tasks; the
    whitening that it uses for generative ones is not offered.

    Args:
        student_layer: Path of the student's layer, or a list of paths.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 1, that of the paper's code.
        name: Name in logs and progress bar. Default `"orthogonal_projection"`.

    Attributes:
        kernels: The matrix behind P of each pair of layers, once connected.

    Raises:
        TypeError: A path is not a string.
        ValueError: `weight` is negative; when connected, the layers are missing, or sizes or channel counts are open.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.OrthogonalProjection("pool", "pool").name
        'orthogonal_projection'

    Reference:
        Miles, Elezi, Deng: VkD: Improving Knowledge Distillation using Orthogonal Projections, 2024, arXiv:2403.06213.
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 1.0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)
        self.kernels: list[keras.Variable] = []
        self._sizes: list[Shape | None] = []

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Check sizes and channels of one pair, and create its kernel."""
        if place == 0:
            self.kernels, self._sizes = [], []
        pair.check_channels()
        same_rank = len(pair.student) == len(pair.teacher)
        if same_rank:
            pair.check_sizes()
        self._sizes.append(pair.pooled_size() if same_rank else None)
        smaller, larger = sorted((pair.student[-1], pair.teacher[-1]))
        spread = keras.initializers.RandomNormal(stddev=larger**-0.5)  # a random turn, neither none nor a half one
        self.kernels.append(self.add_weight(shape=(larger, smaller), initializer=spread, name=f"kernel{place}"))

    def compare_pair(self, place: int, student: Any, teacher: Any) -> Any:
        """Return the mean over channels at each position, shape `(batch, ...)`."""
        size = self._sizes[place]
        student, teacher = (
            average_positions(values) if size is None else pool_to(values, size) for values in (student, teacher)
        )
        return _smooth_error(student, teacher, ops.convert_to_tensor(self.kernels[place]))
