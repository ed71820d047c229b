"""A connector with BatchNorm from the student's features to the teacher's, and losses that have one."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras.losses.feature_loss import FeatureLoss, Pair
from kdkeras.ops import mean_per_sample
from kdkeras.signals import Signals


class Connector(keras.layers.Layer):
    """A linear map of the channels (a 1×1 convolution without bias) and BatchNorm.

    BatchNorm has PyTorch's settings, as in the reference implementations: momentum 0.9 in Keras' counting, ε 1e-5.

    Args:
        channels: The teacher's channel count.
        name: Name of the layer.
    """

    def __init__(self, channels: int, *, name: str = "connector") -> None:
        super().__init__(name=name, dtype="float32")
        self.supports_masking = True
        self.projection = keras.layers.Dense(channels, use_bias=False, name="projection", dtype="float32")
        self.norm = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="norm", dtype="float32")

    @classmethod
    def between(cls, pair: Pair) -> Connector:
        """Return a connector with variables, from the student's layer of a pair to the teacher's channels."""
        connector = cls(pair.teacher[-1])
        connector.build(pair.student)
        return connector

    def build(self, input_shape: Any) -> None:
        """Create the variables for features of a shape."""
        self.projection.build(input_shape)
        self.norm.build((*input_shape[:-1], self.projection.units))
        self.built = True

    def call(self, features: Any, sample_weight: Any = None, training: bool = False) -> Any:
        """Return the features in the teacher's channels.

        Args:
            features: Shape `(batch, ..., channels)`.
            sample_weight: Shape `(batch,)`; samples of weight 0 stay out of the batch statistics, unless all are.
            training: Whether the batch's own statistics are taken, and gathered.

        Returns:
            Shape `(batch, ..., channels of the teacher)`.
        """
        features = self.projection(features)
        if sample_weight is None:
            return self.norm(features, training=training)
        counts = sample_weight > 0
        counts = ops.logical_or(counts, ops.logical_not(ops.any(counts)))  # or statistics of nothing would be gathered
        counts = ops.reshape(counts, (-1, *[1] * (len(features.shape) - 2)))
        return self.norm(features, training=training, mask=counts)


class ConnectedLoss(FeatureLoss):
    """A feature loss whose pairs have a `Connector`, or `None` where the student's features are taken as they are.

    Attributes:
        connectors: The connector of each pair.
    """

    needs = ("sample_weight", "training")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connectors: list[Connector | None] = []

    def call(
        self,
        student: Signals,
        teacher: Signals,
        labels: Any = None,
        sample_weight: Any = None,
        training: bool = False,
    ) -> Any:
        """Return the sum over the pairs of layers, shape `(batch,)`, or `(batch, ...)` where all have one size."""
        values = []
        for place, (ours, theirs) in enumerate(zip(self.student_layers, self.teacher_layers, strict=True)):
            features, connector = student.features[ours], self.connectors[place]
            if connector is not None:
                features = connector(features, sample_weight=sample_weight, training=training)
            values.append(self.compare_pair(place, features, teacher.features[theirs]))
        sizes = {tuple(value.shape[1:]) for value in values}
        if len(values) > 1 and (len(sizes) > 1 or None in sizes.pop()):  # positions of different maps cannot be added
            values = [mean_per_sample(value) for value in values]
        return sum(values[1:], values[0])
