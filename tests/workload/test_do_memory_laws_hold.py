"""Is the memory of every model, method and split monotone, conserved, and made of what backward really reads?"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import (
    RECOMPUTATIONS,
    attentions,
    decoders,
    families,
    has_biases,
    methods,
    recomputations,
    small,
    tuning,
)

from tierform.errors import TierformError
from tierform.workload import (
    BitFit,
    BlockKind,
    FineTuning,
    Footprint,
    Full,
    Inference,
    LoRA,
    MicroBatches,
    Origin,
    Parallelism,
    PrecisionPlan,
    Role,
    SequenceGroup,
    StageKind,
    Step,
    Task,
    Workload,
    expand,
    load_model,
)
from tierform.workload.task import Method

SIZES = st.integers(1, 24)


def no_less(one: Workload, more: Workload) -> None:
    """Every part of the memory, operations and bytes of operators: `more` has at least as much."""
    before, after = one.footprint.parts(), more.footprint.parts()
    assert all(after[name] >= size for name, size in before.items()), (before, after)
    assert more.operations >= one.operations * (1 - 1e-12)
    moved = [sum((o.input_B + o.output_B) * times for _, _, o, times in w.occurrences()) for w in (one, more)]
    assert moved[1] >= moved[0]


def tasks(batch: int, sequence: int, training: bool, method: Method, recomputation: str) -> Task:
    if training:
        return tuning(method, recomputation, batch=batch, sequence=sequence)
    return Inference(batch=batch, sequence=sequence)


@settings(max_examples=150, deadline=None)
@given(families, SIZES, SIZES, st.booleans(), methods, recomputations, attentions, st.sampled_from([1, 2]))
def test_more_tokens_sequences_or_layers_never_need_less(
    family: str,
    batch: int,
    sequence: int,
    training: bool,
    method: Method,
    recomputation: str,
    attention: str,
    tensor: int,
) -> None:
    if isinstance(method, BitFit) and not has_biases(family):
        return
    model = small(family)
    split = Parallelism(tensor)

    def made(given_model: object, task: Task) -> Workload:
        return expand(given_model, task, parallelism=split, attention=attention)  # type: ignore[arg-type]

    task = tasks(batch, sequence, training, method, recomputation)
    one = made(model, task)
    no_less(one, made(model, replace(task, batch=batch + 1)))
    no_less(one, made(model, replace(task, sequence=sequence + 1)))
    no_less(one, made(replace(model, layers=model.layers + 1), task))


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "deepseek_v3"])
def test_memory_of_experts_rises_with_every_token(family: str) -> None:
    """Whether the rows divide among the experts or not, all of them are there at once."""
    sizes = [expand(small(family), Inference(sequence=n)).footprint.activations for n in range(1, 120)]
    assert sizes == sorted(sizes)


@settings(max_examples=60, deadline=None)
@given(
    families, st.sampled_from(["weights", "activations", "kv_cache", "gradients", "optimizer_states"]), st.booleans()
)
def test_wider_formats_never_need_less(family: str, what: str, training: bool) -> None:
    narrow = PrecisionPlan(**{what: "int8"}, master_weights="fp32" if training else None)  # type: ignore[arg-type]
    task = tasks(2, 8, training, Full(), "none")
    one, more = (expand(small(family), replace(task, precision=p)) for p in (narrow, replace(narrow, **{what: "bf16"})))
    parts = [w.footprint.parts() for w in (one, more)]
    if what == "weights" and training:  # narrow weights have a master copy, wide ones need none of another width
        for part in parts:
            part.pop("master_weights")
    assert all(parts[1][name] >= size for name, size in parts[0].items())
    assert (
        sum(parts[1].values()) > sum(parts[0].values())
        or (what == "kv_cache" and training)
        or (what in ("gradients", "optimizer_states", "kv_cache"))
    )


@settings(max_examples=100, deadline=None)
@given(families, methods, attentions, st.integers(1, 6), SIZES, st.booleans())
def test_recomputation_never_needs_more_memory(
    family: str, method: Method, attention: str, batch: int, sequence: int, one_layer: bool
) -> None:
    if isinstance(method, BitFit) and not has_biases(family):
        return
    model = small(family)
    if one_layer and not model.decoder_layers and not model.dense_layers:
        model = replace(model, layers=1)
    needs = {
        mode: expand(
            model, tuning(method, mode, batch=batch, sequence=sequence), attention=attention
        ).footprint.activations  # type: ignore[arg-type]
        for mode in RECOMPUTATIONS
    }
    assert needs["selective"] <= needs["none"]
    assert needs["full"] <= needs["none"]


@settings(max_examples=80, deadline=None)
@given(families, methods, st.integers(1, 6), SIZES)
def test_fused_attention_needs_no_more_than_tiled_and_tiled_no_more_than_eager(
    family: str, method: Method, batch: int, sequence: int
) -> None:
    if isinstance(method, BitFit) and not has_biases(family):
        return
    model = small(family)
    for task in (tuning(method, batch=batch, sequence=sequence), Inference(batch=batch, sequence=sequence)):
        fused, tiled, eager = (expand(model, task, attention=a).footprint for a in ("fused", "tiled", "eager"))  # type: ignore[arg-type]
        # A fused kernel keeps its result (width 64 or 128, 2 B) and 4 B for each row of the scores of 8 heads, in at
        # most 6 cores; probabilities of fewer keys than that may take less.
        tokens = batch * (17 if model.fixed_tokens else sequence)
        assert fused.activations <= tiled.activations + 6 * tokens * (4 * 8 + 2 * 128)
        assert tiled.activations <= eager.activations


def reads_of_backward(workload: Workload, block: str) -> dict[str, int]:
    """Name -> bytes of the activations that a layer's backward pass reads and does not make itself."""
    stage = next(s for s in workload.stages if s.kind is StageKind.BACKWARD)
    found: dict[str, int] = {}
    made: set[str] = set()
    for operator in next((b.operators for b in stage.blocks if b.name == block), ()):
        for operand in operator.inputs:
            if operand.role is Role.ACTIVATION and operand.name not in made:
                size = operand.size_B * operator.count
                found[operand.name] = max(found.get(operand.name, 0), size)
        made |= {operand.name for operand in operator.outputs}
    return found


@settings(max_examples=100, deadline=None)
@given(families.filter(lambda name: name != "t5"), methods, recomputations, st.sampled_from([1, 2, 4]), st.booleans())
def test_what_backward_reads_was_written_and_is_what_is_saved(
    family: str, method: Method, recomputation: str, tensor: int, sequence: bool
) -> None:
    if isinstance(method, BitFit) and not has_biases(family):
        return
    split = Parallelism(tensor, sequence=sequence and tensor > 1)
    workload = expand(small(family), tuning(method, recomputation), parallelism=split)
    forward = workload.stages[0].blocks
    written = {o.name for block in forward for op in block.operators for o in (*op.outputs, *op.inputs)}
    for block in forward:
        if block.kind is not BlockKind.LAYER:  # heads read rows of what is kept whole
            continue
        reads = reads_of_backward(workload, block.name)
        assert set(reads) <= written
        assert sum(reads.values()) == workload.saved_B(block.name)[0], block.name


@settings(max_examples=60, deadline=None)
@given(families, st.integers(1, 4), st.lists(st.integers(0, 4), min_size=1, max_size=3), st.booleans())
def test_any_cut_of_the_layers_keeps_every_weight_once(
    family: str, tensor_log: int, bounds: list[int], training: bool
) -> None:
    """And a tied one once more in each group that uses it without the block that it is listed under."""
    model = small(family)
    task = tuning(Full()) if training else Inference(batch=2, sequence=8)
    whole = expand(model, task, parallelism=Parallelism(2 ** (tensor_log % 4)))
    layers = [block.block for block in whole.memory for _ in range(block.layers)]
    edges = [0, *sorted(min(b * len(layers) // 4, len(layers)) for b in bounds), len(layers)]
    cut = []
    for first, last in pairwise(edges):
        part = layers[first:last]
        cut.append(tuple((name, part.count(name)) for name in dict.fromkeys(part)))
    groups = whole.group_footprints(cut)
    (alone,) = whole.group_footprints([tuple((block.block, block.layers) for block in whole.memory)])
    copies = []
    for own in ({name for name, _ in part} for part in cut):
        used = {item.weight: item for block in whole.memory if block.block in own for item in block.borrowed}
        copies += [item.states for item in used.values() if item.owner not in own]
    for name in Footprint.__slots__:
        if name != "activations":
            more = sum(getattr(states, name) for states in copies)
            assert sum(getattr(group, name) for group in groups) == getattr(alone, name) + more


def test_a_cut_names_blocks_that_are_there() -> None:
    with pytest.raises(TierformError, match=r"no such block.*layers") as error:
        expand(small("llama"), Inference()).group_footprints([[("layers", 4)]])
    assert "'layer'" in str(error.value)


@settings(max_examples=40, deadline=None)
@given(decoders, st.integers(1, 5), st.integers(1, 30), st.integers(0, 30), st.sampled_from([1, 2, 4]))
def test_cache_operands_are_as_large_as_the_cache(family: str, b: int, new: int, past: int, tensor: int) -> None:
    """Each layer reads its whole cache, and writes the new tokens' part of it."""
    model = small(family)
    step = expand(model, Step((SequenceGroup(b, new, past),)), parallelism=Parallelism(tensor))
    layers = [
        block for block in step.stages[0].blocks if block.name in {m.block for m in step.memory if m.states.kv_cache}
    ]
    read = written = 0
    for block in layers:
        for operator in block.operators:
            caches = [o for o in operator.inputs if o.role is Role.KV_CACHE and operator.attention is not None]
            read += block.count * sum(o.size_B for o in caches)
            written += block.count * sum(o.size_B for o in operator.outputs if o.role is Role.KV_CACHE)
    if model.latent_attention:
        # A prompt reads expanded keys; with a past, scores read latent and rotary key, weighted values the latent.
        whole = step.footprint.kv_cache
        assert written * (new + past) == whole * new
        assert read == (whole + whole * 16 // 20 if past else 0)
    elif not model.sliding_window:
        assert read == step.footprint.kv_cache
        assert written * (new + past) == read * new


def test_a_pipeline_group_keeps_the_micro_batches_in_flight() -> None:
    """8 micro-batches over 4 groups: 4, 3, 2 and 1 of them wait in a group; on one chip all 8 do."""
    model, task = small("llama"), FineTuning(batch=8, sequence=16)
    share = expand(model, task, MicroBatches(training=8), parallelism=Parallelism(1, 4))
    saved = share.saved_B("layer")[0]
    cut = [[("layer", 1)]] * 4
    space = next(m.workspace_B for m in share.memory if m.block == "layer")
    assert [g.activations - space for g in share.group_footprints(cut)] == [4 * saved, 3 * saved, 2 * saved, saved]
    alone = expand(model, task, MicroBatches(training=8))
    (everything,) = alone.group_footprints([[("layer", 4)]])
    assert everything.activations - space == 8 * 4 * saved
    few = expand(model, task, MicroBatches(training=2), parallelism=Parallelism(1, 4))
    larger = few.saved_B("layer")[0]
    space = next(m.workspace_B for m in few.memory if m.block == "layer")
    assert [g.activations - space for g in few.group_footprints(cut)] == [2 * larger, 2 * larger, 2 * larger, larger]


def test_uneven_parts_wait_larger_first() -> None:
    """5 sequences in 3 parts are 2 + 2 + 1; two groups keep the first two parts, then the first."""
    share = expand(
        small("llama"), FineTuning(batch=5, sequence=16), MicroBatches(training=3), parallelism=Parallelism(1, 2)
    )
    two, one = share.saved_B("layer")
    assert two == 2 * one
    space = next(m.workspace_B for m in share.memory if m.block == "layer")
    groups = share.group_footprints([[("layer", 1)], [("layer", 1)]])
    assert [g.activations - space for g in groups] == [2 * two, two]


def test_quantized_weights_are_unpacked_in_the_backward_pass_too() -> None:
    """One unpacking for each product with a 4-bit weight; layer 0 of LoRA needs no gradient of its input."""
    from tierform.workload import QLoRA

    workload = expand(small("llama"), tuning(QLoRA(4)))
    stages = {stage.name: stage for stage in workload.stages}
    for name, products in (("forward", 7), ("backward", 7)):
        block = next(b for b in stages[name].blocks if b.name == "layer[1..3]")
        unpacked = [o for o in block.operators if o.origin is Origin.DEQUANTIZE]
        assert len(unpacked) == products
        for operator in unpacked:
            waiting = [o for o in block.operators if operator.name in o.after]
            assert [o.weight for o in waiting] == [operator.weight]
    full = expand(small("llama"), tuning(QLoRA(4), "full"))
    backward = next(b for b in full.stages[1].blocks if b.name == "layer[1..3]")
    again = [o for o in backward.operators if o.weight == "attention.v" and o.kind.value == "elementwise"]
    assert [o.origin for o in again] == [Origin.RECOMPUTED, Origin.DEQUANTIZE]


def test_the_cache_that_decoding_leaves_has_every_token() -> None:
    model = load_model("llama-3.1-8b")
    ends = expand(model, Inference(batch=2, sequence=10, decode=7)), expand(model, Step((SequenceGroup(2, 1, 16),)))
    assert ends[0].footprint.kv_cache == ends[1].footprint.kv_cache
    lora = expand(model, FineTuning(LoRA(8), sequence=8))
    assert lora.footprint.kv_cache == 0
