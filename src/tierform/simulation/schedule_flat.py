"""The layers of a stage as flat arrays: steps, transfers and fetches with their times, and what each waits for.

Operands are fetched as far ahead as the buffers allow (:mod:`tierform.simulation.prefetch`), and yet nothing ever ends
later than with fetches one step ahead: the memory serves in the order of those, and no step waits for anything that it
would not wait for there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tierform.simulation.prefetch import LAYER_END, LAYER_START
from tierform.simulation.schedule_layers import BLOCK_INPUT, Edge, Layer, Run, ScheduledOperator

Times = NDArray[np.float64]
BEFORE_INPUT = -2
PREVIOUS_INPUT = -3
EARLY_INPUT = -4  # waits as PREVIOUS_INPUT, but served in the order of its own layer


class FlatStage:
    """The waves as flat arrays: steps, transfers and fetches of every kind of layer, and a key of their structure."""

    def __init__(self, waves: Sequence[Run], chunks: int) -> None:
        self.chunks = chunks
        self.shared: dict[str, int] = {}
        self.names: list[tuple[str, str, bool]] = []
        kinds: list[int] = []
        tables: list[FlatLayer] = []
        for number, (layer, count) in enumerate(waves[0]):
            kinds += [number] * count
            tables.append(FlatLayer(layer, self.shared, chunks))
        times = [table.times for table in tables]
        tails = [table.tails for table in tables]
        self.alike = True
        for wave in waves[1:]:
            others = [
                FlatLayer(_like(layer, first), self.shared, chunks)
                for (layer, _), (first, _) in zip(wave, waves[0], strict=True)
            ]
            self.alike &= [other.structure for other in others] == [table.structure for table in tables]
            if not self.alike:
                return
            times += [table.times for table in others]
            tails += [table.tails for table in others]
        self.kinds = tuple(kinds)
        self.tables = tables
        once = np.concatenate([np.array(table.once, dtype=np.bool_) for table in tables])
        all_once = np.concatenate([once] * len(waves))
        whole = np.concatenate([np.asarray(item, dtype=np.float64) for item in times])
        self.time: Times = np.where(all_once, whole, whole / chunks)
        self.tail: Times = np.concatenate([np.asarray(item, dtype=np.float64) for item in tails])
        self.steps = len(once)
        most = max(len(table.times) for table in tables)
        self.resources = len(self.shared) + len(kinds) * most
        self.key = (self.kinds, chunks, len(self.shared), tuple(table.structure for table in tables))


def _like(layer: Layer, first: Layer) -> Layer:
    """A layer of a smaller micro-batch with the steps of a larger one: what it does not need takes no time."""
    own = {step.name: step for step in layer.steps}
    if list(own) == [step.name for step in first.steps]:
        return layer
    steps = []
    for step in first.steps:
        known = own.get(step.name)
        if known is None:
            edges = tuple(replace(edge, head_s=0.0, transfer_s=0.0) for edge in step.after)
            steps.append(replace(step, occupancy_s=0.0, tail_s=0.0, fetch_s=0.0, after=edges))
        else:
            steps.append(replace(known, after=_edges_like(known, step, layer, first)))
    return Layer(layer.name, tuple(steps), first.output)


def _edges_like(known: ScheduledOperator, step: ScheduledOperator, layer: Layer, first: Layer) -> tuple[Edge, ...]:
    """The edges of the larger layer's step with the times of the smaller one's, where it has them."""

    def giver(edge: Edge, of: Layer) -> str:
        return "" if edge.source < 0 else of.steps[edge.source].name

    times = {(giver(edge, layer), edge.path): edge for edge in known.after}
    found = []
    for edge in step.after:
        same = times.get((giver(edge, first), edge.path))
        head_s, transfer_s = (same.head_s, same.transfer_s) if same else (0.0, 0.0)
        found.append(replace(edge, head_s=head_s, transfer_s=transfer_s))
    return tuple(found)


class FlatLayer:
    """One kind of layer: its steps with the transfers and fetches that they need as steps of their own.

    `order` says, where it is not by the waits, what the virtual time of a step follows: fetches are served in the order
    in which they would come one step ahead, and what they are cut into takes no place in it.
    """

    __slots__ = ("edges", "names", "once", "order", "output", "own", "resource", "shown", "structure", "tails", "times")

    def __init__(self, layer: Layer, shared: dict[str, int], chunks: int) -> None:
        self.times: list[float] = []
        self.tails: list[float] = []
        self.once: list[bool] = []
        self.own: list[bool] = []
        self.resource: list[int] = []
        self.edges: list[tuple[tuple[int, bool], ...]] = []
        self.order: dict[int, tuple[tuple[int, bool], ...] | int] = {}
        self.names: list[tuple[str, str]] = []
        self.shown: list[int] = []
        place: list[int] = []
        sent: dict[tuple[int, str], int] = {}
        worked: dict[int, int] = {}  # end of a step that works on pieces -> the step
        for step in layer.steps:
            edges: list[tuple[int, bool]] = []
            for edge in step.after or (Edge(BLOCK_INPUT),):
                source = place[edge.source] if edge.source >= 0 else edge.source
                if edge.path:
                    key = (edge.source, edge.path)
                    if key not in sent:
                        sent[key] = self._add(
                            edge.path, edge.own, edge.transfer_s, edge.head_s, ((source, False),), shared
                        )
                    source = sent[key]
                edges.append((source, edge.whole))
            waits = tuple(dict.fromkeys(edges))
            needed = waits
            if step.fetch:
                giver = worked.get(waits[0][0], waits[0][0])
                usual = ((BEFORE_INPUT, False),) if giver < 0 else tuple((e, False) for e, _ in self.edges[giver])
                before = self._before(step.freed_by, place, usual, chunks)
                first_s = step.fetch_s / step.pieces
                fetch = last = self._add(step.fetch, False, first_s, 0.0, before, shared, once=True)
                if before is not usual:
                    self.order[fetch] = usual
                if step.pieces > 1:
                    rest_s = step.fetch_s - first_s
                    last = self._add(step.fetch, False, rest_s, 0.0, ((fetch, False),), shared, once=True)
                    self.order[last] = fetch
                needed = (*waits, (fetch, False))
            at = self._add(step.resource, step.own, step.occupancy_s, step.tail_s, needed, shared)
            self.names[-1] = (step.resource, step.name)
            self.shown.append(at)
            if step.fetch and step.pieces > 1:  # no time of its own: the last piece is worked on when it is there
                piece_s = step.occupancy_s / max(step.pieces, chunks) + step.tail_s
                end = self._add(step.fetch, False, 0.0, piece_s, ((last, False),), shared, once=True)
                self.order[end] = fetch
                ends = ((waits[0][0], False), (at, False), (end, False))  # first what the step itself waits for first
                done = self._add(step.resource, step.own, 0.0, 0.0, ends, shared)
                self.order[done] = worked[done] = at
                at = done
            place.append(at)
        self.output = place[layer.output % len(place)]
        self.structure = (tuple(self.resource), tuple(self.once), tuple(self.own), tuple(self.edges), self.output)

    def _before(
        self, freed_by: int | None, place: list[int], usual: tuple[tuple[int, bool], ...], chunks: int
    ) -> tuple[tuple[int, bool], ...]:
        """What a fetch waits for: the end of the step that frees its room, where all that is `usual` comes after it.

        So nothing waits longer than with fetches one step ahead, whatever anything takes.
        """
        if freed_by is None or any(source == PREVIOUS_INPUT for source, _ in usual):
            return usual
        if freed_by == LAYER_START:
            return ((EARLY_INPUT, False),)
        if usual[0][0] == BEFORE_INPUT:
            return usual
        if freed_by == LAYER_END:
            return ((BEFORE_INPUT, False),)
        return ((place[freed_by], True),) if self._ended(place[freed_by], usual, chunks == 1) else usual

    def _ended(self, step: int, events: tuple[tuple[int, bool], ...], whole: bool) -> bool:
        """Whether all of a step has ended when the first chunk of any of these has, by what waits for what.

        `whole`: there is one chunk.
        """
        if whole and any(source == step for source, _ in events):
            return True
        pending = {(source, False) for source, _ in events if source > step}
        seen: set[tuple[int, bool]] = set()
        while pending:
            later, every = found = pending.pop()
            seen.add(found)
            for source, all_of_it in self.edges[later]:
                reached = whole or all_of_it or (every and not self.once[later])
                if source == step and reached:
                    return True
                if source > step and (source, reached) not in seen:
                    pending.add((source, reached))
        return False

    def _add(
        self,
        resource: str,
        own: bool,
        time_s: float,
        tail_s: float,
        edges: tuple[tuple[int, bool], ...],
        shared: dict[str, int],
        once: bool = False,
    ) -> int:
        self.times.append(time_s)
        self.tails.append(tail_s)
        self.once.append(once)
        self.own.append(own)
        self.resource.append(-1 if own else shared.setdefault(resource, len(shared)))
        self.edges.append(edges)
        self.names.append((resource, ""))
        return len(self.times) - 1

    def levels(self, weight: int, chunks: int, heavy: Sequence[bool]) -> list[int]:
        """Virtual time of each step's first chunk after the layer's start."""
        levels: list[int] = []
        for step, edges in enumerate(self.edges):
            level = 0
            order = self.order.get(step, edges)
            if isinstance(order, int):  # with another step, or where it ends
                levels.append(levels[order] + (weight - 1 if heavy[order] and not self.once[order] else 0))
                continue
            for source, whole in order:
                given = levels[source] + (weight if heavy[source] else 1) if source >= 0 else 0
                level = max(level, given + (weight * (chunks - 1) if whole else 0))
            levels.append(level)
        return levels
