"""``tierform explore network JOB.yaml``: places, links and routes for one job's traffic, judged by whole results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tierform.cli.output import console, print_table
from tierform.errors import fail
from tierform.units import format_quantity

if TYPE_CHECKING:
    from tierform.exploration.network_study import Improved, NetworkStudy
    from tierform.simulation.job import Job


def search_network(job_file: Path, *, ways: str, seed: int, winners: Path | None, verify: bool) -> dict[str, object]:
    """Search, print and, if asked, write and simulate by cycle; the figures for a JSON file."""
    from tierform.exploration.network_study import WAYS, improve, study_network
    from tierform.simulation.job_file import load_job

    wanted = chosen_ways(ways, WAYS)
    study = study_network(load_job(job_file))
    console().print(f"{study.stakes}", soft_wrap=True)
    found = improve(study, wanted, seed=seed) if study.stakes.matter else []
    if not found:
        console().print("nothing was searched: no topology would change the result")
    else:
        tell_networks(study, found)
    content = content_of(study, found)
    better = bool(found) and found[0].result.latency_s < study.result.latency_s * (1 - 1e-6)
    if found and not better:
        console().print("no design is faster than the network as it is: nothing to write")
    if better and winners:
        write_job(found[0].job, found[0].way, winners)
    if better and verify:
        content["cycle"] = verify_jobs(study.job, found[0].job, found[0].way) | _carried(study, found[0])
    return content


def chosen_ways(text: str, usual: Sequence[str]) -> list[str]:
    """The ways of searching a network that a list names; `usual` ones where it is empty."""
    from tierform.exploration.network_study import WAYS

    wanted = [way.strip() for way in text.split(",")] if text else list(usual)
    for way in wanted:
        if way not in WAYS:
            fail("no such way of searching a network", key="--ways", value=way, choices=WAYS)
    return wanted


def content_of(study: NetworkStudy, found: Sequence[Improved]) -> dict[str, object]:
    """A study of a network for a JSON file."""
    return {
        "schema": "tierform.network-study/1",
        "free_network_saves": {"time": study.stakes.free_time, "energy": study.stakes.energy},
        "time_at_tile_ports": study.stakes.ports,
        "matters": study.stakes.matter,
        "latency_s": study.result.latency_s,
        "energy_J": study.result.energy_J,
        "designs": [
            {
                "way": one.way,
                "latency_s": one.result.latency_s,
                "energy_J": one.result.energy_J,
                "ratios": dict(zip(("latency", "energy", "peak"), one.design.ratios.values, strict=True)),
                "wire_m": one.design.wire_m,
                "ports": one.design.ports,
            }
            for one in found
        ],
    }


def tell_networks(study: NetworkStudy, found: Sequence[Improved]) -> None:
    """A table of designs beside the network as it is."""
    own = study.result
    body = [["as it is", format_quantity(own.latency_s, "s"), "", format_quantity(own.energy_J, "J"), "", "1 / 1 / 1"]]
    for one in found:
        time, energy = one.result.latency_s / own.latency_s - 1, one.result.energy_J / own.energy_J - 1
        body.append(
            [
                one.way,
                format_quantity(one.result.latency_s, "s"),
                f"{100 * time:+.2f} %",
                format_quantity(one.result.energy_J, "J"),
                f"{100 * energy:+.2f} %",
                " / ".join(f"{ratio:.3f}" for ratio in one.design.ratios.values),
            ]
        )
    print_table(
        "Networks at equal planar wire", ["search", "time", "", "energy", "", "latency / energy / busiest link"], body
    )


def write_job(job: Job, name: str, folder: Path) -> None:
    """Chip, mapping and job of a design as ordinary files."""
    from tierform.chip.description import Chip
    from tierform.files import make_folder
    from tierform.mapping import Mapping
    from tierform.simulation.job_file import save_job

    folder = make_folder(folder, parents=True)
    chip, mapping = job.chip, job.mapping
    assert isinstance(chip, Chip) and isinstance(mapping, Mapping)
    chip.write(folder / "chip.yaml")
    mapping.save(folder / "mapping.yaml")
    save_job(replace(job, chip="chip.yaml", mapping="mapping.yaml"), folder / "job.yaml")
    console().print(f"written: chip, mapping and job of {name!r} to {folder}", soft_wrap=True)


def verify_jobs(before: Job, after: Job, name: str) -> dict[str, float]:
    """Both jobs by formula and by cycle: a table, and the figures for a JSON file."""
    from tierform.simulation.simulate import run_job

    jobs = {"as it is": before, name: after}
    formula = {text: run_job(job) for text, job in jobs.items()}
    cycle = {text: run_job(replace(job, fidelity="cycle")) for text, job in jobs.items()}
    own, its = (result.latency_s for result in cycle.values())
    by_cycle, by_formula = (100 * (ran[name].latency_s / ran["as it is"].latency_s - 1) for ran in (cycle, formula))
    body = [
        [
            text,
            format_quantity(formula[text].latency_s, "s"),
            format_quantity(cycle[text].latency_s, "s"),
            f"{100 * (cycle[text].latency_s / formula[text].latency_s - 1):+.2f} %",
            f"{by_cycle:+.2f} % (formula {by_formula:+.2f} %)" if text == name else "",
        ]
        for text in jobs
    ]
    print_table("By cycle", ["design", "formula", "cycle", "apart", "gain by cycle"], body)
    return {
        "as_it_is_s": own,
        "best_s": its,
        "as_it_is_formula_s": formula["as it is"].latency_s,
        "best_formula_s": formula[name].latency_s,
        "as_it_is_J": cycle["as it is"].energy_J,
        "best_J": cycle[name].energy_J,
    }


def _carried(study: NetworkStudy, one: Improved) -> dict[str, float]:
    from tierform.exploration.network_search import reference_of
    from tierform.exploration.throughput import carried_load

    before, after = carried_load(reference_of(study.problem)), carried_load(one.design)
    console().print(
        f"carried load (1: the busiest tile's port is full; 4 virtual channels of 8 flits): {before:.2f} as it is, "
        f"{after:.2f} with {one.way!r}",
        soft_wrap=True,
    )
    return {"as_it_is_carried_load": before, "best_carried_load": after}
