"""Parts of a task that wait outside the chip's own memory by choice: in a host's memory or on a drive.

What is chosen crosses a link each time it is used, in both directions at once, beside the computation: a stage takes at
least as long as its bytes on the link.  Weights come for every pass; saved tensors go in the forward pass and come back
in the backward pass, but for two layers of them and the workspace; optimizer states and master weights come and go in
the update (they are updated on the chip: Rajbhandari et al., ZeRO-Infinity, SC 2021; pages of Dettmers et al., QLoRA,
2023).  ``paged-optimizer`` sends away only what the chip's memory has no room for.

Limits: an update on the host's own processor (Ren et al., ZeRO-Offload, ATC 2021) is not modelled; the link is the
chip's alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from pydantic import Field

from tierform import library
from tierform.chip.description import Chip
from tierform.files import Document, read_yaml
from tierform.memory.hierarchy import Placement, place_footprint
from tierform.provenance import Assumption, Constant
from tierform.schema import FileModel, quantity, validate
from tierform.simulation.aside import keeps_aside
from tierform.units import format_quantity
from tierform.workload import Step
from tierform.workload.graph import Workload
from tierform.workload.offloaded import PAGED, parts_away
from tierform.workload.task import Task

SCHEMA = "tierform.host/1"


class HostFile(FileModel):
    """A host file: memory behind a link."""

    name: str = Field(description="Name of the host's memory, as results print it.")
    description: str = Field("", description="What it is, in a sentence; changes no figure.")
    read_bandwidth: Annotated[Constant, quantity("B/s", above=0)] = Field(description="Bytes a second to the chip.")
    write_bandwidth: Annotated[Constant, quantity("B/s", above=0)] = Field(description="Bytes a second from the chip.")
    capacity: Annotated[Constant, quantity("B", above=0)] = Field(description="Bytes that it holds; changes what fits.")
    energy: Annotated[Constant, quantity("J/B", minimum=0)] = Field(description="Energy of a byte that crosses.")


@dataclass(frozen=True, slots=True)
class Crossed:
    """Energy of a transfer."""

    dynamic_energy_J: float


@dataclass(frozen=True, slots=True)
class Host:
    """A memory tier behind a link that works in both directions at once."""

    file: HostFile

    @property
    def name(self) -> str:
        """Its name."""
        return self.file.name

    @property
    def capacity_B(self) -> int:
        """Bytes that it holds."""
        return int(self.file.capacity.value)

    def effective_bandwidth_B_per_s(self, pattern: str, read_fraction: float) -> float:
        """Bytes a second of a mix of reads and writes; `pattern` makes no difference."""
        reads_s = read_fraction / self.file.read_bandwidth.value
        writes_s = (1.0 - read_fraction) / self.file.write_bandwidth.value
        return 1.0 / max(reads_s, writes_s)

    def transfer(self, size_B: float, pattern: str, read_fraction: float) -> Crossed:
        """The energy of so many bytes."""
        return Crossed(size_B * self.file.energy.value)

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """Its constants with their sources."""
        found = []
        for key in ("read_bandwidth", "write_bandwidth", "capacity", "energy"):
            number: Constant = getattr(self.file, key)
            shown = format_quantity(number.value, number.unit)
            found.append(Assumption(f"host {self.name}: {key}", shown, number.kind, number.source, number.note))
        return tuple(found)


@lru_cache(maxsize=16)
def load_host(name: str) -> Host:
    """A host's memory of the library; TierformError with the nearest name when there is none."""
    document = read_yaml(library.find("hosts", name))
    content: Any = document.content
    content = {key: value for key, value in content.items() if key != "schema"}
    return Host(validate(HostFile, Document(content, document.file, document.lines)))


def kept_near(workload: Workload, parts: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """(bytes that stay by part, bytes that may leave by part) of a task that offloads something."""
    away = parts_away(workload.task)
    near, far = dict(parts), dict.fromkeys(parts, 0)
    for part in away:
        far[part] = near[part]
        near[part] = 0
    if "activations" in away:
        used = max((block.workspace_B for block in workload.memory), default=0)
        used += 2 * max((max(block.saved_B, default=0) for block in workload.memory), default=0)
        near["activations"] = min(parts["activations"], used)
        far["activations"] -= near["activations"]
    return near, far


def saved_share(workload: Workload, parts: Mapping[str, int]) -> float:
    """The share of the saved tensors that is away, where they are offloaded: all but two layers of them."""
    _, far = kept_near(workload, parts)
    used = max((block.workspace_B for block in workload.memory), default=0)
    return min(1.0, far["activations"] / max(1, parts["activations"] - used))


def host_of(task: Task, chip: Chip) -> Host | None:
    """The host that holds what a task offloads; shares kept aside go there from a chip with one memory alone."""
    if isinstance(task, Step):
        return None
    alone = len(chip.can.memories) + len(chip.memory) == 1
    return load_host(task.host) if task.offload or (alone and keeps_aside(task)) else None


def place_apart(
    workload: Workload, parts: Mapping[str, int], tiers: list[Any], aside: Mapping[str, float] | None = None
) -> Placement:
    """Where every part waits: what is offloaded in the last of the tiers, all else in those before it.

    Shares that are kept `aside` wait behind the chip's memory: in its own next tier, or else in the last one.
    """
    near, far = kept_near(workload, parts)
    last = len(tiers) - 1
    for part, share in (aside or {}).items() if last == 1 else ():
        away = round(near[part] * share)
        near[part] -= away
        far[part] += away
    if PAGED in workload.task.offload:  # type: ignore[union-attr]
        room = sum(tier.capacity_B for tier in tiers[:last]) - sum(near.values())
        for part in ("master_weights", "optimizer_states"):
            back = min(far[part], max(0, room))
            near[part] += back
            far[part] -= back
            room -= back
    here = place_footprint(near, tiers[:last], aside if last > 1 else None)
    there = place_footprint(far, tiers[last:])
    shares = {}
    for part in parts:
        found = tuple(item for item in here.shares[part] if item.size_B or not far[part])
        if far[part]:
            (only,) = there.shares[part]
            found = (*found, type(only)(last, only.tier_name, only.size_B))
        shares[part] = found
    return Placement(
        shares,
        (*here.tier_names, *there.tier_names),
        (*here.capacity_B, *there.capacity_B),
        (*here.used_B, *there.used_B),
    )
