"""A point with what a search finds: mapping and network of every chip, beside those that its file and the rule give.

Each chip's mapping is searched on its own area (:mod:`tierform.exploration.mapping_search`), then places of weights and
routes for the traffic of that mapping (:mod:`tierform.exploration.network_study`).  Both sides of a ratio are searched
alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from tierform.chip.description import Chip
from tierform.errors import TierformError
from tierform.exploration.mapping_search import search_mapping
from tierform.exploration.network_study import improve_within, study_network
from tierform.simulation.job import Job
from tierform.simulation.result import Result
from tierform.studies.study import Cell, StudyOptions, Table
from tierform.studies.sweep import Point, task_of

TITLE = "With what a search finds"
WAYS = ("places", "places and routes")


@dataclass(frozen=True, slots=True)
class Searched:
    """A chip as given and as searched, the changes that were made, and what a free network would still save."""

    given: Result
    found: Result
    changes: tuple[str, ...]
    free: float | None


@dataclass(frozen=True, slots=True)
class SearchedPoint:
    """One point on several chips, each searched; chips that cannot run it are left out."""

    point: Point
    chips: dict[str, Searched]

    def ratio(self, chip: str, reference: str, figure: str, *, given: bool = False) -> float | None:
        """How many times more of `figure` a chip takes than the reference, both searched or both as given."""
        if chip not in self.chips or reference not in self.chips:
            return None
        mine, its = (self.chips[name].given if given else self.chips[name].found for name in (chip, reference))
        return float(getattr(mine, figure) / getattr(its, figure))


def searched_point(where: tuple[str, str, int, int], chips: Iterable[Chip], options: StudyOptions) -> SearchedPoint:
    """Search the point (model, kind of task, batch, tokens) on every chip."""
    found: dict[str, Searched] = {}
    model, kind, batch, sequence = where
    point = Point(model, kind, batch, sequence, {}, {})
    for chip in chips:
        options.say(f"search: {chip.name}, {point.label}")
        try:
            found[chip.name] = _searched(Job(model=model, task=task_of(kind, batch, sequence), chip=chip), options)
        except TierformError as error:
            point.refused[chip.name] = error.problems[0].what
    return SearchedPoint(point, found)


def _searched(job: Job, options: StudyOptions) -> Searched:
    search = search_mapping(job)
    best, changes = search.best.result, [one.change for one in search.path[1:]]
    free: float | None = None
    assert isinstance(search.best.job.chip, Chip)
    if search.best.job.chip.network is not None and len(search.best.job.chip.tiles) > 1:
        with suppress(TierformError):  # nothing travels
            study = study_network(search.best.job)
            free = study.stakes.free_time
            designs = improve_within(study, WAYS[:1] if options.quick else WAYS, over_K=search.begun.over_K)
            if designs and designs[0].faster_than(best):
                best, changes = designs[0].result, [*changes, designs[0].way]
    return Searched(search.begun.result, best, tuple(changes), free)


def searched_table(made: SearchedPoint, own: str) -> Table:
    """Time and energy of each chip as given and as searched, and the ratios to the own one."""
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            1e3 * one.given.latency_s,
            1e3 * one.found.latency_s,
            1e3 * one.given.energy_J,
            1e3 * one.found.energy_J,
            made.ratio(name, own, "latency_s", given=True),
            made.ratio(name, own, "latency_s"),
            made.ratio(name, own, "energy_J", given=True),
            made.ratio(name, own, "energy_J"),
            ", ".join(one.changes) or "none",
            None if one.free is None else 100 * one.free,
        )
        for name, one in made.chips.items()
    ]
    head = (
        "chip",
        "given (ms)",
        "found (ms)",
        "given (mJ)",
        "found (mJ)",
        "time ratio, given",
        "time ratio, found",
        "energy ratio, given",
        "energy ratio, found",
        "changes",
        "free network (%)",
    )
    note = (
        f"Ratios are over {own}'s, both sides as given or both searched: mapping on the same area, then places of "
        "weights and routes.  Time is what is searched for.  Free network: what one that takes no time would still "
        "save of the time found."
    )
    return Table(f"{TITLE}: {made.point.label}", head, tuple(rows), note)
