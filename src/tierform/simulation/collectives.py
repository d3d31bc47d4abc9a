"""What collectives and sends between chips take: time and energy, over a network of two levels.

A ring all-reduce of S bytes among p chips takes 2 (p - 1) steps of S / p bytes (Patarasuk and Yuan, J. Parallel
Distrib. Comput. 69, 2009): 2 (p - 1) / p * S / bandwidth + 2 (p - 1) * latency; an all-gather or a reduce-scatter half
of that.  Where a component's file has collectives fitted to measurements inside a node, those are used there.

In a step of a ring each chip sends S bytes to the next: S / bandwidth + latency, of the slowest link on the way.

Chips stand in nodes of `node.chips`; links between nodes are those of `node`.  A collective whose members are in
several nodes is done level by level: reduce-scatter in the node, all-reduce of each part between the nodes, all-gather
in the node (Thakur, Rabenseifner, Gropp, IJHPCA 2005); an all-to-all sends each part straight to its chip, first those
for other nodes.  Without `node` all chips are joined by the one kind of links
that the file describes.
"""

from __future__ import annotations

from tierform.chip.chip_file import ClusterFile, LevelFile
from tierform.chip.component import Cost
from tierform.chip.description import Chip
from tierform.errors import fail
from tierform.workload.operator import Operator
from tierform.workload.ops.ring import RING
from tierform.workload.parallel import Parallelism

# Times that each byte crosses a chip's link, and rounds of steps: reduce-scatter and all-gather, or one of them.
_ROUNDS = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1, "all_to_all": 1}


def require_cluster(chip: Chip, chips: int) -> ClusterFile:
    """The description of what joins several chips; TierformError when the chip file has none."""
    if chip.cluster is None:
        fail(
            f"{chips} chips are asked for, and the chip file does not say what joins them",
            key=chip.name,
            fix="Add 'cluster' with bandwidth, latency and energy to the chip file.",
        )
    return chip.cluster


class Interconnect:
    """The links between several of these chips."""

    def __init__(self, chip: Chip, split: Parallelism | None = None, *, direct: bool = False) -> None:
        """`direct`: the runtime has kernels of its own for small all-reduces, where the chip's file times them."""
        self.chip, self.direct = chip, direct
        self.split = split or Parallelism()
        self._timer = next(iter(chip.can.timers.values()), None)

    def cost(self, operator: Operator) -> Cost:
        """Time and energy of a collective, per chip that takes part.

        Members of a tensor group are neighbours; chips that share a sequence are a tensor group apart, and so are all
        copies of the weights with them; copies among which rows are exchanged are a group of such chips apart.  The
        first and the last pipeline group, which both hold a tied weight, are the whole of the others apart.
        """
        split = self.split
        stride = split.tensor if operator.copies else 1
        if operator.collective == "all_to_all":
            stride *= split.context
        if operator.weight is not None:
            stride = split.tensor * split.copies * (split.pipeline - 1)
        size_B = float(max(operator.input_B, operator.output_B))  # of an all-gather what it gives
        if operator.collective == RING:
            seconds, energy = self._round(operator.participants, stride, size_B)
            return Cost(seconds, seconds, {"links": energy})
        seconds, energy = self._collective(operator.collective, operator.participants, stride, size_B)
        return Cost(seconds, seconds, {"links": energy})

    @property
    def copies_are_apart(self) -> bool:
        """Whether copies of the model are in nodes of their own, and reach each other over the links between nodes."""
        node = None if self.chip.cluster is None else self.chip.cluster.node
        return node is not None and self.split.tensor > 1 and self._inside(self.split.copies, self.split.tensor) == 1

    def _round(self, members: int, stride: int, size_B: float) -> tuple[float, float]:
        """(seconds, joules of the mean chip) of sending to a ring's next chip; one chip of a node sends out of it."""
        cluster = require_cluster(self.chip, members)
        seconds = size_B / cluster.bandwidth.value + cluster.latency.value
        outside = members // self._inside(members, stride)
        if outside == 1 or cluster.node is None:
            return seconds, size_B * cluster.energy.value
        node, across = cluster.node, outside / members
        joules = (1 - across) * cluster.energy.value + across * node.energy.value
        between = size_B / node.bandwidth.value + node.latency.value
        return max(between, seconds if across < 1 else 0.0), size_B * joules

    def _collective(self, kind: str, members: int, stride: int, size_B: float) -> tuple[float, float]:
        cluster = require_cluster(self.chip, members)
        if kind not in _ROUNDS:
            fail("unknown collective", value=kind, choices=_ROUNDS, fix=f"Known: {', '.join(_ROUNDS)}.")
        inside = self._inside(members, stride)
        outside = members // inside
        if outside == 1 or cluster.node is None:
            return self._ring(kind, members, size_B, cluster, measured=True)
        # Of an all-to-all every chip keeps nothing back: what is for other nodes crosses its own link to them.
        part_B = size_B if kind == "all_to_all" else size_B / inside
        between = self._ring(kind, outside, part_B, cluster.node, measured=False)
        if inside == 1:
            return between
        within = self._ring(kind, inside, size_B, cluster, measured=True)
        return within[0] + between[0], within[1] + between[1]

    def _inside(self, members: int, stride: int) -> int:
        """Members of a collective that share a node: the largest equal part of them that fits."""
        cluster = self.chip.cluster
        if cluster is None or cluster.node is None:
            return members
        room = max(1, cluster.node.chips // stride)
        return max(size for size in range(1, min(room, members) + 1) if members % size == 0)

    def _ring(
        self, kind: str, members: int, size_B: float, level: ClusterFile | LevelFile, *, measured: bool
    ) -> tuple[float, float]:
        if members == 1:
            return 0.0, 0.0
        rounds = _ROUNDS[kind]
        moved_B = rounds * (members - 1) / members * size_B
        seconds = moved_B / level.bandwidth.value + rounds * (members - 1) * level.latency.value
        if measured and self._timer is not None:
            found = self._timer.collective_s(
                kind.replace("all_to_all", "alltoall"), members, size_B, direct=self.direct
            )
            seconds = seconds if found is None else found
        return seconds, moved_B * level.energy.value

    def send(self, size_B: float, neighbour: int = 1) -> tuple[float, float, float]:
        """(seconds that the link is held, latency on top, energy) of bytes to a chip `neighbour` places further."""
        cluster = require_cluster(self.chip, 2)
        level: ClusterFile | LevelFile = cluster
        if cluster.node is not None and neighbour >= cluster.node.chips:
            level = cluster.node
        return size_B / level.bandwidth.value, level.latency.value, size_B * level.energy.value
