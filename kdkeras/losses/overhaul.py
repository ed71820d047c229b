"""A comprehensive overhaul of feature distillation: margin ReLU and partial distance (Heo et al., ICCV 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kdkeras.layer_paths import find_layer
from kdkeras.losses._connector import ConnectedLoss, Connector
from kdkeras.losses._maps import check_pools_to_teacher, pool_to_smaller
from kdkeras.losses.feature_loss import Pair
from kdkeras.ops import mean_per_sample
from kdkeras.signals import SignalSpec

Margin = float | Sequence[float] | np.ndarray


def overhaul(student: Any, teacher: Any, *, margin: Any) -> Any:
    """Return `mean d(max(t, m), s)` of each sample, where `d(t, s)` is 0 if `s ≤ t ≤ 0`, and `(t − s)²` otherwise.

    Args:
        student: Student features s before their activation, shape `(batch, ..., channels)`.
        teacher: Teacher features t before their activation, same shape.
        margin: Margins m ≤ 0, a number or of shape `(channels,)`; see `batch_norm_margins`.

    Returns:
        Mean partial squared distances, shape `(batch,)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import overhaul
        >>> t = np.array([[2.0, -3.0]])
        >>> np.asarray(overhaul(np.array([[2.0, -5.0]]), t, margin=-1.0)).tolist()  # a silent neuron may be more so
        [0.0]
        >>> np.asarray(overhaul(np.array([[2.0, 1.0]]), t, margin=-1.0)).tolist()
        [2.0]
    """
    return mean_per_sample(_distances(student, teacher, margin))


def _distances(student: Any, teacher: Any, margin: Any) -> Any:
    target = ops.maximum(teacher, ops.cast(margin, keras.backend.standardize_dtype(teacher.dtype)))
    excess = ops.subtract(student, target)
    return ops.where(ops.logical_or(excess > 0, target > 0), ops.square(excess), ops.zeros_like(excess))


def batch_norm_margins(model: keras.Model, layer: str) -> np.ndarray:
    """Return `E[x | x < 0]` of each channel of a BatchNorm layer, for `Overhaul`.

    The layer's outputs are taken as normal with mean β and standard deviation |γ|, so that the margin is
    `β − |γ| φ(β/γ) / Φ(−β/|γ|)`, with the density φ and the distribution function Φ of the standard normal. This is the
    paper's expectation for every channel; the authors' code has −3|γ| for those that are negative less often than once
    in a thousand.

    Args:
        model: The teacher.
        layer: Path of a `keras.layers.BatchNormalization` before an activation.

    Returns:
        float32 margins, at most 0, shape `(channels,)`.

    Raises:
        TypeError: The layer is no BatchNormalization.
        ValueError: There is no such layer, or it is not built.

    Example:
        >>> from kdkeras.losses import batch_norm_margins
        >>> from kdkeras.testing import tiny_stages
        >>> print(batch_norm_margins(tiny_stages(width=2), "norm1").round(4))  # −√(2/π): γ is 1 and β 0 still
        [-0.7979 -0.7979]
    """
    norm = find_layer(model, layer)
    if not isinstance(norm, keras.layers.BatchNormalization):
        raise TypeError(
            f"`batch_norm_margins` needs a `BatchNormalization`. Received: layer '{layer}' of type "
            f"{type(norm).__name__}. Give the one before the activation, or take margins of your own."
        )
    if not norm.built:
        raise ValueError(f"`batch_norm_margins` needs a layer with weights. Layer '{layer}' is not built: run it once.")
    channels = norm.moving_mean.shape
    gamma, beta = (
        np.full(channels, default) if weight is None else np.asarray(ops.convert_to_numpy(weight), "float64")
        for weight, default in ((norm.gamma, 1.0), (norm.beta, 0.0))
    )
    return _expectation_below_zero(beta, np.abs(gamma)).astype("float32")


def _expectation_below_zero(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    from scipy.special import erfcx

    safe = np.maximum(deviation, 1e-30)
    z = mean / safe
    # φ(z) / Φ(−z) without the underflow of both; erfcx is infinite far below 0, where nothing is cut off.
    hazard = np.sqrt(2 / np.pi) / erfcx(np.clip(z, None, 1e4) / np.sqrt(2))
    # Far above 0 it is z + 1/z, of which z is lost to rounding.
    return np.where(z > 1e4, -safe / np.maximum(z, 1.0), mean - safe * hazard)


@keras.saving.register_keras_serializable(package="kdkeras")
class Overhaul(ConnectedLoss):
    """The student's features before their ReLU imitate what the teacher's ReLU lets through, and not much more.

    Per sample `mean d(max(t, m), r(s))`, where `d(t, s)` is 0 if `s ≤ t ≤ 0`, and `(t − s)²` otherwise. Of the
    teacher's negative features, which its ReLU will not let through, only that they are negative is taught: by margins
    m, the expectation of each channel where it is negative (`batch_norm_margins`), and not at all where the student's
    feature is below already. Both layers are to be tapped before their ReLU; for the teacher, that is the BatchNorm
    whose margins are given. The connector r is a trained linear map of the channels (a 1×1 convolution) with BatchNorm,
    also where the channel counts agree, as in the paper. Larger student maps are average-pooled to the teacher's size;
    of several pairs of layers the sum is taken.

    The paper sums over values; the authors' code weighs that by 0.001 (ImageNet: 0.0001), and halves it from each stage
    to the one before. The mean taken here does not depend on the layer's size; where each stage halves the maps and
    doubles the channels, it gives the stages the same share as the code does. The code's weight, times the number of
    values in the last layer, is 8 for the 8×8×128 of CIFAR-100 and 10 for the 7×7×2048 of ImageNet.

    The connector's BatchNorm takes the statistics of the batch in training, without samples of weight 0, and those that
    it gathered in `evaluate`: so in training the values of one sample depend on the others.

    Args:
        student_layer: Path of the student's layer before its ReLU, or a list of paths; the paper takes the last one of
            each stage.
        teacher_layer: Path of the teacher's BatchNorm before its ReLU, or as many in a list.
        weight: Factor on this term in the total loss. Default 10.
        margin: Margins m ≤ 0 of the teacher's layer: a number, or one per channel. For several pairs a number for all,
            or a list with an entry per pair.
        name: Name in logs and progress bar. Default `"overhaul"`.

    Raises:
        TypeError: A margin is not a number.
        ValueError: `weight` is negative, a margin positive or not finite, or there are too few of them; when connected,
            ranks, sizes or the number of margins do not fit.

    Example:
        >>> import kdkeras
        >>> from kdkeras.losses import batch_norm_margins
        >>> teacher = kdkeras.testing.tiny_stages()
        >>> loss = kdkeras.losses.Overhaul("norm2", "norm2", margin=batch_norm_margins(teacher, "norm2"))
        >>> loss.weight
        10.0

    Reference:
        Heo et al.: A Comprehensive Overhaul of Feature Distillation, ICCV 2019, arXiv:1904.01866.
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 10.0,
        *,
        margin: Margin | Sequence[Margin],
        name: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)
        self._margins = _checked_margins(margin, None if isinstance(teacher_layer, str) else len(self.teacher_layers))
        self.margin = keras.tree.map_structure(lambda value: np.asarray(value).tolist(), margin)

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check ranks, sizes and margins, and create the connectors."""
        self.connectors = []
        super().connect(student, teacher)

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Check ranks, sizes and margins of one pair, and create its connector."""
        check_pools_to_teacher(pair)
        margins = self._margins[place]
        if margins.ndim and margins.shape != pair.teacher[-1:]:
            raise pair.error(
                "one margin for each of the teacher's channels", f"There are {len(margins)} margins: count them anew."
            )
        self.connectors.append(Connector.between(pair))

    def compare_pair(self, place: int, student: Any, teacher: Any) -> Any:
        """Return the mean over channels at each position, shape `(batch, ...)`."""
        return ops.mean(_distances(*pool_to_smaller(student, teacher), self._margins[place]), axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "margin": self.margin}


def _checked_margins(margin: Any, pairs: int | None) -> list[np.ndarray]:
    """Return the margins of each pair as float32, a number or one per channel; `pairs` is `None` for a bare layer."""
    if pairs is None:
        several = [margin]
    else:
        several = list(margin) if isinstance(margin, (list, tuple, np.ndarray)) else [margin] * pairs
    try:
        margins = [np.asarray(values, "float32") for values in several]
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`Overhaul` needs margins as numbers. Received: {margin!r}. Take `batch_norm_margins(teacher, layer)`."
        ) from error
    if len(margins) != (pairs or 1) or any(values.ndim > 1 for values in margins):
        raise ValueError(
            f"`Overhaul` needs a number, or one margin per channel, for each of its {pairs or 1} pairs of layers. "
            f"Received: {len(margins)} of shapes {[values.shape for values in margins]}. Give a list with an entry per "
            "pair."
        )
    if not all(np.isfinite(values).all() and (values <= 0).all() for values in margins):
        raise ValueError(
            f"`Overhaul` needs finite margins of at most 0. Received: {margin!r}. Take the mean of what is negative."
        )
    return margins
