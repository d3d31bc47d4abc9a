"""Does a traced module give the operators that the library's own description of it gives?"""

from __future__ import annotations

import pytest
import reference_modules as reference
import torch
from reference_modules import BATCH, SEQUENCE, counted_flops, our_flops

from tierform.errors import TierformError
from tierform.workload import FineTuning, Kind, Workload, expand, trace

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
