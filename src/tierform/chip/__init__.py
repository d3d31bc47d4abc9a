"""What computes: chip descriptions and the cost models of their components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierform.chip.component import COMPONENTS as COMPONENTS
    from tierform.chip.component import WHOLE as WHOLE
    from tierform.chip.component import Component as Component
    from tierform.chip.component import Cost as Cost
    from tierform.chip.component import Share as Share
    from tierform.chip.component import WeightHolder as WeightHolder
    from tierform.chip.description import Chip as Chip
    from tierform.chip.description import load_chip as load_chip
    from tierform.chip.description import load_component as load_component

_HOMES = {
    "component": ("COMPONENTS", "WHOLE", "Component", "Cost", "Share", "WeightHolder"),
    "description": ("Chip", "load_chip", "load_component"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(f"tierform.chip.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
