"""A serving run as one line, and as a small card for notebooks: the same answer as on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierform.card import card
from tierform.units import format_quantity

if TYPE_CHECKING:
    from tierform.serving.service import Service

_TIMES = (
    ("first token", "ttft_s"),
    ("further token", "tpot_s"),
    ("whole answer", "e2e_s"),
    ("in the queue", "queue_s"),
)
_SHOWN = ("p50", "p90", "p95", "p99")


def service_line(service: Service) -> str:
    """One line."""
    served = int(service.finished.sum())
    what = f"{service.model} on {service.chips} x {service.chip}"
    return f"<Service: {what}, {served:,} of {len(service):,} requests served>"


def service_card(service: Service) -> str:
    """The card as HTML."""
    seconds = service.seconds
    good = float(service.good.mean()) if len(service) else 0.0
    figures = [("requests", f"{len(service):,}"), ("time", format_quantity(seconds, "s"))]
    if str(service.slo) != "none":
        figures.append((f"within {service.slo}", f"{good:.1%}"))
    if seconds:
        figures.append(("tokens a second", f"{service.output_tokens / seconds:,.1f}"))
    if service.energy_J_by_component and service.output_tokens:
        figures.append(("energy of a token", format_quantity(service.energy_J / service.output_tokens, "J")))
        figures.append(("mean power", format_quantity(service.energy_J / seconds, "W") if seconds else "-"))
    rows = []
    for label, name in _TIMES:
        found = service.percentiles(name)
        rows.append([label, *("-" if (x := found[one]) is None else format_quantity(x, "s") for one in _SHOWN)])
    counts = ", ".join(f"{number:,} {name}" for name, number in service.counts().items())
    head = ["a request waits", "median", "90 %", "95 %", "99 %"]
    title = f"{service.model} on {service.chips} x {service.chip}"
    return card(title, f"{service.source}: {counts}", figures, [(head, rows)], list(service.notes))
