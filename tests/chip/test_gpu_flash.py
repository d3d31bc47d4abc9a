"""Is the attention core charged at the fitted time, with its own operations, energy and traffic, however it is cut?"""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from attention_operators import backward_core, recomputed, record
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.chip.component import Cost, FusedKernel
from tierform.chip.description import load_component
from tierform.chip.gpu import Gpu
from tierform.chip.gpu.flash import _shared_s, visible_share
from tierform.chip.sample_operators import attention_core
from tierform.workload.operator import Attention, Kind, Operator

BOARDS = ["a100", "h100", "h200", "l40s", "b200", "mi210", "rtx-4090", "jetson-agx-orin"]


def board(name: str = "a100", units: int = 1) -> Gpu:
    part = load_component("gpu", units, f"{name}-gpu")
    assert isinstance(part, Gpu)
    return part


A100 = board()


def only(kernels: list[FusedKernel]) -> FusedKernel:
    assert len(kernels) == 1
    return kernels[0]


def seconds(kernel: FusedKernel) -> float:
    return math.fsum(cost.occupancy_s for cost in kernel.costs)


def fitted(gpu: Gpu, a: Attention) -> float:
    model: Any = gpu.prefill
    return float(model.seconds(a.sequences, a.queries, a.keys, a.heads, a.kv_heads, a.head_dim, causal=a.causal))


def test_how_much_of_the_scores_a_mask_lets_through() -> None:
    """4 x 4 causal: 1 + 2 + 3 + 4 of 16 pairs; two queries after two keys: 3 + 4 of 8."""
    assert visible_share(record(queries=4, keys=4)) == 10 / 16
    assert visible_share(record(queries=2, keys=4)) == 7 / 8
    assert visible_share(record(queries=1, keys=9)) == 1.0
    assert visible_share(record(queries=4, keys=4, causal=False)) == 1.0


def test_a_causal_core_has_the_operations_and_the_energy_of_its_visible_half() -> None:
    """2 sequences x 16 heads x (512 * 513 / 2 = 131,328 pairs): each pair 2 * 128 operations in each product."""
    kernel = only(A100.fuse(attention_core(record(), "bf16")))
    pairs = 2 * 16 * 131_328
    assert [cost.operations for cost in kernel.costs] == pytest.approx([256 * pairs, 7 * pairs, 256 * pairs])
    # bf16: 0.79 pJ an operation; fp32 on vector units: 11.9 pJ.
    joules = [cost.energy_J["arithmetic"] for cost in kernel.costs]
    assert joules == pytest.approx([256 * pairs * 0.79e-12, 7 * pairs * 11.9e-12, 256 * pairs * 0.79e-12])


def test_memory_sees_queries_keys_values_and_the_result_once() -> None:
    """bf16: queries and result 2 * 16 * 512 * 128 * 2 = 4,194,304 bytes each; keys and values a quarter (4 heads)."""
    kernel = only(A100.fuse(attention_core(record(), "bf16")))
    assert [(cost.memory_read_B, cost.memory_write_B) for cost in kernel.costs] == [
        (4_194_304 + 1_048_576, 0),
        (0, 0),
        (1_048_576, 4_194_304),
    ]


def test_backward_reads_no_probabilities_and_writes_three_gradients() -> None:
    """In: dO and V, dO is there already, nothing, K, Q.  Out: dV, dQ and dK only."""
    kernel = only(A100.fuse(backward_core(record())))
    assert [(cost.memory_read_B, cost.memory_write_B) for cost in kernel.costs] == [
        (4_194_304 + 1_048_576, 0),
        (0, 1_048_576),
        (0, 0),
        (1_048_576, 4_194_304),
        (4_194_304, 1_048_576),
    ]


@pytest.mark.parametrize("a", [record(), record(queries=64, keys=64), record(sequences=1, queries=4096, keys=4096)])
def test_the_time_is_the_fitted_models(a: Attention) -> None:
    assert seconds(only(A100.fuse(attention_core(a, "bf16")))) == pytest.approx(fitted(A100, a), rel=1e-12)


def test_the_fitted_time_stands_even_where_separate_kernels_would_be_faster() -> None:
    """A tiny core: the fitted kernel starts after 9,995 cycles of 1.41 GHz, 7.1 us; three small kernels take less."""
    a = record(sequences=1, queries=16, keys=16, heads=2, kv_heads=2, head_dim=64, value_dim=64)
    operators = attention_core(a, "bf16")
    kernel = only(A100.fuse(operators))
    assert seconds(kernel) == pytest.approx(fitted(A100, a)) and seconds(kernel) > 9995 / 1.41e9
    assert math.fsum(A100.cost(operator).occupancy_s for operator in operators) < seconds(kernel)


def test_a_cached_prefill_includes_the_append_and_a_decode_step_its_own_kernel() -> None:
    model: Any = A100.prefill
    cached = only(A100.fuse(attention_core(record(), "bf16", cached=True)))
    assert seconds(cached) == pytest.approx(float(model.seconds(2, 512, 512, 16, 4, 128, writes_cache=True)))
    step: Any = A100.decode
    one = only(A100.fuse(attention_core(record(queries=1, causal=False), "bf16", cached=True)))
    assert seconds(one) == pytest.approx(float(step.seconds(2, 512, 16, 4, 128)))


def test_backward_takes_two_and_a_half_times_the_forwards_arithmetic() -> None:
    """Launch 9,995 cycles at 1.41 GHz once; the rest of the forward's time 2.5 times."""
    launch_s = 9995 / 1.41e9
    expected = launch_s + 2.5 * (fitted(A100, record()) - launch_s)
    assert seconds(only(A100.fuse(backward_core(record())))) == pytest.approx(expected, rel=1e-12)


def test_backward_pays_for_the_scores_that_it_computes_again() -> None:
    """Four products of 256 operations a pair at 0.79 pJ and a fifth; 4 operations of softmax's gradient at 11.9 pJ."""
    pairs = 2 * 16 * 131_328
    kernel = only(A100.fuse(backward_core(record())))
    joules = math.fsum(cost.energy_J["arithmetic"] for cost in kernel.costs)
    assert joules == pytest.approx(pairs * (5 * 256 * 0.79e-12 + 4 * 11.9e-12))


def test_recomputed_scores_that_only_the_backward_reads_take_no_time_of_their_own() -> None:
    """Selective recomputation: the fused backward makes the scores again in any case."""
    plain = only(A100.fuse(backward_core(record())))
    again = recomputed(attention_core(record(), "bf16")[:2])
    kernel = only(A100.fuse((*again, *backward_core(record(), after=("again-softmax",)))))
    assert seconds(kernel) == pytest.approx(seconds(plain))
    total = [math.fsum(cost.energy_J["arithmetic"] for cost in one.costs) for one in (kernel, plain)]
    softmax_J = 2 * 16 * 131_328 * 7 * 11.9e-12
    assert total[0] == pytest.approx(total[1] + softmax_J)
    assert kernel.costs[1].memory_write_B == 0


def test_full_recomputation_runs_the_forward_kernel_once_more() -> None:
    forward = only(A100.fuse(attention_core(record(), "bf16")))
    plain = only(A100.fuse(backward_core(record())))
    again = recomputed(attention_core(record(), "bf16"))
    kernels = A100.fuse((*again, *backward_core(record(), after=("again-softmax",))))
    assert [len(kernel.members) for kernel in kernels] == [3, 5]
    assert math.fsum(map(seconds, kernels)) == pytest.approx(seconds(forward) + seconds(plain))
    assert [c.memory_write_B for c in kernels[0].costs] == [0, 0, 4_194_304]


def test_names_and_numbers_of_dimensions_decide_nothing() -> None:
    plain = A100.fuse(attention_core(record(), "bf16"))
    flat = []
    for place, operator in enumerate(attention_core(record(), "bf16")):
        operands = [
            tuple(replace(o, shape=(o.elements // o.shape[-1], o.shape[-1])) for o in side)
            for side in (operator.inputs, operator.outputs)
        ]
        after = (f"x{place - 1}",) if place else ()
        flat.append(replace(operator, name=f"x{place}", after=after, inputs=operands[0], outputs=operands[1]))
    assert only(A100.fuse(flat)).costs == only(plain).costs


@pytest.mark.parametrize("degree", [2, 4])
def test_a_split_by_heads_keeps_the_kernel_and_the_work(degree: int) -> None:
    whole = only(A100.fuse(attention_core(record(), "bf16")))
    part = only(A100.fuse(attention_core(record(heads=16 // degree, kv_heads=4 // degree), "bf16")))
    for one, all_of_it in zip(part.costs, whole.costs, strict=True):
        assert one.operations * degree == pytest.approx(all_of_it.operations)
        assert one.memory_read_B * degree == pytest.approx(all_of_it.memory_read_B)
    assert seconds(whole) / degree <= seconds(part) < seconds(whole)


def test_values_that_are_part_of_the_keys_are_read_once() -> None:
    """Latent attention: one cache of 512 + 64 values a token for all heads; values are its first 512."""
    a = record(queries=1, keys=4096, heads=64, kv_heads=1, head_dim=576, value_dim=512, causal=False)
    scores, softmax, values = attention_core(a, "bf16", cached=True)
    latent = replace(scores.inputs[1], name="latent")
    scores = replace(scores, inputs=(scores.inputs[0], latent))
    values = replace(values, inputs=(values.inputs[0], replace(values.inputs[1], name="latent")))
    kernel = only(A100.fuse((scores, softmax, values)))
    # Queries 2 * 64 * 576 * 2 bytes and the cache 2 * 4096 * 576 * 2 bytes.
    assert math.fsum(cost.memory_read_B for cost in kernel.costs) == 147_456 + 9_437_184
    step: Any = A100.decode
    assert seconds(kernel) == pytest.approx(float(step.seconds(2, 4096, 64, 1, 576, value_size=0)))


def test_a_bias_on_the_scores_is_read_and_two_cores_are_two_kernels() -> None:
    first, second = (attention_core(record(number), "bf16") for number in (0, 1))
    renamed = [replace(o, name=f"b-{o.name}", after=tuple(f"b-{n}" for n in o.after)) for o in second]
    assert [kernel.members for kernel in A100.fuse((*first, *renamed))] == [(0, 1, 2), (3, 4, 5)]
    scores, softmax, values = first
    bias = replace(scores.outputs[0], name="bias", shape=(16, 512, 512))
    added = replace(softmax, name="add", kind=Kind.ELEMENTWISE, inputs=(scores.outputs[0], bias))
    added = replace(added, outputs=(replace(bias, name="biased", shape=(2, 16, 512, 512)),))
    softmax = replace(softmax, inputs=added.outputs, after=("add",))
    kernel = only(A100.fuse((scores, added, softmax, values)))
    assert kernel.costs[1].memory_read_B == 16 * 512 * 512 * 2


def test_units_side_by_side_share_sequences_then_heads() -> None:
    four = board("a100", 4)
    one = only(A100.fuse(attention_core(record(sequences=2), "bf16")))
    many = only(four.fuse(attention_core(record(sequences=8), "bf16")))
    assert seconds(many) == pytest.approx(seconds(one))
    halves = only(A100.fuse(attention_core(record(sequences=1, heads=8, kv_heads=2), "bf16")))
    assert seconds(only(four.fuse(attention_core(record(sequences=2), "bf16")))) == pytest.approx(seconds(halves))


def test_a_gpu_without_attention_kernels_fuses_none() -> None:
    assert A100.at(attention=None).fuse(attention_core(record(), "bf16")) == []


def used(costs: tuple[Cost, ...]) -> float:
    return max(cost.utilization for cost in costs)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(BOARDS),
    sequences=st.integers(1, 300),
    queries=st.sampled_from([1, 2, 63, 512, 4096, 32768]),
    past=st.sampled_from([0, 1, 700, 8192]),
    groups=st.sampled_from([1, 4, 8]),
    kv_heads=st.integers(1, 16),
    size=st.sampled_from([32, 64, 128, 256, 576]),
    form=st.sampled_from(["bf16", "fp16", "fp32", "int8"]),
    causal=st.booleans(),
    how=st.sampled_from(["forward", "backward", "selective", "full"]),
)
def test_no_operator_is_above_its_peak_and_parts_sum_to_the_kernel(
    name: str,
    sequences: int,
    queries: int,
    past: int,
    groups: int,
    kv_heads: int,
    size: int,
    form: str,
    causal: bool,
    how: str,
) -> None:
    gpu = board(name)
    a = record(
        sequences=sequences,
        queries=queries,
        keys=queries + past,
        heads=groups * kv_heads,
        kv_heads=kv_heads,
        head_dim=size,
        value_dim=size,
        causal=causal,
    )
    operators: tuple[Operator, ...] = attention_core(a, form)
    if how != "forward":
        again = {"backward": (), "selective": recomputed(operators[:2]), "full": recomputed(operators)}[how]
        operators = (*again, *backward_core(a, form, ("again-softmax",) if again else ()))
    kernels = gpu.fuse(operators)
    assert sorted(place for kernel in kernels for place in kernel.members) == list(range(len(operators)))
    for kernel in kernels:
        assert used(kernel.costs) <= 1
        for place, cost in zip(kernel.members, kernel.costs, strict=True):
            assert cost.operations == pytest.approx(operators[place].operations * visible_share(a))
            rate = gpu.rate(operators[place]) if operators[place].kind is Kind.MATMUL else None
            assert rate is None or cost.operations <= rate * cost.occupancy_s * (1 + 1e-9)


def test_is_a_kernels_time_shared_by_what_its_members_need() -> None:
    """A product that needs 1 s and a softmax that needs 2 s."""
    members: Any = (SimpleNamespace(kind=Kind.MATMUL), SimpleNamespace(kind=Kind.SOFTMAX))
    # In 6 s each takes twice as long; in 2 s the product takes its second, what is left is the softmax's.
    assert _shared_s(members, (1.0, 2.0), 1.0, 6.0) == pytest.approx([2.0, 4.0])
    assert _shared_s(members, (1.0, 2.0), 1.0, 3.0) == pytest.approx([1.0, 2.0])
    assert _shared_s(members, (1.0, 2.0), 1.0, 2.0) == pytest.approx([1.0, 1.0])
    # Where nothing is needed both take half.
    assert _shared_s(members, (0.0, 0.0), 0.0, 6.0) == [3.0, 3.0]
