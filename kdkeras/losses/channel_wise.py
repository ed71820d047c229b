"""Channel-wise distillation of dense outputs and feature maps (CWD, Shu et al. 2021)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras.losses._maps import check_maps, pool_to_smaller
from kdkeras.losses._positions import flatten_positions
from kdkeras.losses.feature_loss import Pair
from kdkeras.losses.tempered_loss import TemperedLoss
from kdkeras.ops import kl_divergence, log_soften
from kdkeras.signals import Signals, SignalSpec


def channel_wise(student: Any, teacher: Any, *, temperature: Any = 4.0) -> Any:
    """Return `T²/C · Σ_c KL(softmax(F_tc / T) ‖ softmax(F_sc / T))` of each sample, each softmax over the positions.

    Args:
        student: Student logits or features F_s, shape `(batch, positions..., channels)`.
        teacher: Teacher logits or features F_t, same shape.
        temperature: Temperature T > 0. Default 4, the setting of the paper.

    Returns:
        Divergences in nats, shape `(batch,)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import channel_wise
        >>> z = np.array([[[1.0, 2.0], [3.0, 5.0]]], "float32")
        >>> np.asarray(channel_wise(z, z + np.float32([7, -7]))).round(6).tolist()
        [0.0]
    """
    log_q, log_p = (log_soften(_by_channel(values), temperature) for values in (student, teacher))
    return temperature**2 * ops.mean(kl_divergence(log_p, log_q), axis=-1)


def _by_channel(values: Any) -> Any:
    return ops.transpose(flatten_positions(values), (0, 2, 1))  # (b, c, h*w)


@keras.saving.register_keras_serializable(package="kdkeras")
class ChannelWise(TemperedLoss):
    """Where in the image each channel is active: a softmax over the positions of each channel, compared by divergence.

    Per sample `T²/C · Σ_c KL(softmax(F_tc / T) ‖ softmax(F_sc / T))`, each softmax over the positions of channel c.
    Without layers, it compares the logits of models with dense outputs (segmentation), where a channel is a class. With
    layers, it compares feature maps: a trained linear map (a 1×1 convolution) brings the student's channels to the
    teacher's where the counts differ, and the larger map is average-pooled to the smaller's size. `SoftTargets` on
    dense outputs is the other way round, pixel-wise: a softmax over the classes of each pixel.

    A channel's softmax sees all positions, masked ones too.

    Args:
        student_layer: Path of the student's layer; `None`, the default, to compare logits.
        teacher_layer: Path of the teacher's layer, where there is one of the student's.
        temperature: Temperature T > 0. Default 4, the setting of the paper.
        weight: Factor on this term in the total loss. Default 3, the paper's for logits; for feature maps it uses 50.
        output: Name of the output that is compared, where the models have several and no layers are given; a pair where
            the names differ.
        name: Name in logs and progress bar. Default `"channel_wise"`.

    Raises:
        TypeError: A layer is not given by a string.
        ValueError: One layer is given without the other; `temperature` is not above 0, or `weight` is negative; when
            connected, there are no positions to take a softmax over, or the layers do not fit.

    Example:
        >>> import kdkeras
        >>> kdkeras.losses.ChannelWise("s4", "t4", weight=50).teacher_layers
        ('t4',)

    Reference:
        Shu, Liu, Gao, Yan, Shen: Channel-wise Knowledge Distillation for Dense Prediction, 2021, arXiv:2011.13256.
    """

    def __init__(
        self,
        student_layer: str | None = None,
        teacher_layer: str | None = None,
        temperature: float = 4.0,
        weight: float = 3.0,
        *,
        output: str | tuple[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(temperature, weight, output=output, name=name)
        layers = (student_layer, teacher_layer)
        if not all(layer is None or isinstance(layer, str) for layer in layers):
            raise TypeError(
                f"`ChannelWise` needs layers by path. Received: {student_layer!r} and {teacher_layer!r}. Pass strings; "
                "for several pairs, several losses."
            )
        if (student_layer is None) != (teacher_layer is None):
            raise ValueError(
                f"`ChannelWise` needs a layer of each model, or none. Received: {student_layer!r} and "
                f"{teacher_layer!r}. Pass both to compare feature maps, neither to compare logits."
            )
        self.student_layer, self.teacher_layer = layers
        self.student_layers, self.teacher_layers = (() if layer is None else (layer,) for layer in layers)
        self.compares_outputs = self.needs_logits = student_layer is None
        self.projector: keras.layers.Dense | None = None

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check that there are positions; for feature maps, create a projector where channel counts differ."""
        if self.student_layer is not None:
            ours, theirs = student.features[self.student_layer], teacher.features[self.teacher_layer]
            self._connect_maps(Pair("ChannelWise", self.student_layer, ours, self.teacher_layer, theirs))
            return
        super().connect(student, teacher)
        if len(teacher.logits) < 3:
            raise ValueError(
                f"`ChannelWise` needs dense outputs, such as those of a segmentation. Received: teacher "
                f"'{teacher.model}' {teacher.logits}. Pass layers to compare feature maps, or take `SoftTargets`."
            )

    def _connect_maps(self, pair: Pair) -> None:
        check_maps(pair)
        pair.check_channels()
        self.projector = pair.projector() if pair.student[-1] != pair.teacher[-1] else None

    def call(self, student: Signals, teacher: Signals, labels: Any = None) -> Any:
        """Return the loss of each sample, shape `(batch,)`."""
        temperature = ops.convert_to_tensor(self._temperature)
        if self.student_layer is None:
            return channel_wise(student.logits, teacher.logits, temperature=temperature)
        ours, theirs = pool_to_smaller(student.features[self.student_layer], teacher.features[self.teacher_layer])
        ours = ours if self.projector is None else self.projector(ours)
        return channel_wise(ours, theirs, temperature=temperature)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = {**super().get_config(), "student_layer": self.student_layer, "teacher_layer": self.teacher_layer}
        del config["standardize"]  # over classes: here the softmax is over positions
        return config
