"""What a validation point is, and when it passes.

An engine's validation module (``tierform/validation/<engine>.py``) has one function
``ledger(folder: Path | None = None) -> Ledger`` that computes every point anew: against the built-in cited table
(``tierform/validation/tables/``) or, with `folder`, against the user's own reference data in the same layout.
A point can fail, and one failing point fails the command.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from tierform.registry import Registry

# What the reference is: agreement with a simulator is not truth.
Evidence = Literal["measured", "simulator", "published", "closed form"]

ENGINES = Registry(
    "validation engine",
    "tierform.validation",
    {
        "network": "tierform.validation.network:ledger",
        "numerics": "tierform.validation.numerics:ledger",
        "store": "tierform.validation.store:ledger",
        "memory": "tierform.validation.memory:ledger",
        "systolic": "tierform.validation.systolic:ledger",
        "cim": "tierform.validation.cim:ledger",
        "laws": "tierform.validation.laws:ledger",
        "pim": "tierform.validation.pim:ledger",
        "gpu": "tierform.validation.gpu:ledger",
        "thermal": "tierform.validation.thermal:ledger",
        "workload": "tierform.validation.workload:ledger",
        "models": "tierform.validation.models:ledger",
        "techniques": "tierform.validation.techniques:ledger",
        "exploration": "tierform.validation.exploration:ledger",
        "serving": "tierform.validation.serving:ledger",
    },
)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Passes when |ours - reference| <= max(absolute, relative * |reference|)."""

    relative: float = 0.0
    absolute: float = 0.0

    def __str__(self) -> str:
        parts = []
        if self.relative:
            parts.append(f"{self.relative * 100:g} %")
        if self.absolute:
            parts.append(f"{self.absolute:g}")
        return " or ".join(parts) or "equal"


@dataclass(frozen=True, slots=True)
class Point:
    """One comparison.  `fitted` tells a point used to fit parameters from one held out."""

    case: str
    quantity: str
    unit: str
    reference: float
    ours: float
    tolerance: Tolerance | None
    source: str
    evidence: Evidence
    fitted: bool = False
    note: str = ""

    @property
    def error(self) -> float:
        """Ours minus reference, in `unit`."""
        return self.ours - self.reference

    @property
    def relative_error(self) -> float:
        """(ours - reference) / |reference|; infinite where only the reference is zero."""
        if self.reference == 0:
            return 0.0 if self.ours == 0 else math.inf
        return self.error / abs(self.reference)

    @property
    def passed(self) -> bool | None:
        """None for a point that is shown for information and has no tolerance."""
        if self.tolerance is None:
            return None
        bound = max(self.tolerance.absolute, self.tolerance.relative * abs(self.reference))
        return math.isfinite(self.error) and abs(self.error) <= bound * (1 + 1e-12)


@dataclass(frozen=True, slots=True)
class Summary:
    """Errors over a set of points: counts, median and 90th percentile of |relative error|, bias (median signed)."""

    quantity: str
    held_out: bool
    points: int
    failed: int
    median: float
    percentile_90: float
    bias: float
    worst: float


@dataclass(frozen=True, slots=True)
class EngineLedger:
    """All points of one engine, with remarks on what a reader must know to judge them."""

    engine: str
    points: Sequence[Point]
    remarks: Sequence[str] = field(default_factory=tuple)

    @property
    def passed(self) -> bool:
        """True when there are points and none of them fails."""
        return len(self.points) > 0 and not self.failures

    @property
    def failures(self) -> list[Point]:
        """The points outside their tolerance."""
        return [point for point in self.points if point.passed is False]

    def summaries(self) -> list[Summary]:
        """One line per quantity, fitted and held-out points apart."""
        groups: dict[tuple[str, bool], list[Point]] = {}
        for point in self.points:
            groups.setdefault((point.quantity, not point.fitted), []).append(point)
        return [
            _summary(quantity, held_out, points, len(points), sum(point.passed is False for point in points))
            for (quantity, held_out), points in groups.items()
        ]

    def overall(self) -> Summary:
        """One line over all points that have a tolerance and a reference that is not zero."""
        judged = [point for point in self.points if point.passed is not None and point.reference]
        return _summary("all", True, judged, len(self.points), len(self.failures))

    def to_dict(self) -> dict[str, object]:
        """Everything, for JSON."""
        rows = [
            {**asdict(point), "error": point.error, "relative_error": point.relative_error, "passed": point.passed}
            for point in self.points
        ]
        return {
            "schema": "tierform.ledger/1",
            "engine": self.engine,
            "passed": self.passed,
            "points": rows,
            "summaries": [asdict(summary) for summary in self.summaries()],
            "remarks": list(self.remarks),
        }


def _summary(quantity: str, held_out: bool, points: Sequence[Point], count: int, failed: int) -> Summary:
    signed = sorted(point.relative_error for point in points) or [0.0]
    absolute = sorted(abs(value) for value in signed)
    return Summary(
        quantity=quantity,
        held_out=held_out,
        points=count,
        failed=failed,
        median=_quantile(absolute, 0.5),
        percentile_90=_quantile(absolute, 0.9),
        bias=_quantile(signed, 0.5),
        worst=absolute[-1],
    )


def _quantile(ordered: Sequence[float], fraction: float) -> float:
    position = fraction * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    if ordered[low] == ordered[high]:
        return ordered[low]
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
