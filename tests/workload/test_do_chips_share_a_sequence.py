"""Does a context group (ring attention) do the work of one chip, keep a share of its memory, and send what it must?"""

from __future__ import annotations

from math import fsum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform import FineTuning, Inference, LoRA, TierformError, load_chip, load_model, simulate
from tierform.simulation.collectives import Interconnect
from tierform.workload.expand import expand
from tierform.workload.graph import Workload
from tierform.workload.models import model_from_config
from tierform.workload.operator import Kind, Operand, Operator, Origin, Phase, Role
from tierform.workload.parallel import Parallelism
from tierform.workload.split_text import read_parallel
from tierform.workload.task import SequenceGroup, Step, Task

LLAMA = model_from_config(
    {
        "model_type": "llama",
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 4096,
    },
    "tiny",
)
BERT = model_from_config(
    {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],  # a pooler works on whole sequences, on every chip
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
    },
    "tiny-bert",
)
BATCH, TOKENS, HEADS, KV, SIZE = 2, 64, 4, 2, 8


def each(workload: Workload) -> list[tuple[Operator, int]]:
    """Every operator and how often it runs."""
    return [
        (operator, block.count * wave.micro_batches * stage.repeat)
        for stage in workload.stages
        for wave in stage.waves
        for block in wave.blocks
        for operator in block.operators
    ]


def useful_macs(workload: Workload) -> float:
    """Multiply-accumulates that a mask lets through."""
    total = []
    for operator, times in each(workload):
        core = operator.attention
        share = core.pairs / (core.queries * core.keys) if core is not None else 1.0
        total.append(operator.macs * share * times)
    return fsum(total)


def layer(task: Task, members: int, attention: str = "fused") -> list[Operator]:
    """Operators of one of the middle layers, forward and backward."""
    workload = expand(LLAMA, task, parallelism=Parallelism(context=members), attention=attention)  # type: ignore[arg-type]
    blocks = [block for stage in workload.stages for block in stage.waves[0].blocks if block.name.startswith("layer")]
    return [operator for block in blocks for operator in block.operators]


def test_what_two_chips_do_in_a_layer_by_hand() -> None:
    """s = 32 tokens a chip; keys and values of 2 sequences: 2 x 32 tokens x 2 heads x 8 x 2 bytes x 2 tensors."""
    operators = layer(FineTuning(batch=BATCH, sequence=TOKENS), 2)
    rings = [o for o in operators if o.collective == "ring"]
    sent = 2 * 32 * KV * SIZE * 2 * 2
    assert sent == 4096
    assert [o.phase for o in rings] == [Phase.FORWARD] + 3 * [Phase.BACKWARD]
    assert [o.origin for o in rings].count(Origin.RECOMPUTED) == 1
    # Forward once; backward keys and values again, their gradients to the other chip and home.
    assert [max(o.input_B, o.output_B) for o in rings] == [sent] * 4
    assert all(o.participants == 2 and o.copies for o in rings)
    cores = dict.fromkeys(o.attention for o in operators if o.attention is not None and o.phase is Phase.FORWARD)
    own, other = cores
    assert own is not None and other is not None
    assert (own.queries, own.keys, own.causal, own.pairs) == (32, 32, True, 32 * 33 // 2)
    assert (other.queries, other.keys, other.causal, other.pairs) == (32, 16, False, 512)
    assert 2 * (own.pairs + other.pairs) == TOKENS * (TOKENS + 1) // 2
    merges = [o for o in operators if o.name.endswith(".merge")]
    assert [o.outputs[0].elements for o in merges] == [2 * 32 * HEADS * SIZE]
    # Gradients of the other chip's chunk are added to those under way: half of the keys and half of the values.
    sums = [o for o in operators if o.name == "attention.gradient1"]
    assert [o.outputs[0].elements for o in sums] == [2 * 2 * 16 * KV * SIZE]


@given(
    members=st.sampled_from([2, 4, 8]),
    model=st.sampled_from([LLAMA, BERT]),
    recomputation=st.sampled_from(["none", "selective", "full"]),
    attention=st.sampled_from(["fused", "tiled", "eager"]),
    tensor=st.sampled_from([1, 2]),
    method=st.sampled_from([None, LoRA(2, ("q", "v")), LoRA(2, ("k",))]),
)
@settings(max_examples=40, deadline=None)
def test_all_chips_together_do_what_one_does(
    members: int, model: object, recomputation: str, attention: str, tensor: int, method: LoRA | None
) -> None:
    given_method = {"method": method} if method is not None else {}
    task = FineTuning(batch=BATCH, sequence=TOKENS, recomputation=recomputation, **given_method)  # type: ignore[arg-type]

    def of(context: int) -> Workload:
        split = Parallelism(tensor=tensor, context=context)
        return expand(model, task, parallelism=split, attention=attention)  # type: ignore[arg-type]

    one, shared = of(1), of(members)
    assert members * useful_macs(shared) == pytest.approx(useful_macs(one), rel=1e-12)
    alone, own = one.footprint.parts(), shared.footprint.parts()
    assert own["weights"] == alone["weights"]
    assert own["activations"] < alone["activations"]


@pytest.mark.parametrize("members", [2, 4, 8])
def test_is_memory_of_tokens_divided(members: int) -> None:
    model, split = load_model("llama-3.2-1b"), Parallelism(context=members)
    for task in (FineTuning(batch=2, sequence=4096), FineTuning(batch=2, sequence=4096, recomputation="full")):
        alone = expand(model, task, attention="fused").footprint.parts()
        shared = expand(model, task, parallelism=split, attention="fused").footprint.parts()
        assert shared["activations"] * members == alone["activations"]
    prompt = Inference(batch=2, sequence=4096)
    whole = expand(model, prompt, attention="fused").footprint.parts()["kv_cache"]
    assert expand(model, prompt, parallelism=split, attention="fused").footprint.parts()["kv_cache"] * members == whole


@pytest.mark.parametrize("members", [2, 4, 8])
def test_how_often_is_sent(members: int) -> None:
    training = [o for o in layer(FineTuning(batch=BATCH, sequence=TOKENS), members) if o.collective == "ring"]
    forward = [o for o in training if o.phase is Phase.FORWARD]
    assert len(forward) == members - 1
    assert len(training) - len(forward) == (members - 1) + members  # keys and values again, and their gradients
    moved = sum(max(o.input_B, o.output_B) for o in forward)
    assert moved == (members - 1) * 2 * BATCH * TOKENS // members * KV * SIZE * 2
    prompt = [o for o in layer(Inference(batch=BATCH, sequence=TOKENS), members) if o.collective == "ring"]
    assert len(prompt) == members - 1


def test_are_states_shared_over_context_groups_as_over_copies() -> None:
    """zero=3 over two copies of two chips: every state a fourth, as over four copies."""
    task = FineTuning(batch=4, sequence=TOKENS)
    ours = expand(LLAMA, task, parallelism=Parallelism(data=2, context=2, zero=3)).footprint.parts()
    theirs = expand(LLAMA, task, parallelism=Parallelism(data=4, zero=3)).footprint.parts()
    for part in ("weights", "gradients", "optimizer_states", "master_weights"):
        assert ours[part] == theirs[part]
    reduced = [
        o for o, _ in each(expand(LLAMA, task, parallelism=Parallelism(data=2, context=2))) if o.kind is Kind.COLLECTIVE
    ]
    sums = [o for o in reduced if o.collective == "all_reduce"]
    assert [o.participants for o in sums] == [4]


def test_what_a_round_takes_by_hand() -> None:
    """H100: 450 GB/s and 3 us in a node, 50 GB/s and 8 us between nodes of 8; 10 and 25 pJ a bit."""
    chip, size_B = load_chip("h100"), 9_000_000

    def cost(members: int, tensor: int = 1) -> tuple[float, float]:
        pair = (Operand("k", (size_B // 2,), "bf16", Role.ACTIVATION),)
        ring = Operator(
            "ring",
            Kind.COLLECTIVE,
            "attention",
            Phase.FORWARD,
            pair,
            pair,
            collective="ring",
            participants=members,
            copies=True,
        )
        found = Interconnect(chip, Parallelism(context=members, tensor=tensor)).cost(ring)
        return found.latency_s, found.total_energy_J

    assert cost(8) == pytest.approx((20e-6 + 3e-6, size_B * 80e-12))
    # Sixteen chips, two nodes: two of sixteen sends cross, at 180 us and 200 pJ a byte.
    assert cost(16) == pytest.approx((180e-6 + 8e-6, size_B * (14 * 80e-12 + 2 * 200e-12) / 16))
    # Tensor groups of eight fill a node: every send crosses.
    assert cost(2, tensor=8) == pytest.approx((180e-6 + 8e-6, size_B * 200e-12))


def test_do_rounds_run_beside_computation() -> None:
    """Long sequences hide their rounds; a ring of slow links cannot."""
    task, split = FineTuning(batch=1, sequence=32768, recomputation="full"), Parallelism(context=4)
    chip = load_chip("h100")
    fast = simulate("llama-3.2-1b", task, chip, parallelism=split, thermal="none")
    slow = simulate("llama-3.2-1b", task, chip.vary({"cluster.bandwidth": "5 GB/s"}), parallelism=split, thermal="none")
    alone = simulate("llama-3.2-1b", task, chip, thermal="none")
    assert alone.latency_s / 4 < fast.latency_s < 0.4 * alone.latency_s
    assert slow.latency_s > 1.2 * fast.latency_s
    # The all-reduce of 2.47 GB of gradients is not hidden (1.5 x 2.47 GB at 450 GB/s at least); the rounds nearly are.
    gradients_s = 1.5 * 2.47e9 / 450e9
    rounds_s = fast.communication["busy_s"] - gradients_s
    assert 0 < fast.communication["exposed_s"] - gradients_s < 0.5 * rounds_s + 2e-3
    assert fast.stages[0].tokens == alone.stages[0].tokens == 32768


def test_is_what_cannot_be_shared_refused_all_at_once() -> None:
    with pytest.raises(TierformError) as caught:
        expand(LLAMA, Inference(batch=1, sequence=30, decode=2), parallelism=Parallelism(context=4))
    told = str(caught.value)
    assert "training and of prompts" in told and "Give a sequence of 24 or 32" in told and "8 equal chunks" in told
    with pytest.raises(TierformError, match="not laid out"):
        task = FineTuning(batch=1, sequence=64)
        expand(load_model("deepseek-v2-lite"), task, parallelism=Parallelism(context=2))
    with pytest.raises(TierformError, match="an encoder and a decoder"):
        expand(load_model("t5-small"), FineTuning(batch=1, sequence=64), parallelism=Parallelism(context=2))
    with pytest.raises(TierformError, match="4096 tokens back"):
        expand(load_model("mistral-7b"), FineTuning(batch=1, sequence=8192), parallelism=Parallelism(context=2))
    with pytest.raises(TierformError, match="single tokens"):
        expand(LLAMA, Step((SequenceGroup(1, 1, 64),)), parallelism=Parallelism(context=2))
    with pytest.raises(TierformError, match="at least 1"):
        Parallelism(context=0)


def test_can_it_be_said_in_a_text_and_is_it_left_out_where_it_is_not_used() -> None:
    split = read_parallel("context=4,tensor=2,zero=1")
    assert (split.context, split.chips, split.copies, split.zero) == (4, 8, 4, 1)
    assert "context" not in Parallelism(tensor=2).content() and split.content()["context"] == 4
    with pytest.raises(TierformError, match="context"):
        read_parallel("contxt=2")


def test_have_all_operators_of_a_ring_names_of_their_own() -> None:
    for task in (FineTuning(LoRA(4), batch=1, sequence=64), Inference(batch=1, sequence=64)):
        workload = expand(LLAMA, task, parallelism=Parallelism(context=4))
        for stage in workload.stages:
            for block in stage.blocks:
                names = [operator.name for operator in block.operators]
                assert len(set(names)) == len(names)
                tensors = [o.name for operator in block.operators for o in operator.outputs if "ring" in o.name]
                assert len(set(tensors)) == len(tensors)
