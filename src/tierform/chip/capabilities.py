"""Which components of a chip can do what: each capability asked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tierform.chip.component import (
    BufferHolder,
    CollectiveTimer,
    Component,
    FormatConverter,
    KernelIssuer,
    MemoryHolder,
    OperatorFuser,
    PoweredBoard,
    Roofed,
    Wearing,
    WeightHolder,
)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Components by name, for each capability."""

    holders: dict[str, WeightHolder]
    buffers: dict[str, BufferHolder]
    memories: dict[str, MemoryHolder]
    fusers: dict[str, OperatorFuser]
    wearing: dict[str, Wearing]
    timers: dict[str, CollectiveTimer]
    converters: dict[str, FormatConverter]
    boards: dict[str, PoweredBoard]
    issuers: dict[str, KernelIssuer]
    roofed: dict[str, Roofed]

    @classmethod
    def of(cls, components: Mapping[str, Component]) -> Capabilities:
        """Ask every component for every capability."""
        parts = components.items()
        return cls(
            holders={name: part for name, part in parts if isinstance(part, WeightHolder)},
            buffers={name: part for name, part in parts if isinstance(part, BufferHolder)},
            memories={name: part for name, part in parts if isinstance(part, MemoryHolder)},
            fusers={name: part for name, part in parts if isinstance(part, OperatorFuser)},
            wearing={name: part for name, part in parts if isinstance(part, Wearing)},
            timers={name: part for name, part in parts if isinstance(part, CollectiveTimer)},
            converters={name: part for name, part in parts if isinstance(part, FormatConverter)},
            boards={name: part for name, part in parts if isinstance(part, PoweredBoard)},
            issuers={name: part for name, part in parts if isinstance(part, KernelIssuer) and part.issues_kernels},
            roofed={name: part for name, part in parts if isinstance(part, Roofed)},
        )
