"""``tierform explore network JOB.yaml --with-mapping``: the mapping first, then the network for its traffic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tierform.cli.explore_network import chosen_ways, content_of, tell_networks, verify_jobs, write_job
from tierform.cli.output import console, print_table, progress
from tierform.units import format_quantity

if TYPE_CHECKING:
    from tierform.exploration.mapping_search import Mapped, MappingSearch
    from tierform.exploration.network_study import Stakes

# Of changes that were tried alone, how many are shown.
SHOWN = 5
# What is searched of a network where the command names nothing: links take twenty seconds, and seldom gain.
USUAL = ("places", "places and routes")


def search_both(job_file: Path, *, ways: str, seed: int, winners: Path | None, verify: bool) -> dict[str, object]:
    """Search, print and, if asked, write and simulate by cycle; the figures for a JSON file."""
    from tierform.exploration.mapping_search import search_mapping
    from tierform.exploration.network_study import improve_within, study_network
    from tierform.simulation.job_file import load_job

    wanted = chosen_ways(ways, USUAL)
    job = load_job(job_file)
    stakes = study_network(job).stakes
    console().print(f"as it is: {stakes}; {_ports(stakes)}", soft_wrap=True)
    with progress() as bar:
        task = bar.add_task("mapping", total=None)
        found = search_mapping(job, lambda text: bar.update(task, description=text))
        bar.update(task, description="network")
        study = study_network(found.best.job)
        designs = improve_within(study, wanted, seed=seed, over_K=found.begun.over_K)
    _tell(found)
    console().print(f"with this mapping: {study.stakes}", soft_wrap=True)
    tell_networks(study, designs)
    own = found.begun.result
    quicker = [one for one in designs if one.faster_than(study.result)]
    result = quicker[0].result if quicker else found.best.result
    best = quicker[0].job if quicker else found.best.job
    name = f"mapping, {quicker[0].way}" if quicker else "mapping"
    console().print(
        f"together: {100 * (result.latency_s / own.latency_s - 1):+.1f} % of the time, "
        f"{100 * (result.energy_J / own.energy_J - 1):+.1f} % of the energy, on {1e6 * result.area_m2:.1f} mm2 "
        f"(as it is: {1e6 * own.area_m2:.1f} mm2)",
        soft_wrap=True,
    )
    changed = result.latency_s < own.latency_s * (1 - 1e-6)
    if not changed:
        console().print("no design is faster than the job as it is: nothing to write")
    content: dict[str, object] = {
        **content_of(study, designs),
        "schema": "tierform.mapping-study/1",
        "as_it_is": {
            "free_network_saves": {"time": stakes.free_time, "energy": stakes.energy},
            **_figures(found.begun),
        },
        "changes": [_figures(one) for one in found.path[1:]],
        "alone": [_figures(one) for one in found.alone],
        "together": {"latency_s": result.latency_s, "energy_J": result.energy_J, "area_m2": result.area_m2},
    }
    if changed and winners:
        write_job(best, name, winners)
    if changed and verify:
        content["cycle"] = verify_jobs(found.begun.job, best, name)
    return content


def _ports(stakes: Stakes) -> str:
    """What more ports a tile could save at all: half of the time that transfers spend there."""
    return f"twice the ports of every tile would save at most {50 * stakes.free_time * stakes.ports:.1f} % of the time"


def _tell(found: MappingSearch) -> None:
    own = found.begun
    print_table("Mapping, one change after the other", _HEAD, [_row(one, own) for one in found.path])
    taken = found.path[1].change if len(found.path) > 1 else ""
    rest = [one for one in found.alone if one.change != taken][:SHOWN]
    if rest:
        print_table("Other changes, each alone", _HEAD, [_row(one, own) for one in rest])


_HEAD = ["change", "time", "", "energy", ""]


def _row(one: Mapped, own: Mapped) -> list[str]:
    def change(mine: float, its: float) -> str:
        return "" if one is own else f"{100 * (mine / its - 1):+.1f} %"

    time, energy = one.result.latency_s, one.result.energy_J
    return [
        one.change,
        format_quantity(time, "s"),
        change(time, own.result.latency_s),
        format_quantity(energy, "J"),
        change(energy, own.result.energy_J),
    ]


def _figures(one: Mapped) -> dict[str, object]:
    return {
        "change": one.change,
        "latency_s": one.result.latency_s,
        "energy_J": one.result.energy_J,
        "kelvin_over": one.over_K,
    }
