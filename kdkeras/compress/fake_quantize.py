"""A layer that rounds activations as an int8 file will, in ranges that it has seen."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kdkeras")
class FakeQuantize(keras.layers.Layer):
    """Rounds its inputs to the values of an integer grid between the smallest and largest that it has seen.

    The range is an average over the training batches,

        low ← m · low + (1 − m) · min(x, 0),   high ← m · high + (1 − m) · max(x, 0),

    whose first batch sets it as a whole. Zero always lies in it, for padding must be exact. The gradient passes
    unchanged inside of the range and not at all outside. `kdkeras.compress.quantize_aware` puts these layers in place,
    and the TFLite converter takes the ranges from them.

    Args:
        bits: Bits of the grid. Default 8, what TFLite computes with.
        momentum: m above, in [0, 1). Default 0.99, for trainings of a few epochs; the paper is nearer to 1.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        observing: Whether the range is updated outside of training too.

    Example:
        >>> import numpy as np
        >>> from kdkeras.compress import FakeQuantize
        >>> layer = FakeQuantize(bits=2)
        >>> layer(np.array([[0.0, 0.9, 3.0]], "float32"), training=True).numpy()  # grid 0, 1, 2, 3
        array([[0., 1., 3.]], dtype=float32)

    Reference:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
        2018, arXiv:1712.05877, section 3.1.
    """

    def __init__(self, bits: int = 8, momentum: float = 0.99, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bits, self.momentum = bits, momentum
        self.activation = keras.activations.linear  # a model that ends here ends in logits, for whoever looks for them
        self.observing = False
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Make the range, which is [-6, 6] until something was seen."""
        settings = {"shape": (), "trainable": False, "dtype": "float32", "aggregation": "mean"}  # over replicas
        self.low = self.add_weight(name="low", initializer=keras.initializers.Constant(-6.0), **settings)
        self.high = self.add_weight(name="high", initializer=keras.initializers.Constant(6.0), **settings)
        self.seen = self.add_weight(name="seen", initializer="zeros", **settings)
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Round the inputs; in training, look at their range first.

        Args:
            inputs: Floats of any shape.
            training: Whether the range is updated.

        Returns:
            Floats of the same shape.
        """
        if training or self.observing:
            self.observe(inputs)
        # Far above float32's smallest normal number: the converter divides by the steps of this range.
        high = ops.maximum(ops.convert_to_tensor(self.high), ops.convert_to_tensor(self.low) + 1e-5)
        rounded = keras.quantizers.fake_quant_with_min_max_vars(
            inputs, ops.convert_to_tensor(self.low), high, num_bits=self.bits
        )
        return self.activation(rounded)

    def observe(self, inputs: Any) -> None:
        """Take a batch into the range; one that is not finite is left out.

        Args:
            inputs: Floats of any shape.
        """
        inputs = ops.stop_gradient(ops.cast(inputs, "float32"))
        low, high = ops.minimum(ops.min(inputs), 0.0), ops.maximum(ops.max(inputs), 0.0)
        sound = ops.isfinite(high - low)
        share = ops.where(self.seen > 0, 1 - self.momentum, 1.0)
        for variable, value in ((self.low, low), (self.high, high)):
            old = ops.convert_to_tensor(variable)
            variable.assign(ops.where(sound, old + share * (value - old), old))
        self.seen.assign(ops.where(sound, 1.0, ops.convert_to_tensor(self.seen)))

    def compute_output_spec(self, inputs: Any, training: bool = False) -> Any:
        """Return a symbol of the same shape and type."""
        return keras.KerasTensor(inputs.shape, self.compute_dtype)

    def count_macs(self) -> int:
        """Return 0: the file has no such operation."""
        return 0

    def get_config(self) -> dict[str, Any]:
        """Return the settings."""
        return {**super().get_config(), "bits": self.bits, "momentum": self.momentum}
