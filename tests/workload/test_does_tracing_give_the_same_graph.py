"""Does a traced module give the operators that the library's own description of it gives?"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import reference_modules as reference
import torch
from reference_modules import BATCH, SEQUENCE, counted_flops, our_flops

from tierform.errors import TierformError
from tierform.workload import (
    BlockKind,
    FineTuning,
    Inference,
    Kind,
    LoRA,
    Parallelism,
    SequenceGroup,
    Shard,
    Step,
    Workload,
    expand,
    load_model,
    load_traced,
    trace,
)
from tierform.workload.contract import check_workload

# Routing of "batched" experts gathers weights by value, which hides their products; see the grouped case below.
CASES = ["bert", "gpt2", "opt", "bloom", "llama", "mistral", "qwen3", "deepseek-v3", "t5", "vit"]


def inputs(module: object) -> dict[str, object]:
    given = reference.inputs_of(module)
    return {k: v for k, v in given.items() if k in ("input_ids", "decoder_input_ids", "pixel_values")}


def kinds(workload: Workload, kind: Kind) -> int:
    return sum(times for stage, _, o, times in workload.occurrences() if o.kind is kind and stage.name == "forward")


@pytest.mark.parametrize("case", CASES)
def test_matmuls_parameters_and_layers(case: str) -> None:
    module, model = reference.build(case)
    if case == "deepseek-v3":
        module.config._experts_implementation = "grouped_mm"
    traced = trace(module, inputs(module), training=True)
    described = expand(model, FineTuning(batch=BATCH, sequence=SEQUENCE), eager=True)
    assert our_flops(traced) == our_flops(described)
    assert traced.parameters == traced.trainable_parameters == described.parameters
    assert sum(w.total for w in traced.weights) == described.parameters
    for kind in (Kind.SOFTMAX, Kind.NORMALIZATION, Kind.EMBEDDING):
        assert kinds(traced, kind) == kinds(described, kind)


def test_equal_layers_become_one_block() -> None:
    module, _ = reference.build("llama")
    workload = trace(module, inputs(module))
    assert [(b.name, b.count) for b in workload.stages[0].blocks][1] == ("model.layers[0..1]", 2)
    assert workload.stages[0].name == "prefill" and len(workload.stages) == 1


def test_adapters_of_peft_are_traced() -> None:
    from peft import LoraConfig, get_peft_model

    module, _ = reference.build("llama")
    adapted = get_peft_model(module, LoraConfig(r=4, target_modules=["q_proj", "v_proj"])).to("meta")
    workload = trace(adapted, inputs(module), training=True)
    assert our_flops(workload) == counted_flops(adapted)
    assert workload.trainable_parameters == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert {w.part for w in workload.weights if w.trainable} == {"adapter"}


class Mixed(torch.nn.Module):
    """Convolution, fused attention, einsum, batched products, slices: what the named families do not use."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 16, 4, stride=4)
        self.fused = torch.nn.Linear(16, 48)
        self.mix = torch.nn.Parameter(torch.empty(16, 20))
        self.norm = torch.nn.LayerNorm(20)
        self.end = torch.nn.Linear(20, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolution(x).flatten(2).transpose(1, 2)
        q, k, v = self.fused(x).chunk(3, dim=-1)
        x = torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)), -1), v)
        x = torch.einsum("bsd,de->bse", x, self.mix)
        return self.end(torch.nn.functional.silu(self.norm(x))[:, 0])


def test_a_module_of_no_family() -> None:
    module, x = Mixed(), torch.zeros(2, 3, 16, 16)
    workload = trace(module, (x,), training=True)
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        out = module(x)
        forward = counter.get_total_flops()
        out.sum().backward()
    assert our_flops(workload) == (forward, counter.get_total_flops() - forward)
    assert workload.trainable_parameters == sum(p.numel() for p in module.parameters())


def test_weights_are_never_touched() -> None:
    with torch.device("meta"):
        module = torch.nn.Sequential(torch.nn.Linear(8, 100_000), torch.nn.ReLU(), torch.nn.Linear(100_000, 100_000))
    assert trace(module, (torch.zeros(4, 8),)).macs == 4 * (8 * 100_000 + 100_000**2)


class Branching(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_what_cannot_be_traced_is_said() -> None:
    with pytest.raises(TierformError, match=r"torch\.export cannot trace"):
        trace(Branching(), (torch.zeros(3),))
    with pytest.raises(TierformError, match="cannot be counted"):
        trace(torch.nn.LSTM(4, 4), (torch.zeros(3, 2, 4),))
    with pytest.raises(TierformError, match="must be a tensor"):
        trace(Branching(), {"x": 3})


@pytest.mark.parametrize("case", ["bert", "llama", "opt"])
@pytest.mark.parametrize("training", [False, True])
def test_written_out_attention_has_the_record_of_a_described_one(case: str, training: bool) -> None:
    module, model = reference.build(case)
    traced = trace(module, inputs(module), training=training)
    task = FineTuning(batch=BATCH, sequence=SEQUENCE) if training else Inference(batch=BATCH, sequence=SEQUENCE)
    described = expand(model, task, eager=True)
    sizes = []
    for workload in (traced, described):
        found: Counter[tuple[object, ...]] = Counter()
        for stage, _, operator, times in workload.occurrences():
            core = operator.attention
            if core is not None and operator.kind in (Kind.MATMUL, Kind.SOFTMAX):
                seen = (core.sequences, core.queries, core.keys, core.heads, core.kv_heads, core.head_dim)
                found[stage.name, operator.kind, *seen] += times
        sizes.append(found)
    assert sizes[0] == sizes[1] and sizes[0]


def test_traced_products_are_cut_by_outputs_and_gathered() -> None:
    """All weights of this Llama divide by 2 but the head of 199 words: it, attention and norms repeat."""
    module, _ = reference.build("llama")
    one, share = (trace(module, inputs(module), training=True, parallelism=Parallelism(t)) for t in (1, 2))
    assert share.parameters == one.parameters and share.trainable_parameters == one.trainable_parameters
    parts = {}
    for name, workload in (("one", one), ("share", share)):
        for cut in (Shard.OUTPUT, Shard.INPUT):
            parts[name, cut] = sum(o.macs * n for _, _, o, n in workload.occurrences() if o.shard is cut)
    assert parts["one", Shard.OUTPUT] == parts["one", Shard.INPUT] == 0
    cut = sum(o.macs * n for _, _, o, n in share.occurrences() if o.shard in (Shard.OUTPUT, Shard.INPUT))
    repeated = sum(o.macs * n for _, _, o, n in share.occurrences() if o.shard not in (Shard.OUTPUT, Shard.INPUT))
    assert 2 * cut + repeated == one.macs
    gathers = [o for o in share.stages[0].blocks[1].operators if o.collective]
    assert len(gathers) == 7 and all(o.participants == 2 for o in gathers)  # q, k, v, o, gate, up, down
    sums = [o for o in share.stages[1].blocks[1].operators if o.collective]
    assert len(sums) == 4  # of the inputs of q, k and v; of o; of gate and up; of down
    assert any("repeated on every chip" in note for note in share.notes)
    check_workload(share)


def test_the_workload_of_a_trace_is_complete() -> None:
    module, model = reference.build("bert")
    traced = trace(module, inputs(module), training=True)
    described = expand(model, FineTuning(batch=BATCH, sequence=SEQUENCE), eager=True)
    check_workload(traced)
    ours, theirs = traced.footprint, described.footprint
    assert ours.weights == theirs.weights and ours.optimizer_states == theirs.optimizer_states
    assert ours.activations == pytest.approx(theirs.activations, rel=0.1)  # the trace scales scores apart
    for stage in traced.stages[:2]:  # what forward writes, backward reads
        for block in stage.blocks:
            assert (sum(size for _, size in block.saved),) == traced.saved_B(block.name)
    copies = trace(module, inputs(module), training=True, parallelism=Parallelism(data=3))
    assert copies.task.batch == 3 * BATCH and copies.stages[0].tokens == BATCH * SEQUENCE
    assert copies.stages[-1].blocks[0].kind is BlockKind.GRADIENTS


def folder(path: Path, config: dict[str, object]) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    return path


GEMMA = {
    "model_type": "gemma2",
    "architectures": ["Gemma2ForCausalLM"],
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": 60,
    "sliding_window": 16,
}


def test_a_folder_is_traced_with_the_parameters_of_its_family(tmp_path: Path) -> None:
    """Gemma 2: embedding 60 x 64 (tied), and for each of 3 layers q, k, v, o 64 x 192, three FFN matrices, 4 norms."""
    task = Inference(batch=2, sequence=24)
    workload = load_traced(folder(tmp_path, GEMMA), task)
    layer = 64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 96 + 4 * 64
    assert workload.parameters == 60 * 64 + 3 * layer + 64
    assert workload.stages[0].tokens == 48
    trained = load_traced(tmp_path, FineTuning(batch=2, sequence=24, gradient_accumulation=3))
    assert trained.trainable_parameters == workload.parameters
    assert [(s.kind.value, s.repeat) for s in trained.stages] == [("forward", 3), ("backward", 3), ("update", 1)]
    assert expand(load_model(tmp_path), task).parameters == workload.parameters  # read as a family, too


def test_what_a_folder_cannot_give_is_said(tmp_path: Path) -> None:
    with pytest.raises(TierformError, match=r"no config\.json"):
        load_traced(tmp_path, Inference())
    folder(tmp_path, GEMMA)
    for task, text in (
        (Inference(decode=3), "has no cache"),
        (Step((SequenceGroup(),)), "cannot be traced"),
        (FineTuning(LoRA(4)), "in full only"),
        (FineTuning(recomputation="full"), "recomputes nothing"),
    ):
        with pytest.raises(TierformError, match=text):
            load_traced(tmp_path, task)
    folder(tmp_path, {**GEMMA, "architectures": ["Gemma2ForEverything"]})
    with pytest.raises(TierformError, match="no such class"):
        load_traced(tmp_path, Inference())
