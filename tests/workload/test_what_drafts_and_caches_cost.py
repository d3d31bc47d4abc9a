"""Are drafts, cache policies and experts elsewhere laid out as they say, and do their laws hold?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tierform import library, load_chip, simulate
from tierform.errors import TierformError
from tierform.memory import load_memory
from tierform.simulation.drafted import speeds
from tierform.simulation.job import Job
from tierform.workload import (
    Distillation,
    FineTuning,
    Inference,
    PrecisionPlan,
    SequenceGroup,
    Stage,
    StageKind,
    Step,
    expand,
    load_model,
)
from tierform.workload.contract import check_workload
from tierform.workload.decoding import Decoding, expected_tokens
from tierform.workload.expert_store import ExpertStore
from tierform.workload.kv_policy import KVPolicy

PLAN = PrecisionPlan(master_weights=None)
LLAMA = load_model("llama-3.1-8b")
DRAFTS = [
    Decoding("model", (0.8,), 4, model="llama-3.2-1b"),
    Decoding("planes", (0.94,), 3, planes=9),
    Decoding("skip", (0.7,), 3, skip="21-31"),
    Decoding("lookup", (0.5, 0.3), 4),
    Decoding("medusa", (0.6, 0.5), tree=(4, 3)),
    Decoding("eagle", (0.75,), tree=(2, 2, 1)),
    Decoding("mtp", (0.85,), 2),
    Decoding("early-exit", (0.5,), exit_layer=24),
]


def _task(**given: object) -> Inference:
    return replace(Inference(1, 512, 64, precision=PLAN), **given)  # type: ignore[arg-type]


def test_are_tokens_a_step_those_of_the_formula() -> None:
    # equal acceptance: (1 - a^(k+1)) / (1 - a)
    assert expected_tokens((0.8,), 4) == pytest.approx((1 - 0.8**5) / 0.2)
    assert expected_tokens((0.9, 0.5), 3) == pytest.approx(1 + 0.9 + 0.45 + 0.225)
    assert Decoding("medusa", (0.6, 0.5), tree=(4, 3)).nodes == 4 + 12
    assert Decoding("medusa", (0.5, 0.5), tree=(32, 31)).nodes == 1024
    with pytest.raises(TierformError, match="1024"):
        Decoding("medusa", (0.5, 0.5), tree=(25, 40))
    assert Decoding("medusa", (0.6, 0.5), tree=(4, 3)).tokens_a_step() == pytest.approx(1 + 0.6 + 0.3)


@pytest.mark.parametrize("decoding", DRAFTS, ids=lambda one: one.draft)
def test_is_every_draft_a_sound_workload(decoding: Decoding) -> None:
    work = expand(LLAMA, _task(decoding=decoding))
    check_workload(work)
    passes = {kind: sum(s.repeat for s in work.stages if s.kind is kind) for kind in StageKind}
    if decoding.draft == "early-exit":
        assert passes[StageKind.DRAFT] + passes[StageKind.VERIFY] == 64
        assert passes[StageKind.DRAFT] == pytest.approx(32, abs=3)
        return
    steps = round(64 / decoding.tokens_a_step())
    assert passes[StageKind.VERIFY] == steps
    each = {"lookup": 0, "medusa": 1}.get(decoding.draft, decoding.positions)
    assert passes[StageKind.DRAFT] == steps * each
    verify = next(s for s in work.stages if s.kind is StageKind.VERIFY)
    head = verify.blocks[-1].operators[-1]
    assert head.m == decoding.nodes + 1  # every drafted token and the one after


def test_do_drafts_of_the_same_weights_add_none_and_a_model_its_own() -> None:
    plain = expand(LLAMA, _task()).footprint
    for decoding in DRAFTS:
        found = expand(LLAMA, _task(decoding=decoding)).footprint
        if decoding.draft == "model":
            small = expand(load_model("llama-3.2-1b"), _task()).footprint
            assert found.weights == plain.weights + small.weights
            assert found.kv_cache == plain.kv_cache + small.kv_cache
        elif decoding.draft in ("planes", "skip", "lookup", "early-exit"):
            assert (found.weights, found.kv_cache) == (plain.weights, plain.kv_cache)
        elif decoding.draft == "eagle":
            layer = 4096 * (4096 + 2 * 1024 + 4096) + 3 * 4096 * 14336
            assert found.weights - plain.weights == 2 * (layer + 2 * 4096 * 4096)  # and the joining matrix
        elif decoding.draft == "mtp":
            layer = 4096 * (4096 + 2 * 1024 + 4096) + 3 * 4096 * 14336
            assert found.weights - plain.weights == 2 * 2 * (layer + 2 * 4096 * 4096)  # two of each, with their caches
            assert found.kv_cache - plain.kv_cache == 2 * plain.kv_cache // 32
        elif decoding.draft == "medusa":
            assert found.weights - plain.weights == 2 * 2 * 4096 * (4096 + 128256)  # two heads


def _macs(stage: Stage) -> int:
    """Multiply-accumulates of products with weights in one pass."""
    products = ((o, b.count) for w in stage.waves for b in w.blocks for o in b.operators if o.weight and o.macs)
    return sum(o.macs * times for o, times in products)


def test_which_products_does_a_step_take() -> None:
    """By hand for Llama 3.1 8B: a layer has 218,103,808 weights, the head 4096 x 128,256."""
    layer, head = 4096 * (4096 + 2 * 1024 + 4096) + 3 * 4096 * 14336, 4096 * 128256
    drafted = {
        "medusa": 2 * (4096 * 4096 + head),  # the two heads once, on the last token
        "eagle": 3 * (layer + 2 * 4096 * 4096 + head),  # each of three passes: a third of the tree's ten tokens
        "mtp": layer + 2 * 4096 * 4096 + head,  # each of two passes
        "skip": 32 * layer - 11 * 4096 * (4096 + 2 * 1024 + 4096) + head,
        "planes": 32 * layer + head,
        "early-exit": 24 * layer + head,
    }
    for decoding in DRAFTS:
        work = expand(LLAMA, _task(decoding=decoding))
        stages = {kind: next((s for s in work.stages if s.kind is kind), None) for kind in StageKind}
        draft, verify = stages[StageKind.DRAFT], stages[StageKind.VERIFY]
        if decoding.draft in drafted:
            assert draft is not None and _macs(draft) == drafted[decoding.draft], decoding.draft
        rows = 1 if decoding.draft == "early-exit" else decoding.nodes + 1
        assert verify is not None and _macs(verify) == rows * (32 * layer + head)


def test_is_a_step_the_pass_that_it_is() -> None:
    # A verification of four drafted tokens is the Step (1, 5, context), at the same cost.
    drafted = simulate(LLAMA, _task(decoding=Decoding("lookup", (0.5,), 4)), "a100", thermal="none")
    verify = next(stage for stage in drafted.stages if stage.name.startswith("verify"))
    step = Step((SequenceGroup(1, 5, 516),), logits="all", precision=PLAN)
    alone = simulate(LLAMA, step, "a100", thermal="none").latency_s
    assert verify.latency_s / verify.repeat == pytest.approx(alone, rel=0.01)


def test_does_acceptance_one_give_the_most_and_zero_less_than_plain() -> None:
    plain = simulate(LLAMA, _task(), "a100", thermal="none")
    rates = []
    for acceptance in (0.0, 0.5, 1.0):
        decoding = Decoding("model", (acceptance,), 4, model="llama-3.2-1b")
        rates.append(
            simulate(LLAMA, _task(decoding=decoding), "a100", thermal="none").throughput["decode_tokens_per_s"]
        )
    assert rates == sorted(rates) and rates[0] < plain.throughput["decode_tokens_per_s"] < rates[2]


def test_is_the_best_number_of_tokens_taken_and_does_it_fall_with_the_batch() -> None:
    best = []
    for batch in (1, 64):
        decoding = Decoding("model", (0.7,), model="llama-3.2-1b")
        job = Job(LLAMA, _task(batch=batch, decoding=decoding), "h100", thermal="none").loaded()
        from tierform.simulation.choose import choose

        tried = speeds(job, choose)
        top = min(tried, key=lambda one: one.token_s)
        assert any(f"{top.tokens} tokens" in note and "best" in note for note in job.simulate().notes)
        best.append(top)
    assert best[0].speedup > best[1].speedup  # the larger the batch, the less there is to gain


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"draft": "modle"}, "did you mean 'model'"),
        ({"draft": "planes"}, "a draft by planes needs it"),
        ({"draft": "lookup", "planes": 3}, "has no meaning"),
        ({"draft": "lookup", "acceptance": (1.2,)}, "probability"),
        ({"draft": "lookup", "tree": (2,)}, "medusa or eagle"),
        ({"draft": "lookup", "tokens": 65}, "0 to 64"),
    ],
)
def test_are_bad_drafts_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(TierformError, match=message):
        Decoding(**given)  # type: ignore[arg-type]


def test_are_drafts_that_the_model_cannot_have_refused_all_at_once() -> None:
    with pytest.raises(TierformError) as caught:
        expand(LLAMA, _task(sequence=4, decode=0, decoding=Decoding("early-exit", exit_layer=40, tokens=8)))
    text = str(caught.value)
    assert "exit_layer" in text and "tokens" in text and "decode" in text
    with pytest.raises(TierformError, match="vocabulary"):
        expand(LLAMA, _task(decoding=Decoding("model", model="llama-2-7b")))
    with pytest.raises(TierformError, match="no such sublayer"):
        expand(LLAMA, _task(decoding=Decoding("skip", skip="40")))


# -- caches ------------------------------------------------------------------------------------------------------
def test_does_a_policy_bound_cache_and_keys() -> None:
    task = _task(kv=KVPolicy(window=252, sinks=4, block=16))
    work = expand(LLAMA, task)
    assert work.footprint.kv_cache == 32 * 256 * 2 * 8 * 128 * 2
    scores = [o for s in work.stages for b in s.blocks for o in b.operators if o.attention is not None]
    assert {o.attention.keys for o in scores if o.attention} == {256}
    longer = expand(LLAMA, _task(kv=KVPolicy(budget=100, block=16))).footprint.kv_cache
    assert longer == 32 * 112 * 2 * 8 * 128 * 2  # seven pages of 16


def test_what_does_scoring_heavy_hitters_read_and_write() -> None:
    # Each layer and step: probabilities of 32 heads on 256 keys in 16 bits, fp32 scores of 8 heads of keys; the scores
    # are written.  An addition and a comparison for each probability.
    work = expand(LLAMA, _task(kv=KVPolicy(window=128, heavy=128)))
    step = next(s for s in work.stages if s.kind is StageKind.DECODE)
    found = [(o, b.count) for b in step.blocks for o in b.operators if o.name.endswith(".heavy")]
    assert sum(count for _, count in found) == 32
    for operator, _ in found:
        assert (operator.input_B, operator.output_B) == (32 * 256 * 2 + 8 * 256 * 4, 8 * 256 * 4)
        assert operator.operations == 2 * 32 * 256
    prompt = next(s for s in work.stages if s.kind is StageKind.PREFILL)
    assert not [o for b in prompt.blocks for o in b.operators if o.name.endswith(".heavy")]


def test_do_heavy_hitters_pay_for_their_scores() -> None:
    same = KVPolicy(window=128, sinks=128), KVPolicy(window=128, heavy=128)
    sinks, heavy = (simulate(LLAMA, _task(kv=policy), "a100", thermal="none").latency_s for policy in same)
    assert heavy > sinks


def _with_cxl(folder: Path, chip: str) -> Path:
    path = folder / f"{chip}-cxl.yaml"
    text = (library.ROOT / "chips" / f"{chip}.yaml").read_text()
    path.write_text(f"{text}\nmemory:\n  - {{device: cxl-ddr5-x8, count: 4}}\n")
    return path


def test_is_an_offloaded_share_moved_and_read_for_every_step(tmp_path: Path) -> None:
    chip = _with_cxl(tmp_path, "a100")
    task = _task(batch=16, sequence=2048, prefill=False)
    near, away = (
        simulate(LLAMA, replace(task, kv=KVPolicy(offload=share)), chip, thermal="none") for share in (0.0, 0.5)
    )
    cache = away.memory_footprint_B["kv_cache"]
    assert away.memory_placement_B["kv_cache"]["cxl-ddr5-x8"] == pytest.approx(cache / 2, rel=1e-6)
    assert away.memory_spill_B["cxl-ddr5-x8"] == pytest.approx(0.5 * cache * 64, rel=0.03)
    assert away.latency_s > 1.2 * near.latency_s
    # Without such a memory in the chip it is the host's: 25.8 GB over a link of 50 GB/s, or of 6.8 from a drive.
    for host, bandwidth in (("pcie5-dram", 50e9), ("nvme", 6.8e9)):
        behind = simulate(LLAMA, replace(task, kv=KVPolicy(offload=0.5), host=host), "a100", thermal="none")
        (moved,) = behind.memory_spill_B.values()
        assert list(behind.memory_spill_B) == [host] and moved == pytest.approx(away.memory_spill_B["cxl-ddr5-x8"])
        assert behind.latency_s == pytest.approx(moved / bandwidth, rel=0.03)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sinks": 4}, "window"),
        ({"window": 8, "sinks": 4, "budget": 6}, "budget"),
        ({"block": 0}, "block"),
        ({"offload": 1.5}, "offload"),
    ],
)
def test_are_bad_policies_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(TierformError, match=message):
        KVPolicy(**given)  # type: ignore[arg-type]


# -- experts -----------------------------------------------------------------------------------------------------
def test_do_popular_experts_mean_fewer_touched_and_more_hits() -> None:
    even, uneven = ExpertStore(cached=0.25), ExpertStore(0.25, tuple(1 / (n + 1) for n in range(8)))
    assert even.hits(8) == pytest.approx(0.25) and uneven.hits(8) == pytest.approx(
        (1 + 1 / 2) / sum(1 / n for n in range(1, 9))
    )
    assert uneven.touched(16, 8, 2) < even.touched(16, 8, 2) == 8
    assert even.touched(1, 8, 2) == 2


def test_are_missed_experts_read_from_behind_the_memory(tmp_path: Path) -> None:
    model, chip = load_model("mixtral-8x7b"), _with_cxl(tmp_path, "b200")
    task = Inference(1, 128, 16, prefill=False, precision=PLAN)
    near = simulate(model, task, chip, thermal="none")
    away = simulate(model, replace(task, experts=ExpertStore(cached=0.5)), chip, thermal="none")
    expert = 3 * 4096 * 14336 * 2
    assert sum(p.get("cxl-ddr5-x8", 0) for p in away.memory_placement_B.values()) == pytest.approx(
        32 * 4 * expert, rel=1e-3
    )
    # two experts a layer and token, half of them missed
    moved = 16 * 32 * expert
    assert away.memory_spill_B["cxl-ddr5-x8"] == pytest.approx(moved, rel=1e-3)
    device = load_memory("cxl-ddr5-x8", stacks=4)
    fetch_s = moved / device.effective_bandwidth_B_per_s("stream", 1.0)
    joules = device.transfer(moved, "stream", 1.0).dynamic_energy_J
    # The router decides late: nothing is computed while they come.  A cache that is away, too, comes meanwhile.
    assert away.latency_s == pytest.approx(near.latency_s + fetch_s, rel=1e-3)
    assert away.energy_J_by_component["cxl-ddr5-x8"] >= joules > 0
    both = simulate(
        model, replace(task, experts=ExpertStore(cached=0.5), kv=KVPolicy(offload=0.5)), chip, thermal="none"
    )
    cache = 0.5 * sum(128 + step for step in range(17)) / 17 * 16 * 32 * 2 * 8 * 128 * 2
    assert both.latency_s == pytest.approx(away.latency_s, rel=1e-6)
    assert both.memory_spill_B["cxl-ddr5-x8"] - moved == pytest.approx(cache, rel=0.05)
    assert both.energy_J > away.energy_J
    # All foretold, they cross beside the computation; of 80 %, a fifth more is fetched, and that is waited for.
    foretold = {
        ahead: simulate(model, replace(task, experts=ExpertStore(0.5, (), ahead)), chip, thermal="none")
        for ahead in (0.8, 1.0)
    }
    assert foretold[1.0].latency_s == pytest.approx(max(near.latency_s, fetch_s), rel=1e-3)
    assert foretold[0.8].memory_spill_B["cxl-ddr5-x8"] == pytest.approx(1.2 * moved, rel=1e-3)
    assert foretold[0.8].latency_s == pytest.approx(max(near.latency_s + 0.2 * fetch_s, 1.2 * fetch_s), rel=1e-3)


def test_do_experts_that_find_no_room_wait_behind_too() -> None:
    # Seven of eight experts are to be near, but 72 of 93 GB of weights find room: six are.
    room = {"value": "72 GB", "kind": "assumed", "note": "less than there is"}
    changes = {"components.gpu.memory_capacity": room, "memory": [{"device": "cxl-ddr5-x8", "count": 4}]}
    model, chip = load_model("mixtral-8x7b"), load_chip("h100").vary(changes)
    task = Inference(1, 128, 16, prefill=False, precision=PLAN, experts=ExpertStore(cached=0.875))
    found = simulate(model, task, chip, thermal="none")
    expert = 3 * 4096 * 14336 * 2
    behind = found.memory_placement_B["weights"]["cxl-ddr5-x8"]
    near = int(8 * (1 - behind / (32 * 8 * expert)))
    assert near == 6 and found.memory_spill_B["cxl-ddr5-x8"] == pytest.approx(
        16 * 32 * 2 * (1 - near / 8) * expert, rel=0.01
    )


def test_are_parts_that_leave_twice_refused_together() -> None:
    with pytest.raises(TierformError) as caught:
        Inference(kv=KVPolicy(offload=0.5), experts=ExpertStore(cached=0.5), offload=("kv-cache", "weights", "nothing"))
    assert len(caught.value.problems) == 3 and "whole cache" in str(caught.value) and "experts" in str(caught.value)
    with pytest.raises(TierformError, match="all experts are near"):
        ExpertStore(ahead=0.5)
    with pytest.raises(TierformError) as caught:
        ExpertStore(cached=2.0, ahead=-1.0, routing=(-1.0,))
    assert len(caught.value.problems) == 3


def test_which_of_the_touched_experts_are_missed() -> None:
    # Shares 1/2, 1/4, 1/8, 1/8, one expert a token.  Two tokens use each with 1 - (1 - share)^2 = 0.75, 0.4375, and
    # 0.234375 twice; with the first one near, (0.4375 + 2 x 0.234375) / 1.65625 of the touched ones are missed.
    store = ExpertStore(0.25, (1.0, 4.0, 2.0, 1.0))
    assert store.missed(2, 4, 1, 1) == pytest.approx(0.90625 / 1.65625)
    assert store.missed(1, 4, 1, 1) == pytest.approx(1 - store.hits(4)) == pytest.approx(0.5)
    assert (store.missed(3, 4, 1, 0), store.missed(3, 4, 1, 4)) == (1.0, 0.0)


def test_are_stores_that_the_model_has_no_experts_for_refused() -> None:
    with pytest.raises(TierformError, match="no experts"):
        expand(LLAMA, _task(experts=ExpertStore()))
    with pytest.raises(TierformError, match="8 experts"):
        expand(load_model("mixtral-8x7b"), _task(experts=ExpertStore(routing=(1.0, 2.0))))


# -- a teacher ---------------------------------------------------------------------------------------------------
def test_does_a_teacher_add_its_forward_pass_and_its_weights() -> None:
    student = load_model("llama-3.2-1b")
    alone = expand(student, FineTuning(batch=2, sequence=64))
    task = Distillation(batch=2, sequence=64, teacher="llama-3.1-8b", teacher_weights="int4-g128")
    taught = expand(student, task)
    check_workload(taught)
    stage = taught.stages[0]
    assert stage.kind is StageKind.TEACHER and [s.name for s in taught.stages[1:]] == [s.name for s in alone.stages]
    plan = PrecisionPlan(master_weights=None).with_weights("int4-g128")
    teacher = expand(LLAMA, Step((SequenceGroup(2, 64, 0),), logits="all", precision=plan))
    assert taught.macs - alone.macs == teacher.macs
    assert taught.footprint.weights - alone.footprint.weights == teacher.footprint.weights
    assert taught.trainable_parameters == alone.trainable_parameters
    slower = simulate(student, task, "a100", thermal="none").latency_s
    assert slower > simulate(student, FineTuning(batch=2, sequence=64), "a100", thermal="none").latency_s


def test_are_teachers_that_cannot_teach_refused() -> None:
    with pytest.raises(TierformError, match="teacher"):
        Distillation(batch=1)
    with pytest.raises(TierformError, match="vocabulary"):
        expand(load_model("llama-3.2-1b"), Distillation(batch=1, teacher="llama-2-7b"))


def test_how_many_tokens_does_a_cache_keep() -> None:
    """Two first, five last and one heavy hitter of twenty; or a budget of six; in pages of four."""
    several = KVPolicy(window=5, sinks=2, heavy=1)
    assert [several.kept(tokens) for tokens in (3, 8, 9, 20)] == [3, 8, 8, 8]
    assert [KVPolicy(budget=6).kept(tokens) for tokens in (5, 6, 7)] == [5, 6, 6] and KVPolicy().kept(10**6) == 10**6
    assert KVPolicy(window=5, budget=9).kept(20) == 5  # of both the window
    paged = KVPolicy(window=5, sinks=2, block=4)
    assert [paged.held(tokens) for tokens in (1, 4, 5, 7, 20)] == [4, 4, 8, 8, 8]
    assert [KVPolicy(block=4).held(tokens) for tokens in (8, 9)] == [8, 12] and KVPolicy().held(9) == 9
    KVPolicy(window=2, sinks=1, heavy=1, budget=4, offload=1.0)  # a budget of just as many
    with pytest.raises(TierformError, match="smaller than window"):
        KVPolicy(window=2, sinks=1, heavy=1, budget=3)
    for given in ({"sinks": 1}, {"heavy": 1}, {"block": 0}, {"window": -1}, {"offload": 1.1}, {"budget": True}):
        with pytest.raises(TierformError):
            KVPolicy(**given)  # type: ignore[arg-type]
    KVPolicy(sinks=1, budget=8)


def test_are_the_options_of_experts_and_policies_read_as_they_are_written() -> None:
    from tierform.cli.technique_options import read_techniques

    given = {"experts_cached": 0.5, "experts_ahead": 0.8, "routing": "2,1,1", "policy": "window:8+sinks:2+whole:0.25"}
    found = read_techniques(given)
    assert found["experts"] == ExpertStore(0.5, (2.0, 1.0, 1.0), 0.8)
    assert found["kv"] == KVPolicy(window=8, sinks=2, whole=0.25)
    for text in ("window:8+sinks:0.5", "whole:0.2.5+window:8"):
        with pytest.raises(TierformError, match="policy"):
            read_techniques({"policy": text})
    with pytest.raises(TierformError) as caught:
        read_techniques({"experts_cached": 2.0, "policy": "sinks:4+whole:0.5"})
    assert {"cached", "window"} <= {problem.key for problem in caught.value.problems}
