"""Does every key of a runtime act, on what it says, and by as much as it says?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tierform import (
    Full,
    Inference,
    LoRA,
    PrecisionPlan,
    Result,
    TierformError,
    Training,
    library,
    load_runtime,
    simulate,
)
from tierform.simulation.runtime import IDEAL, Runtime, RuntimeFile
from tierform.workload import expand, load_model
from tierform.workload.parallel import Parallelism
from tierform.workload.task import SequenceGroup, Step

MODEL = "llama-3.2-1b"
LAYERS = 16
VOCABULARY = 128_256
INFERENCE = Inference(batch=4, sequence=64, decode=2)
TRAINING = Training(method=Full(), batch=2, sequence=256)


def run(runtime: Runtime | str, task: Any = INFERENCE, tensor: int = 1) -> Result:
    return simulate(MODEL, task, "a100", thermal="none", runtime=runtime, parallelism=Parallelism(tensor=tensor))


def busy(result: Result, **having: str) -> float:
    rows = [row for row in result.operators if all(getattr(row, key) == value for key, value in having.items())]
    return sum(row.busy_s for row in rows)


def written(folder: Path, **content: Any) -> str:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({"schema": "tierform.runtime/1", "name": "own", **content}))
    return str(path)


ACTING: dict[str, tuple[Any, Any]] = {
    "fuses_operators": (False, INFERENCE),
    "fuses_attention": (False, INFERENCE),
    "merges_projections": (["attention"], INFERENCE),
    "product_time": ({"bf16": 2}, INFERENCE),
    "light_time": (2, INFERENCE),
    "attention_time": (2, INFERENCE),
    "attention_backward_time": (2, TRAINING),
    "grouped_decode_share": (2, INFERENCE),
    "optimizer_time": (2, TRAINING),
    "collective_time": (2, INFERENCE),
    "direct_all_reduce": (True, INFERENCE),
    "step_time": ("1 ms", INFERENCE),
    "kernel_time": ("1 ms", INFERENCE),
    "admission": ("in-turn", INFERENCE),
    "sampling_time": ("1 ns", INFERENCE),
}


@pytest.mark.parametrize("key", sorted(set(RuntimeFile.model_fields) - {"name", "description"}))
def test_every_key_moves_a_figure(key: str, tmp_path: Path) -> None:
    if key == "sampling_power":
        cool = run(load_runtime(written(tmp_path, sampling_time="1 ns")))
        hot = run(load_runtime(written(tmp_path, sampling_time="1 ns", sampling_power=1)))
        assert hot.latency_s == cool.latency_s and hot.energy_J > cool.energy_J
        return
    if key == "sampling_power_others":
        one = run(load_runtime(written(tmp_path, sampling_time="1 ns", sampling_power=1)), tensor=2)
        both = run(
            load_runtime(written(tmp_path, sampling_time="1 ns", sampling_power=1, sampling_power_others=1)), tensor=2
        )
        assert both.latency_s == one.latency_s and both.energy_J > one.energy_J
        return
    if key == "length_spread":
        equal, spread = (load_runtime(written(tmp_path, admission="in-turn", length_spread=s)) for s in (0, 1))
        task = replace(INFERENCE, sequence=2048, decode=512)
        assert run(spread, task).memory_read_B > run(equal, task).memory_read_B
        return
    if key in ("attention_generation", "older_attention_time", "older_attention_backward_time"):
        older = {"attention_generation": 2, "older_attention_time": 2, "older_attention_backward_time": 2}
        mine = load_runtime(written(tmp_path, **older))
        without = load_runtime(written(tmp_path, **{name: value for name, value in older.items() if name != key}))
        slow, fast = (simulate(MODEL, TRAINING, "h100", thermal="none", runtime=item) for item in (mine, without))
        assert slow.latency_s > fast.latency_s
        return
    if key == "composes_operators":
        eager = {"fuses_operators": False, "composes_operators": True}
        assert run(load_runtime(written(tmp_path, **eager))).latency_s > run("eager").latency_s
        return
    if key == "experts_time":
        model, task = "qwen3-30b-a3b", replace(INFERENCE, batch=1, decode=1)
        runtimes = ("ideal", load_runtime(written(tmp_path, experts_time=2)))
        first, twice = (simulate(model, task, "h100", thermal="none", runtime=item) for item in runtimes)
        assert twice.latency_s > 1.3 * first.latency_s
        return
    if key == "keeps":
        kept = run(load_runtime(written(tmp_path, keeps=["wide-norms"])), TRAINING)
        assert kept.memory_footprint_B["activations"] > run("ideal", TRAINING).memory_footprint_B["activations"]
        return
    if key == "captured":
        issued = run(load_runtime(written(tmp_path, kernel_time="1 ms")))
        assert (
            run(load_runtime(written(tmp_path, kernel_time="1 ms", captured=["decode"]))).latency_s < issued.latency_s
        )
        return
    if key in ("dequantized_time", "weight_only_time"):
        plan = PrecisionPlan(weights="nf4", activations="bf16", kv_cache="bf16", master_weights=None)
        value: Any = "1 ms" if key == "dequantized_time" else {"nf4": 2}
        task = replace(INFERENCE, precision=plan)
    else:
        value, task = ACTING[key]
    loaded = load_runtime(written(tmp_path, **{key: value}))
    assert run(loaded, task, tensor=2).latency_s != run("ideal", task, tensor=2).latency_s


def test_factors_multiply_the_time_of_their_class_alone() -> None:
    before = run("ideal")
    after = run(replace(IDEAL, product_time=(("bf16", 3.0),)))
    for row, slow in zip(before.operators, after.operators, strict=True):
        # Heads' products of a fused attention core are no kernels of their own.
        factor = 3.0 if row.kind == "matmul" and not row.kernel else 1.0
        assert slow.busy_s == pytest.approx(factor * row.busy_s), row.name
    assert after.operations == before.operations and after.memory_read_B == before.memory_read_B


def test_does_each_further_head_read_its_keys_again() -> None:
    """Four heads of queries to one of keys: 1 + 3 x 0.5, 2.5 times as long; bytes are counted once."""
    before, after = run(IDEAL), run(replace(IDEAL, grouped_decode_share=0.5))
    for row, slow in zip(before.operators, after.operators, strict=True):
        core = row.kernel == "flash attention" and row.stage.startswith("decode")
        assert slow.busy_s == pytest.approx((2.5 if core else 1.0) * row.busy_s), (row.stage, row.name)
    assert after.energy_J > before.energy_J and after.memory_read_B == before.memory_read_B


def test_is_attention_of_an_older_generation_slower_where_the_chip_has_a_later_one() -> None:
    """FlashAttention 2 where the H100's times are of 3, by the factors of the file; an A100's are of 2 anyway."""
    old = replace(IDEAL, attention_generation=2, older_attention_time=1.75, older_attention_backward_time=1.625)
    for chip, forward, backward in (("h100", 1.75, 1.625), ("a100", 1.0, 1.0)):
        before, after = (simulate(MODEL, TRAINING, chip, thermal="none", runtime=item) for item in (IDEAL, old))
        for row, slow in zip(before.operators, after.operators, strict=True):
            factor = 1.0
            if row.kernel and row.kernel != "fused elementwise":
                factor = backward if row.stage.startswith("backward") else forward
            assert slow.busy_s == pytest.approx(factor * row.busy_s), (chip, row.stage, row.name)
    # The generation that the chip has, or a later one, changes nothing.
    same = replace(old, attention_generation=3)
    assert simulate(MODEL, TRAINING, "h100", thermal="none", runtime=same).latency_s == pytest.approx(
        simulate(MODEL, TRAINING, "h100", thermal="none").latency_s, rel=1e-12
    )


def test_the_host_adds_its_time_once_a_step() -> None:
    """A prefill and two decode steps: three times 1 ms."""
    added = run(replace(IDEAL, step_s=1e-3)).latency_s - run("ideal").latency_s
    assert added == pytest.approx(3e-3)
    one_step = run(replace(IDEAL, step_s=1e-3), TRAINING).latency_s - run("ideal", TRAINING).latency_s
    assert one_step == pytest.approx(1e-3)


def test_tokens_are_chosen_for_each_sequence_and_step() -> None:
    """4 sequences x 128,256 logits x 1 ns in each of 3 passes: 1.539 ms; twice the batch takes twice that."""
    added = run(replace(IDEAL, sampling_s=1e-9)).latency_s - run("ideal").latency_s
    assert added == pytest.approx(3 * 4 * VOCABULARY * 1e-9)
    twice = replace(INFERENCE, batch=8)
    assert run(replace(IDEAL, sampling_s=1e-9), twice).latency_s - run("ideal", twice).latency_s == pytest.approx(
        2 * added
    )


def test_an_eager_pass_is_no_shorter_than_the_host_needs() -> None:
    """At 10 ms an operator: 18 operators in each of 16 layers, two around them at the least, three passes."""
    eager = replace(IDEAL, fuses_operators=False, fuses_attention=False, kernel_s=10e-3)
    operators = {(row.block, row.name) for row in run(eager).operators if row.stage.startswith("decode")}
    in_layers = sum(1 for block, _ in operators if block == "layer")
    around = len(operators) - in_layers
    assert run(eager).latency_s == pytest.approx(3 * 10e-3 * (LAYERS * in_layers + around), rel=1e-6)
    assert run(replace(eager, kernel_s=1e-12)).latency_s == pytest.approx(run(replace(eager, kernel_s=0.0)).latency_s)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_one_kernel_of_attention_serves_all_groups_of_a_step(groups: int) -> None:
    """At 10 ms a kernel a step takes as many as with one group: attention of the others is not issued."""
    eager = replace(IDEAL, fuses_operators=False, fuses_attention=False, kernel_s=10e-3)
    step = Step(groups=tuple(SequenceGroup(1, 1, 64 * (number + 1)) for number in range(groups)))
    workload = expand(load_model("llama-3.2-1b"), step)
    kernels = {
        block.name: sum(o.attention is None or o.attention.number == 1 for o in block.operators)
        for block in workload.stages[0].blocks
    }
    assert kernels["layer"] == 18
    around = sum(number for name, number in kernels.items() if name != "layer")
    assert run(eager, step).latency_s == pytest.approx(10e-3 * (LAYERS * 18 + around), rel=1e-6)


def test_a_captured_pass_is_issued_at_once() -> None:
    """Of three passes at 10 ms an operator the two decode steps are captured: they take what the chip takes."""
    eager = replace(IDEAL, fuses_operators=False, fuses_attention=False, kernel_s=10e-3)
    captured = replace(eager, captured=("decode",))
    free = replace(eager, kernel_s=0.0)

    def of(runtime: Runtime, stage: str) -> float:
        return sum(item.latency_s for item in run(runtime).stages if item.name.startswith(stage))

    assert of(captured, "prefill") == of(eager, "prefill") > 1.0
    assert of(captured, "decode") == of(free, "decode")


def test_gaps_between_kernels_draw_what_a_working_board_does() -> None:
    """The chip waits for the host: its idle and its active power in the time that is longer."""
    slow, fast = replace(IDEAL, kernel_s=1e-3), IDEAL
    before, after = (simulate(MODEL, INFERENCE, "h100", thermal="none", runtime=runtime) for runtime in (fast, slow))
    longer = after.latency_s - before.latency_s
    assert longer > 0.1
    assert after.energy_J - before.energy_J == pytest.approx((70.0 + 87.0) * longer)


def test_prompts_in_turn_join_the_steps_of_the_others() -> None:
    """Four places, eight tokens: four steps bring 64 tokens beside three that decode, four decode alone."""
    task = replace(INFERENCE, decode=8)
    workload = expand(load_model(MODEL), task, in_turn=True)
    prompts, *alone = workload.stages
    assert (prompts.repeat, prompts.tokens) == (4, 64 + 3)
    assert sum(stage.repeat for stage in alone) == 4
    assert sum(stage.repeat * stage.tokens for stage in workload.stages) == 4 * (64 + 8) - 4  # a prompt gives a token
    result = run(replace(IDEAL, admission="in-turn"), task)
    first = next(item for item in result.stages if item.name == "prefill")
    assert result.throughput["time_to_first_token_s"] == pytest.approx(first.latency_s / 4)


def test_under_steady_load_long_generations_are_met_more_often() -> None:
    """Lengths as spread as their mean is long: a step meets ages of 0 to 200, in the mean twice those of equal ones.

    Four places, 100 tokens: 96 steps decode alone; beside a prompt the others are 100 tokens on, not 50.
    """
    task = replace(INFERENCE, decode=100)
    equal, spread = (expand(load_model(MODEL), task, in_turn=True, length_spread=one) for one in (0.0, 1.0))

    def ages(workload: Any) -> tuple[int, float]:
        """(in a step with a prompt, mean of those without), from the keys that attention sees."""
        found = []
        for stage in workload.stages:
            operators = [o for wave in stage.waves for block in wave.blocks for o in block.operators]
            keys = max(o.attention.keys for o in operators if o.attention is not None and o.attention.queries == 1)
            found.append((stage.repeat, keys - 64 - 1))
        (_, beside), *alone = found
        return beside, sum(times * age for times, age in alone) / sum(times for times, _ in alone)

    assert ages(equal) == (50, pytest.approx(50, abs=1.5))
    assert ages(spread) == (100, pytest.approx(100, abs=3))
    assert sum(stage.repeat for stage in spread.stages) == 100


def test_other_chips_of_a_tensor_group_choose_tokens_too() -> None:
    """One chip takes all of the headroom, three half of it: (1 + 3 x 0.5) / 4 in the mean."""
    assert replace(IDEAL, sampling_power=1.0, sampling_power_others=0.5).sampling_power_of(4) == 0.625
    assert replace(IDEAL, sampling_power=1.0).sampling_power_of(1) == 1.0


def test_more_places_than_tokens_bring_several_prompts_a_step() -> None:
    """Five places, two tokens: three prompts a step, in two steps; no step decodes alone."""
    workload = expand(load_model(MODEL), replace(INFERENCE, batch=5), in_turn=True)
    (prompts,) = workload.stages
    assert (prompts.repeat, prompts.tokens) == (2, 3 * 64 + 2)


def test_merged_projections_are_one_product() -> None:
    """Query, key and value of 2048 inputs and 2048 + 512 + 512 outputs cost what 3072 outputs cost, once launched."""
    apart, merged = run("ideal"), run(replace(IDEAL, merges_projections=("attention", "ffn")))
    names = ("attention.q", "attention.k", "attention.v")
    rows = [row for row in merged.operators if row.name in names and row.stage.startswith("decode")]
    assert {row.kernel for row in rows} == {"merged attention.q+attention.k+attention.v"}
    times = [row.busy_s for row in rows]
    assert times[0] == pytest.approx(4 * times[1]) and times[1] == times[2]
    assert sum(times) < sum(r.busy_s for r in apart.operators if r.name in names and r.stage.startswith("decode"))
    assert merged.operations == pytest.approx(apart.operations)
    assert merged.memory_read_B < apart.memory_read_B  # the input is read once


def test_attention_fuses_apart_from_the_rest() -> None:
    only_attention = run(Runtime("x", fuses_operators=False, fuses_attention=True))
    kernels = {row.kernel for row in only_attention.operators} - {""}
    assert kernels == {"flash attention"}
    unfused = run(Runtime("x", fuses_operators=True, fuses_attention=False), TRAINING)
    assert unfused.memory_footprint_B["activations"] > run("ideal", TRAINING).memory_footprint_B["activations"]


@pytest.mark.parametrize("name", library.names("runtimes"))
def test_library_runtimes_load_and_say_where_their_numbers_come_from(name: str) -> None:
    found = load_runtime(name)
    assert found.name == name and found.description
    for line in found.evidence:
        assert line.kind in ("fitted", "assumed", "published"), line
        assert library.citation(line.source).text if line.kind == "fitted" else line.note
    result = run(name)
    assert result.runtime == name
    assert set(found.evidence) <= set(result.assumptions)
    # its factors and host times, beside the same kernels without them: no software is a tenth faster than its kernels
    ways = ("fuses_operators", "fuses_attention", "merges_projections")
    bare = Runtime("bare", **{way: getattr(found, way) for way in ways})
    assert result.latency_s >= run(bare).latency_s * 0.9


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"product_time": {"bf17": 2}}, "bf16"),
        ({"kernel_tim": "1 us"}, "kernel_time"),
        ({"step_time": "-1 us"}, "at least 0"),
        ({"light_time": 0}, "greater than 0"),
        ({"merges_projections": ["head"]}, "attention"),
        ({"step_time": "3 W"}, "step_time"),
    ],
)
def test_mistakes_are_told(content: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(TierformError) as caught:
        load_runtime(written(tmp_path, **content))
    assert words in str(caught.value)


def test_lora_under_an_eager_host_is_bound_by_its_many_kernels() -> None:
    task = Training(method=Full(), batch=1, sequence=64)
    lora = replace(task, method=LoRA(8, ("q", "v")))
    eager = replace(IDEAL, kernel_s=100e-6, fuses_operators=False)
    assert run(eager, lora).latency_s > 2 * run("ideal", lora).latency_s


def test_experts_with_unequal_rows_are_issued_as_one_grouped_kernel(tmp_path: Path) -> None:
    """208 tokens divide among Mixtral's eight experts, 210 do not: the host issues as many kernels."""
    runtime = load_runtime(written(tmp_path, kernel_time="1 ms"))
    task = Inference(batch=208, sequence=4, decode=1)
    seconds = [
        simulate(
            "mixtral-8x7b", one, "h100", runtime=runtime, thermal="none", parallelism=Parallelism(tensor=4)
        ).latency_s
        for one in (task, replace(task, batch=210))
    ]
    assert seconds[1] == pytest.approx(seconds[0], rel=1e-3)
