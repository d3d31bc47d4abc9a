"""Can states be sharded on chips that are no GPU, is what cannot be sharded refused, and do nodes keep links apart?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from drawn import chip_content, load, run
from small_models import small

from tierform import FineTuning, TierformError, load_chip
from tierform.chip.description import Chip
from tierform.simulation.collectives import Interconnect
from tierform.workload.parallel import Parallelism

LINK = {"value": "50 GB/s", "kind": "assumed", "note": "law"}
CLUSTER: dict[str, Any] = {
    "bandwidth": LINK,
    "latency": {"value": "1 us", "kind": "assumed", "note": "law"},
    "energy": {"value": "10 pJ/bit", "kind": "assumed", "note": "law"},
}
TASK = FineTuning(batch=4, sequence=16)


def joined(name: str, folder: Path) -> Chip:
    return load({**chip_content(name), "name": f"{name}-joined", "cluster": CLUSTER}, folder)


def test_do_systolic_chips_gather_into_their_memory(tmp_path: Path) -> None:
    """Gathered weights are read from memory as before: they cross no link of the chip's own network twice."""
    chip, model = joined("tpu-3d", tmp_path), small("gpt2")
    results = [run(model, TASK, chip, Parallelism(data=2, zero=zero)) for zero in range(4)]
    first, last = results[0], results[3]
    assert last.memory_footprint_B["weights"] * 2 == first.memory_footprint_B["weights"]
    links = [result.energy_J_by_component["interconnect"] for result in results]
    assert links[3] > links[2] == pytest.approx(links[1])
    reads = [sum(row.memory_B for row in r.operators if row.stage == "forward") for r in results]
    assert reads[3] == pytest.approx(reads[0])
    updates = [sum(row.memory_B for row in r.operators if row.stage == "update") for r in results]
    assert updates[1] == pytest.approx(updates[0] / 2, rel=1e-3)  # each copy updates half of every weight


def test_are_weights_in_crossbars_not_gathered(tmp_path: Path) -> None:
    chip, model = joined("atleus", tmp_path), small("bert")
    for zero in (1, 2):
        assert run(model, TASK, chip, Parallelism(data=2, zero=zero)).latency_s > 0
    with pytest.raises(TierformError, match="zero=2"):
        run(model, TASK, chip, Parallelism(data=2, zero=3))


def test_do_copies_in_other_nodes_have_links_of_their_own() -> None:
    """Tensor groups of eight fill the nodes of h100: their collectives do not wait for gathers between the nodes."""
    chip = load_chip("h100")
    assert chip.cluster is not None and chip.cluster.node is not None and chip.cluster.node.chips == 8
    apart, together = Interconnect(chip, Parallelism(8, data=4)), Interconnect(chip, Parallelism(2, data=4))
    assert apart.copies_are_apart and not together.copies_are_apart
    assert not Interconnect(chip, Parallelism(data=64)).copies_are_apart  # no tensor group beside them


def test_is_the_floor_of_boards_booked_for_what_is_exposed_alone() -> None:
    """Energy of links: boards at work while they wait for gathers, and nothing where gathers hide."""
    model = small("gpt2")
    results = {
        zero: run(model, FineTuning(batch=8, sequence=16), "a100", Parallelism(data=2, zero=zero)) for zero in (0, 3)
    }
    for result in results.values():
        floor_W = result._run.stages.costing.floor_W  # type: ignore[union-attr]
        assert floor_W > 0
        booked = result.energy_J_by_part["links: active power"]
        assert booked == pytest.approx(2 * floor_W * result.communication["exposed_s"], rel=1e-6)
