"""Where a mixture's experts wait, and how unevenly tokens are sent to them.

`cached` is the share of the experts that stay in the chip's memory, the most popular ones; the others wait in the tier
behind it and are read from there when a token is sent to them.  `routing` gives the popularity of each expert (any
positive numbers; their share of all assignments counts), as measured; without it the model's `expert_decay` says how
fast popularity falls, exp(-decay i / E) for the i-th of E experts (0: uniform).  Popularity changes how many different
experts a pass touches, and how often the cache has the one that is needed.
Limits: assignments of a token are drawn independently, and the cache is static: what it holds is not exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, fsum
from typing import TYPE_CHECKING

from tierform.errors import Problem, TierformError

if TYPE_CHECKING:
    from tierform.workload.models import Model


@dataclass(frozen=True, slots=True)
class ExpertStore:
    """How a mixture's experts are kept and used.

    `cached` is the share of the experts in the chip's memory; `routing` the popularity of each expert (empty: as the
    model's router does).
    """

    cached: float = 1.0
    routing: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        if not 0 <= self.cached <= 1:
            problems.append(Problem("a share from 0 to 1 is needed", key="cached", value=self.cached))
        if self.routing and (min(self.routing) < 0 or not sum(self.routing) > 0):
            problems.append(Problem("popularity is positive", key="routing", value=min(self.routing)))
        if problems:
            raise TierformError(problems)

    def shares(self, experts: int) -> tuple[float, ...]:
        """Each expert's share of the assignments, the largest first."""
        if not self.routing:
            return (1.0 / experts,) * experts
        total = fsum(self.routing)
        return tuple(sorted((one / total for one in self.routing), reverse=True))

    def hits(self, experts: int) -> float:
        """The share of assignments whose expert is in the chip's memory."""
        near = int(self.cached * experts)
        return fsum(self.shares(experts)[:near])

    def touched(self, tokens: int, experts: int, per_token: int) -> int:
        """Expected number of different experts that so many tokens use, at least those of one token."""
        chances = (min(1.0, share * per_token) for share in self.shares(experts))
        expected = fsum(1.0 - (1.0 - chance) ** tokens for chance in chances)
        return max(per_token, min(experts, round(expected)))


def popularity(experts: int, decay: float) -> tuple[float, ...]:
    """Of each expert, the largest first: exp(-decay i / E) in the middle of its place."""
    return tuple(exp(-decay * (place + 0.5) / experts) for place in range(experts))


def store_of(given: ExpertStore | None, model: Model) -> ExpertStore | None:
    """A task's store with the popularity that it gives, else with the model's where that is not even."""
    if not model.experts or not model.expert_decay or (given is not None and given.routing):
        return given
    return ExpertStore(given.cached if given is not None else 1.0, popularity(model.experts, model.expert_decay))
