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
    from tierform.simulation.result import Result


def search_network(
    job_file: Path,
    *,
    ways: str,
    seed: int,
    pillars: int | None,
    ports: int | None,
    winners: Path | None,
    verify: bool,
) -> dict[str, object]:
    """Search, print and, if asked, write and simulate by cycle; the figures for a JSON file."""
    from tierform.exploration.network_study import budgeted, improve, study_network, usual_ways
    from tierform.simulation.job_file import load_job

    named = chosen_ways(ways, ())
    own = study_network(load_job(job_file))
    console().print(f"{own.stakes}", soft_wrap=True)
    study = budgeted(own, pillars=pillars, ports=ports)
    before = None if study.result is own.result else own
    if before is not None:
        console().print(f"with {pillars} pillars, evenly placed: {study.stakes}", soft_wrap=True)
    found = improve(study, named or usual_ways(study), seed=seed) if study.stakes.matter else []
    if not found:
        console().print("nothing was searched: no topology would change the result")
    else:
        tell_networks(study, found, before)
    content = content_of(study, found)
    if before is not None:
        content["as_it_is"] = {"latency_s": before.result.latency_s, "energy_J": before.result.energy_J}
    better = bool(found) and found[0].faster_than(study.result)
    if found and not better:
        console().print("no design is faster than what it is compared with by 0.1 %: nothing to write")
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
            fail("no such way of searching a network", key="--ways", value=way, choices=list(WAYS))
    return wanted


def content_of(study: NetworkStudy, found: Sequence[Improved]) -> dict[str, object]:
    """A study of a network for a JSON file."""
    from tierform.exploration.pillars import pillars_of

    return {
        "schema": "tierform.network-study/1",
        "free_network_saves": {"time": study.stakes.free_time, "energy": study.stakes.energy},
        "time_at_tile_ports": study.stakes.ports,
        "matters": study.stakes.matter,
        "latency_s": study.result.latency_s,
        "energy_J": study.result.energy_J,
        "pillars": pillars_of(study.problem.network.topology),
        "most_ports": study.problem.most_ports,
        "designs": [
            {
                "way": one.way,
                "latency_s": one.result.latency_s,
                "energy_J": one.result.energy_J,
                "ratios": dict(zip(("latency", "energy", "peak"), one.design.ratios.values, strict=True)),
                "wire_m": one.design.wire_m,
                "ports": one.design.ports,
                "pillars": one.design.pillars,
            }
            for one in found
        ],
    }


def tell_networks(study: NetworkStudy, found: Sequence[Improved], before: NetworkStudy | None = None) -> None:
    """A table of designs beside the network that they are compared with, and the one `before` the pillars changed."""
    from tierform.exploration.network_search import reference_of

    mesh = reference_of(study.problem)
    stack = [mesh, *(one.design for one in found)] if mesh.pillars else []
    ports = [f"{design.pillars} / {design.ports}" for design in stack] or [""] * (len(found) + 1)
    body = [[*_row("as it is", before.result, study.result), "", ""]] if before is not None else []
    base = "as it is" if before is None else f"{mesh.pillars} pillars, evenly"
    body.append([*_row(base, study.result, study.result), "1 / 1 / 1", ports[0]])
    for one, text in zip(found, ports[1:], strict=True):
        ratios = " / ".join(f"{ratio:.3f}" for ratio in one.design.ratios.values)
        body.append([*_row(one.way, one.result, study.result), ratios, text])
    title = f"Networks at equal planar wire, at most {study.problem.most_ports} ports a tile"
    head = ["search", "time", "", "energy", "", "latency / energy / busiest link", "pillars / ports"]
    if not stack:
        body, head = [row[:-1] for row in body], head[:-1]
    print_table(title, head, body)


def _row(name: str, result: Result, own: Result) -> list[str]:
    def change(mine: float, its: float) -> str:
        return "" if result is own else f"{100 * (mine / its - 1):+.2f} %"

    return [
        name,
        format_quantity(result.latency_s, "s"),
        change(result.latency_s, own.latency_s),
        format_quantity(result.energy_J, "J"),
        change(result.energy_J, own.energy_J),
    ]


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
