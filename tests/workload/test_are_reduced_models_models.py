"""Does a reduced model lack exactly what was taken away, and does it cost what is left?"""

from __future__ import annotations

import pytest

from tierform import simulate
from tierform.errors import TierformError
from tierform.workload import FineTuning, Inference, LoRA, PrecisionPlan, expand, load_model
from tierform.workload.contract import check_workload
from tierform.workload.reduced import Reduction

LLAMA = load_model("llama-2-7b")
ATTENTION, FFN = 4 * 4096 * 4096 + 4096, 3 * 4096 * 11008 + 4096  # with its normalization
PLAN = PrecisionPlan(master_weights=None)


def test_does_a_skipped_sublayer_take_its_parameters_and_its_cache_away() -> None:
    reduced = LLAMA.without(attention="21-31", ffn="3")
    assert LLAMA.parameters - reduced.parameters == 11 * ATTENTION + FFN
    whole, less = (expand(m, Inference(sequence=100, decode=28, precision=PLAN)) for m in (LLAMA, reduced))
    assert less.footprint.kv_cache * 32 == whole.footprint.kv_cache * 21
    check_workload(less)
    check_workload(expand(reduced, FineTuning(LoRA(4), sequence=16)))


def test_are_layers_renumbered_when_some_are_left_out() -> None:
    once = LLAMA.without(attention="30").without(layers="0-9")
    assert once.layers == 22 and once.without_attention == (20,)
    both = LLAMA.without(attention="5", ffn="5")
    assert both.layers == 31 and both.without_attention == both.without_ffn == ()
    dense = load_model("deepseek-v3").without(layers="1-2")
    assert dense.dense_layers == tuple(n for n in load_model("deepseek-v3").dense_layers if n < 1)


def test_is_a_narrowed_model_narrower_by_its_shares() -> None:
    half = LLAMA.narrowed(heads=0.5, ffn=0.25)
    assert (half.heads, half.kv_heads, half.ffn_size) == (16, 16, 2752)
    grouped = load_model("llama-3.1-8b").narrowed(heads=0.5)
    assert (grouped.heads, grouped.kv_heads) == (16, 4)
    check_workload(expand(half, Inference(decode=2)))


@pytest.mark.parametrize(("sparse", "bits"), [("2:4", 9.0), ("0.25-bitmap", 5.0), ("0.25-csr", 8.0)])
def test_do_zeros_change_bytes_by_their_format(sparse: str, bits: float) -> None:
    share, _, form = sparse.partition("-")
    thin = LLAMA.sparse(share, form or "bitmap")
    whole, less = (expand(m, Inference(precision=PLAN)).footprint.weights for m in (LLAMA, thin))
    matrices = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    assert whole - less == pytest.approx(matrices * (16 - bits) / 8, rel=1e-3)


def test_does_unstructured_sparsity_pay_only_where_its_format_is_smaller() -> None:
    task = Inference(sequence=64, decode=8, prefill=False, precision=PLAN)
    seconds = {
        density: simulate(LLAMA.sparse(density, "csr"), task, "a100", thermal="none").latency_s
        for density in (0.9, 0.5, 0.2)
    }
    dense = simulate(LLAMA, task, "a100", thermal="none").latency_s
    assert seconds[0.9] > dense and seconds[0.5] == pytest.approx(dense, rel=0.02) and seconds[0.2] < 0.6 * dense


def test_are_all_mistakes_said_at_once() -> None:
    with pytest.raises(TierformError) as caught:
        Reduction(attention="30-40,x", ffn="99", heads=2.0, sparse="5:4").of(LLAMA)
    text = str(caught.value)
    assert all(part in text for part in ("30-40", "'x'", "'99'", "heads", "5:4"))
    with pytest.raises(TierformError, match="no layer"):
        LLAMA.without(layers="0-31")
    with pytest.raises(TierformError, match="one stack"):
        load_model("t5-small").without(attention="1")


def test_does_a_pattern_that_tensor_cores_skip_double_the_rate_of_a_long_prompt() -> None:
    task = Inference(batch=8, sequence=2048, precision=PLAN)
    dense, pattern, other = (
        simulate(model, task, "a100", thermal="none").latency_s
        for model in (LLAMA, LLAMA.sparse("2:4"), LLAMA.sparse("4:8"))
    )
    assert 1.3 < dense / pattern < 2.0  # attention and light kernels stay
    assert other == pytest.approx(dense, rel=0.05)
