"""What many users got: the outcome of a serving run, as arrays of requests and plain figures."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from functools import cached_property
from math import fsum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tierform.serving import state
from tierform.serving.service_card import service_card, service_line
from tierform.serving.slo import Slo

SCHEMA = "tierform.service/1"
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PERCENTILES = (50, 90, 95, 99)
Figure = float | int | str | None | dict[str, "Figure"] | list["Figure"]


@dataclass(frozen=True)
class Steps:
    """Every step of a run; entries of prefills and preempted requests by their end in the list."""

    table: Ints
    entries: Ints
    preempted: NDArray[np.int32]
    joules: Floats  # by component


@dataclass(frozen=True, eq=False, repr=False)
class Service:
    """The outcome of a serving run.

    `columns` holds one array for each figure of a request, in order of arrival: times in seconds from the start, NaN
    where a request never got so far.  `replicas` holds one row for each replica.
    """

    model: str
    chip: str
    engine: dict[str, Figure]
    columns: dict[str, NDArray[np.generic]]
    states: tuple[str, ...]
    replicas: dict[str, NDArray[np.generic]]
    energy_J_by_component: dict[str, float]
    idle_W: float
    router: str
    slo: Slo
    source: str
    chips: int = 1
    steps: Steps | None = None
    notes: tuple[str, ...] = field(default=())
    capacity: tuple[tuple[str, str], ...] = ()
    lookup_tokens: int = 0
    hit_tokens: int = 0
    over_time: dict[str, list[float]] = field(default_factory=dict)
    more: dict[str, Figure] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["arrival_s"])

    def __repr__(self) -> str:
        return service_line(self)

    def _repr_html_(self) -> str:
        return service_card(self)

    def array(self, name: str) -> Floats:
        """A column as floats."""
        return np.asarray(self.columns[name], float)

    def array_of(self, name: str) -> Floats:
        """A figure of every replica as floats."""
        return np.asarray(self.replicas[name], float)

    @cached_property
    def finished(self) -> NDArray[np.bool_]:
        """Which requests were served whole."""
        found: NDArray[np.bool_] = np.asarray(self.columns["state"]) == state.FINISHED
        return found

    @cached_property
    def good(self) -> NDArray[np.bool_]:
        """Which requests were served whole within the SLO; what has no second token has no TPOT to break."""
        kept = self.finished.copy()
        for name, limit in (("ttft_s", self.slo.ttft), ("tpot_s", self.slo.tpot), ("e2e_s", self.slo.e2e)):
            kept &= ~(self.array(name) > limit)
        return kept

    @property
    def seconds(self) -> float:
        """From the first arrival to the last token."""
        last = self.array("last_token_s")
        return float(np.nanmax(last)) if np.isfinite(last).any() else 0.0

    @property
    def output_tokens(self) -> int:
        """Tokens given out."""
        return int(np.asarray(self.columns["generated"]).sum())

    @property
    def idle_J(self) -> float:
        """What replicas drew while they waited for requests."""
        waited_s = np.maximum(self.array_of("on_s") - self.array_of("busy_s"), 0.0)
        return float((waited_s * self.array_of("idle_W")).sum())

    @property
    def energy_J(self) -> float:
        """All energy, idling included."""
        return fsum(self.energy_J_by_component.values()) + self.idle_J

    def percentiles(self, name: str) -> dict[str, float | None]:
        """Mean and percentiles of a time over the requests that have it."""
        values = self.array(name)
        values = values[np.isfinite(values)]
        if not len(values):
            return {"mean": None, **{f"p{one}": None for one in PERCENTILES}}
        found = [float(values.mean()), *(float(one) for one in np.percentile(values, PERCENTILES))]
        return dict(zip(("mean", *(f"p{one}" for one in PERCENTILES)), found, strict=True))

    def counts(self) -> dict[str, int]:
        """Requests by what became of them."""
        numbers = np.bincount(np.asarray(self.columns["state"]), minlength=len(self.states))
        return {name: int(number) for name, number in zip(self.states, numbers, strict=True) if number}

    def to_dict(self) -> dict[str, Figure]:
        """Every figure that is no array (schema ``tierform.service/1``)."""
        seconds, tokens = self.seconds, self.output_tokens
        prompt = int(np.asarray(self.columns["prompt"])[self.finished].sum())
        energy = self.energy_J if self.energy_J_by_component else None
        served = int(self.finished.sum())
        return {
            "schema": SCHEMA,
            "model": self.model,
            "chip": self.chip,
            "chips": self.chips,
            "replicas": len(self.replicas["busy_s"]),
            "router": self.router,
            "requests_from": self.source,
            "engine": self.engine,
            "requests": len(self),
            "counts": dict(self.counts()),
            "seconds": seconds,
            "ttft_s": dict(self.percentiles("ttft_s")),
            "tpot_s": dict(self.percentiles("tpot_s")),
            "e2e_s": dict(self.percentiles("e2e_s")),
            "queue_s": dict(self.percentiles("queue_s")),
            "requests_per_s": served / seconds if seconds else 0.0,
            "output_tokens": tokens,
            "output_tokens_per_s": tokens / seconds if seconds else 0.0,
            "prompt_tokens": prompt,
            "slo": str(self.slo),
            "goodput_per_s": float(self.good.sum()) / seconds if seconds else 0.0,
            "within_slo": float(self.good.mean()) if len(self) else 0.0,
            "preemptions": int(np.asarray(self.columns["preemptions"]).sum()),
            "prefix_hit_share": self.hit_tokens / self.lookup_tokens if self.lookup_tokens else 0.0,
            "energy_J": energy,
            "energy_J_by_component": {**self.energy_J_by_component, **({"idle": self.idle_J} if energy else {})},
            "energy_J_per_output_token": energy / tokens if energy is not None and tokens else None,
            "energy_J_per_request": energy / served if energy is not None and served else None,
            "average_power_W": energy / seconds if energy is not None and seconds else None,
            "steps": int(np.asarray(self.replicas["steps"]).sum()),
            "busy_share": float(np.asarray(self.replicas["busy_s"]).mean()) / seconds if seconds else 0.0,
            "capacity": [list(line) for line in self.capacity],
            **self.more,
            "over_time": {name: list(values) for name, values in self.over_time.items()},
            "notes": list(self.notes),
        }

    def save(self, path: Path | str) -> None:
        """Write every figure as JSON, without the arrays."""
        from tierform.files import write_json

        write_json(path, self.to_dict())

    def write_requests(self, path: Path | str) -> None:
        """Write one row for each request: CSV, or Parquet where the name ends so (needs pyarrow)."""
        if str(path).endswith(".parquet"):
            self._write_parquet(Path(path))
            return
        from tierform.files import write_text

        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        names = list(self.columns)
        writer.writerow(["request", *names])
        columns = [self._texts(name) for name in names]
        for number, row in enumerate(zip(*columns, strict=True)):
            writer.writerow([number, *row])
        write_text(path, out.getvalue())

    def _texts(self, name: str) -> list[str]:
        values = self.columns[name]
        if name == "state":
            return [self.states[int(one)] for one in np.asarray(values, np.int64)]
        if values.dtype.kind == "f":
            return ["" if one != one else f"{one:.9f}" for one in np.asarray(values, float).tolist()]
        return [str(one) for one in values.tolist()]

    def _write_parquet(self, path: Path) -> None:
        from tierform.errors import MissingDependency
        from tierform.files import atomic_path

        try:
            import pyarrow  # type: ignore[import-not-found, import-untyped, unused-ignore]
            import pyarrow.parquet as parquet  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError as error:
            raise MissingDependency("pyarrow", "writing Parquet", "serve") from error
        table = {name: self._texts(name) if name == "state" else values for name, values in self.columns.items()}
        with atomic_path(path) as temporary:
            parquet.write_table(pyarrow.table(table), str(temporary))
