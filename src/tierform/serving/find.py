"""Searches over serving runs: the highest load that keeps an SLO, and the cheapest way to keep it.

Attainment (the share of requests within the SLO) falls with load and rises with replicas, up to the scheduler's
whims; both searches bisect, and what they report was simulated, not interpolated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from tierform.serving.requests import Requests
from tierform.serving.service import Service

STEPS = 7  # halvings of the interval in which the answer lies
FARTHEST = 4096.0  # times the load, or replicas, at most


@dataclass(frozen=True)
class Load:
    """One point of the goodput curve."""

    factor: float
    offered_per_s: float
    within: float
    goodput_per_s: float


def highest_load(
    run: Callable[[Requests], Service], requests: Requests, within: float
) -> tuple[Load | None, list[Load]]:
    """The highest load (arrivals that much faster) at which `within` of the requests keep the SLO; every point."""
    tried: dict[float, Load] = {}

    def keeps(factor: float) -> bool:
        made = run(requests.faster(factor))
        rate = len(requests) / (requests.seconds / factor) if requests.seconds else 0.0
        share = float(made.good.mean())
        tried[factor] = Load(factor, rate, share, float(made.good.sum()) / made.seconds if made.seconds else 0.0)
        return share >= within

    low, high = 0.0, 1.0
    while high <= FARTHEST and keeps(high):
        low, high = high, 2 * high
    if low == 0.0:
        while high > 1 / FARTHEST and not keeps(high / 2):
            high /= 2
        low, high = high / 2, high
    if low in tried and tried[low].within >= within:
        for _ in range(STEPS):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if keeps(middle) else (low, middle)
    best = max((one for one in tried.values() if one.within >= within), key=lambda one: one.factor, default=None)
    return best, sorted(tried.values(), key=lambda one: one.factor)


@dataclass(frozen=True)
class Candidate:
    """A way to serve: so many replicas of so many chips with batches of at most so many sequences, and its cost."""

    chip: str
    tensor: int
    sequences: int
    replicas: int
    service: Service
    area_m2: float
    price_per_h: float | None

    @property
    def chips(self) -> int:
        """Chips in all."""
        return self.tensor * self.replicas

    @property
    def cost(self) -> float:
        """What is compared: price where it is known, else energy, else area."""
        if self.price_per_h is not None:
            return self.price_per_h * self.chips
        if self.service.energy_J_by_component:
            return self.service.energy_J
        return self.area_m2 * self.chips


def fewest_replicas(run: Callable[[int], Service], within: float, most: int = 1) -> tuple[int, Service] | None:
    """The smallest number of replicas with which `within` of the requests keep the SLO, None where none does."""
    known: dict[int, Service] = {}

    def keeps(number: int) -> bool:
        known[number] = run(number)
        return float(known[number].good.mean()) >= within

    high = 1
    while not keeps(high):
        if high >= most:
            return None
        high = min(2 * high, most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if keeps(middle) else (middle, high)
    return high, known[high]


def cheapest(
    options: Iterable[tuple[str, int, int]],
    run: Callable[[str, int, int, int], Service],
    area_m2: Callable[[str], float],
    within: float,
    prices: dict[str, float] | None = None,
    most: int = 64,
) -> Sequence[Candidate]:
    """Of every (chip, tensor, sequences of a batch): the fewest replicas, `most` at most, that keep the SLO.

    Cheapest first.
    With prices for all chips the price decides; where none is given, energy does.
    """
    found = []
    for chip, tensor, sequences in options:
        answer = fewest_replicas(partial(run, chip, tensor, sequences), within, most)
        if answer is not None:
            found.append(
                Candidate(
                    chip=chip,
                    tensor=tensor,
                    sequences=sequences,
                    replicas=answer[0],
                    service=answer[1],
                    area_m2=area_m2(chip),
                    price_per_h=(prices or {}).get(chip),
                )
            )
    return sorted(found, key=lambda one: one.cost)
