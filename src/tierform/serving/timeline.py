"""A run's steps as a timeline that Perfetto and chrome://tracing open: a track a replica, with counters beside it.

The format is the JSON of trace events: complete events ("X") with times in microseconds, and counters ("C").
"""

from __future__ import annotations

from pathlib import Path

from tierform.errors import fail
from tierform.files import write_json
from tierform.serving import state
from tierform.serving.service import Service

Event = dict[str, object]
MOST_STEPS = 500_000


def events(service: Service) -> list[Event]:
    """The events of a recorded run; TierformError where none was recorded or there are too many steps."""
    if service.steps is None:
        fail("no steps were recorded", key="record", fix="Serve with record=True.")
    table = service.steps.table
    if len(table) > MOST_STEPS:
        what = f"{len(table):,} steps are more than a viewer holds ({MOST_STEPS:,})"
        fail(what, key="timeline", fix="Serve fewer requests.")
    found: list[Event] = [
        {"name": "process_name", "ph": "M", "pid": replica, "args": {"name": f"replica {replica}"}}
        for replica in range(len(service.replicas["busy_s"]))
    ]
    first = 0
    for place, row in enumerate(table):
        start_us, replica = int(row[state.L_START]) / 1e3, int(row[state.L_REPLICA])
        prefills = int(row[state.L_ENTRIES]) - first
        first = int(row[state.L_ENTRIES])
        singles = int(row[state.L_SINGLES])
        joules = float(service.steps.joules[place].sum()) if service.steps.joules.size else None
        found.append(
            {
                "name": "prefill" if singles == 0 else "decode" if prefills == 0 else "mixed",
                "ph": "X",
                "ts": start_us,
                "dur": int(row[state.L_DURATION]) / 1e3,
                "pid": replica,
                "tid": 0,
                "args": {
                    "tokens": int(row[state.L_TOKENS]),
                    "decodes": singles,
                    "prefills": prefills,
                    **({"joules": joules} if joules is not None else {}),
                },
            }
        )
        for name, column in (("running", state.L_RUNNING), ("waiting", state.L_WAITING), ("free blocks", state.L_FREE)):
            found.append({"name": name, "ph": "C", "ts": start_us, "pid": replica, "args": {name: int(row[column])}})
    return found


def write_timeline(service: Service, path: Path | str) -> None:
    """Write the timeline of a recorded run."""
    write_json(path, {"traceEvents": events(service), "displayTimeUnit": "ms"})
