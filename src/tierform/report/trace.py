"""The timeline in the trace-event format (JSON) that Perfetto and chrome://tracing open.

One process for each stage's kind of resource, one thread for each resource; times in microseconds, as the format wants.
Format: "Trace Event Format", Google, 2016 (complete events ``X`` and metadata ``M``).
"""

from __future__ import annotations

from pathlib import Path

from tierform.errors import fail
from tierform.files import write_json
from tierform.simulation.result import Result


def events(result: Result) -> list[dict[str, object]]:
    """The timeline as trace events; TierformError when the Result was made without a timeline."""
    if not result.timeline:
        fail("this result has no timeline", fix="Simulate with timeline=True.")
    threads: dict[tuple[str, str], int] = {}
    processes: dict[str, int] = {}
    rows: list[dict[str, object]] = []
    for bar in result.timeline:
        process = bar.resource.split(":")[0]
        pid = processes.setdefault(process, len(processes) + 1)
        tid = threads.setdefault((process, bar.resource), len(threads) + 1)
        rows.append(
            {
                "name": bar.name,
                "cat": bar.stage,
                "ph": "X",
                "ts": bar.start_s * 1e6,
                "dur": max(bar.end_s - bar.start_s, 0.0) * 1e6,
                "pid": pid,
                "tid": tid,
                "args": {"layer": bar.layer, "micro_batch": bar.micro_batch, "equal_ticks": bar.repeats},
            }
        )
    names = [{"name": "process_name", "ph": "M", "pid": pid, "args": {"name": name}} for name, pid in processes.items()]
    names += [
        {"name": "thread_name", "ph": "M", "pid": processes[process], "tid": tid, "args": {"name": resource}}
        for (process, resource), tid in threads.items()
    ]
    return [*names, *rows]


def write(path: Path | str, result: Result) -> None:
    """Write the trace file."""
    write_json(
        path,
        {
            "traceEvents": events(result),
            "displayTimeUnit": "ms",
            "otherData": {
                "model": result.model,
                "chip": result.chip,
                "program": f"tierform {result.versions['tierform']}",
            },
        },
    )
