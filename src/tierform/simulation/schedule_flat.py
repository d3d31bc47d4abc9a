"""The layers of a stage as flat arrays: steps, transfers and fetches with their times, and what each waits for.

What waits for what depends on no time: it is a plan, made once for all layers that differ in times alone.

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
from tierform.simulation.remember import Bounded
from tierform.simulation.schedule_layers import BLOCK_INPUT, Edge, Layer, Run, ScheduledOperator

Times = NDArray[np.float64]
BEFORE_INPUT = -2
PREVIOUS_INPUT = -3
EARLY_INPUT = -4  # waits as PREVIOUS_INPUT, but served in the order of its own layer


class FlatStage:
    """The waves as flat arrays: the plan of their structure, and the times of their steps, transfers and fetches."""

    def __init__(self, waves: Sequence[Run], chunks: int) -> None:
        layers = [layer_plan(layer, chunks) for layer, _ in waves[0]]
        numbers = [numbers_of(layer, chunks) for layer, _ in waves[0]]
        self.alike = True
        for wave in waves[1:]:
            others = [_like(layer, first) for (layer, _), (first, _) in zip(wave, waves[0], strict=True)]
            plans = [layer_plan(layer, chunks) for layer in others]
            self.alike &= [plan.structure for plan in plans] == [plan.structure for plan in layers]
            if not self.alike:
                return
            numbers += [numbers_of(layer, chunks) for layer in others]
        self.plan = plan = _stage_plan(tuple(layers), tuple(count for _, count in waves[0]))
        self.chunks, self.kinds, self.tables, self.resources = chunks, plan.kinds, plan.layers, plan.resources
        parts = len(layers)
        every = [np.array(given) for given in numbers]
        time = np.concatenate([given[layers[at % parts].time_from] for at, given in enumerate(every)])
        self.tail: Times = np.concatenate([given[layers[at % parts].tail_from] for at, given in enumerate(every)])
        once = np.tile(plan.once, len(waves))
        self.time: Times = np.where(once, time, time / chunks)


class StagePlan:
    """The structure of a stage, which depends on no time: its layers' kinds, their plans, and numbered resources."""

    def __init__(self, layers: tuple[LayerPlan, ...], counts: tuple[int, ...]) -> None:
        self.layers = layers
        self.kinds = tuple(number for number, count in enumerate(counts) for _ in range(count))
        self.once = np.array([once for layer in layers for once in layer.once], dtype=np.bool_)
        self.steps = len(self.once)
        names = (name for layer in layers for name in layer.resource if name is not None)
        self.shared = {name: number for number, name in enumerate(dict.fromkeys(names))}
        most = max(len(layer.once) for layer in layers)
        self.resources = len(self.shared) + len(self.kinds) * most


_layer_plans: Bounded = Bounded(2048)  # structure of a layer -> its plan
_alike: Bounded = Bounded(2048)  # all that a plan says -> the plan
_stage_plans: Bounded = Bounded(512)  # (plans of layers, their counts) -> plan of the stage


def layer_plan(layer: Layer, chunks: int) -> LayerPlan:
    """The plan of a layer; those of layers that differ in times alone are one."""
    steps = [
        (
            *(step.name, step.resource, step.own, step.fetch, step.freed_by, step.pieces > 1, step.once),
            *[(edge.source, edge.whole, edge.path, edge.own) for edge in step.after],
        )
        for step in layer.steps
    ]
    key = (chunks, layer.output, *steps)
    found: LayerPlan | None = _layer_plans.get(key)
    if found is None:
        found = LayerPlan(layer, chunks)
        known: LayerPlan | None = _alike.get((chunks, *found.facts))
        if known is None:
            _alike[chunks, *found.facts] = known = found
        found = _layer_plans[key] = known  # room that is freed elsewhere need not change what waits for what
    return found


def _stage_plan(layers: tuple[LayerPlan, ...], counts: tuple[int, ...]) -> StagePlan:
    key = (*map(id, layers), *counts)
    found: StagePlan | None = _stage_plans.get(key)
    if found is None or found.layers != layers:  # plans that were forgotten leave their numbers to others
        found = _stage_plans[key] = StagePlan(layers, counts)
    return found


def numbers_of(layer: Layer, chunks: int) -> list[float]:
    """Zero, then the times of each step that its plan picks from: its own, those of its fetch, those of transfers."""
    found = [0.0]
    for step in layer.steps:
        found += (step.occupancy_s, step.tail_s)
        if step.fetch:
            first_s = step.fetch_s / step.pieces
            piece_s = step.occupancy_s / max(step.pieces, 1 if step.once else chunks) + step.tail_s
            found += (first_s, step.fetch_s - first_s, piece_s)
        for edge in step.after:
            if edge.path:
                found += (edge.transfer_s, edge.head_s)
    return found


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


class LayerPlan:
    """The structure of one kind of layer: its steps, and the transfers and fetches that they need as steps beside them.

    `time_from`, `tail_from`: for each, where its times are in :func:`numbers_of`.  `order` says, where it is not by the
    waits, what the virtual time of a step follows: fetches are served in the order in which they would come one step
    ahead, and what they are cut into takes no place in it.
    """

    def __init__(self, layer: Layer, chunks: int) -> None:
        self.once: list[bool] = []
        self.own: list[bool] = []
        self.resource: list[str | None] = []
        self.edges: list[tuple[tuple[int, bool], ...]] = []
        self.order: dict[int, tuple[tuple[int, bool], ...] | int] = {}
        self.names: list[tuple[str, str]] = []
        self.shown: list[int] = []
        times: list[int] = []
        tails: list[int] = []
        place: list[int] = []
        sent: dict[tuple[int, str], int] = {}
        worked: dict[int, int] = {}  # end of a step that works on pieces -> the step

        def add(
            resource: str,
            own: bool,
            edges: tuple[tuple[int, bool], ...],
            time: int = 0,
            tail: int = 0,
            once: bool = False,
        ) -> int:
            times.append(time)
            tails.append(tail)
            self.once.append(once)
            self.own.append(own)
            self.resource.append(None if own else resource)
            self.edges.append(edges)
            self.names.append((resource, ""))
            return len(times) - 1

        at_number = 1
        for step in layer.steps:
            work, tail = at_number, at_number + 1
            first, rest, piece = at_number + 2, at_number + 3, at_number + 4
            at_number += 5 if step.fetch else 2
            edges: list[tuple[int, bool]] = []
            for edge in step.after or (Edge(BLOCK_INPUT),):
                source = place[edge.source] if edge.source >= 0 else edge.source
                if edge.path:
                    key = (edge.source, edge.path)
                    if key not in sent:
                        sent[key] = add(edge.path, edge.own, ((source, False),), at_number, at_number + 1)
                    source = sent[key]
                    at_number += 2
                edges.append((source, edge.whole or step.once))
            waits = tuple(dict.fromkeys(edges))
            needed = waits
            if step.fetch:
                giver = worked.get(waits[0][0], waits[0][0])
                usual = ((BEFORE_INPUT, False),) if giver < 0 else tuple((e, False) for e, _ in self.edges[giver])
                before = self._before(step.freed_by, place, usual, chunks)
                fetch = last = add(step.fetch, False, before, first, once=True)
                if before is not usual:
                    self.order[fetch] = usual
                if step.pieces > 1:
                    last = add(step.fetch, False, ((fetch, False),), rest, once=True)
                    self.order[last] = fetch
                needed = (*waits, (fetch, False))
            at = add(step.resource, step.own, needed, work, tail, step.once)
            self.names[-1] = (step.resource, step.name)
            self.shown.append(at)
            if step.fetch and step.pieces > 1:  # no time of its own: the last piece is worked on when it is there
                end = add(step.fetch, False, ((last, False),), tail=piece, once=True)
                self.order[end] = fetch
                ends = ((waits[0][0], False), (at, False), (end, False))  # first what the step itself waits for first
                done = add(step.resource, step.own, ends)
                self.order[done] = worked[done] = at
                at = done
            place.append(at)
        self.output = place[layer.output % len(place)]
        self.time_from, self.tail_from = np.array(times), np.array(tails)
        self.structure = (tuple(self.resource), tuple(self.once), tuple(self.own), tuple(self.edges), self.output)
        self.facts = (*self.structure, *self.names, *self.order.items(), *times, *tails)

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
