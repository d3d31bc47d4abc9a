"""Is a pass over any list of sequences what its sequences need: mixed batches, chunks of prompts, verified drafts?"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import decoders, small

from tierform.errors import TierformError
from tierform.workload import (
    Inference,
    Kind,
    MicroBatches,
    Operator,
    Parallelism,
    Role,
    SequenceGroup,
    StageKind,
    Step,
    Workload,
    expand,
    load_model,
)
from tierform.workload.contract import check_workload
from tierform.workload.operator import Attention

GROUP = st.builds(SequenceGroup, st.integers(1, 5), st.integers(1, 12), st.integers(0, 40))


def layer(workload: Workload, stage: int = 0) -> dict[str, Operator]:
    """The operators of the longest run of layers."""
    return {o.name: o for o in max(workload.stages[stage].blocks, key=lambda block: block.count).operators}


def cores(workload: Workload) -> set[Attention]:
    return {o.attention for _, _, o, _ in workload.occurrences() if o.attention is not None}


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "mixtral", "deepseek_v3"])
def test_prompts_and_decode_steps_are_steps(name: str) -> None:
    model = small(name)
    whole = expand(model, Inference(batch=3, sequence=20, decode=1))
    prompt, decode = expand(model, Step((SequenceGroup(3, 20),))), expand(model, Step((SequenceGroup(3, 1, 20),)))
    for stage, step in zip(whole.stages, (prompt, decode), strict=True):
        assert [b.operators for b in stage.blocks] == [b.operators for b in step.stages[0].blocks]
        assert stage.kind is step.stages[0].kind and stage.tokens == step.stages[0].tokens


@settings(max_examples=80, deadline=None)
@given(decoders, st.lists(GROUP, min_size=1, max_size=4), st.sampled_from(["last", "all"]), st.sampled_from([1, 2]))
def test_a_mixed_batch_computes_what_its_groups_do_alone(
    family: str, groups: list[SequenceGroup], logits: str, tensor: int
) -> None:
    model, split = small(family), Parallelism(tensor)

    def made(*chosen: SequenceGroup) -> Workload:
        return expand(model, Step(tuple(chosen), logits), parallelism=split)  # type: ignore[arg-type]

    mixed = made(*groups)
    check_workload(mixed)
    alone = [made(group) for group in mixed.task.groups]  # type: ignore[union-attr]
    if not model.experts:
        assert mixed.macs == sum(one.macs for one in alone)
    assert mixed.footprint.kv_cache == sum(one.footprint.kv_cache for one in alone)
    assert mixed.footprint.weights == alone[0].footprint.weights
    assert mixed.stages[0].tokens == sum(group.sequences * group.new for group in groups)
    mixed_caches, caches = (
        sum(o.size_B * n for w in some for _, _, op, n in w.occurrences() for o in op.inputs if o.role is Role.KV_CACHE)
        for some in ([mixed], alone)
    )
    assert mixed_caches == caches
    products = Counter(o.kind for o in layer(mixed).values() if o.attention is None)
    if not model.latent_attention and not model.experts:  # per-token operators run once, over all tokens
        assert products == Counter(o.kind for o in layer(alone[0]).values() if o.attention is None)


def test_equal_groups_are_one() -> None:
    parts = Step((SequenceGroup(2, 1, 30), SequenceGroup(4, 8), SequenceGroup(3, 1, 30)))
    assert parts.groups == (SequenceGroup(5, 1, 30), SequenceGroup(4, 8))
    assert parts == Step((SequenceGroup(5, 1, 30), SequenceGroup(4, 8)))
    model = small("llama")
    assert expand(model, parts) is expand(model, Step((SequenceGroup(5, 1, 30), SequenceGroup(4, 8))))


def test_chunks_of_a_prompt_sum_to_the_prompt() -> None:
    """12 tokens at once use 12 * 13 / 2 = 78 pairs of query and key; in chunks of 5, 5 and 2: 15 + 40 + 23 = 78."""
    model = small("llama")
    once = cores(expand(model, Step((SequenceGroup(1, 12),))))
    chunks = [(5, 0), (5, 5), (2, 10)]
    cut = [next(iter(cores(expand(model, Step((SequenceGroup(1, new, past),)))))) for new, past in chunks]
    assert [core.pairs for core in once] == [78]
    assert [core.pairs for core in cut] == [15, 40, 23]
    assert [(core.queries, core.keys, core.causal) for core in cut] == [(5, 5, True), (5, 10, True), (2, 12, True)]


def test_verifying_a_draft_reads_the_weights_once_for_all_its_tokens() -> None:
    """Llama 3.1 8B, 4 sequences, 5 drafted tokens each after 1,000: logits of all 20, one pass over the cache."""
    model = load_model("llama-3.1-8b")
    step = expand(model, Step((SequenceGroup(4, 5, 1000),), logits="all"))
    assert step.stages[0].kind is StageKind.DECODE
    inside = layer(step)
    assert inside["attention.q"].m == 20
    scores = inside["attention.scores"]
    assert (scores.batch, scores.m, scores.n, scores.k) == (4 * 32, 5, 1005, 128)
    cache = next(o for o in scores.inputs if o.role is Role.KV_CACHE)
    assert cache.shape == (4, 8, 1005, 128)
    logits = [o for _, _, o, _ in step.occurrences() if o.part == "head" and o.kind is Kind.MATMUL]
    assert [o.m for o in logits] == [20]
    last = expand(model, Step((SequenceGroup(4, 5, 1000),)))
    assert [o.m for _, _, o, _ in last.occurrences() if o.part == "head" and o.kind is Kind.MATMUL] == [4]
    assert inside["attention.v"].outputs[0].role is Role.KV_CACHE  # what is new is written


def test_absorbed_latent_attention_takes_several_queries() -> None:
    """DeepSeek-V3: 3 new tokens of 2 sequences on 100 cached: each head's rows of one product on the latent."""
    step = expand(load_model("deepseek-v3"), Step((SequenceGroup(2, 3, 97),)))
    inside = layer(step)
    scores, context = inside["attention.scores"], inside["attention.context"]
    assert (scores.batch, scores.m, scores.n, scores.k) == (2, 128 * 3, 100, 576)
    assert (context.batch, context.m, context.n, context.k) == (2, 128 * 3, 512, 100)
    (core,) = {o.attention for o in inside.values() if o.attention is not None}
    assert (core.heads, core.kv_heads, core.head_dim, core.value_dim) == (128, 1, 576, 512)
    assert (inside["attention.k_b"].count, inside["attention.k_b"].m) == (128, 6)


def test_a_step_is_cut_by_sequences() -> None:
    model = small("llama")
    step = Step((SequenceGroup(5, 1, 30), SequenceGroup(3, 7)))
    many = expand(model, step, MicroBatches(prefill=2))
    waves = many.stages[0].waves
    assert [(wave.micro_batches, wave.tokens) for wave in waves] == [(1, 3 + 14), (1, 2 + 7)]
    assert many.macs == expand(model, step).macs
    halves = expand(model, Step((SequenceGroup(4, 1, 30), SequenceGroup(2, 7))), parallelism=Parallelism(data=2))
    assert halves.stages[0].tokens == 2 + 7


def test_what_a_step_cannot_be_is_said() -> None:
    def text(family: str, step: Step) -> str:
        with pytest.raises(TierformError) as error:
            expand(small(family), step)
        return str(error.value)

    assert "cannot say both" in text("t5", Step((SequenceGroup(),)))
    assert "no cache" in text("bert", Step((SequenceGroup(1, 4, 4),)))
    assert "17 tokens" in text("vit", Step((SequenceGroup(1, 4),)))
    assert "512 tokens" in text("gpt2", Step((SequenceGroup(1, 1, 512),)))
    expand(small("bert"), Step((SequenceGroup(2, 8),)))
    expand(small("vit"), Step((SequenceGroup(2, 17),)))
    for bad in ({"sequences": 0}, {"new": 0}, {"past": -1}):
        with pytest.raises(TierformError, match="at least"):
            SequenceGroup(**bad)
    with pytest.raises(TierformError, match="at least one group"):
        Step(())
    with pytest.raises(TierformError, match="logits"):
        Step((SequenceGroup(),), logits="every")  # type: ignore[arg-type]


def test_samples_of_a_fixed_size_count_with_their_own_tokens() -> None:
    """A ViT of 16 patches and a class token has 17, whatever the task says."""
    one, other = (expand(small("vit"), Inference(batch=3, sequence=n)) for n in (17, 512))
    assert one.stages[0].tokens == other.stages[0].tokens == 51
    assert any("fixes its sequence at 17" in note for note in other.notes)
