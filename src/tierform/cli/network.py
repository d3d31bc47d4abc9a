"""``tierform network CONFIG``: a BookSim2 configuration or a network file on the cycle engine (or the analytic one)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierform.cli.output import InputPath, OutputFile, console, json_option, print_table

if TYPE_CHECKING:
    from tierform.network import TrafficCase
    from tierform.network.file import NetworkJob
    from tierform.network.topology import Topology

_COLUMNS = (
    ("flits/node/cycle", "offered_flit_rate"),
    ("packet latency", "packet_latency_cycles"),
    ("network", "network_latency_cycles"),
    ("flit", "flit_latency_cycles"),
    ("p99", "packet_latency_p99_cycles"),
    ("hops", "hops"),
    ("accepted", "accepted_flit_rate"),
    ("busiest link", "busiest_link_load"),
    ("cycles", "cycles"),
    ("CPU s", "cpu_s"),
)


@click.command("network")
@click.argument("config", type=InputPath())
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--fidelity", type=click.Choice(["cycle", "analytic"]), default="cycle", show_default=True)
@click.option("--rates", help="Several loads in flits per node and cycle, e.g. 0.1,0.2,0.3; run in parallel.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes for --rates.")
@click.option("--map", "map_file", type=OutputFile(), help="Write link loads as an SVG.")
@click.option(
    "--trace",
    "trace_file",
    type=InputPath(),
    help="Send a trace's packets instead: lines 'cycle source destination flits', or netrace's format.",
)
@click.option(
    "--flit-bytes", type=click.IntRange(1, 4096), default=8, show_default=True, help="Bytes of a flit, for netrace."
)
@json_option
def command(
    config: Path,
    overrides: tuple[str, ...],
    fidelity: str,
    rates: str | None,
    jobs: int,
    map_file: Path | None,
    trace_file: Path | None,
    flit_bytes: int,
    json_file: Path | None,
) -> int:
    """Simulate the network of a BookSim2 configuration file; KEY=VALUE after it overrides the file.

    A file that ends in .yaml or .yml is a network file of Tierform's own, with random traffic or flows.  Exit code 1
    when the network is unstable at the load asked for, as BookSim2 has it.
    """
    from tierform.errors import fail

    if config.suffix.lower() in (".yaml", ".yml"):
        if overrides or trace_file or rates:
            fail("a network file stands alone", file=str(config), fix="Change the file instead.")
        from tierform.network.file import read_network_job

        job = read_network_job(config)
        if job.case is None:
            return _run_flows(job, config.name, json_file, map_file)
        return _run_case(job.case, config.name, fidelity, None, 1, json_file, map_file)
    from tierform.compat.booksim import read_config

    case = read_config(config, overrides)
    if trace_file is not None:
        return _run_trace(case, trace_file, flit_bytes, json_file, map_file)
    return _run_case(case, config.name, fidelity, rates, jobs, json_file, map_file)


def _run_case(
    case: TrafficCase,
    name: str,
    fidelity: str,
    rates: str | None,
    jobs: int,
    json_file: Path | None,
    map_file: Path | None,
) -> int:
    """Random traffic at one or several loads."""
    from tierform.network.results import analytic_row, cycle_rows, flit_rates

    loads = flit_rates(rates, case)
    if fidelity == "analytic":
        rows = [analytic_row(case, load) for load in loads]
    else:
        rows = []
        with _Line() as line:
            for row in cycle_rows(case, loads, jobs, line.show):
                rows.append(row)
                line.show(f"load {len(rows)} of {len(loads)} done, at", int(row["cycles"]))
    table = [
        [f"{row[key]:.6g}" if row.get(key) is not None else "-" for _, key in _COLUMNS]
        + ["stable" if row["stable"] else "unstable"]
        for row in rows
    ]
    print_table(f"{name} ({fidelity}, latencies in cycles)", [head for head, _ in _COLUMNS] + [""], table, left=0)
    _print_classes(rows)
    for row in rows:
        if row.get("end"):
            console().print(f"at {row['offered_flit_rate']:.6g}: {row['end']}", highlight=False)
        if row.get("batch_cycles"):
            took = row["batch_cycles"]
            mean = sum(took) / len(took)
            console().print(f"batches: {min(took)} to {max(took)} cycles, mean {mean:.6g}", highlight=False)
    for note in rows[0].get("notes", ()):
        console().print(f"note: {note}", highlight=False)
    if fidelity == "cycle" and rows[0]["compile_s"] > 0.5:
        console().print(f"compilation: {rows[0]['compile_s']:.2f} s, not in the CPU time", highlight=False)
    content = rows[0] if rates is None else {"points": rows}
    _write(json_file, {"fidelity": fidelity, **content}, map_file, case.topology, rows[-1]["link_load"])
    return 0 if all(row["stable"] for row in rows) else 1


def _print_classes(rows: Sequence[dict[str, Any]]) -> None:
    """One line for each class of packets where there are several."""
    table = [
        [
            f"{row['offered_flit_rate']:.6g}",
            str(number),
            *(
                f"{group[key]:.6g}"
                for key in ("packet_latency_cycles", "network_latency_cycles", "hops", "accepted_flit_rate", "packets")
            ),
        ]
        for row in rows
        for number, group in enumerate(row.get("classes", ()))
    ]
    if table:
        head = ["flits/node/cycle", "class", "packet latency", "network", "hops", "accepted", "packets"]
        print_table("classes of packets", head, table, left=0)


def _run_trace(
    case: TrafficCase, trace_file: Path, flit_bytes: int, json_file: Path | None, map_file: Path | None
) -> int:
    """The packets of a trace."""
    import numpy as np

    from tierform.compat.noc_traces import read_trace
    from tierform.network.cycle.traces import simulate_trace

    trace = read_trace(trace_file, flit_bytes)
    with _Line() as line:
        times = simulate_trace(
            case.topology, trace, case.routing, case.router, seed=case.seed, progress=line.at("simulating")
        )
    latency = times.latency_cycles
    figures = {
        "packets": len(trace),
        "delivered": len(latency),
        "cycles": times.cycles,
        "packet_latency_cycles": float(latency.mean()) if len(latency) else None,
        "packet_latency_p99_cycles": float(np.percentile(latency, 99)) if len(latency) else None,
        "worst_latency_cycles": int(latency.max(initial=0)),
        "flit_hops": times.flit_hops,
        "busiest_link_load": float(times.link_utilization.max(initial=0.0)),
    }
    shown = [[f"{value:.6g}" if value is not None else "-" for value in figures.values()]]
    print_table(f"{trace_file.name} (latencies in cycles)", [key.replace("_", " ") for key in figures], shown, left=0)
    more = {"ready_cycle": times.ready.tolist(), "delivered_cycle": times.delivered.tolist()}
    _write(json_file, {**figures, **more}, map_file, case.topology, times.link_utilization.tolist())
    return 0 if times.finished else 1


def _run_flows(job: NetworkJob, name: str, json_file: Path | None, map_file: Path | None) -> int:
    """Flows that wait for each other."""
    from tierform.network.flows import simulate_flows

    times = simulate_flows(
        job.topology,
        job.routing,
        job.router,
        job.clock_Hz,
        job.flows,
        packet_flits=job.packet_flits,
        seed=job.seed,
    )
    rows = [
        {
            "flow": number,
            "size_B": flow.size_B,
            "released_s": float(times.released_s[number]),
            "started_s": float(times.started_s[number]),
            "finished_s": float(times.finished_s[number]),
        }
        for number, flow in enumerate(job.flows)
    ]
    table = [[f"{value:.6g}" for value in row.values()] for row in rows]
    print_table(f"{name} ({times.cycles} cycles)", list(rows[0]), table, left=0)
    content = {"flows": rows, "cycles": times.cycles, "link_load": times.link_utilization.tolist()}
    _write(json_file, content, map_file, job.topology, times.link_utilization.tolist())
    return 0


def _write(
    json_file: Path | None,
    content: Mapping[str, object],
    map_file: Path | None,
    topology: Topology,
    link_load: list[float],
) -> None:
    from tierform.files import write_json, write_text

    if json_file:
        write_json(json_file, {"schema": "tierform.network/2", **content})
    if map_file:
        from tierform.network.picture import load_map_svg

        write_text(map_file, load_map_svg(topology, link_load))


class _Line:
    """A line on standard error that says what is going on, once a run has taken a while; it vanishes in the end."""

    def __init__(self) -> None:
        import sys
        import time

        self.stream, self.clock = sys.stderr, time.monotonic
        self.last, self.shown = self.clock(), False

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def show(self, what: str, cycle: int) -> None:
        """Show what is done at which cycle, at most twice a second and on a terminal only."""
        if self.clock() - self.last > 0.5 and self.stream.isatty():
            self.last, self.shown = self.clock(), True
            self.stream.write(f"\r\x1b[K{what} cycle {cycle:,}")
            self.stream.flush()

    def at(self, what: str) -> Callable[[int], None]:
        """The same for a run that tells only the cycle."""
        return lambda cycle: self.show(what, cycle)
