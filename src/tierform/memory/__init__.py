"""Where data waits: DRAM, HBM and CXL, analytic and cycle by cycle."""

from __future__ import annotations

from typing import Any

from tierform.memory.device import MemoryDevice, TransferCost, load_memory

_LAZY: dict[str, str] = {
    "CycleMemory": "tierform.memory.cycle",
    "MemoryCycleResult": "tierform.memory.cycle",
    "Trace": "tierform.memory.cycle",
    "CxlDevice": "tierform.memory.cxl",
    "DramSpec": "tierform.memory.spec",
    "Placement": "tierform.memory.hierarchy",
    "place_footprint": "tierform.memory.hierarchy",
    "load_dram": "tierform.memory.standard",
    "dram_names": "tierform.memory.standard",
}

__all__ = ["MemoryDevice", "TransferCost", "load_memory", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
