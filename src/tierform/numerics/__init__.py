"""What values come out: quantization, crossbar emulation, device noise and noise-aware adapters, on PyTorch.

Names are imported when first used, so that ``import tierform.numerics`` does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierform.numerics.accuracy import AccuracyTable as AccuracyTable
    from tierform.numerics.accuracy import accuracy_table as accuracy_table
    from tierform.numerics.adapters import attach_lora as attach_lora
    from tierform.numerics.adapters import train_adapters as train_adapters
    from tierform.numerics.chip_view import CrossbarFormat as CrossbarFormat
    from tierform.numerics.chip_view import crossbar_format as crossbar_format
    from tierform.numerics.emulation import crossbar_layers as crossbar_layers
    from tierform.numerics.emulation import describe as describe
    from tierform.numerics.emulation import emulate as emulate
    from tierform.numerics.emulation import new_chip_instance as new_chip_instance
    from tierform.numerics.emulation import set_fidelity as set_fidelity
    from tierform.numerics.formats import BitPlan as BitPlan
    from tierform.numerics.formats import Quantizer as Quantizer
    from tierform.numerics.influence import share_by_influence as share_by_influence
    from tierform.numerics.layer import CrossbarLinear as CrossbarLinear
    from tierform.numerics.noise import Noise as Noise
    from tierform.numerics.noise import load_noise as load_noise
    from tierform.numerics.quantize import fake_quantize as fake_quantize
    from tierform.numerics.quantize import quantize_model as quantize_model
    from tierform.numerics.remainder import take_peaks as take_peaks

_HOMES = {
    "accuracy": ("AccuracyTable", "accuracy_table"),
    "adapters": ("attach_lora", "train_adapters"),
    "chip_view": ("CrossbarFormat", "crossbar_format"),
    "emulation": ("crossbar_layers", "describe", "emulate", "new_chip_instance", "set_fidelity"),
    "formats": ("BitPlan", "Quantizer"),
    "influence": ("share_by_influence",),
    "layer": ("CrossbarLinear",),
    "noise": ("Noise", "load_noise"),
    "quantize": ("fake_quantize", "quantize_model"),
    "remainder": ("take_peaks",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(f"tierform.numerics.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
