"""Smaller models: quantized, pruned, with sublayers left out or fewer layers, and what that costs in quality.

Names are imported when first used, so that ``import tierform.compression`` does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierform.compression.checkpoints.folder import load_language_model as load_language_model
    from tierform.compression.checkpoints.packages import fetch_model as fetch_model
    from tierform.compression.compress import Recipe as Recipe
    from tierform.compression.compress import compress_model as compress_model
    from tierform.compression.formats import Density as Density
    from tierform.compression.formats import WeightFormat as WeightFormat
    from tierform.compression.plan import Plan as Plan
    from tierform.compression.plan import read_plan as read_plan
    from tierform.compression.quality import measure as measure

_HOMES = {
    "checkpoints.folder": ("load_language_model",),
    "checkpoints.packages": ("fetch_model",),
    "compress": ("Recipe", "compress_model"),
    "formats": ("Density", "WeightFormat"),
    "plan": ("Plan", "read_plan"),
    "quality": ("measure",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(f"tierform.compression.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
