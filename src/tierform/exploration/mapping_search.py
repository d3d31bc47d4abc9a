"""The mapping of a job, found: who runs what, in how many parts tokens follow each other, and where weights sit.

The chip stays as it is, and with it its area.  A class of operators (those of a chip file's `place`) moves to another
component that can run it, spare crossbars are filled anew for it, and the number of parts into which a micro-batch's
tokens are cut goes up and down, one change at a time, the one that makes the whole result fastest first, until none
does.  The winner is an ordinary mapping.

Designs are judged by more than the simulation charges: a systolic array that gets its tokens in parts loads its
stationary operand for each of them, and parts of fewer rows than it has leave it partly empty.  `simulate` takes such
products whole; here they are charged part by part, on both sides, and both figures are told.  Vector units and
crossbars take tokens one by one and have no such cost.

A weight over more tiles than it needs is not tried.  Cut by its results it sends its input to every tile, cut by its
inputs it sends partial sums from every tile: what one direction gains at the ports the other one loses, and the
simulation's transfers between groups of tiles count neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from tierform.chip.chip_file import PLACES
from tierform.chip.component import WHOLE, Component, Cost, Share
from tierform.chip.description import Chip
from tierform.chip.systolic.component import SystolicArrays
from tierform.errors import TierformError
from tierform.exploration.evaluator import figures_of_result
from tierform.mapping import Mapping
from tierform.simulation.choose import WORTHWHILE, choose
from tierform.simulation.job import Job
from tierform.simulation.result import Result
from tierform.simulation.simulate import run_job
from tierform.workload.operator import Kind, Operator, Origin

# Parts of a micro-batch's tokens that are tried on a pipelined chip.
PARTS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
MOST_ROUNDS = 8


class Say(Protocol):
    """Takes a line on what is being tried."""

    def __call__(self, text: str) -> None:
        """Show it."""


@dataclass(frozen=True)
class ArraysInParts(SystolicArrays):
    """Systolic arrays whose products come in `parts` of tokens, each charged by itself."""

    parts: int = field(default=1, kw_only=True)

    def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
        """As often as there are parts, the cost of one; never less than that of the whole."""
        whole = super().cost(operator, share)
        one, number = in_part(operator, self.parts)
        if number < 2:
            return whole
        part = super().cost(one, share)
        return replace(
            whole.scaled(max(whole.occupancy_s, number * part.occupancy_s)),
            energy_J={name: max(own, number * part.energy_J.get(name, 0.0)) for name, own in whole.energy_J.items()},
        )


def in_part(operator: Operator, parts: int) -> tuple[Operator, int]:
    """One part of a product's tokens, and how many there are: of a gradient of weights tokens are what is summed."""
    if operator.kind is not Kind.MATMUL:
        return operator, 1
    summed = operator.origin is Origin.WEIGHT_GRADIENT
    tokens = operator.k if summed else operator.m
    number = min(parts, max(tokens, 1))
    size = -(-tokens // number)
    return replace(operator, k=size) if summed else replace(operator, m=size), number


def charged_in_parts(job: Job) -> Job:
    """The job on a chip whose systolic arrays pay for the parts of tokens of its mapping."""
    chip, mapping = job.chip, job.mapping
    assert isinstance(chip, Chip) and isinstance(mapping, Mapping)
    parts: dict[str, Component] = {
        name: ArraysInParts(part.name, part.units, part.parameters, parts=mapping.chunks)
        if isinstance(part, SystolicArrays)
        else part
        for name, part in chip.components.items()
    }
    return replace(job, chip=replace(chip, components=parts))


@dataclass(frozen=True, eq=False)
class Mapped:
    """A job with a mapping that was found, after which change, its result, and that with parts of tokens charged."""

    change: str
    job: Job
    result: Result
    charged: Result

    @property
    def mapping(self) -> Mapping:
        """The mapping of the job."""
        assert isinstance(self.job.mapping, Mapping)
        return self.job.mapping

    @property
    def over_K(self) -> float:
        """The worst excess over a limit of the chip."""
        return figures_of_result(self.charged)["kelvin_over"]


@dataclass(frozen=True, eq=False)
class MappingSearch:
    """What was found: the job as it is and after each change that made it faster; `alone` are single changes to it."""

    path: tuple[Mapped, ...]
    alone: tuple[Mapped, ...]

    @property
    def begun(self) -> Mapped:
        """The job as it is."""
        return self.path[0]

    @property
    def best(self) -> Mapped:
        """The last of the path."""
        return self.path[-1]


def search_mapping(job: Job, say: Say = lambda text: None) -> MappingSearch:
    """Change a job's mapping, the best change first, until none makes it faster.

    No design is taken that is further beyond a temperature limit of the chip than the job as it is.
    """
    job = job.loaded()
    path = [_mapped("as it is", job, choose(job).mapping)]
    places: dict[str, str | None] = {}
    alone: list[Mapped] = []
    for number in range(MOST_ROUNDS):
        tried = []
        for change, make, moved in _changes(job, path[-1], places):
            say(change)
            with suppress(TierformError):  # no room, or nothing that can run it
                mapping = make()
                if mapping != path[-1].mapping:
                    tried.append((_mapped(change, job, mapping), moved))
        tried = [one for one in tried if one[0].over_K <= path[0].over_K]
        tried.sort(key=lambda one: one[0].charged.latency_s)
        if number == 0:  # equal mappings may have two names
            alone = [
                one for at, (one, _) in enumerate(tried) if all(one.mapping != other.mapping for other, _ in tried[:at])
            ]
        if not tried or tried[0][0].charged.latency_s > path[-1].charged.latency_s * (1 - WORTHWHILE):
            break
        path.append(tried[0][0])
        places = tried[0][1]
    return MappingSearch(tuple(path), tuple(alone))


def _mapped(change: str, job: Job, mapping: Mapping) -> Mapped:
    made = replace(job, mapping=mapping, micro_batches=None)
    return Mapped(change, made, run_job(made), run_job(charged_in_parts(made)))


Places = dict[str, str | None]


def _changes(job: Job, now: Mapped, places: Places) -> Iterator[tuple[str, Callable[[], Mapping], Places]]:
    """What can be changed about a design, one thing at a time."""
    chip = job.chip
    assert isinstance(chip, Chip)
    own = now.mapping
    if chip.pipelined:
        for number in _next_parts(own.chunks):
            yield f"tokens in {number} parts", partial(replace, own, chunks=number), places
    for group in PLACES:
        for name in (*chip.components, None):
            given = {**places, group: name}
            if places.get(group, chip.place.get(group)) != name:
                yield _words(group, name), partial(_placed, job, given, own, group), given


def _words(group: str, name: str | None) -> str:
    what = "light operators" if group == "other" else group
    return f"{what} on {name}" if name else f"{what} by the rule"


def _next_parts(now: int) -> list[int]:
    """The two numbers of parts below and above one."""
    below, above = [n for n in PARTS if n < now], [n for n in PARTS if n > now]
    return [*below[-2:], *above[:2]]


def _placed(job: Job, places: Places, before: Mapping, group: str) -> Mapping:
    """The best mapping by the rule with classes of operators at components of choice, as one of the job's own chip.

    Where the component takes nothing that it did not have, it cannot run the class, and nothing is changed.
    """
    assert isinstance(job.chip, Chip)
    chip = job.chip.vary({f"place.{key}": name for key, name in places.items()})
    made = replace(choose(replace(job, chip=chip, mapping="best")).mapping, chunks=before.chunks)
    name = places[group]
    taken = any(new == name != before.assignments.get(key) for key, new in made.assignments.items())
    return made if taken or name is None else before


__all__ = ["Mapped", "MappingSearch", "charged_in_parts", "search_mapping"]
