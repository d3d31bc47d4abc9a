"""Points of a space as services: many requests over time on chips, and what their users get of them.

A space with the key ``service`` has a job's model, chip, parallelism and runtime, and instead of a task the requests,
the engine and the level of service; each point is one run of :func:`tierform.serving.serve.serve`.  Steps of a chip are
tables that are made once and kept, so that points of one chip take as long as their requests and those of a new chip
some seconds.  Limits: one kind of chip, replicas that never fail; times of bad requests count in percentiles as well.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from tierform.errors import Problem, TierformError, fail
from tierform.exploration.evaluator import (
    REFUSED,
    SERVICE_FIGURES,
    JobEvaluator,
    Outcome,
    judge,
    put,
)
from tierform.exploration.space import Space, Values
from tierform.files import Document
from tierform.schema import FileModel, validate
from tierform.serving.arrivals import Lengths, Pattern, generate
from tierform.serving.engine import Engine, EngineFile, engine_of
from tierform.serving.slo import parse_slo
from tierform.serving.traces import load_trace

if TYPE_CHECKING:
    from tierform.serving.requests import Requests
    from tierform.serving.service import Service

Count = Annotated[int, Field(strict=True, ge=1, le=10**7)]
Above = Annotated[float, Field(gt=0, le=1e9)]
SERVICE = "service."


class ServiceFile(FileModel):
    """What is served, and how: either a trace or a rate of made requests."""

    trace: str | None = Field(None, description="A trace to replay, beside the space file.")
    load: Above = Field(1.0, description="Of a trace: how much faster it is replayed.")
    first: Count | None = Field(None, description="Of a trace: only its first requests.")
    rate: Above | None = Field(None, description="Requests a second, instead of a trace.")
    requests: Count = Field(1000, description="With `rate`: how many.")
    pattern: Pattern = Field("poisson", description="With `rate`: how they arrive.")
    prompt: Above = Field(1024.0, description="With `rate`: mean tokens of a prompt.")
    output: Above = Field(256.0, description="With `rate`: mean tokens of an answer.")
    variation: Annotated[float, Field(ge=0, le=100)] = Field(
        0.0, description="With `rate`: coefficient of variation of both lengths."
    )
    seed: Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)] = Field(0, description="Start of all draws.")
    replicas: Count = Field(1, description="Copies of the model.")
    router: str = Field("least-loaded", description="Which copy gets a request.")
    slo: str = Field("", description="The most that a request may take, as ttft=0.5s,tpot=50ms,e2e=20s.")
    engine: EngineFile = Field(
        EngineFile.model_validate({}), description="Settings of the engine, with the names that vLLM uses."
    )


def service_problems(content: Mapping[str, Any], folder: str) -> list[Problem]:
    """What is wrong with the keys of a service."""
    try:
        _requests(validate(ServiceFile, Document(dict(content), "")), Path(folder), made=False)
    except TierformError as error:
        return list(error.problems)
    return []


def _requests(given: ServiceFile, folder: Path, *, made: bool = True) -> Requests | None:
    """The requests; not `made`: only whether they can be."""
    if (given.trace is None) == (given.rate is None):
        fail("either a trace or a rate is needed", key="rate", value=given.rate)
    parse_slo(given.slo)
    if given.rate is not None:
        if not made:
            return None
        prompt, output = Lengths(given.prompt, given.variation), Lengths(given.output, given.variation)
        return generate(given.rate, given.requests, prompt, output, given.pattern, seed=given.seed)
    if not made:
        return None
    found = load_trace(folder / str(given.trace))
    found = found.first(given.first) if given.first is not None else found
    return found.faster(given.load) if given.load != 1.0 else found


def figures_of_service(service: Service) -> dict[str, float]:
    """The figures of :data:`SERVICE_FIGURES`; nan where there is none."""
    told = service.to_dict()
    found = {}
    for name in SERVICE_FIGURES:
        figure, _, percentile = name.rpartition("_p")
        value: Any = told[f"{figure}_s"] if percentile.isdigit() else told[name]
        found[name] = _number(value[f"p{percentile}"] if percentile.isdigit() else value)
    return found


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


class ServiceEvaluator:
    """Points of a space as services."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._jobs = JobEvaluator(space)
        self._kept: dict[str, Requests] = {}

    def settings(self, point: Values) -> tuple[ServiceFile, Engine]:
        """The service and the engine of a point."""
        content = dict(self.space.service)
        for path, value in self.space.changes(point).items():
            if path.startswith(SERVICE):
                content = put(content, path.removeprefix(SERVICE).split("."), value)
        given = validate(ServiceFile, Document(content, str(Path(self.space.folder) / "service")))
        return given, engine_of(given.engine)

    def service(self, point: Values) -> Service:
        """The whole service of a point."""
        from tierform.serving.serve import serve

        given, engine = self.settings(point)
        job = self._jobs.job(point)
        return serve(
            job.model,  # type: ignore[arg-type]
            job.chip,
            self._asked(given),
            engine=engine,
            replicas=given.replicas,
            router=given.router,
            parallelism=job.parallelism,
            runtime=job.runtime if self._named(point) else None,
            slo=parse_slo(given.slo),
            seed=given.seed,
        )

    def _named(self, point: Values) -> bool:
        """Whether the space names a runtime: left out it is vLLM's on a board, else the ideal one."""
        return "runtime" in self.space.base or "runtime" in self.space.changes(point)

    def _asked(self, given: ServiceFile) -> Requests:
        key = json.dumps(given.model_dump(exclude={"engine", "replicas", "router", "slo"}))
        if key not in self._kept:
            made = _requests(given, Path(self.space.folder))
            assert made is not None
            self._kept[key] = made
        return self._kept[key]

    def __call__(self, points: Sequence[Values]) -> list[Outcome]:
        """The outcome of each point."""
        found = []
        for point in points:
            try:
                found.append(judge(self.space, figures_of_service(self.service(point))))
            except TierformError as error:
                found.append(Outcome({}, REFUSED, str(error).replace("\n    ", " ")))
        return found


__all__ = ["ServiceEvaluator", "ServiceFile", "figures_of_service", "service_problems"]
