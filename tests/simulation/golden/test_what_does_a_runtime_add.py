"""What does software add to the toy model on toy GPUs: slower kernels, the host's time, the choice of tokens, by hand.

A pass issues 33 operators: three of the embedding, fourteen in each of two layers, two of the head.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_what_does_inference_cost_on_one_gpu import PREFILL
from toy import HERE, INFERENCE, MODEL, TRAINING, seconds

import tierform
from tierform.chip.component import Cost
from tierform.chip.sample_operators import product
from tierform.simulation import Result
from tierform.simulation.runtime import IDEAL, Runtime
from tierform.simulation.software import shares_of
from tierform.workload.parallel import Parallelism

US = 1_000_000  # picoseconds
PASSES = ("prefill", "decode[4]", "decode[5]")


def run(runtime: Runtime, task: object = INFERENCE, micro_batches: int = 1, **split: int) -> Result:
    return tierform.simulate(
        MODEL,
        task,  # type: ignore[arg-type]
        HERE / "toy-gpu.yaml",
        thermal="none",
        runtime=runtime,
        parallelism=Parallelism(**split),
        micro_batches=micro_batches,
        mapping="plain",
    )


def test_how_long_does_a_host_take_that_issues_one_operator_after_the_other() -> None:
    host = replace(IDEAL, kernel_s=1e-6)
    assert sum(row.times for row in PREFILL.values()) == 33
    # The longest pass computes for 0.11 us: the host decides.
    assert [seconds(run(host), name) for name in PASSES] == pytest.approx([33 * US] * 3)
    # Two micro-batches are issued one after the other, twice as many operators.
    assert seconds(run(host, micro_batches=2), "prefill") == pytest.approx(66 * US)
    # Two groups issue half of the layers each.
    assert seconds(run(host, pipeline=2), "prefill") == pytest.approx(33 * US / 2)
    # A quick host is hidden: the pass takes what its kernels take.
    quick = run(replace(IDEAL, kernel_s=1e-12))
    assert seconds(quick, "prefill") == pytest.approx(111200)


def test_when_is_the_hosts_step_added() -> None:
    step = replace(IDEAL, step_s=1e-6)
    assert [seconds(run(step), name) for name in PASSES] == pytest.approx([US + 111200, US + 58480, US + 60640])
    plain, trained = run(IDEAL, TRAINING), run(step, TRAINING)
    added = {name: seconds(trained, name) - seconds(plain, name) for name in ("forward", "backward", "update")}
    # Once a step of training, with its forward pass; both limits at once add up.
    assert added == pytest.approx({"forward": US, "backward": 0, "update": 0})
    both = replace(IDEAL, step_s=1e-6, kernel_s=1e-6)
    assert seconds(run(both), "prefill") == pytest.approx(34 * US)


def test_how_long_does_the_choice_of_tokens_take() -> None:
    chosen = replace(IDEAL, sampling_s=1e-9)
    # Two sequences of ten words, 1 ns each, after each pass; one sequence on each of two copies.
    assert [seconds(run(chosen), name) for name in PASSES] == pytest.approx(
        [20_000 + 111200, 20_000 + 58480, 20_000 + 60640]
    )
    one, shared = run(IDEAL, replace(INFERENCE, batch=1)), run(IDEAL, data=2)
    assert seconds(run(chosen, data=2), "prefill") == pytest.approx(10_000 + seconds(shared, "prefill"))
    assert seconds(shared, "prefill") == pytest.approx(seconds(one, "prefill"))
    assert run(chosen, TRAINING).latency_s == run(IDEAL, TRAINING).latency_s


def test_which_kernels_are_slower() -> None:
    def rows(runtime: Runtime, task: object = INFERENCE, **split: int) -> dict[tuple[str, str], float]:
        found = run(runtime, task, **split).operators
        return {(row.stage, row.name): row.busy_s for row in found}

    def slower(before: dict[tuple[str, str], float], after: dict[tuple[str, str], float]) -> set[str]:
        factors = {key: after[key] / before[key] for key in before}
        assert all(factor == pytest.approx(1) or factor == pytest.approx(3) for factor in factors.values())
        return {name for (_, name), factor in factors.items() if factor > 2}

    plain = rows(IDEAL)
    light = slower(plain, rows(replace(IDEAL, light_time=3.0)))
    products = slower(plain, rows(replace(IDEAL, product_time=(("bf16", 3.0),))))
    assert light == {name.split("/")[1] for name, row in PREFILL.items() if not row.product}
    assert products == {name.split("/")[1] for name, row in PREFILL.items() if row.product}
    assert slower(plain, rows(replace(IDEAL, product_time=(("fp16", 3.0),)))) == set()
    # Formats that are not named keep their time.
    updated = slower(rows(IDEAL, TRAINING), rows(replace(IDEAL, optimizer_time=3.0), TRAINING))
    assert updated and all(name.endswith(".update") for name in updated)
    sent = slower(rows(IDEAL, tensor=2), rows(replace(IDEAL, collective_time=3.0), tensor=2))
    assert sent and all("all_" in name for name in sent)


def test_what_stays_in_a_slower_kernel() -> None:
    plain, slow = run(IDEAL), run(replace(IDEAL, light_time=4.0))
    # Operations on 48 values of 8 each: 100 % of the vector rate, a quarter of it when four times slower.
    shares = [next(r.utilization for r in result.operators if r.name == "ffn_norm") for result in (plain, slow)]
    assert shares == pytest.approx([1.0, 0.25])
    quick = run(replace(IDEAL, light_time=0.5))
    assert next(r.utilization for r in quick.operators if r.name == "ffn_norm") == 1.0  # never above
    assert slow.operations == plain.operations
    assert (slow.memory_read_B, slow.memory_write_B) == (plain.memory_read_B, plain.memory_write_B)


def test_what_does_one_product_of_q_k_and_v_take() -> None:
    merged = run(replace(IDEAL, merges_projections=("attention",)))
    rows = [row for row in merged.operators if row.stage == "prefill" and row.kernel]
    assert [row.name for row in rows] == ["attention.q", "attention.k", "attention.v"]
    # Six rows of 8 are read once (96), three matrices (3 x 128) and biases (3 x 16); 6 x 24 values (288) are written.
    # A third of 816 bytes each, 10 ps a byte, in two layers.
    assert [row.busy_s * 1e12 for row in rows] == pytest.approx([2 * 8160 / 3] * 3)
    assert [row.memory_B for row in rows] == pytest.approx([2 * 816 / 3] * 3)
    assert [row.operations for row in rows] == pytest.approx([2 * 768] * 3)


def test_is_a_joined_product_divided_by_its_features() -> None:
    cost = Cost(
        latency_s=3.0,
        occupancy_s=6.0,
        energy_J={"arithmetic": 9.0},
        operations=12.0,
        memory_read_B=15.0,
        memory_write_B=18.0,
    )
    members = [product(1, features, 8) for features in (2, 4)]
    for part, share in zip(shares_of(cost, members), (1, 2), strict=True):
        found = part.latency_s, part.occupancy_s, part.energy_J["arithmetic"]
        assert found == pytest.approx((1.0 * share, 2.0 * share, 3.0 * share))
        moved = part.operations, part.memory_read_B, part.memory_write_B
        assert moved == pytest.approx((4.0 * share, 5.0 * share, 6.0 * share))
