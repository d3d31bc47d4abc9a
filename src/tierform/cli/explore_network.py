"""``tierform explore network JOB.yaml``: places, links and routes for one job's traffic, judged by whole results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tierform.cli.output import console, print_table
from tierform.errors import fail
from tierform.units import format_quantity

if TYPE_CHECKING:
    from tierform.exploration.network_study import Improved, NetworkStudy


def search_network(job_file: Path, *, ways: str, seed: int, winners: Path | None, verify: bool) -> dict[str, object]:
    """Search, print and, if asked, write and simulate by cycle; the figures for a JSON file."""
    from tierform.exploration.network_study import WAYS, improve, study_network
    from tierform.simulation.job_file import load_job

    wanted = [way.strip() for way in ways.split(",")] if ways else list(WAYS)
    for way in wanted:
        if way not in WAYS:
            fail("no such way of searching a network", key="--ways", value=way, choices=WAYS)
    study = study_network(load_job(job_file))
    console().print(f"{study.stakes}", soft_wrap=True)
    found = improve(study, wanted, seed=seed) if study.stakes.matter else []
    if not found:
        console().print("nothing was searched: no topology would change the result")
    else:
        _tell(study, found)
    content: dict[str, object] = {
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
    better = bool(found) and found[0].result.latency_s < study.result.latency_s * (1 - 1e-6)
    if found and not better:
        console().print("no design is faster than the network as it is: nothing to write")
    if better and winners:
        _write(found[0], winners)
    if better and verify:
        content["cycle"] = _verify(study, found[0])
    return content


def _tell(study: NetworkStudy, found: list[Improved]) -> None:
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


def _write(one: Improved, folder: Path) -> None:
    """Chip, mapping and job of a design as ordinary files."""
    from tierform.chip.description import Chip
    from tierform.files import make_folder
    from tierform.mapping import Mapping
    from tierform.simulation.job_file import save_job

    folder = make_folder(folder, parents=True)
    chip, mapping = one.job.chip, one.job.mapping
    assert isinstance(chip, Chip) and isinstance(mapping, Mapping)
    chip.write(folder / "chip.yaml")
    mapping.save(folder / "mapping.yaml")
    save_job(replace(one.job, chip="chip.yaml", mapping="mapping.yaml"), folder / "job.yaml")
    console().print(f"written: chip, mapping and job of {one.way!r} to {folder}", soft_wrap=True)


def _verify(study: NetworkStudy, one: Improved) -> dict[str, float]:
    from tierform.exploration.network_search import reference_of
    from tierform.exploration.throughput import carried_load
    from tierform.simulation.simulate import run_job

    own = run_job(replace(study.job, fidelity="cycle")).latency_s
    its = run_job(replace(one.job, fidelity="cycle")).latency_s
    by_cycle, by_formula = (100 * (gain - 1) for gain in (its / own, one.result.latency_s / study.result.latency_s))
    body = [
        ["as it is", format_quantity(study.result.latency_s, "s"), format_quantity(own, "s"), ""],
        [
            one.way,
            format_quantity(one.result.latency_s, "s"),
            format_quantity(its, "s"),
            f"{by_cycle:+.2f} % (formula {by_formula:+.2f} %)",
        ],
    ]
    print_table("By cycle", ["network", "formula", "cycle", "gain by cycle"], body)
    before, after = carried_load(reference_of(study.problem)), carried_load(one.design)
    console().print(
        f"carried load (1: the busiest tile's port is full; 4 virtual channels of 8 flits): {before:.2f} as it is, "
        f"{after:.2f} with {one.way!r}",
        soft_wrap=True,
    )
    return {"as_it_is_s": own, "best_s": its, "as_it_is_carried_load": before, "best_carried_load": after}
