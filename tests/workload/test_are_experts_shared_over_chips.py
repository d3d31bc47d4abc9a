"""Are experts shared over chips as their two ways say: a tensor group with some experts each, or copies that exchange?

Mixtral 8x7B by hand: 32 layers, width 4096, 8 experts of 3 * 4096 * 14336 numbers, 2 a token; 46,702,792,704 numbers in
all, of which 32 * 8 * 176,160,768 = 45,097,156,608 in experts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tierform import FineTuning, Inference, LoRA, Parallelism, TierformError, Training, load_chip
from tierform.simulation.collectives import Interconnect
from tierform.workload import Workload, expand, load_model
from tierform.workload.expert_store import ExpertStore
from tierform.workload.operator import Kind, Operator
from tierform.workload.split_text import read_parallel
from tierform.workload.spread import Spread, most_touched

MODEL = load_model("mixtral-8x7b")
ALL, EXPERTS = 46_702_792_704, 45_097_156_608
PREFILL = Inference(batch=8, sequence=64)


def exchanges(workload: Workload) -> list[tuple[Operator, int]]:
    return [(o, times) for _, _, o, times in workload.occurrences() if o.collective == "all_to_all"]


def expert_rows(workload: Workload) -> int:
    """Rows of all gate products of one layer."""
    found = [o for _, _, o, _ in workload.occurrences() if o.kind is Kind.MATMUL and o.weight == "ffn.experts.gate"]
    return sum(o.m * o.count for o in found)


@pytest.mark.parametrize("split", [Parallelism(tensor=2, expert=2), Parallelism(data=4, expert=4)])
def test_numbers_and_operations_of_all_chips_are_those_of_the_model(split: Parallelism) -> None:
    alone, shared = expand(MODEL, PREFILL), expand(MODEL, PREFILL, parallelism=split)
    assert shared.parameters == alone.parameters == ALL
    assert shared.macs * split.chips == pytest.approx(alone.macs, rel=1e-3)


def test_a_copy_keeps_its_part_of_the_experts_and_all_else() -> None:
    shared = expand(MODEL, PREFILL, parallelism=Parallelism(data=4, expert=4))
    assert shared.footprint.weights == 2 * (ALL - EXPERTS + EXPERTS // 4)


def test_rows_go_to_their_experts_and_come_back() -> None:
    """128 tokens a copy, 2 rows of 4096 bf16 numbers each: 2,097,152 bytes, twice a layer, 32 layers."""
    found = exchanges(expand(MODEL, PREFILL, parallelism=Parallelism(data=4, expert=4)))
    assert sum(times for _, times in found) == 64
    assert {(o.input_B, o.participants, o.copies) for o, _ in found} == {(2_097_152, 4, True)}


def test_a_backward_pass_exchanges_as_often() -> None:
    """Forward and backward: four a layer; two copies of each expert reduce its gradients."""
    workload = expand(MODEL, Training(batch=8, sequence=64), parallelism=Parallelism(data=4, expert=2))
    assert sum(times for _, times in exchanges(workload)) == 128
    reduced = {o.name: (o.participants, o.input_B) for _, b, o, _ in workload.occurrences() if "gradients" in b.name}
    assert reduced["gradients.all_reduce"] == (4, 2 * (ALL - EXPERTS))
    assert reduced["gradients.experts.all_reduce"] == (2, EXPERTS)  # half of them, in 2 bytes


def test_a_tensor_group_exchanges_nothing() -> None:
    found = expand(MODEL, PREFILL, parallelism=Parallelism(tensor=2, expert=2))
    assert not exchanges(found)
    gates = [o for _, _, o, _ in found.occurrences() if o.weight == "ffn.experts.gate"]
    assert {o.n for o in gates} == {14336} and sum(o.count for o in gates) == 4


def test_the_busiest_chip_is_waited_for() -> None:
    """512 tokens * 2 / 4 chips are 256 rows; 1.5 times as many where the router is uneven."""
    rows = [
        expert_rows(expand(MODEL, PREFILL, parallelism=Parallelism(data=4, expert=4, imbalance=imbalance)))
        for imbalance in (1.0, 1.5)
    ]
    assert rows == [256, 384]


def test_a_capacity_is_padded() -> None:
    """1.25 * 512 tokens * 2 / 8 experts are 160 rows for each of a chip's two experts."""
    assert expert_rows(expand(MODEL, PREFILL, parallelism=Parallelism(data=4, expert=4, capacity=1.25))) == 320
    assert Spread(2, True, capacity=1.0).shares(3, 8, 2, 8, split=False) == [(4, 2)]  # 6 * 2 / 8, rounded up


def test_an_all_to_all_takes_its_bytes_over_the_link_and_a_latency_for_each_chip() -> None:
    """Of S bytes 3/4 leave each of four chips.  Of sixteen in two nodes of eight half cross the node's adapters, and
    7/8 of as many the links inside."""
    chip = load_chip("h100")
    assert chip.cluster is not None and chip.cluster.node is not None
    near, far = chip.cluster, chip.cluster.node
    for members, seconds in (
        (4, lambda size: 0.75 * size / near.bandwidth.value + 3 * near.latency.value),
        (
            16,
            lambda size: (
                0.5 * size / far.bandwidth.value
                + far.latency.value
                + 0.875 * size / near.bandwidth.value
                + 7 * near.latency.value
            ),
        ),
    ):
        split = Parallelism(data=members)
        (made, _), *_ = exchanges(expand(MODEL, PREFILL, parallelism=Parallelism(data=4, expert=4)))
        made = replace(made, participants=members)
        links = Interconnect(chip, split)
        links._timer = None  # by the formula, not by what was fitted on measured collectives
        assert links.cost(made).latency_s == pytest.approx(seconds(made.input_B))
        fitted = Interconnect(chip, split).cost(made).latency_s
        assert fitted != links.cost(made).latency_s


def test_adapters_of_experts_are_shared_too() -> None:
    alone = expand(MODEL, FineTuning(LoRA(8, ("gate",)), batch=8, sequence=64))
    split = Parallelism(data=4, expert=4)
    shared = expand(MODEL, FineTuning(LoRA(8, ("gate",)), batch=8, sequence=64), parallelism=split)
    assert shared.trainable_parameters == alone.trainable_parameters == 32 * 8 * 8 * (4096 + 14336)
    assert shared.footprint.adapters * 4 == alone.footprint.adapters


def test_a_text_says_it() -> None:
    assert read_parallel("data=8,expert=4,capacity=1.25") == Parallelism(data=8, expert=4, capacity=1.25)
    assert "expert" not in Parallelism(tensor=2).content()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"expert": 3, "tensor": 2}, "expert=2"),
        ({"imbalance": 2.0}, "on one chip"),
        ({"data": 2, "expert": 2, "imbalance": 0.5}, "from 1 to 1000"),
        ({"data": 2, "expert": 2, "imbalance": 1.5, "capacity": 1.0}, "whatever the router says"),
    ],
)
def test_what_no_chips_can_do_is_refused(given: dict[str, float], words: str) -> None:
    with pytest.raises(TierformError) as caught:
        Parallelism(**given)  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_what_a_model_does_not_give_is_refused_all_at_once() -> None:
    with pytest.raises(TierformError) as caught:
        expand(MODEL, Training(batch=6, sequence=8), parallelism=Parallelism(data=3, expert=3, zero=1))
    assert "8 experts do not divide among 3" in str(caught.value) and "sharded already" in str(caught.value)
    with pytest.raises(TierformError, match="has no experts"):
        expand(load_model("llama-3.2-1b"), PREFILL, parallelism=Parallelism(data=2, expert=2))


def test_how_many_rows_has_the_busiest_chip() -> None:
    """Ten tokens of two experts each on four chips that hold two of eight experts: 20 rows, five for each chip."""
    group, copies = Spread(4), Spread(4, copies=True)
    assert group.shares(10, 8, 2, 8, split=False) == [(1, 2), (1, 3)]
    # Rows of all four copies meet: 80 rows, 20 for each chip.
    assert copies.shares(10, 8, 2, 8, split=False) == [(2, 10)]
    assert copies.shares(10, 8, 2, 8, split=True) == [(1, 10), (1, 10)]
    # The busiest has 1.3 times five rows, rounded up.
    assert replace(group, imbalance=1.3).shares(10, 8, 2, 8, split=False) == [(1, 3), (1, 4)]
    # Two experts that are used are one on the busiest chip (1.19 by the approximation), six are two of them; one is
    # never less than one.
    assert group.shares(10, 8, 2, 2, split=False) == group.shares(10, 8, 2, 2, split=True) == [(1, 5)]
    assert group.shares(10, 8, 2, 6, split=False) == [(1, 2), (1, 3)] and group.shares(10, 8, 2, 1, split=False) == [
        (1, 5)
    ]
    assert group.shares(10, 8, 2, 40, split=False) == [(1, 2), (1, 3)]  # never more than it holds
    # An expert that is used has a row at least.
    assert group.shares(1, 8, 1, 8, split=False) == [(2, 1)]
    # A buffer of 1.25 times 20 / 8 rows, of all copies 80 / 8, rounded up, whatever is used.
    assert replace(group, capacity=1.25).shares(10, 8, 2, 1, split=True) == [(2, 4)]
    assert replace(copies, capacity=1.25).shares(10, 8, 2, 1, split=True) == [(2, 13)]
    # More chips than experts: one each.
    assert Spread(9, capacity=2.0).shares(10, 8, 2, 8, split=False) == [(1, 5)]


@pytest.mark.parametrize(
    ("touched", "experts", "chips"),
    [(52, 128, 8), (112, 128, 8), (26, 128, 2), (51, 128, 4), (160, 256, 16), (3, 16, 4)],
)
def test_does_the_busiest_chip_have_as_many_used_experts_as_in_random_draws(
    touched: int, experts: int, chips: int
) -> None:
    generator = np.random.default_rng(7)
    most = []
    for _ in range(4000):
        used = generator.permutation(experts)[:touched]
        most.append(np.bincount(used // (experts // chips), minlength=chips).max())
    assert most_touched(touched, experts, chips) == pytest.approx(np.mean(most), abs=0.6)


def test_is_the_busiest_chip_where_nothing_is_left_to_chance() -> None:
    assert most_touched(128, 128, 8) == 16 and most_touched(40, 128, 1) == 40
    assert most_touched(1, 128, 8) == 1 and most_touched(7, 8, 8) == 1
    # 64 draws of eight tokens: 52 of 128 experts, 6.5 a chip in the mean, 9 on the chip for which the others wait.
    assert most_touched(52, 128, 8) == 9


def test_how_many_experts_are_used_and_found_near() -> None:
    """Popularity 1 and 3: a quarter and three quarters of all assignments, the popular one first in the cache."""
    store = ExpertStore(cached=0.5, routing=(1.0, 3.0))
    assert store.shares(2) == (0.75, 0.25) and store.hits(2) == 0.75
    assert ExpertStore(cached=0.99, routing=(1.0, 3.0)).hits(2) == 0.75 and ExpertStore(cached=0.49).hits(2) == 0.0
    assert ExpertStore(cached=0.75).hits(8) == pytest.approx(0.75) and ExpertStore().shares(4) == (0.25,) * 4
    # Two tokens of one expert: 1 - 1/16 and 1 - 9/16, 1.375 experts; of two experts each, 1 and 1 - 1/4.
    assert (store.touched(2, 2, 1), store.touched(2, 2, 2)) == (1, 2)
    # Six of even popularity: 6 (1 - (5/6)^6) = 3.99; never fewer than those of a token, never more than there are.
    assert ExpertStore().touched(6, 6, 1) == 4 and ExpertStore().touched(1, 6, 3) == 3
    assert ExpertStore().touched(10**6, 6, 1) == 6
    for given, key in (
        ({"cached": 1.01}, "cached"),
        ({"cached": -0.1}, "cached"),
        ({"routing": (0.0, 0.0)}, "routing"),
    ):
        with pytest.raises(TierformError, match=key):
            ExpertStore(**given)  # type: ignore[arg-type]
    with pytest.raises(TierformError, match="routing"):
        ExpertStore(routing=(2.0, -1.0))
    assert ExpertStore(cached=0.0, routing=(0.0, 1.0)).hits(2) == 0.0
