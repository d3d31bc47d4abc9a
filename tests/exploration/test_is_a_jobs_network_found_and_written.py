"""Is a network that was found for a job's traffic written so that the job runs on it, and is it said when none matters?

The chip is the library's Atleus side by side on an interposer, its links four times narrower, where they matter.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tierform import FineTuning, Inference, Job, LoRA, load_chip
from tierform.errors import TierformError
from tierform.exploration.link_search import search_links
from tierform.exploration.network_search import reference_of
from tierform.exploration.network_study import (
    NetworkStudy,
    designs,
    listed,
    quickest,
    seconds_of,
    study_network,
    with_design,
)
from tierform.network import choose_routing
from tierform.network.deadlock import dependencies, find_cycle, virtual_channel_plan
from tierform.network.topology import RouteTable
from tierform.simulation.job_file import load_job, save_job
from tierform.simulation.package_network import network_of
from tierform.simulation.simulate import run_job

NARROW = {"network.width": "64 bit", "network.interposer.width": "32 bit"}


@pytest.fixture(scope="module")
def study() -> NetworkStudy:
    task = FineTuning(method=LoRA(), batch=8, sequence=512)
    return study_network(Job(model="bert-large", task=task, chip=load_chip("atleus-2.5d").vary(NARROW)))


def test_is_the_job_the_same_with_every_link_and_route_named(study: NetworkStudy) -> None:
    chip = study.job.chip
    named = run_job(replace(study.job, chip=listed(chip)))  # type: ignore[arg-type]
    assert (named.latency_s, named.energy_J) == (study.result.latency_s, study.result.energy_J)


def test_are_the_bytes_between_tiles_those_that_the_links_carried(study: NetworkStudy) -> None:
    """Where nothing is sent to several tiles at once: a multicast loads a shared link once, here each time."""
    reference = reference_of(study.problem)
    assert reference.loads.sum() >= sum(study.result.link_bytes) * (1 - 1e-9)
    alone = study_network(Job(model="bert-base", task=Inference(batch=2, sequence=128), chip=load_chip("hetrax")))
    assert reference_of(alone.problem).loads.sum() == pytest.approx(sum(alone.result.link_bytes), rel=1e-9)


def test_does_a_search_by_transfers_make_the_whole_job_faster(study: NetworkStudy, tmp_path: Path) -> None:
    found = quickest(study, reference_of(study.problem), places=False, rounds=4_000)
    assert seconds_of(study, found) < seconds_of(study, reference_of(study.problem))
    job = with_design(study.job, found)
    result = run_job(job)
    assert result.latency_s < 0.9 * study.result.latency_s
    made = network_of(job.chip)  # type: ignore[arg-type]
    assert made is not None
    everyone = np.arange(made[0].topology.routers, dtype=np.int32)
    assert find_cycle(made[0].topology, dependencies(made[0].routing, everyone)) is None
    assert found.topology.link_length_m.sum() == study.problem.network.topology.link_length_m.sum()
    # As files it is the same job.
    job.chip.write(tmp_path / "chip.yaml")  # type: ignore[union-attr]
    job.mapping.save(tmp_path / "mapping.yaml")  # type: ignore[union-attr]
    save_job(replace(job, chip="chip.yaml", mapping="mapping.yaml"), tmp_path / "job.yaml")
    again = run_job(load_job(tmp_path / "job.yaml"))
    assert again.latency_s == pytest.approx(result.latency_s, rel=1e-9)


def test_are_routes_in_two_classes_written_with_their_classes(study: NetworkStudy, tmp_path: Path) -> None:
    """The chip that is read again has the links, routes and classes that were found, free of deadlock together."""
    made = search_links(study.problem, rounds=2_000, classes=2)
    found = next(design for design in made if design.channels_needed == 2)
    with_design(study.job, found).chip.write(tmp_path / "chip.yaml")  # type: ignore[union-attr]
    again = network_of(load_chip(tmp_path / "chip.yaml"))
    assert again is not None
    table, classes = again[0].topology.structure, found.classes
    assert isinstance(table, RouteTable) and table.classes is not None and classes is not None
    np.testing.assert_array_equal(table.classes, classes)
    goes, ends = table.next_link >= 0, (again[0].topology.link_target, found.topology.link_target)
    np.testing.assert_array_equal(goes, found.table >= 0)
    np.testing.assert_array_equal(ends[0][table.next_link[goes]], ends[1][found.table[goes]])
    assert virtual_channel_plan(again[0].routing, 2).layers == 2
    # All in one class is another network, which deadlocks: the key acts.
    alone = replace(again[0].topology, structure=RouteTable(table.next_link, np.zeros_like(table.classes)))
    with pytest.raises(TierformError, match="can deadlock"):
        virtual_channel_plan(choose_routing(alone), 1)


def test_do_weights_move_with_their_places(study: NetworkStudy) -> None:
    design = designs(study, ["places"])["places"][0]
    moved = with_design(study.job, design).mapping
    own = study.job.mapping
    for before, after in zip(own.placements, moved.placements, strict=True):  # type: ignore[union-attr]
        for here, there in zip(before.tiles, after.tiles, strict=True):
            assert [int(design.place[tile]) for tile in here] == list(there)
    assert not np.array_equal(design.place, np.arange(len(design.place)))


def test_is_it_said_that_a_network_hardly_matters() -> None:
    wide = study_network(Job(model="bert-base", task=Inference(batch=2, sequence=128), chip=load_chip("hetrax")))
    assert wide.stakes.ports > 0.9 and "hardly matters" in str(wide.stakes)
