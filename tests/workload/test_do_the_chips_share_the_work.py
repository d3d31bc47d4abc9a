"""Do the chips of a split together do what one chip does, no more and no less?"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import CONFIGS, attentions, families, has_biases, methods, recomputations, small, tuning

from tierform.errors import TierformError
from tierform.workload import (
    BitFit,
    FineTuning,
    Full,
    Inference,
    Kind,
    LoRA,
    MicroBatches,
    Origin,
    Parallelism,
    Role,
    SequenceGroup,
    Shard,
    Step,
    Workload,
    expand,
    load_model,
    model_from_config,
)
from tierform.workload.contract import check_workload
from tierform.workload.parallel import check_tensor
from tierform.workload.task import Method

DEGREES = st.sampled_from([2, 4, 8])


def macs(workload: Workload, *shards: Shard) -> Counter[tuple[str, str]]:
    """(block, operator) -> multiply-accumulates of all runs."""
    found: Counter[tuple[str, str]] = Counter()
    for stage, block, operator, times in workload.occurrences():
        if operator.kind is Kind.MATMUL and operator.shard in shards:
            found[f"{stage.name}/{block.name}", operator.name] += operator.macs * times
    return found


def collectives(workload: Workload, stage: str) -> Counter[str]:
    """Kind of collective -> bytes of the larger side, of all runs."""
    moved: Counter[str] = Counter()
    for at, _, operator, times in workload.occurrences():
        if operator.kind is Kind.COLLECTIVE and at.name == stage:
            moved[operator.collective] += max(operator.input_B, operator.output_B) * times
    return moved


CUT = (Shard.OUTPUT, Shard.INPUT, Shard.HEADS)


@settings(max_examples=80, deadline=None)
@given(families, methods, recomputations, attentions, DEGREES, st.booleans())
def test_cut_matmuls_sum_to_the_whole_and_repeated_ones_are_equal(
    family: str, method: Method, recomputation: str, attention: str, tensor: int, sequence: bool
) -> None:
    if isinstance(method, BitFit) and not has_biases(family):
        return
    task = tuning(method, recomputation)
    model = small(family)
    split = Parallelism(tensor, sequence=sequence)
    one = expand(model, task, attention=attention)  # type: ignore[arg-type]
    share = expand(model, task, parallelism=split, attention=attention)  # type: ignore[arg-type]
    check_workload(share)
    kv = model.kv_heads % tensor  # fewer heads of keys and values than chips: each keeps one, so some are repeated
    whole, part = macs(one, *CUT), macs(share, *CUT)
    assert whole.keys() == part.keys()
    for key, number in whole.items():
        assert part[key] * tensor >= number
        if not kv:
            assert part[key] * tensor == number, key
    repeated, same = macs(one, Shard.WHOLE), macs(share, Shard.WHOLE)
    assert repeated.keys() == same.keys()
    if not sequence:
        assert repeated == same
    assert share.parameters == one.parameters and share.trainable_parameters == one.trainable_parameters


@pytest.mark.parametrize("recomputation", ["none", "selective", "full"])
def test_total_operations_do_not_depend_on_the_tensor_degree(recomputation: str) -> None:
    """Llama 3.1 8B: every matrix is cut, so matmuls are equal to the last operation; norms and residuals repeat."""
    model = load_model("llama-3.1-8b")
    task = FineTuning(batch=2, sequence=256, recomputation=recomputation)  # type: ignore[arg-type]
    one = expand(model, task)
    for tensor in (2, 4, 8):
        share = expand(model, task, parallelism=Parallelism(tensor))
        assert share.macs * tensor == one.macs
        assert share.operations * tensor == pytest.approx(one.operations, rel=2e-3)
    low = [
        tensor * expand(model, tuning(LoRA(8), recomputation), parallelism=Parallelism(tensor)).macs
        for tensor in (1, 8)
    ]
    assert low[0] <= low[1] <= 1.005 * low[0]  # A of W_q and W_v is repeated: 2 * 8 * 4096 of 218 million a layer


def test_an_uneven_number_of_tokens_for_experts_is_shared_like_any_other() -> None:
    """67 tokens to two of eight experts are 134 rows: two groups of experts, both cut."""
    model, task = load_model("mixtral-8x7b"), Inference(sequence=67)
    one, two = (expand(model, task, parallelism=Parallelism(t)) for t in (1, 2))
    names = {name for _, name in macs(one, *CUT)}
    assert {"ffn.experts.down", "ffn.experts.down.rest"} <= names
    router = 67 * 4096 * 8 * 32
    assert 2 * two.macs - one.macs == router  # the router alone is repeated


@pytest.mark.parametrize("tensor", [2, 8])
def test_latent_attention_is_cut_by_heads_whatever_the_batch(tensor: int) -> None:
    model = load_model("deepseek-v3")
    task = Inference(batch=4, sequence=64, decode=3)
    one, share = (expand(model, task, parallelism=Parallelism(t)) for t in (1, tensor))
    for stage in (0, 1):
        heads = [
            {o.attention.heads for b in w.stages[stage].blocks for o in b.operators if o.attention is not None}
            for w in (one, share)
        ]
        assert heads == [{128}, {128 // tensor}]
    cut, whole = macs(share, *CUT), macs(one, *CUT)
    assert all(cut[key] * tensor == number for key, number in whole.items())
    assert share.footprint.kv_cache == one.footprint.kv_cache == 2 * 4 * 67 * 61 * 576  # the latent is on every chip


@settings(max_examples=40, deadline=None)
@given(families, recomputations, DEGREES)
def test_attention_keeps_its_record_under_every_split(family: str, recomputation: str, tensor: int) -> None:
    task = tuning(Full(), recomputation)
    one, share = (expand(small(family), task, parallelism=Parallelism(t)) for t in (1, tensor))
    cores = []
    for workload in (one, share):
        found = Counter(
            (stage.name, block.name, o.attention.number, o.origin, o.attention.queries, o.attention.keys, o.name)
            for stage, block, o, _ in workload.occurrences()
            if o.attention is not None
        )
        cores.append(found)
    assert cores[0] == cores[1]
    for _, _, operator, _ in share.occurrences():
        core = operator.attention
        if core is not None:
            assert core.heads == 8 // tensor and core.heads % core.kv_heads == 0
            assert operator.shard is Shard.HEADS
            if operator.kind is Kind.MATMUL:
                assert operator.batch == core.sequences * core.heads
        elif operator.kind is Kind.SOFTMAX:
            raise AssertionError(f"{operator.name} is a softmax outside a core")


def test_collectives_of_a_training_step_by_hand() -> None:
    """GPT-2 of 4 layers, width 64, batch 2, 16 tokens, bf16, on 2 chips (Shoeybi et al., 2019).

    An activation has 2 * 16 * 64 * 2 B = 4,096 B.  Forward: after attention and FFN of each layer, and after the cut
    vocabulary: 9 of them; three fp32 figures for each of 32 rows of logits: 384 B.  Backward: before attention and
    FFN of each layer, and before the logits: 9.  Full recomputation repeats the 8 of the layers, because the dropout
    behind each makes its mask again; without dropout (LLaMA) only attention's 4, since nobody reads the FFN's.
    """
    model, split = small("gpt2"), Parallelism(2)
    plain, again = (expand(model, tuning(Full(), r), parallelism=split) for r in ("none", "full"))
    assert collectives(plain, "forward") == {"all_reduce": 9 * 4096 + 384}
    assert collectives(plain, "backward") == {"all_reduce": 9 * 4096}
    assert collectives(again, "backward") == {"all_reduce": (9 + 8) * 4096}
    without = expand(small("llama"), tuning(Full(), "full"), parallelism=split)
    assert collectives(without, "backward") == {"all_reduce": (9 + 4) * 4096}
    rerun = [o for _, _, o, _ in without.occurrences() if o.kind is Kind.COLLECTIVE and o.origin is Origin.RECOMPUTED]
    assert len(rerun) == 1


def test_sequence_parallelism_moves_the_same_bytes_in_halves() -> None:
    """Korthikanti et al. (2022): an all-gather and a reduce-scatter move what one all-reduce moves.

    Gathers of 4,096 B: before attention and FFN of 4 layers and before the logits, 9; scatters: after each, and after
    the vocabulary, 9.  Backward turns them round, and gathers the 9 inputs again for the weights' gradients.
    """
    share = expand(small("gpt2"), tuning(Full()), parallelism=Parallelism(2, sequence=True))
    assert collectives(share, "forward") == {"all_gather": 9 * 4096, "reduce_scatter": 9 * 4096, "all_reduce": 384}
    assert collectives(share, "backward") == {"all_gather": (9 + 9) * 4096, "reduce_scatter": 9 * 4096}
    # Gains and shifts of 9 normalizations and the position table see a part of the tokens: their gradients are summed;
    # so are those of the output and down projections' biases.
    vectors = 9 * 2 * 64 + 512 * 64 + 4 * 2 * 64
    assert collectives(share, "update") == {"all_reduce": 2 * vectors}


def test_inference_gathers_the_logits() -> None:
    share = expand(small("llama"), Inference(batch=3, sequence=16), parallelism=Parallelism(2))
    assert collectives(share, "prefill") == {"all_reduce": 9 * 3 * 16 * 64 * 2, "all_gather": 3 * 80 * 2}


@given(st.sampled_from(sorted(CONFIGS)), st.sampled_from([2, 3, 6]), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_copies_share_the_batch(family: str, data: int, accumulation: int) -> None:
    model = small(family)
    task = FineTuning(batch=6, sequence=16, gradient_accumulation=accumulation)
    one, share = expand(model, task), expand(model, task, parallelism=Parallelism(data=data))
    if not model.experts:
        assert share.macs * data == one.macs
    gradients = sum(w.total for w in share.weights if w.trainable) * 2
    assert collectives(share, "update") == {"all_reduce": gradients}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), families, st.booleans())
def test_micro_batches_of_any_number_do_the_whole_batch(batch: int, parts: int, family: str, training: bool) -> None:
    """17 in 2 is 9 + 8: two waves, the larger first, with the same operators."""
    model = small(family)
    task = tuning(LoRA(2), batch=batch) if training else Inference(batch=batch, sequence=16)
    cut = MicroBatches(prefill=parts, training=parts)
    if parts > batch:
        with pytest.raises(TierformError, match="cannot be cut"):
            expand(model, task, cut)
        return
    one, many = expand(model, task), expand(model, task, cut)
    stage = many.stages[0]
    assert stage.micro_batches == parts
    assert [wave.tokens for wave in stage.waves] == sorted({wave.tokens for wave in stage.waves}, reverse=True)
    assert len({tuple(o.name for b in wave.blocks for o in b.operators) for wave in stage.waves}) == 1
    if not model.experts:
        assert many.macs == one.macs
    assert stage.tokens == one.stages[0].tokens


def test_a_million_accumulations_cost_nothing() -> None:
    task = FineTuning(batch=8, sequence=16, gradient_accumulation=10**6)
    alone, groups = (expand(small("llama"), task, parallelism=Parallelism(1, p)) for p in (1, 2))
    assert [(s.micro_batches, s.repeat) for s in alone.stages] == [(1, 10**6), (1, 10**6), (1, 1)]
    assert [(s.micro_batches, s.repeat) for s in groups.stages] == [(10**6, 1), (10**6, 1), (1, 1)]
    assert alone.macs == groups.macs == 10**6 * expand(small("llama"), FineTuning(batch=8, sequence=16)).macs


def test_what_cannot_be_shared_is_refused_all_at_once() -> None:
    with pytest.raises(TierformError) as error:
        expand(
            small("llama"), Inference(batch=3, sequence=16, decode=2), MicroBatches(9, 9), parallelism=Parallelism(5)
        )
    text = str(error.value)
    for part in (
        "8 does not divide among 5 chips",
        "96 does not divide",
        "micro_batches.prefill",
        "micro_batches.decode",
    ):
        assert part in text
    with pytest.raises(TierformError, match="4 layers cannot be cut into 5 pipeline groups"):
        expand(small("llama"), Inference(), parallelism=Parallelism(pipeline=5))
    with pytest.raises(TierformError, match="a batch of 3 does not divide among 2 copies"):
        expand(small("llama"), Step((SequenceGroup(3),)), parallelism=Parallelism(data=2))
    with pytest.raises(TierformError, match="tensor=2 or more"):
        Parallelism(sequence=True)
    with pytest.raises(TierformError, match="at least 1"):
        MicroBatches(decode=0)


def test_heads_of_keys_below_the_tensor_degree_are_repeated() -> None:
    """Llama 3.1 8B has 8 of them: on 32 chips each keeps one: 32 layers * 2 * 128 * 2 B = 16,384 B for each token."""
    model = load_model("llama-3.1-8b")
    task = Inference(batch=8, sequence=4096, decode=8)
    share = expand(model, task, parallelism=Parallelism(32))
    assert share.footprint.kv_cache == 8 * 4104 * 16_384 == 537_919_488
    caches = {
        o.shape
        for _, _, op, _ in share.occurrences()
        for o in op.inputs
        if o.role is Role.KV_CACHE and len(o.shape) == 4
    }
    assert {shape[1] for shape in caches} == {1}


def test_which_widths_must_tensor_chips_divide() -> None:
    """Heads 4, experts of 32, a shared one of 64; dense layers, where there are any, of 90."""
    sizes = {
        **{"model_type": "qwen2_moe", "num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 4},
        **{"num_key_value_heads": 4, "intermediate_size": 90, "vocab_size": 48, "num_experts": 4},
        **{"num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64},
    }

    def refused(tensor: int, **changes: object) -> list[str]:
        try:
            check_tensor(model_from_config({**sizes, **changes}, "toy"), tensor)
        except TierformError as error:
            return [str(problem.key).removeprefix("toy: ") for problem in error.problems]
        return []

    assert refused(4) == refused(2, mlp_only_layers=[1]) == []  # no layer is dense; half of 90 is whole
    assert refused(4, mlp_only_layers=[1]) == ["feed-forward width"]
    assert refused(3) == ["heads", "expert width", "shared expert width", "key/value heads"]
    # Fewer heads of keys than chips are repeated, where the chips are a multiple of them.
    assert refused(4, num_key_value_heads=2) == refused(4, num_key_value_heads=1) == []
    six = {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 3}
    assert refused(2, **six) == ["key/value heads"]
