"""Where a mixture's experts wait, and how unevenly tokens are sent to them.

`cached` is the share of the experts that stay in the chip's memory, the most popular ones; the others wait in the tier
behind it and are read from there when a token is sent to them.  `routing` gives the popularity of each expert (any
positive numbers; their share of all assignments counts), as measured; without it the model's `expert_decay` says how
fast popularity falls, exp(-decay i / E) for the i-th of E experts (0: uniform).  Popularity changes how many different
experts a pass touches, and how often the cache has the one that is needed.  `ahead` is the
share of the missing ones that a predictor names before the router does (Eliseev and Mazur, 2023: the gates of the next
layer on this layer's hidden state); 0 is no predictor.
Limits: assignments of a token are drawn independently, and the cache is static: what it holds is not exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, fsum
from typing import TYPE_CHECKING

from tierform.errors import Problem, TierformError
from tierform.workload.shares import share_problems

if TYPE_CHECKING:
    from tierform.workload.models import Model


@dataclass(frozen=True, slots=True)
class ExpertStore:
    """How a mixture's experts are kept and used.

    `cached` is the share of the experts in the chip's memory; `routing` the popularity of each expert (empty: as the
    model's router does); `ahead` the share of the missing ones that is foretold.
    """

    cached: float = 1.0
    routing: tuple[float, ...] = ()
    ahead: float = 0.0

    def __post_init__(self) -> None:
        problems = share_problems(self, "cached", "ahead")
        if not problems and self.ahead and self.cached == 1:
            what, fix = "nothing is fetched where all experts are near", "Say with cached how many of them are near."
            problems.append(Problem(what, key="ahead", value=self.ahead, fix=fix))
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

    def near(self, experts: int) -> int:
        """Experts of a layer that are kept in the chip's memory."""
        return int(self.cached * experts + 1e-9)

    def hits(self, experts: int) -> float:
        """The share of assignments whose expert is in the chip's memory."""
        return fsum(self.shares(experts)[: self.near(experts)])

    def missed(self, tokens: float, experts: int, per_token: int, near: int) -> float:
        """Of the different experts that so many tokens use, the share that is not among the `near` most popular."""
        used = [1.0 - (1.0 - min(1.0, share * per_token)) ** tokens for share in self.shares(experts)]
        return fsum(used[near:]) / fsum(used)

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
    law = popularity(model.experts, model.expert_decay)
    return ExpertStore(routing=law) if given is None else replace(given, routing=law)
