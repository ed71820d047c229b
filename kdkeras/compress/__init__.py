"""Smaller models by training: rounded weights, pruned weights, shared weights, fewer channels."""

from kdkeras.compress.cluster_weights import ClusterWeights as ClusterWeights
from kdkeras.compress.fake_quantize import FakeQuantize as FakeQuantize
from kdkeras.compress.prune_low_magnitude import PruneLowMagnitude as PruneLowMagnitude
from kdkeras.compress.quantize_aware import quantize_aware as quantize_aware
from kdkeras.compress.quantized_kernel import QuantizedKernel as QuantizedKernel
from kdkeras.compress.remove_channels import LayerChannels as LayerChannels
from kdkeras.compress.remove_channels import SmallerModel as SmallerModel
from kdkeras.compress.remove_channels import remove_channels as remove_channels
from kdkeras.compress.schedules import constant as constant
from kdkeras.compress.schedules import polynomial as polynomial
from kdkeras.compress.sparsity import KernelSparsity as KernelSparsity
from kdkeras.compress.sparsity import Sparsity as Sparsity
from kdkeras.compress.sparsity import sparsity as sparsity
from kdkeras.compress.strip import strip as strip
from kdkeras.compress.with_tfmot import TfmotError as TfmotError
from kdkeras.compress.with_tfmot import TfmotResult as TfmotResult
from kdkeras.compress.with_tfmot import with_tfmot as with_tfmot
