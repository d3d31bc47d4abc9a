"""The outcome of a simulation, as plain figures: what is reported, written to JSON, and compared.

Everything is for the whole task.  Energies by component, by operator class and by stage each sum to `energy_J`.
The JSON schema is ``tierform.result/1``; docs/result.md lists its keys.  Each figure is a function of the finished run
(:mod:`tierform.simulation.views`), computed when it is first asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from tierform.errors import MissingDependency, fail
from tierform.mapping.plan import Mapping
from tierform.provenance import Assumption, Citation
from tierform.registry import Registry
from tierform.simulation.limits import Limit, limits
from tierform.simulation.page_view import influence_view, quick_view, view
from tierform.simulation.records import Bar, OperatorResult, Slot, StageResult, Wear
from tierform.simulation.run import Run
from tierform.simulation.views import VIEWS
from tierform.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas

    from tierform.simulation.elasticity import Elasticity

SCHEMA = "tierform.result/1"
_KEPT = ("_limits", "_view")  # what a file and another process keep beside the figures
# What writes results for people; plug-in packages may add their own.
WRITERS = Registry(
    "result writer",
    "tierform.writers",
    {
        "report": "tierform.studio.export:write",
        "trace": "tierform.report.trace:write",
        "card": "tierform.report.card:result_card",
    },
)

__all__ = ["SCHEMA", "Bar", "OperatorResult", "Result", "StageResult", "Wear"]


class Result:
    """A task on a chip; see the module's text."""

    model: str
    chip: str
    task: dict[str, Any]
    fidelity: str
    runtime: str
    latency_s: float
    energy_J: float
    area_m2: float
    chips: int
    parallelism: dict[str, int]
    parameters: int
    trainable_parameters: int
    operations: float
    operations_by_component: dict[str, float]
    operations_by_operator: dict[str, float]
    energy_J_by_component: dict[str, float]
    energy_J_by_operator: dict[str, float]
    energy_J_by_part: dict[str, float]
    energy_J_by_tile: list[float]
    busy_s_by_resource: dict[str, float]
    utilization: dict[str, float]
    stages: tuple[StageResult, ...]
    operators: tuple[OperatorResult, ...]
    wear: Wear
    memory_footprint_B: dict[str, int]
    memory_placement_B: dict[str, dict[str, int]]
    memory_read_B: float
    memory_write_B: float
    memory_spill_B: dict[str, float]
    network_B: float
    link_bytes: tuple[float, ...]
    crossbars: dict[str, int]
    operation_share: dict[str, float]
    throughput: dict[str, float]
    communication: dict[str, float]
    flops_utilization: dict[str, float]
    roofline: dict[str, Any]
    assumptions: tuple[Assumption, ...]
    citations: tuple[Citation, ...]
    notes: tuple[str, ...]
    versions: dict[str, str]
    thermal: dict[str, Any] | None
    mapping: Mapping | None
    timeline: tuple[Bar, ...]
    slots: tuple[Slot, ...]
    _limits: list[Limit] | None
    _view: dict[str, Any] | None

    def __init__(self, run: Run) -> None:
        self._run: Run | None = run

    def __getattr__(self, name: str) -> Any:
        run = self.__dict__.get("_run")
        if name not in VIEWS or run is None:
            raise AttributeError(f"a Result has no {name!r}")
        value = self.__dict__[name] = VIEWS[name](run)
        return value

    def __getstate__(self) -> dict[str, object]:
        """All figures without the run behind them: what is sent to another process."""
        return {name: getattr(self, name) for name in VIEWS} | {
            name: value for name, value in self.__dict__.items() if name in ("_limits", "_view")
        }

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _run=None)

    @classmethod
    def load(cls, path: Path | str) -> Result:
        """The result that :meth:`save` or ``--json`` wrote: equal figures, without mapping and timeline.

        TierformError for another or a broken file, with all that is wrong.
        """
        from tierform.simulation.result_file import read_figures

        return cls._made(read_figures(path, SCHEMA, cls._types()))

    @classmethod
    def from_content(cls, content: dict[str, Any], file: str = "") -> Result:
        """The result of what :meth:`content` gave; `file` is named where something in it is wrong."""
        from tierform.simulation.result_file import figures_of

        return cls._made(figures_of(content, cls._types(), file))

    @classmethod
    def _types(cls) -> dict[str, Any]:
        types = get_type_hints(cls)
        return types | {name[1:]: types.pop(name) for name in _KEPT}

    @classmethod
    def _made(cls, state: dict[str, object]) -> Result:
        kept = {name: state.pop(name[1:]) for name in _KEPT}
        made = cls.__new__(cls)
        made.__setstate__(state | {name: value for name, value in kept.items() if value is not None})
        return made

    def __repr__(self) -> str:
        return (
            f"<Result: {self.model} on {self.chip}, {format_quantity(self.latency_s, 's')}, "
            f"{format_quantity(self.energy_J, 'J')}>"
        )

    @property
    def energy_delay_product_Js(self) -> float:
        """Energy times latency."""
        return self.energy_J * self.latency_s

    @property
    def average_power_W(self) -> float:
        """Energy over latency."""
        return self.energy_J / self.latency_s if self.latency_s else 0.0

    @property
    def limits(self) -> list[Limit]:
        """What limits each stage, and the time that would go away if a resource took none.

        TierformError for a pipeline of several chips, and for a result that came from another process without them.
        """
        known = self.__dict__.get("_limits")
        if known is None:
            if self._run is None:
                fail("limits are told where the simulation ran", fix="Ask for them before the result is sent on.")
            known = self._limits = limits(self._run)
        return known

    @property
    def has_limits(self) -> bool:
        """Whether :attr:`limits` can be told."""
        one = self.parallelism["pipeline"] == 1
        return one and (self._run is not None or self.__dict__.get("_limits") is not None)

    @property
    def crossbar_writes(self) -> int:
        """Non-volatile cells programmed, each time counted."""
        return self.wear.cell_writes

    def to_dict(self) -> dict[str, Any]:
        """Every figure as plain data (schema ``tierform.result/1``), without timeline and limits."""
        from dataclasses import asdict

        return {
            "schema": SCHEMA,
            "model": self.model,
            "chip": self.chip,
            "task": self.task,
            "fidelity": self.fidelity,
            "runtime": self.runtime,
            "latency_s": self.latency_s,
            "energy_J": self.energy_J,
            "energy_delay_product_Js": self.energy_delay_product_Js,
            "average_power_W": self.average_power_W,
            "area_m2": self.area_m2,
            "chips": self.chips,
            "parallelism": self.parallelism,
            "parameters": self.parameters,
            "trainable_parameters": self.trainable_parameters,
            "operations": self.operations,
            "operations_by_component": self.operations_by_component,
            "operations_by_operator": self.operations_by_operator,
            "operation_share": self.operation_share,
            "energy_J_by_component": self.energy_J_by_component,
            "energy_J_by_operator": self.energy_J_by_operator,
            "energy_J_by_part": self.energy_J_by_part,
            "energy_J_by_tile": self.energy_J_by_tile,
            "busy_s_by_resource": self.busy_s_by_resource,
            "utilization": self.utilization,
            "crossbar_writes": self.crossbar_writes,
            "crossbars": self.crossbars,
            "wear": asdict(self.wear),
            "memory_footprint_B": {**self.memory_footprint_B, "total": sum(self.memory_footprint_B.values())},
            "memory_placement_B": self.memory_placement_B,
            "memory_read_B": self.memory_read_B,
            "memory_write_B": self.memory_write_B,
            "memory_spill_B": self.memory_spill_B,
            "network_B": self.network_B,
            "link_bytes": list(self.link_bytes),
            "throughput": self.throughput,
            "communication": self.communication,
            "flops_utilization": self.flops_utilization,
            "roofline": self.roofline,
            "thermal": self.thermal,
            "stages": [asdict(stage) for stage in self.stages],
            "operators": [asdict(operator) for operator in self.operators],
            "assumptions": [asdict(line) for line in self.assumptions],
            "citations": [asdict(item) for item in self.citations],
            "notes": list(self.notes),
            "versions": self.versions,
        }

    def content(self) -> dict[str, Any]:
        """What a result's file holds: every figure, what limits each stage, and the view where there is one."""
        from dataclasses import asdict

        told = [asdict(limit) for limit in self.limits] if self.has_limits else None
        return {**self.to_dict(), "limits": told, "view": self.view() if self.has_view else None}

    def save(self, path: Path | str) -> None:
        """Write every figure as JSON, what limits each stage, and the view that the studio shows."""
        from tierform.files import write_json

        write_json(path, self.content())

    def to_table(self, by: str = "operator") -> list[dict[str, object]]:
        """Rows for people or data frames.

        By ``operator``, ``component``, ``class``, ``stage``, ``part``, ``tile``, ``limit`` or ``assumption``.
        """
        from tierform.simulation.result_rows import ROWS

        if by not in ROWS:
            fail("no such table", value=by, choices=ROWS, fix=f"Tables: {', '.join(ROWS)}.")
        return ROWS[by](self)

    def to_dataframe(self, by: str = "operator") -> pandas.DataFrame:
        """The rows of :meth:`to_table` as a data frame of pandas (extra ``report``); its attrs name the run."""
        rows = self.to_table(by)
        try:
            import pandas
        except ImportError:
            raise MissingDependency("pandas", "a data frame", "report") from None
        frame = pandas.DataFrame(rows)
        frame.attrs = {"model": self.model, "chip": self.chip, **self.versions}
        return frame

    def _repr_html_(self) -> str:
        text: str = WRITERS.get("card")(self)
        return text

    def view(self, influence: Sequence[Elasticity] = ()) -> dict[str, Any]:
        """What a page shows of this run, as plain data (schema ``tierform.view/1``, docs/view.md).

        `influence` is what :func:`tierform.simulation.elasticity.elasticities` found for the same job; it is kept for
        what is saved.  TierformError for a result that came from another process, or from a file without a view.
        """
        known = self.__dict__.get("_view")
        if known is None:
            if self._run is None:
                fail("a view is made where the simulation ran", fix="Simulate again: the view has the job.")
            known = self._view = view(self._run)
        if influence:
            known = self._view = {**known, "influence": influence_view(influence)}
        return known

    def quick_view(self) -> dict[str, Any]:
        """What :meth:`view` says of the dies, in a small share of its time: for a page that follows a moved value."""
        return quick_view(self._run) if self._run is not None else {"dies": self.view()["dies"]}

    @property
    def has_view(self) -> bool:
        """Whether :meth:`view` can be told."""
        return self._run is not None or self.__dict__.get("_view") is not None

    def report(self, path: Path | str) -> None:
        """Write the studio's pages of this run as one offline file, with its timeline where one was recorded."""
        WRITERS.get("report")(path, [self])

    def trace(self, path: Path | str) -> None:
        """Write the timeline in the trace-event format that Perfetto opens (needs ``simulate(..., timeline=True)``)."""
        WRITERS.get("trace")(path, self)
