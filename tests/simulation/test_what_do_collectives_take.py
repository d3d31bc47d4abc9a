"""Do rings take the steps, bytes and joules that are derived by hand, in a node of chips and between nodes?

Links in a node: 10 GB/s, 1 us for a step, 100 pJ a byte.  Nodes of four chips: 1 GB/s, 5 us, 400 pJ a byte.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import tierform
from tierform import TierformError
from tierform.chip.description import Chip
from tierform.simulation.collectives import Interconnect
from tierform.workload.operator import Kind, Operand, Operator, Phase, Role
from tierform.workload.ops.optimizer import gradient_reduction
from tierform.workload.parallel import Parallelism

TOY = Path(__file__).parent / "golden" / "toy-gpu.yaml"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Chip:
    """The toy GPU in nodes of four."""
    folder = tmp_path_factory.mktemp("chip")
    level = (
        "  node:\n    chips: 4\n    bandwidth: {value: 1 GB/s, kind: assumed, note: toy}\n"
        "    latency: {value: 5 us, kind: assumed, note: toy}\n"
        "    energy: {value: 400 pJ/B, kind: assumed, note: toy}\n"
    )
    text = TOY.read_text().replace("./toy-gpu-part.yaml", str(TOY.with_name("toy-gpu-part.yaml")))
    (folder / "nodes.yaml").write_text(text.replace("precision:", f"{level}precision:"))
    return tierform.load_chip(folder / "nodes.yaml")


def collective(kind: str, inputs: int, outputs: int, members: int, *, copies: bool = False) -> Operator:
    return Operator(
        "sent",
        Kind.COLLECTIVE,
        "attention",
        Phase.FORWARD,
        (Operand("x", (inputs,), "int8", Role.ACTIVATION),),
        (Operand("y", (outputs,), "int8", Role.ACTIVATION),),
        collective=kind,
        participants=members,
        copies=copies,
    )


def us_and_pJ(links: Interconnect, operator: Operator) -> tuple[float, float]:
    cost = links.cost(operator)
    assert cost.latency_s == cost.occupancy_s and set(cost.energy_J) == {"links"}
    return cost.occupancy_s * 1e6, cost.total_energy_J * 1e12


def test_what_does_a_ring_in_one_node_take(nodes: Chip) -> None:
    links = Interconnect(nodes, Parallelism(tensor=4))
    # 40,000 bytes among four: 2 x 3/4 of them, 60,000 bytes, at 10 GB/s, and six steps.  Half of that for the others,
    # whichever of their sides is the whole one.
    assert us_and_pJ(links, collective("all_reduce", 40_000, 40_000, 4)) == pytest.approx((6 + 6, 6_000_000))
    assert us_and_pJ(links, collective("all_gather", 10_000, 40_000, 4)) == pytest.approx((3 + 3, 3_000_000))
    assert us_and_pJ(links, collective("reduce_scatter", 40_000, 10_000, 4)) == pytest.approx((3 + 3, 3_000_000))
    assert us_and_pJ(links, collective("all_reduce", 40_000, 40_000, 1)) == (0, 0)


def test_what_does_a_ring_over_two_nodes_take(nodes: Chip) -> None:
    links = Interconnect(nodes, Parallelism(tensor=8))
    # In each node as above.  Between the two nodes a quarter, 10,000 bytes: 2 x 1/2 of them at 1 GB/s, two steps of
    # 5 us, 400 pJ a byte.
    assert us_and_pJ(links, collective("all_reduce", 40_000, 40_000, 8)) == pytest.approx((12 + 10 + 10, 10_000_000))
    # Six of tensor 6 in nodes of four: groups of three in each of two nodes; 2 x 2/3 of 40,000 bytes and four steps,
    # then a third of the bytes between the nodes.
    six = us_and_pJ(Interconnect(nodes, Parallelism(tensor=6)), collective("all_reduce", 30_000, 30_000, 6))
    assert six == pytest.approx((4 + 4 + 10 + 10, 40_000 * 100 + 10_000 * 400))


def test_what_does_an_all_to_all_take(nodes: Chip) -> None:
    # 40,000 bytes of each chip, an equal part for every other: 3/4 of them and three steps in a node of four.
    four = Interconnect(nodes, Parallelism(tensor=4))
    assert us_and_pJ(four, collective("all_to_all", 40_000, 40_000, 4)) == pytest.approx((3 + 3, 3_000_000))
    # Eight: 3/4 in the node, and half of all bytes, 20,000 at 1 GB/s in a step of 5 us, to the other node.
    eight = Interconnect(nodes, Parallelism(tensor=8))
    found = us_and_pJ(eight, collective("all_to_all", 40_000, 40_000, 8))
    assert found == pytest.approx((3 + 3 + 20 + 5, 3_000_000 + 8_000_000))


def test_what_do_copies_take_that_are_a_tensor_group_apart(nodes: Chip) -> None:
    sent = collective("all_reduce", 40_000, 40_000, 4, copies=True)
    # Tensor 4 fills a node: each of four copies is in its own; 60,000 bytes at 1 GB/s, six steps of 5 us.
    apart = Interconnect(nodes, Parallelism(tensor=4, data=4))
    assert us_and_pJ(apart, sent) == pytest.approx((60 + 30, 24_000_000))
    assert apart.copies_are_apart
    # Tensor 2: two copies in a node, two nodes: 2 x 1/2 of 40,000 bytes and two steps in the node, then 20,000 bytes
    # of half of them between the nodes.
    near = Interconnect(nodes, Parallelism(tensor=2, data=4))
    assert us_and_pJ(near, sent) == pytest.approx((4 + 2 + 20 + 10, 4_000_000 + 8_000_000))
    assert not near.copies_are_apart
    # Without tensor groups the copies of one node are neighbours.
    assert not Interconnect(nodes, Parallelism(data=4)).copies_are_apart
    assert not Interconnect(tierform.load_chip(TOY), Parallelism(tensor=4, data=4)).copies_are_apart


def test_which_links_does_a_send_take(nodes: Chip) -> None:
    links = Interconnect(nodes)
    # 1,000 bytes to the next chip, and to the one a node further; three places further is in the node still.
    assert links.send(1_000.0) == links.send(1_000.0, 3) == pytest.approx((0.1e-6, 1e-6, 100e-9))
    assert links.send(1_000.0, 4) == pytest.approx((1e-6, 5e-6, 400e-9))
    one_level = Interconnect(tierform.load_chip(TOY))
    assert one_level.send(1_000.0, 64) == pytest.approx((0.1e-6, 1e-6, 100e-9))


def test_is_one_kind_of_links_used_without_nodes() -> None:
    links = Interconnect(tierform.load_chip(TOY), Parallelism(tensor=4, data=4))
    sent = collective("all_reduce", 40_000, 40_000, 16, copies=True)
    # 2 x 15/16 of the bytes, thirty steps.
    assert us_and_pJ(links, sent) == pytest.approx((7.5 + 30, 7_500_000))


def test_are_other_collectives_and_chips_without_links_refused(nodes: Chip) -> None:
    with pytest.raises(TierformError, match="all_reduce, all_gather, reduce_scatter"):
        Interconnect(nodes).cost(collective("broadcast", 8, 8, 2))
    alone = replace(nodes, cluster=None)
    with pytest.raises(TierformError, match=r"2 chips are asked for.*does not say what joins them"):
        Interconnect(alone).send(1.0)


def test_do_copies_of_a_tied_weight_meet_over_all_groups_between_them(nodes: Chip) -> None:
    """The end groups of two stages stand in two nodes with tensor 4, in one with tensor 2: 2 MB, half sent twice."""
    table = gradient_reduction("gradients", 10**6, "bf16", 2, copies=False, weight="embedding.word")
    near = Interconnect(nodes, Parallelism(tensor=2, pipeline=2)).cost(table)
    assert near.occupancy_s == pytest.approx(2e6 / 10e9 + 2 * 1e-6)
    far = Interconnect(nodes, Parallelism(tensor=4, pipeline=2)).cost(table)
    assert far.occupancy_s == pytest.approx(2e6 / 1e9 + 2 * 5e-6)
    assert Interconnect(nodes, Parallelism(pipeline=5)).cost(table).occupancy_s == far.occupancy_s


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather", "reduce_scatter"])
def test_are_members_of_a_tensor_group_neighbours_beside_chips_that_share_a_sequence(nodes: Chip, kind: str) -> None:
    """Two of a tensor group sit in one node, whatever `context` is; rows of experts cross the groups between them."""
    sent = collective(kind, 40_000, 40_000, 2)
    alone = us_and_pJ(Interconnect(nodes, Parallelism(tensor=2)), sent)
    assert us_and_pJ(Interconnect(nodes, Parallelism(tensor=2, context=4)), sent) == alone
    rows = collective("all_to_all", 40_000, 40_000, 2, copies=True)
    near = us_and_pJ(Interconnect(nodes, Parallelism(tensor=2, data=2)), rows)
    far = us_and_pJ(Interconnect(nodes, Parallelism(tensor=2, context=2, data=2)), rows)
    assert far[0] > near[0] and far[1] > near[1]
