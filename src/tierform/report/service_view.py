"""What a page shows of a serving run, as plain data (``tierform.service_view/1``): shares, and figures over time.

Everything is counted from the times of the requests and, where steps were recorded, from the steps: a number over time
is a mean over a piece of the run, so that sums over the pieces are those of the run.  A preempted request counts as
running until its last token.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tierform.serving import state
from tierform.serving.service import Service

SCHEMA = "tierform.service_view/1"
LOAD_SCHEMA = "tierform.load/1"
Floats = NDArray[np.float64]
Plain = None | bool | int | float | str | Sequence["Plain"] | Mapping[str, "Plain"]
SHARES = 101  # 0 to 100 %
PIECES = 200
MOST_WINDOWS, LEAST_REQUESTS = 60, 12  # windows of waiting times over a run, and requests in each
TIMES = ("ttft_s", "tpot_s", "e2e_s", "queue_s")
OBJECTIVES = (("ttft", "ttft_s"), ("tpot", "tpot_s"), ("e2e", "e2e_s"))
# The queue grows where it is longer at the last arrival than at half time by more than this share of what came between.
GROWS = 0.1
DIGITS = 5


def service_view(service: Service) -> dict[str, Plain]:
    """The view of a run."""
    return {
        "schema": SCHEMA,
        "slo": {name: _finite(getattr(service.slo, key)) for key, name in OBJECTIVES},
        "keeps": _keeps(service),
        "shares": {name: _shares(service.array(name)) for name in TIMES},
        "arrivals": arrivals(service),
        "waits": _waits(service),
        "over_time": over_time(service),
    }


def service_content(service: Service) -> dict[str, Plain]:
    """The file of a run, with its view."""
    return {**service.to_dict(), "view": service_view(service)}


def load_content(
    best: Service | None, found: Mapping[str, Plain] | None, within: float, points: Sequence[Mapping[str, Plain]]
) -> dict[str, Plain]:
    """The file of a search for the highest load: the best, its run, and each :func:`load_point` that was tried."""
    return {
        "schema": LOAD_SCHEMA,
        "within": within,
        "best": found,
        "tried": list(points),
        "service": None if best is None else best.to_dict(),
        "view": None if best is None else service_view(best),
    }


def load_point(service: Service, factor: float, offered_per_s: float) -> dict[str, Plain]:
    """What one load of a search gave: a point of the curves over the rate."""
    figures = service.to_dict()
    return {
        "factor": factor,
        "offered_per_s": offered_per_s,
        "grows": arrivals(service)["grows"],
        **{name: service.percentiles(name) for name in TIMES[:3]},
        "within": figures["within_slo"],
        **{name: figures[name] for name in ("goodput_per_s", "output_tokens_per_s")},
        **{name: figures[name] for name in ("energy_J_per_output_token", "average_power_W")},
    }


def arrivals(service: Service) -> dict[str, Plain]:
    """How fast requests come, how many wait when the last one comes, and whether the queue grows."""
    arrival = np.sort(service.array("arrival_s"))
    last = float(arrival[-1]) if len(arrival) else 0.0
    waits_from, waits_to = _waiting(service)

    def waiting(moment: float) -> int:
        return int(((waits_from <= moment) & (waits_to > moment)).sum())

    half = 0.5 * last
    came = int((arrival > half).sum())
    grown = waiting(last) - waiting(half)
    return {
        "rate_per_s": len(arrival) / last if last else None,
        "last_s": last,
        "waiting_at_last": waiting(last),
        "grows": bool(came > 0 and grown > GROWS * came and waiting(last) >= LEAST_REQUESTS),
    }


def over_time(service: Service) -> dict[str, Plain]:
    """Means over equal pieces of the run, by name; what was not recorded is None."""
    end = service.seconds
    if end <= 0:
        return {"end_s": 0.0}
    edges = np.linspace(0.0, end, PIECES + 1)
    wide = end / PIECES
    arrival = service.array("arrival_s")
    first, last = service.array("first_token_s"), service.array("last_token_s")
    ran = np.isfinite(service.array("scheduled_s"))
    started = service.array("scheduled_s")[ran]
    left = np.where(np.isfinite(last), last, end)[ran]
    made = np.asarray(service.columns["generated"], float)
    gave = np.isfinite(first) & np.isfinite(last)
    ones = np.ones(len(arrival))
    waits_from, waits_to = _waiting(service)
    found: dict[str, Plain] = {
        "end_s": end,
        "pieces": PIECES,
        "arrivals_per_s": _short(np.histogram(arrival, edges)[0] / wide),
        "finished_per_s": _short(np.histogram(last[service.finished], edges)[0] / wide),
        "waiting": _short(spread(waits_from, waits_to, waits_to - waits_from, edges) / wide),
        "running": _short(spread(started, left, left - started, edges) / wide),
        "output_tokens_per_s": _short(
            (
                spread(first[gave], last[gave], made[gave] - 1, edges)
                + np.histogram(first[gave], edges, weights=ones[gave])[0]
            )
            / wide
        ),
    }
    return {**found, **_of_steps(service, edges), "heat": dict(service.over_time) or None}


def _of_steps(service: Service, edges: Floats) -> dict[str, Plain]:
    """Share of KV blocks held while a replica works, share of time in which replicas work, and power."""
    if service.steps is None or not len(service.steps.table):
        return {"kv_share": None, "busy_share": None, "power_W": None}
    wide = float(edges[1] - edges[0])
    table = service.steps.table
    begin = table[:, state.L_START] / 1e9
    took = table[:, state.L_DURATION] / 1e9
    blocks = float(str(service.engine["num_gpu_blocks"]))
    held = 1.0 - table[:, state.L_FREE] / blocks
    works = spread(begin, begin + took, took, edges)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(works > 0, spread(begin, begin + took, took * held, edges) / works, 0.0)
    number = len(np.asarray(service.replicas["busy_s"]))
    power = None
    if service.energy_J_by_component:
        joules = spread(begin, begin + took, service.steps.joules.sum(axis=1), edges)
        on = _replicas_on(service, edges, number)
        power = _short(joules / wide + service.idle_W * np.maximum(on - works / wide, 0.0))
    return {"kv_share": _short(share), "busy_share": _short(works / wide / number), "power_W": power}


def _replicas_on(service: Service, edges: Floats, number: int) -> Floats:
    """Replicas that are on, by piece."""
    sizes = service.more.get("replicas_over_time")
    if not isinstance(sizes, list) or not sizes:
        return np.full(len(edges) - 1, float(number))
    pairs = [one for one in sizes if isinstance(one, list | tuple)]
    times = np.array([float(str(one[0])) for one in pairs])
    values = np.array([float(str(one[1])) for one in pairs])
    middle = 0.5 * (edges[1:] + edges[:-1])
    found: Floats = values[np.maximum(np.searchsorted(times, middle, side="right") - 1, 0)]
    return found


def spread(begin: Floats, end: Floats, amount: Floats, edges: Floats) -> Floats:
    """Amounts that are spread evenly from their begin to their end, summed by piece; an instant counts at its place."""
    long = end > begin
    found = np.diff(_to(begin[long], end[long], amount[long], edges))
    found += np.histogram(begin[~long], edges, weights=amount[~long])[0]
    return np.asarray(found, float)


def _to(begin: Floats, end: Floats, amount: Floats, edges: Floats) -> Floats:
    """What was spread up to each edge: rate times (edge - begin) from each begin on, less that of each end."""
    rate = amount / (end - begin)
    total = np.zeros(len(edges))
    for times, sign in ((begin, 1.0), (end, -1.0)):
        order = np.argsort(times, kind="stable")
        ordered = times[order]
        rates = np.concatenate([[0.0], np.cumsum(rate[order])])
        moments = np.concatenate([[0.0], np.cumsum(rate[order] * ordered)])
        at = np.searchsorted(ordered, edges, side="right")
        total += sign * (rates[at] * edges - moments[at])
    return total


def _waiting(service: Service) -> tuple[Floats, Floats]:
    """From when to when each request waits for its first step; those that were refused do not wait."""
    arrival, scheduled = service.array("arrival_s"), service.array("scheduled_s")
    end = max(service.seconds, float(arrival.max()) if len(arrival) else 0.0)
    states = np.asarray(service.columns["state"])
    here = np.isfinite(scheduled) | (states == state.WAITING) | (states == state.COMING)
    return arrival[here], np.where(np.isfinite(scheduled), scheduled, end)[here]


def _waits(service: Service) -> dict[str, Plain]:
    """Medians and 95th percentiles of what requests waited for, by the time at which they came."""
    arrival = service.array("arrival_s")
    number = int(max(1, min(MOST_WINDOWS, len(arrival) // LEAST_REQUESTS)))
    last = float(arrival.max()) if len(arrival) else 0.0
    edges = np.linspace(0.0, max(last, 1e-9), number + 1)
    window = np.clip(np.searchsorted(edges, arrival, side="right") - 1, 0, number - 1)
    found: dict[str, Plain] = {"time_s": _short(0.5 * (edges[1:] + edges[:-1]))}
    for name in ("ttft_s", "tpot_s"):
        values = service.array(name)
        known = np.isfinite(values)
        inside = [values[known & (window == one)] for one in range(number)]
        found[name] = {
            f"p{share}": [_digits(float(np.percentile(one, share))) if len(one) else None for one in inside]
            for share in (50, 95)
        }
    return found


def _keeps(service: Service) -> dict[str, Plain]:
    """The share of all requests that keep each objective that is asked for; None where none is."""
    found: dict[str, Plain] = {}
    for key, name in OBJECTIVES:
        limit = getattr(service.slo, key)
        kept = service.finished & ~(service.array(name) > limit)
        found[name] = float(kept.mean()) if math.isfinite(limit) and len(kept) else None
    return found


def _shares(values: Floats) -> list[float | None]:
    """The value that 0 to 100 % of the requests stay at or below; empty where no request has one."""
    values = values[np.isfinite(values)]
    return _short(np.percentile(values, np.linspace(0, 100, SHARES))) if len(values) else []


def _short(values: Iterable[float]) -> list[float | None]:
    return [_digits(float(one)) for one in values]


def _digits(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
