"""How many bytes one chip keeps: per block, and for any cut of the layers into pipeline groups.

Model states and KV cache are sums over the layers that a group has.  Saved tensors wait for their backward pass: a
group that runs all forward passes before the first backward keeps those of every micro-batch; under
one-forward-one-backward group g of p keeps those of min(p - g, M) of M micro-batches (Narayanan et al., 2021).  With
m interleaved parts in each group it has passed 2 (p - 1 - g) + (m - 1) p + 1 parts forward before the first goes back:
in the first group 1 + (p - 1) / (p m) times what all layers of a group keep for p micro-batches (Korthikanti et al.,
2022).  A weight that two groups use (a tied embedding) stands in both, with its states (Narayanan et al., 2021).  One
layer at a time needs workspace on top: what is alive while it runs, forward or backward, and was not saved;
and two layers at a time are whole where weights or gradients are sharded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tierform.errors import fail

# For each part of a pipeline, in the order of the layers: (block, number of its layers).  Part i is in group i mod p.
Cut = Sequence[Sequence[tuple[str, int]]]


class BlockKind(StrEnum):
    """Which part of a model a block is."""

    EMBEDDING = "embedding"
    LAYER = "layer"
    HEAD = "head"
    GRADIENTS = "gradients"


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that the task keeps in memory, by part; `activations` is the peak of what backward (or a layer) needs."""

    weights: int = 0
    adapters: int = 0
    gradients: int = 0
    optimizer_states: int = 0
    master_weights: int = 0
    activations: int = 0
    kv_cache: int = 0

    @property
    def total(self) -> int:
        """Sum of all parts, in bytes."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """Part name -> bytes."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Borrowed:
    """A weight of another block, its `owner`, that a block uses too (a head tied to the embedding).

    A pipeline group without the owner keeps a copy: its `states`.
    """

    weight: str
    owner: str
    states: Footprint


@dataclass(frozen=True, slots=True)
class BlockMemory:
    """Bytes of one of `layers` equal layers of a block on one chip.

    `states` is what stays for the whole task.  `saved_B` is kept for the backward pass, for one micro-batch of each
    wave; `workspace_B` is the largest need beside it while the layer runs.  Of sharded states `moving_B` are whole
    while one or two layers run, `root_B` for the whole of a pass.  `borrowed` weights are those of other blocks.
    """

    block: str
    kind: BlockKind
    layers: int
    states: Footprint
    saved_B: tuple[int, ...] = ()
    workspace_B: int = 0
    moving_B: int = 0
    root_B: int = 0
    borrowed: tuple[Borrowed, ...] = ()


Held = tuple[BlockMemory, int, tuple[int, ...]]  # a block, its layers in a group, micro-batches kept of each wave


def footprints(
    memory: Sequence[BlockMemory], cut: Cut, micro_batches: Sequence[int], interleave: int = 1
) -> tuple[Footprint, ...]:
    """One chip's memory in each pipeline group of `cut`; `micro_batches` counts those of each wave.

    Each group has `interleave` parts of the cut.
    """
    known = {block.block: block for block in memory}
    groups = len(cut) // interleave
    held: list[list[Held]] = [[] for _ in range(groups)]
    for number, part in enumerate(cut):
        kept = in_flight(micro_batches, groups, number % groups, interleave, number // groups)
        for name, layers in part:
            if name not in known:
                fail("the workload has no such block", key="cut", value=name, choices=list(known))
            held[number % groups].append((known[name], layers, kept))
    return tuple(_group(own) for own in held)


def in_flight(
    micro_batches: Sequence[int], groups: int, position: int, interleave: int = 1, part: int = 0
) -> tuple[int, ...]:
    """Micro-batches of each wave whose saved tensors a pipeline group keeps at once: the first, larger ones.

    With interleaving those of the group's `part`: parts take turns, each for as many micro-batches as there are groups.
    """
    total = sum(micro_batches)
    left = total if groups == 1 else min(groups - position, total)
    if interleave > 1:
        passes = 2 * (groups - 1 - position) + (interleave - 1) * groups + 1
        turns, rest = divmod(min(passes, total * interleave), groups * interleave)
        left = turns * groups + min(groups, max(0, rest - part * groups))
    kept = []
    for number in micro_batches:
        kept.append(min(number, left))
        left -= kept[-1]
    return tuple(kept)


def _group(blocks: Sequence[Held]) -> Footprint:
    parts = dict.fromkeys(Footprint.__slots__, 0)
    moving = [0, 0]  # the two largest layers
    for memory, layers, kept in blocks:
        for name, size in memory.states.parts().items():
            parts[name] += size * layers
        parts["activations"] += layers * sum(size * number for size, number in zip(memory.saved_B, kept, strict=False))
        parts["activations"] += memory.root_B
        moving = sorted([*moving, *[memory.moving_B] * min(layers, 2)])[-2:]
    owners, copies = {memory.block for memory, _, _ in blocks}, {}
    for memory, _, _ in blocks:
        copies.update({item.weight: item.states for item in memory.borrowed if item.owner not in owners})
    for states in copies.values():
        for name, size in states.parts().items():
            parts[name] += size
    parts["activations"] += sum(moving)
    parts["activations"] += max((memory.workspace_B for memory, layers, _ in blocks if layers), default=0)
    return Footprint(**parts)


def even_cut(memory: Sequence[BlockMemory], groups: int) -> tuple[tuple[tuple[str, int], ...], ...]:
    """The layers in `groups` consecutive parts of nearly equal number; what is no layer stays beside its neighbours."""
    total = _layers(memory)
    if groups > total:
        if groups == 1:  # no layer at all
            return (tuple((block.block, block.layers) for block in memory),)
        fail(f"{total} layers cannot be cut into {groups} pipeline groups", key="pipeline", value=groups)
    bounds = [-(-index * total // groups) for index in range(1, groups + 1)]  # the first groups take one more
    parts: list[list[tuple[str, int]]] = [[] for _ in range(groups)]
    place = 0
    for block in memory:
        if block.kind is not BlockKind.LAYER:
            parts[_owner(place, bounds, block.kind)].append((block.block, block.layers))
            continue
        end = place + block.layers
        for group, bound in enumerate(bounds):
            inside = min(end, bound) - max(place, bounds[group - 1] if group else 0)
            if inside > 0:
                parts[group].append((block.block, inside))
        place = end
    return tuple(tuple(part) for part in parts)


def _layers(memory: Iterable[BlockMemory]) -> int:
    return sum(block.layers for block in memory if block.kind is BlockKind.LAYER)


def _owner(place: int, bounds: Sequence[int], kind: BlockKind) -> int:
    """The group of a block that is no layer: that of the layer before it; of the next, where none is."""
    if kind is BlockKind.HEAD:
        return len(bounds) - 1
    return next((group for group, bound in enumerate(bounds) if place <= bound), len(bounds) - 1)
