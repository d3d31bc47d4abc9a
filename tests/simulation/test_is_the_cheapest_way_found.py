"""Is the way that `fit` calls cheapest the cheapest of all, do its counts add up, and is its memory that of a hand?"""

from __future__ import annotations

from dataclasses import replace

import pytest

import tierform
from tierform.errors import TierformError
from tierform.simulation.fit import NEEDLESS, NO_FASTER, NO_GAIN, NO_LINK, NO_ROOM
from tierform.simulation.fit_answer import FitAnswer, Objective
from tierform.simulation.fit_floor import expanded, link_s
from tierform.simulation.fit_ways import FitWay, micro_batches_of, offloads_of, recomputations_of, splits_of
from tierform.simulation.offload import load_host
from tierform.workload.parallel import Parallelism

P = 1_235_814_400  # numbers of Llama 3.2 1B: 128,256 x 2,048 words, 16 layers of 60,821,504, and 2,048 at the end


def added_up(found: FitAnswer) -> bool:
    return len(found.timed) + sum(found.pruned.values()) == found.ways


def test_are_bytes_of_training_those_of_a_hand() -> None:
    # AdamW in bf16: 2 B of weight, 2 of gradient; 2 x 4 of states and 4 of master weight, which two copies share.
    found = tierform.fit(
        "llama-3.2-1b",
        tierform.FineTuning(batch=2, sequence=64),
        "h100",
        gpus=2,
        methods=[tierform.Full()],
        recomputations=["none"],
        offloads=[()],
        parallelism=Parallelism(data=2, zero=1),
    )
    assert found.ways == len(found.timed) == 1 and found.pruned == {} and found.fits
    assert found.best is not None and found.capacity_B == 85_500_000_000
    parts = {part: sum(held.values()) for part, held in found.best.placed_B.items()}
    assert (parts["weights"], parts["gradients"]) == (2 * P, 2 * P)
    assert (parts["optimizer_states"], parts["master_weights"]) == (8 * P // 2, 4 * P // 2)
    assert found.best.chip_B == sum(parts.values())


def test_are_bytes_of_inference_those_of_a_hand() -> None:
    # 16 layers keep a key and a value of 8 heads of 64 numbers in 2 B: 32,768 B a token, of 2 x (100 + 28) tokens.
    task = tierform.Inference(batch=2, sequence=100, decode=28)
    found = tierform.fit("llama-3.2-1b", task, "h100")
    plain = next(one for one in found.methods if one.way.method == "bf16")
    assert plain.placed_B["kv_cache"] == {"gpu": 32_768 * 256}
    assert plain.placed_B["weights"] == {"gpu": 2 * P}
    assert added_up(found) and found.ways == 3 * 4  # formats, sets of weights and cache to offload
    assert found.pruned == {NEEDLESS: 9}


def test_has_a_quantized_checkpoint_its_own_formats() -> None:
    """int4 in groups of 128 with a 16-bit scale: 4.125 bits; words and vectors stay in 16 bits."""
    model = replace(tierform.load_model("llama-3.2-1b"), weights_format="int4-g128")
    found = tierform.fit(model, tierform.Inference(batch=1, sequence=64), "h100", offloads=[()])
    (only,) = found.methods
    assert only.way.method == "int4-g128" and found.ways == 1
    words, matrices = 128_256 * 2_048, 16 * (60_821_504 - 2 * 2_048)
    expected = 2 * (words + P - words - matrices) + matrices * (4 + 16 / 128) / 8
    assert only.placed_B["weights"]["gpu"] == pytest.approx(expected, rel=1e-3)
    simulated = tierform.simulate(model, tierform.Inference(batch=1, sequence=64), "h100", thermal="none")
    assert simulated.latency_s == only.latency_s and simulated.memory_footprint_B["weights"] == sum(
        only.placed_B["weights"].values()
    )


@pytest.mark.parametrize("capacity", ["1.1 GB", "100 GB"])
def test_is_the_best_that_of_every_way_simulated(capacity: str) -> None:
    chip = tierform.load_chip("h100").vary({"components.gpu.memory_capacity": capacity})
    task = tierform.FineTuning(tierform.Full(), batch=2, sequence=256)
    asked = tierform.Job("gpt2", task, chip, thermal="none").loaded()
    assert isinstance(asked.model, tierform.Model)
    offloads = [one for one in offloads_of(task) if len(one) in (0, 1, 4)]
    ways = [
        FitWay("full", task, split, number).changed(kind, away)
        for split in splits_of(asked.model, task, 2)
        for number in micro_batches_of(task, split)
        for kind in recomputations_of(task)
        for away in offloads
    ]
    costs = []
    for way in ways:
        try:
            result = way.job(asked).simulate()
        except TierformError:
            continue
        costs.append((result.latency_s, result.energy_J))
    least: dict[Objective, tuple[float, float]] = {"time": min(costs), "energy": min(cost[::-1] for cost in costs)}
    for objective, cost in least.items():
        found = tierform.fit(
            asked.model, task, chip, gpus=2, methods=[tierform.Full()], offloads=offloads, objective=objective
        )
        assert found.best is not None and found.best.cost(objective) == cost
        assert found.ways == len(ways) and added_up(found)
        assert len(found.timed) < len(costs), "nothing was pruned"
        assert set(found.pruned) <= {NEEDLESS, NO_FASTER, NO_GAIN, NO_LINK, NO_ROOM}
        assert (NO_ROOM in found.pruned) == (len(costs) < len(ways)) == (capacity == "1.1 GB")


def test_is_the_largest_batch_the_largest_that_runs() -> None:
    chip = tierform.load_chip("h100").vary({"components.gpu.memory_capacity": "2 GB"})
    one = {"methods": [tierform.LoRA()], "recomputations": ["none"], "offloads": [()]}

    def fit(batch: int) -> FitAnswer:
        task = tierform.FineTuning(batch=batch, sequence=256)
        return tierform.fit("gpt2", task, chip, gpus=2, parallelism=Parallelism(data=2), **one)  # type: ignore[arg-type]

    first = fit(2).best
    assert first is not None and first.most_batch is not None and first.most_batch % 2 == 0
    assert fit(first.most_batch).fits
    more = fit(first.most_batch + 2)
    assert not more.fits and more.pruned == {NO_ROOM: 1} and more.closest is not None
    way, parts, missing = more.closest
    assert sum(parts.values()) - more.capacity_B == missing > 0 and more.without == {"lora": NO_ROOM}
    assert way.parallelism == Parallelism(data=2)


def test_is_a_batch_that_does_not_divide_counted_as_such() -> None:
    found = tierform.fit("gpt2", tierform.Inference(batch=1, sequence=16), "a100", gpus=2)
    assert added_up(found)
    assert found.pruned["a batch of 1 does not divide among 2 copies"] == 3 * 4
    assert all(one.way.parallelism.data == 1 for one in found.timed)


def test_is_every_way_tried_where_no_rule_holds() -> None:
    task = tierform.FineTuning(batch=1, sequence=64)
    found = tierform.fit(
        "bert-base", task, "atleus", methods=[tierform.LoRA()], offloads=[(), ("activations",)], recomputations=["none"]
    )
    assert found.ways == len(found.timed) == 2 and found.pruned == {}


def test_are_all_mistakes_told_at_once() -> None:
    with pytest.raises(TierformError) as told:
        tierform.fit("gpt3", tierform.Inference(), "h101", gpus=0, objective="speed")  # type: ignore[arg-type]
    text = str(told.value)
    for word in ("gpt3", "h101", "gpus", "speed"):
        assert word in text
    with pytest.raises(TierformError, match="split is over 4 chips, and there are 2"):
        tierform.fit("gpt2", tierform.Inference(), "h100", gpus=2, parallelism=Parallelism(tensor=4))
    with pytest.raises(TierformError, match="joins them"):
        alone = tierform.load_chip("h100").vary({"cluster": None})
        tierform.fit("gpt2", tierform.Inference(), alone, gpus=2)


@pytest.mark.parametrize("split", [Parallelism(pipeline=2), Parallelism(data=2, zero=3), Parallelism(tensor=2)])
def test_is_no_way_faster_than_its_bytes_on_the_link(split: Parallelism) -> None:
    """A floor is under every way; weights that leave come again for every pass of every micro-batch."""
    task = tierform.FineTuning(tierform.Full(), batch=8, sequence=256)
    asked = tierform.Job("gpt2", task, "h100", thermal="none").loaded()
    host = load_host(task.host)
    for number in micro_batches_of(task, split):
        for kind in ("none", "full"):
            for away in [one for one in offloads_of(task) if len(one) < 3]:
                way = FitWay("full", task, split, number).changed(kind, away)
                least_s = link_s(expanded(way.changed(kind, ()).job(asked)), away, host, 85_500_000_000)
                result = way.job(asked).simulate()
                assert sum(least_s) <= result.latency_s * (1 + 1e-9), way
                if away == ("weights",) and split.pipeline == 2:
                    # Half of 163 million weights (words twice), 2 B each, over 50 GB/s, in both passes.
                    assert least_s[0] == pytest.approx(number * 2 * 163e6 / 50e9, rel=0.35)


def test_do_chips_share_a_sequence_where_copies_cannot_share_the_batch() -> None:
    task = tierform.FineTuning(tierform.Full(), batch=1, sequence=512)
    model = tierform.load_model("gpt2")
    asked = tierform.Job(model, task, "h100", thermal="none").loaded()
    splits = list(splits_of(model, task, 2))
    assert {split.context for split in splits} == {1, 2} and len(splits) == len(set(splits))
    assert {s.zero for s in splits if s.context == 2} == {0, 1, 2, 3}
    costs = {}
    for split in splits:
        for number in micro_batches_of(task, split):
            way = FitWay("full", task, split, number)
            try:
                costs[way.job(asked).simulate().latency_s] = split
            except TierformError as error:
                assert "does not divide" in str(error) and split.data == 2
    found = tierform.fit(model, task, "h100", gpus=2, methods=[tierform.Full()], recomputations=["none"], offloads=[()])
    assert found.best is not None and found.best.latency_s == min(costs) and added_up(found)
    assert any(one.way.parallelism.context == 2 for one in found.timed)
    # Two sequences have two copies; a single token's step and an odd length have nothing to share.
    for other in (replace(task, batch=2), replace(task, sequence=511)):
        assert {split.context for split in splits_of(model, other, 2)} == {1}
    assert {split.context for split in splits_of(model, tierform.Inference(batch=1, sequence=512, decode=4), 2)} == {1}
