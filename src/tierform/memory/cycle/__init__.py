"""The cycle-level memory: channels, controllers and devices, command by command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierform.memory.cycle.engine import CONTROLLER_CYCLES as CONTROLLER_CYCLES
    from tierform.memory.cycle.engine import CycleMemory as CycleMemory
    from tierform.memory.cycle.engine import DeviceTiming as DeviceTiming
    from tierform.memory.cycle.result import CommandLog as CommandLog
    from tierform.memory.cycle.result import MemoryCycleResult as MemoryCycleResult
    from tierform.memory.cycle.trace import Trace as Trace

_HOMES = {
    "engine": ("CONTROLLER_CYCLES", "CycleMemory", "DeviceTiming"),
    "result": ("CommandLog", "MemoryCycleResult"),
    "trace": ("Trace",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(f"tierform.memory.cycle.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
