"""Smaller models by training: rounded weights, pruned weights, shared weights, fewer channels."""

from kdkeras.compress.fake_quantize import FakeQuantize as FakeQuantize
from kdkeras.compress.quantize_aware import quantize_aware as quantize_aware
from kdkeras.compress.quantized_kernel import QuantizedKernel as QuantizedKernel
from kdkeras.compress.strip import strip as strip
