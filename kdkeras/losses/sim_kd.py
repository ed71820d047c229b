"""SimKD: features that the teacher's own classifier can read (Chen et al. 2022)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras.losses._grafting import after, up_to
from kdkeras.losses.base import checked_number
from kdkeras.losses.feature_loss import FeatureLoss, Pair, Shape, pool_to
from kdkeras.signals import Signals


@keras.saving.register_keras_serializable(package="kdkeras")
class SimKD(FeatureLoss):
    """The student learns the teacher's last feature map, and the teacher's classifier is put behind it.

    Per position `mean_c (p(F_s) − F_t)²`, as in `hints`, with a projector p of three convolutions (1×1 to 1/r of the
    teacher's channels, 3×3, 1×1 to the teacher's channels), each with BatchNorm and ReLU. The larger map is
    average-pooled to the smaller's size. Train with `task_weight=0`: the student's own classifier takes no part.
    `deployable_student` then puts student, projector and the teacher's classifier together. The layout is that of the
    paper's code, whose 3×3 convolution is a full one.

    The projector's BatchNorm sees the batch as the student's own does: in training a sample's value depends on the
    others a little, and samples of weight 0 count in the statistics.

    Args:
        student_layer: Path of the student's last feature map, before pooling.
        teacher_layer: Path of the teacher's last feature map.
        weight: Factor on this term in the total loss. Default 1, as in the paper, with task weight 0.
        factor: Reduction r ≥ 1 of the channels inside the projector. Default 2, the best in the paper.
        activation: The projector's last activation. Default `"relu"`, as in the paper; `"linear"` where the teacher's
            map has negative values, such as before its activation or after a swish.
        name: Name in logs and progress bar. Default `"sim_kd"`.

    Attributes:
        projector: The projector p, once connected.

    Raises:
        TypeError: `student_layer` or `teacher_layer` is not a string.
        ValueError: `factor` is below 1, `activation` is unknown, or `weight` is negative; when connected, the layers
            are missing, are no maps, or their sizes are open.

    Example:
        >>> import keras, kdkeras
        >>> from kdkeras.testing import tiny_stages
        >>> loss = kdkeras.losses.SimKD("relu2", "relu2")
        >>> student, teacher = tiny_stages(name="student"), tiny_stages(width=8, name="teacher")
        >>> distiller = kdkeras.Distiller(student=student, teacher=teacher).compile(
        ...     "adam", distillation_loss=loss, task_weight=0
        ... )
        >>> loss.deployable_student(student, teacher).output_shape
        (None, 3)

    Reference:
        Chen, Mei, Zhang, Wang, Feng, Chen: Knowledge Distillation with the Reused Teacher Classifier, CVPR 2022,
        arXiv:2203.14001.
    """

    needs = ("training",)

    def __init__(
        self,
        student_layer: str,
        teacher_layer: str,
        weight: float = 1.0,
        *,
        factor: float = 2.0,
        activation: str = "relu",
        name: str | None = None,
    ) -> None:
        if not isinstance(student_layer, str) or not isinstance(teacher_layer, str):
            raise TypeError(
                f"`SimKD` needs one layer of each model by path. Received: {student_layer!r} and {teacher_layer!r}. "
                "Pass strings."
            )
        super().__init__(student_layer, teacher_layer, weight, name=name)
        self.factor = checked_number("SimKD", "factor", factor, minimum=1.0)
        keras.activations.get(activation)  # an unknown name shows here
        self.activation = activation
        self.projector: keras.Sequential | None = None
        self._size: Shape = ()

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Check ranks and sizes, and create the projector."""
        pair.check_rank(4)
        if None in (*pair.student[1:], *pair.teacher[1:]):
            raise pair.error("maps of known size and channel count", "Build the models with fixed input sizes.")
        self._size = pair.pooled_size()
        channels = pair.teacher[-1]
        self.projector = _projector(max(1, int(channels / self.factor)), channels, self.activation)
        self.projector.build((None, *self._size, pair.student[-1]))

    def call(self, student: Signals, teacher: Signals, labels: Any = None, training: bool = False) -> Any:
        """Return the mean over channels at each position, shape `(batch, height, width)`."""
        ours = pool_to(student.features[self.student_layer], self._size)
        theirs = pool_to(teacher.features[self.teacher_layer], self._size)
        return ops.mean(ops.square(self.projector(ours, training=training) - theirs), axis=-1)

    def deployable_student(self, student: keras.Model, teacher: keras.Model) -> keras.Model:
        """Return what is to be used after training: student, trained projector and the teacher's classifier in one.

        It is a plain Functional model with copies of all weights: it can be saved, exported and explained without this
        library, and neither of the two models changes.

        Args:
            student: The trained student, `distiller.student`; a Functional or Sequential model.
            teacher: The teacher, Functional or Sequential too.

        Returns:
            A model from the student's inputs to the teacher's outputs.

        Raises:
            RuntimeError: The loss was not connected to the models by `Distiller.compile` yet.
            TypeError: A model is subclassed.
            ValueError: The teacher's layers cannot be cut off at `teacher_layer`, or cannot read a map of this size.
        """
        if self.projector is None:
            raise RuntimeError("`SimKD` has no projector yet. Compile a `Distiller` with this loss, and train it.")
        backbone = up_to(student, self.student_layer, asked_by="SimKD")
        features = backbone.output
        if features.shape[1:-1] != self._size:
            features = _pooling(features.shape[1:-1], self._size)(features)
        projector = keras.models.clone_model(self.projector)
        projector.set_weights(self.projector.get_weights())
        features = projector(features)
        rest = after(teacher, self.teacher_layer, asked_by="SimKD")
        try:
            outputs = rest(features)
        except ValueError as error:
            raise ValueError(
                "`SimKD` needs a teacher whose classifier reads maps of any size, where the student's are smaller. "
                f"Received: '{teacher.name}' after '{self.teacher_layer}', with a map of {tuple(features.shape)}. "
                "Choose a student layer of the teacher's size."
            ) from error
        return keras.Model(backbone.input, outputs, name=student.name)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "factor": self.factor, "activation": self.activation}


def _projector(width: int, channels: int, activation: str) -> keras.Sequential:
    layers: list[keras.layers.Layer] = []
    for place, (units, window) in enumerate(((width, 1), (width, 3), (channels, 1))):
        layers += [
            keras.layers.Conv2D(units, window, padding="same", use_bias=False, name=f"conv{place}", dtype="float32"),
            keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"norm{place}", dtype="float32"),
            keras.layers.Activation("relu" if place < 2 else activation, name=f"activation{place}", dtype="float32"),
        ]
    return keras.Sequential(layers, name="simkd_projector")


def _pooling(now: Shape, then: Shape) -> keras.layers.Layer:
    """Return the layer that does as `pool_to`."""
    if all(a % b == 0 for a, b in zip(now, then, strict=True)):
        window = tuple(a // b for a, b in zip(now, then, strict=True))
        return keras.layers.AveragePooling2D(window, data_format="channels_last", name="simkd_pooling", dtype="float32")
    return keras.layers.AdaptiveAveragePooling2D(
        then, data_format="channels_last", name="simkd_pooling", dtype="float32"
    )
