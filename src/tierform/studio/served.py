"""Requests served as the Serving page asks: a rate with lengths and a promise; one run, or the highest rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tierform.errors import Problem, TierformError, nearest
from tierform.studio.runs import Content

if TYPE_CHECKING:
    from tierform.serving.requests import Requests
    from tierform.serving.service import Service

Tell = Callable[[Content], None]
MOST_REQUESTS, MOST_RATE, MOST_TOKENS, MOST_REPLICAS = 20_000, 1e5, 1_000_000, 256
# What may be asked: least, most, whole.
NUMBERS: dict[str, tuple[float, float, bool]] = {
    "rate": (1e-3, MOST_RATE, False),
    "requests": (1, MOST_REQUESTS, True),
    "prompt": (1, MOST_TOKENS, True),
    "output": (1, MOST_TOKENS, True),
    "replicas": (1, MOST_REPLICAS, True),
    "tensor": (1, 64, True),
    "within": (0.01, 1.0, False),
}
USUAL = {"rate": 8, "requests": 500, "prompt": 1024, "output": 256, "replicas": 1, "tensor": 1, "within": 0.99}


def serve_asked(asked: Mapping[str, Any], tell: Tell) -> None:
    """Serve, and tell progress and the run as the pages take it; TierformError with everything that is wrong."""
    from tierform.report.load_search import LoadSearch
    from tierform.report.service_view import service_content
    from tierform.serving.arrivals import Lengths, generate
    from tierform.serving.find import highest_load
    from tierform.serving.serve import serve
    from tierform.serving.slo import Slo, parse_slo
    from tierform.studio.content import service_runs
    from tierform.workload import load_model
    from tierform.workload.parallel import Parallelism

    numbers = _numbers(asked)
    promise = str(asked.get("slo") or "")
    slo = parse_slo(promise) if promise else Slo()
    find = bool(asked.get("find"))
    if find and not promise:
        raise TierformError(
            [Problem("a rate is searched under a promise", key="slo", fix="Give a limit of TTFT or TPOT.")]
        )
    mean = [Lengths(numbers[name], 0.0) for name in ("prompt", "output")]
    requests = generate(numbers["rate"], int(numbers["requests"]), mean[0], mean[1], "poisson", seed=0)
    shares: dict[str, int] = {}

    def told(what: str, share: float) -> None:
        done = round(100 * share)
        if shares.get(what) != done:
            shares[what] = done
            tell({"event": "progress", "done": done, "total": 100, "text": what})

    model = load_model(str(asked["model"]))

    def run(some: Requests) -> Service:
        return serve(
            model,
            str(asked["chip"]),
            some,
            replicas=int(numbers["replicas"]),
            parallelism=Parallelism(tensor=int(numbers["tensor"])),
            slo=slo,
            record=True,
            progress=told,
        )

    if not find:
        tell({"event": "service", "service": service_runs(service_content(run(requests)))[0]})
        return

    def tried(number: int, offered: float) -> None:
        tell({"event": "progress", "done": number, "total": 12, "text": f"{offered:.3g} requests a second"})

    search = LoadSearch(requests, numbers["within"])
    best, _ = highest_load(search.follow(run, tried), requests, numbers["within"])
    tell({"event": "service", "service": service_runs(search.content(best))[0]})


def _numbers(asked: Mapping[str, Any]) -> dict[str, float]:
    problems = [
        Problem("not a setting of the Serving page", key=name, nearest=nearest(str(name), _KNOWN))
        for name in asked
        if name not in _KNOWN
    ]
    problems += [Problem("a name is needed here", key=name) for name in ("model", "chip") if not asked.get(name)]
    found: dict[str, float] = {}
    for name, (least, most, whole) in NUMBERS.items():
        value = asked.get(name, USUAL[name])
        good = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
        if not good or (whole and value % 1):
            kind = "a whole number" if whole else "a number"
            problems.append(Problem(f"must be {kind} from {least:g} to {most:g}", key=name, value=value))
        else:
            found[name] = float(value)
    if problems:
        raise TierformError(problems)
    return found


_KNOWN = ("model", "chip", "slo", "find", *NUMBERS)
