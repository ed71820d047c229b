"""A layer around a convolution or dense layer that rounds its kernel as the file will."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras.counting import count_macs


@keras.saving.register_keras_serializable(package="kdkeras")
class QuantizedKernel(keras.layers.Wrapper):
    """Runs a layer with its kernel rounded to a symmetric integer grid.

        s = max |w| / (2^(bits − 1) − 1),   w ← s · round(w / s)

    with one s per output channel for `Conv2D` and `DepthwiseConv2D` and one per kernel elsewhere: the TFLite converter
    takes no more. The gradient passes unchanged. `kdkeras.compress.quantize_aware` puts these layers in place.

    Args:
        layer: A `Conv1D`, `Conv2D`, `Conv2DTranspose`, `DepthwiseConv2D` or `Dense`.
        bits: Bits of the grid: 8 or 4.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        layer: The layer inside, whose weights are trained unrounded.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.compress import QuantizedKernel
        >>> layer = QuantizedKernel(keras.layers.Dense(1, use_bias=False), bits=4)
        >>> layer.build((None, 3))
        >>> layer.layer.set_weights([np.array([[7.0], [0.6], [-3.4]])])
        >>> layer(np.eye(3)).numpy().ravel()
        array([ 7.,  1., -3.], dtype=float32)

    Reference:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
        2018, arXiv:1712.05877, section 3.
    """

    def __init__(self, layer: keras.layers.Layer, bits: int = 8, **kwargs: Any) -> None:
        super().__init__(layer, autocast=False, **kwargs)  # the kernel is rounded in the precision that it is kept in
        self.bits = bits
        self.supports_masking = layer.supports_masking
        self.activity_regularizer = layer.activity_regularizer  # what the layer adds within the scope below is dropped

    def build(self, input_shape: Any) -> None:
        """Build the layer inside."""
        super().build(input_shape)
        self._input_shape = tuple(input_shape)
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Return what the layer returns for the rounded kernel.

        Args:
            inputs: What the layer takes.

        Returns:
            What the layer returns.
        """
        # Variables that are not named here would be read as they are outside of every scope, such as JAX's of a step.
        values = [(variable, ops.convert_to_tensor(variable)) for variable in self.layer.variables]
        with keras.StatelessScope(state_mapping=[*values, (self.layer.kernel, self.rounded_kernel())]):
            return self.layer(inputs)

    def rounded_kernel(self) -> Any:
        """Return the kernel as the layer uses it, shape as the kernel."""
        kernel, axis = ops.convert_to_tensor(self.layer.kernel), channel_axis(self.layer)
        last = len(kernel.shape) - 1
        kernel = kernel if axis is None else ops.swapaxes(kernel, axis, last)  # Keras knows no other axis on JAX
        axes = None if axis is None else list(range(last))
        # Far above float32's smallest normal number: a channel of zeros has a grid too.
        largest = ops.maximum(ops.max(ops.abs(ops.stop_gradient(kernel)), axis=axes), 1e-7)
        rounded = keras.quantizers.fake_quant_with_min_max_vars(
            kernel, -largest, largest, num_bits=self.bits, narrow_range=True, axis=None if axis is None else last
        )
        return rounded if axis is None else ops.swapaxes(rounded, axis, last)

    def compute_output_spec(self, inputs: Any) -> Any:
        """Return the symbol that the layer returns."""
        return self.layer.compute_output_spec(inputs)

    def count_macs(self) -> int:
        """Return the multiply-accumulates of the layer inside."""
        inputs = keras.Input(batch_shape=(1, *self._input_shape[1:]))
        layer = type(self.layer).from_config(self.layer.get_config())
        return count_macs(keras.Model(inputs, layer(inputs)))

    def get_config(self) -> dict[str, Any]:
        """Return the settings."""
        own = ("autocast", "activity_regularizer")
        return {**{key: value for key, value in super().get_config().items() if key not in own}, "bits": self.bits}


def channel_axis(layer: keras.layers.Layer) -> int | None:
    """Return the axis of a kernel along which each channel has a grid of its own, or `None` for one grid.

    Args:
        layer: A layer with a kernel.

    Returns:
        The axis, not negative.
    """
    if isinstance(layer, keras.layers.DepthwiseConv2D):  # (height, width, channels, multiplier)
        return 2 if layer.depth_multiplier == 1 else None
    if isinstance(layer, keras.layers.Conv2D):  # (height, width, channels, filters)
        return 3
    return None
