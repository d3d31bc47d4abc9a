"""GPUs: kernels of matrix products, attention and everything else, fused as libraries do, measured against silicon."""

from tierform.chip.gpu.device import Gpu
from tierform.chip.gpu.parameters import GpuParameters

__all__ = ["Gpu", "GpuParameters"]
