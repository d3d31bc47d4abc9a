"""The mapping of a job, found: who runs what, in how many parts tokens follow each other, and where weights sit.

The chip stays as it is, and with it its area.  A class of operators (those of a chip file's `place`) moves to another
component that can run it, spare crossbars are filled anew for it, and the number of parts into which a micro-batch's
tokens are cut goes up and down, one change at a time, the one that makes the whole result fastest first, until none
does.  The winner is an ordinary mapping.

A weight over more tiles than it needs is not tried.  Cut by its results it sends its input to every tile, cut by its
inputs it sends partial sums from every tile: what one direction gains at the ports the other one loses, and the
simulation's transfers between groups of tiles count neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from tierform.chip.chip_file import PLACES
from tierform.chip.description import Chip
from tierform.errors import TierformError
from tierform.exploration.evaluator import figures_of_result
from tierform.mapping import Mapping
from tierform.simulation.choose import choose
from tierform.simulation.job import Job
from tierform.simulation.result import Result
from tierform.simulation.simulate import run_job
from tierform.simulation.stages import WORTHWHILE

# Parts of a micro-batch's tokens that are tried on a pipelined chip.
PARTS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
MOST_ROUNDS = 8


class Say(Protocol):
    """Takes a line on what is being tried."""

    def __call__(self, text: str) -> None:
        """Show it."""


@dataclass(frozen=True, eq=False)
class Mapped:
    """A job with a mapping that was found, after which change, and its result."""

    change: str
    job: Job
    result: Result

    @property
    def mapping(self) -> Mapping:
        """The mapping of the job."""
        assert isinstance(self.job.mapping, Mapping)
        return self.job.mapping

    @property
    def over_K(self) -> float:
        """The worst excess over a limit of the chip."""
        return figures_of_result(self.result)["kelvin_over"]


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
        tried.sort(key=lambda one: one[0].result.latency_s)
        if number == 0:  # equal mappings may have two names
            alone = [
                one for at, (one, _) in enumerate(tried) if all(one.mapping != other.mapping for other, _ in tried[:at])
            ]
        if not tried or tried[0][0].result.latency_s > path[-1].result.latency_s * (1 - WORTHWHILE):
            break
        path.append(tried[0][0])
        places = tried[0][1]
    return MappingSearch(tuple(path), tuple(alone))


def _mapped(change: str, job: Job, mapping: Mapping) -> Mapped:
    made = replace(job, mapping=mapping, micro_batches=None)
    return Mapped(change, made, run_job(made))


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


__all__ = ["Mapped", "MappingSearch", "search_mapping"]
