"""Systolic arrays: closed-form timing and accesses, the component of a chip, SCALE-Sim's files and accounting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierform.chip.systolic.component import SystolicArrays as SystolicArrays
    from tierform.chip.systolic.component import SystolicParameters as SystolicParameters
    from tierform.chip.systolic.folds import DATAFLOWS as DATAFLOWS
    from tierform.chip.systolic.folds import OVERLAPS as OVERLAPS
    from tierform.chip.systolic.folds import Sparsity as Sparsity
    from tierform.chip.systolic.folds import accesses as accesses
    from tierform.chip.systolic.folds import cycles as cycles
    from tierform.chip.systolic.folds import fold_count as fold_count

_HOMES = {
    "component": ("SystolicArrays", "SystolicParameters"),
    "folds": ("DATAFLOWS", "OVERLAPS", "Sparsity", "accesses", "cycles", "fold_count"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(f"tierform.chip.systolic.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
