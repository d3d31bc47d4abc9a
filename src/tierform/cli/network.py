"""``tierform network CONFIG``: run a BookSim2 configuration on the cycle engine (or the analytic one)."""

from __future__ import annotations

from pathlib import Path

import click

from tierform.cli.output import console, json_option, print_table, progress


@click.command("network")
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--fidelity", type=click.Choice(["cycle", "analytic"]), default="cycle", show_default=True)
@click.option("--rates", help="Several loads in flits per node and cycle, e.g. 0.1,0.2,0.3; run in parallel.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes for --rates.")
@click.option("--map", "map_file", type=click.Path(path_type=Path, dir_okay=False), help="Write link loads as an SVG.")
@json_option
def command(
    config: Path,
    overrides: tuple[str, ...],
    fidelity: str,
    rates: str | None,
    jobs: int,
    map_file: Path | None,
    json_file: Path | None,
) -> int:
    """Simulate the network of a BookSim2 configuration file; KEY=VALUE after it overrides the file.

    Exit code 1 when the network is unstable at the load asked for, as BookSim2 has it.
    """
    from tierform.compat.booksim import read_config
    from tierform.files import write_json, write_text
    from tierform.network.results import analytic_row, cycle_rows, flit_rates

    case = read_config(config, overrides)
    loads = flit_rates(rates, case)
    if fidelity == "analytic":
        rows = [analytic_row(case, load) for load in loads]
    else:
        with progress() as bar:
            task = bar.add_task("simulating", total=len(loads))
            rows = []
            for row in cycle_rows(case, loads, jobs):
                rows.append(row)
                bar.advance(task)
    columns = (
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
    table = [
        [f"{row[key]:.6g}" if row.get(key) is not None else "-" for _, key in columns]
        + ["stable" if row["stable"] else "unstable"]
        for row in rows
    ]
    print_table(f"{config.name} ({fidelity}, latencies in cycles)", [name for name, _ in columns] + [""], table, left=0)
    if fidelity == "cycle":
        console().print(f"compilation: {rows[0]['compile_s']:.2f} s, not in the CPU time", highlight=False)
    if json_file:
        content = rows[0] if rates is None else {"points": rows}
        write_json(json_file, {"schema": "tierform.network/1", "fidelity": fidelity, **content})
    if map_file:
        from tierform.network.picture import load_map_svg

        write_text(map_file, load_map_svg(case.topology, rows[-1]["link_load"]))
    return 0 if all(row["stable"] for row in rows) else 1
