"""Every constant of a chip with its evidence: of its components, network, cooling and cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierform.provenance import Assumption, Constant
from tierform.units import format_quantity

if TYPE_CHECKING:
    from tierform.chip.description import Chip


def chip_assumptions(chip: Chip) -> tuple[Assumption, ...]:
    """Every constant of the chip file and of its components."""
    lines = [line for component in chip.components.values() for line in component.assumptions()]
    own: list[tuple[str, Constant | None]] = []
    if chip.network:
        own += [("network.clock", chip.network.clock), ("network.width", chip.network.width)]
        own += [("network.vertical.width", chip.network.vertical.width)] if chip.network.vertical else []
        own += [("network.interposer.width", chip.network.interposer.width)] if chip.network.interposer else []
    own += [("cooling.ambient", chip.cooling.ambient), ("cooling.sink_resistance", chip.cooling.sink_resistance)]
    own += [(f"cooling.limits.{name}", limit) for name, limit in chip.cooling.limits.items()]
    if chip.cluster:
        own += [(f"cluster.{name}", getattr(chip.cluster, name)) for name in ("bandwidth", "latency", "energy")]
        if chip.cluster.node:
            node = chip.cluster.node
            own += [(f"cluster.node.{name}", getattr(node, name)) for name in ("bandwidth", "latency", "energy")]
    lines += [
        Assumption(name, format_quantity(item.value, item.unit), item.kind, item.source, item.note)
        for name, item in own
        if item is not None
    ]
    lines += [Assumption(chip.name, "", "assumed", note=text) for text in chip.assumed]
    return tuple(lines)
