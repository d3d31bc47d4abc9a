"""Is the memory footprint what published formulas say?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tierform.workload import (
    FineTuning,
    Full,
    Inference,
    LoRA,
    MicroBatches,
    Parallelism,
    PrecisionPlan,
    QLoRA,
    Training,
    expand,
    load_model,
    model_from_config,
    resolved_precision,
)
from tierform.workload.layout import with_rest
from tierform.workload.parallel import ALONE
from tierform.workload.task import describe


def activations_of_one_layer(
    recomputation: str,
    *,
    width: int = 256,
    heads: int = 8,
    s: int = 64,
    b: int = 2,
    split: Parallelism = ALONE,
    attention: str = "tiled",
) -> int:
    """Bytes that one more layer of a GPT-2 adds."""
    sizes = {"model_type": "gpt2", "n_embd": width, "n_head": heads, "n_positions": 128, "vocab_size": 99}
    found = []
    for layers in (3, 4):
        model = model_from_config({**sizes, "n_layer": layers})
        task = FineTuning(batch=b, sequence=s, recomputation=recomputation)  # type: ignore[arg-type]
        workload = expand(model, task, parallelism=split, attention=attention)  # type: ignore[arg-type]
        found.append(workload.footprint.activations)
    assert found[1] - found[0] == workload.saved_B("layer")[0]
    return found[1] - found[0]


SIZES = [(256, 8, 64, 2), (96, 4, 30, 1), (512, 8, 128, 3)]


@pytest.mark.parametrize(("width", "heads", "s", "b"), SIZES)
def test_stored_activations_follow_korthikanti(width: int, heads: int, s: int, b: int) -> None:
    """Korthikanti et al. (2022), 16-bit, with dropout: sbh (34 + 5 a s / h), 34 sbh selectively, 2 sbh fully."""
    sbh = s * b * width
    sizes = {"width": width, "heads": heads, "s": s, "b": b}
    assert activations_of_one_layer("none", **sizes) == 34 * sbh + 5 * heads * s * s * b  # type: ignore[arg-type]
    assert activations_of_one_layer("selective", **sizes) == 34 * sbh  # type: ignore[arg-type]
    assert activations_of_one_layer("full", **sizes) == 2 * sbh  # type: ignore[arg-type]


@pytest.mark.parametrize("tensor", [2, 4])
@pytest.mark.parametrize(("width", "heads", "s", "b"), [(256, 8, 64, 2), (96, 4, 32, 1), (512, 8, 128, 3)])
def test_tensor_parallelism_divides_24_of_34_and_sequence_parallelism_the_rest(
    width: int, heads: int, s: int, b: int, tensor: int
) -> None:
    """Their table 2: sbh (10 + 24/t + 5as/ht); with sequence parallelism sbh/t (34 + 5as/h), 34/t and 2/t."""
    sbh, t = s * b * width, tensor
    scores = 5 * heads * s * s * b // t
    sizes = {"width": width, "heads": heads, "s": s, "b": b}
    alone, both = Parallelism(t), Parallelism(t, sequence=True)
    assert activations_of_one_layer("none", split=alone, **sizes) == 10 * sbh + 24 * sbh // t + scores  # type: ignore[arg-type]
    assert activations_of_one_layer("selective", split=alone, **sizes) == 10 * sbh + 24 * sbh // t  # type: ignore[arg-type]
    assert activations_of_one_layer("full", split=alone, **sizes) == 2 * sbh  # type: ignore[arg-type]
    assert activations_of_one_layer("none", split=both, **sizes) == 34 * sbh // t + scores  # type: ignore[arg-type]
    assert activations_of_one_layer("selective", split=both, **sizes) == 34 * sbh // t  # type: ignore[arg-type]
    assert activations_of_one_layer("full", split=both, **sizes) == 2 * sbh // t  # type: ignore[arg-type]


@pytest.mark.parametrize(("width", "heads", "s", "b"), SIZES)
def test_fused_attention_keeps_one_number_for_each_row_of_scores(width: int, heads: int, s: int, b: int) -> None:
    """Dao (2023): the result, which is among the 34 sbh, and a log-sum-exp of 4 bytes for each head and token."""
    sizes = {"width": width, "heads": heads, "s": s, "b": b, "attention": "fused"}
    for recomputation in ("none", "selective"):
        kept = activations_of_one_layer(recomputation, **sizes)  # type: ignore[arg-type]
        assert kept == 34 * s * b * width + 4 * heads * s * b


def test_bert_large_on_eight_chips_and_in_four_groups() -> None:
    """Batch 8, 512 tokens: 24 sbh (10 + 3 + 5 * 16 * 512 / (1024 * 8)) = 24 * 4.19e6 * 18 = 1,812 MB in the layers.

    Four groups of 8 micro-batches: the first keeps 4 of them, each 6 layers of 74 sbh: 6 * 4 * 74 * 524,288 = 931 MB.
    Embedding, head and one layer's workspace come on top.
    """
    model, task = load_model("bert-large"), FineTuning(batch=8, sequence=512)
    eight = expand(model, task, parallelism=Parallelism(8))
    assert 24 * eight.saved_B("layer")[0] == 1_811_939_328
    assert 1_811_939_328 < eight.footprint.activations < 1.05 * 1_811_939_328
    four = expand(model, task, MicroBatches(training=8), parallelism=Parallelism(1, 4))
    assert 6 * 4 * four.saved_B("layer")[0] == 931_135_488
    assert 931_135_488 < four.footprint.activations < 1.03 * 931_135_488


# Korthikanti et al. (2022), figure 1 and table 3, one device of Megatron: (case, GB).  Their 22B has 48 layers of
# width 6144 with 64 heads; 2,048 tokens, batch 4, tensor parallelism 8.
MEASURED_22B = {"states": 48.9, "activations": 63.6, "selective, sequence parallel": 10.3}


def test_megatron_22b_as_measured() -> None:
    """fp16 with fp32 main gradients: 2 + 4 + 4 + 8 = 18 bytes a parameter."""
    plan = PrecisionPlan(
        weights="fp16", activations="fp16", gradients="fp16", adapters="fp16", kv_cache="fp16", main_gradients="fp32"
    )
    sizes = {"n_embd": 6144, "n_head": 64, "n_layer": 48, "n_positions": 2048, "vocab_size": 51200}
    model = model_from_config({"model_type": "gpt2", **sizes})
    task = Training(batch=4, sequence=2048, precision=plan)
    whole = expand(model, task, parallelism=Parallelism(8)).footprint
    lean = expand(model, replace(task, recomputation="selective"), parallelism=Parallelism(8, sequence=True)).footprint
    found = {
        "states": whole.total - whole.activations,
        "activations": whole.activations,
        "selective, sequence parallel": lean.activations,
    }
    for case, measured in MEASURED_22B.items():
        assert found[case] / 1e9 == pytest.approx(measured, rel=0.065), case


def test_a_long_prompt_fits_where_scores_are_not_whole() -> None:
    """Llama 3.1 8B at 65,536 tokens: weights 16.06 GB, cache 8.59 GB, a layer's widest moment three tensors of 14,336
    and the residual's two of 4,096: 65,536 * 2 B * 51,200 = 6.7 GB at most.  Whole scores take 32 * 65,536^2 * 2 B.
    """
    model, task = load_model("llama-3.1-8b"), Inference(sequence=65_536)
    fused, tiled, eager = (expand(model, task, attention=a).footprint for a in ("fused", "tiled", "eager"))  # type: ignore[arg-type]
    assert fused == tiled
    assert (fused.weights, fused.kv_cache) == (2 * 8_030_261_248, 65_536 * 131_072)
    assert 65_536 * 2 * 3 * 14_336 <= fused.activations <= 65_536 * 2 * 51_200
    assert fused.total < 32e9
    assert eager.activations > 2 * 32 * 65_536**2 * 2


def test_mixed_precision_adamw_takes_16_bytes_per_parameter() -> None:
    memory = expand(load_model("llama-3.1-8b"), FineTuning(Full(), sequence=16)).footprint
    states = memory.weights + memory.gradients + memory.optimizer_states + memory.master_weights
    assert states == 16 * 8_030_261_248


def test_single_precision_adamw_takes_16_bytes_without_a_master_copy() -> None:
    plan = PrecisionPlan(weights="fp32", activations="fp32", gradients="fp32")
    memory = expand(load_model("gpt2"), FineTuning(sequence=16, precision=plan)).footprint
    assert memory.master_weights == 0
    assert memory.weights + memory.gradients + memory.optimizer_states == 16 * 124_439_808


@pytest.mark.parametrize(("optimizer", "states"), [("adamw", 8), ("sgd-momentum", 4), ("sgd", 0)])
def test_optimizer_states(optimizer: str, states: int) -> None:
    task = FineTuning(sequence=16, optimizer=optimizer)  # type: ignore[arg-type]
    assert expand(load_model("gpt2"), task).footprint.optimizer_states == states * 124_439_808


def test_frozen_weights_have_no_gradients_or_states() -> None:
    memory = expand(load_model("gpt2-medium"), FineTuning(LoRA(32), sequence=16)).footprint
    adapters = 24 * 2 * 2 * 32 * 1024
    assert memory.weights == 2 * 354_823_168
    assert memory.adapters == memory.gradients == 2 * adapters
    assert memory.optimizer_states == 8 * adapters
    assert memory.master_weights == 4 * adapters


def test_4_bit_base_weights_of_qlora() -> None:
    """Attention and FFN matrices at 4 bits and scales (8 bits for 64 numbers, 32 for 256 of those); the rest at 16."""
    model = load_model("llama-2-7b")
    memory = expand(model, FineTuning(QLoRA(8), sequence=16)).footprint
    quantized = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    expected = quantized * (4 + 8 / 64 + 32 / (64 * 256)) / 8 + 2 * (model.parameters - quantized)
    assert memory.weights == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "values"),
    [("llama-2-7b", 32 * 2 * 32 * 128), ("llama-3.1-8b", 32 * 2 * 8 * 128), ("deepseek-v3", 61 * (512 + 64))],
)
def test_cache_per_token(name: str, values: int) -> None:
    """Grouped queries keep the key/value heads only; latent attention its latent and rotary key."""
    task = Inference(batch=3, sequence=100, decode=28)
    assert expand(load_model(name), task).footprint.kv_cache == 2 * 3 * 128 * values


def test_cache_of_a_sliding_window_stops_growing() -> None:
    model = load_model("mistral-7b")
    sizes = [expand(model, Inference(sequence=s)).footprint.kv_cache for s in (4095, 4096, 4097, 20000)]
    assert sizes[0] < sizes[1] == sizes[2] == sizes[3]


def test_cache_format_is_its_own() -> None:
    wide, narrow = (
        expand(load_model("llama-3.1-8b"), Inference(sequence=64, precision=PrecisionPlan(kv_cache=name)))
        for name in ("bf16", "int4")
    )
    assert wide.footprint.kv_cache == 4 * narrow.footprint.kv_cache


def test_weight_bits_by_module() -> None:
    """M8F4 stores attention at 8 and FFN at 4 bits; norms and biases stay at the activations' 16."""
    plan = PrecisionPlan(master_weights=None).with_weights("M8F4")
    model = load_model("bert-large")
    weights = expand(model, Inference(sequence=16, precision=plan)).weights
    size = {module: sum(w.size_B for w in weights if w.part == module and w.matrix) for module in ("attention", "ffn")}
    assert size == {"attention": 24 * 4 * 1024**2, "ffn": 24 * 8 * 1024**2 // 2}
    assert {w.precision for w in weights if not w.matrix} == {"bf16"}


def test_stated_formats_are_obeyed_and_absent_ones_resolved() -> None:
    assert Inference().precision is None and FineTuning().precision is None
    assert resolved_precision(Inference()).master_weights is None
    assert resolved_precision(FineTuning()) == PrecisionPlan()
    stated = Inference(precision=PrecisionPlan(weights="int4"))
    assert resolved_precision(stated) is stated.precision


def test_wide_main_gradients_are_read_and_reduced_wide() -> None:
    """Two bytes more of each parameter; the all-reduce over the copies and the update move 4 bytes of each."""
    model = load_model("gpt2")
    plain = FineTuning(batch=2, sequence=16, precision=PrecisionPlan())
    wide = replace(plain, precision=PrecisionPlan(main_gradients="fp32"))
    one, two = (expand(model, task, parallelism=Parallelism(data=2)) for task in (plain, wide))
    assert two.footprint.gradients == 2 * one.footprint.gradients == 4 * 124_439_808
    reduced = [w.stages[-1].blocks[0].operators[0].input_B for w in (one, two)]
    assert reduced == [2 * 124_439_808, 4 * 124_439_808]
    assert two.footprint.activations == one.footprint.activations


@pytest.mark.parametrize("tensor", [1, 8])
def test_a_fused_loss_never_holds_the_logits(tensor: int) -> None:
    """Llama 3.1 8B, 2 x 8192 tokens, 128,256 words: log-probabilities of 4 bytes are not kept, all else is the same.

    A piece is a 32nd of the rows (128,256 / 4096, rounded up): its logits and their gradient have 2 bytes a number, its
    log-probabilities 4.
    """
    model = load_model("llama-3.1-8b")
    plain, fused = (
        expand(
            model,
            FineTuning(batch=2, sequence=8192, recomputation="full", fused_loss=fused),
            attention="fused",
            parallelism=Parallelism(tensor),
        )
        for fused in (False, True)
    )
    logits = 2 * 8192 * 128_256 // tensor
    assert plain.saved_B("head")[0] - fused.saved_B("head")[0] == 4 * logits
    assert plain.macs == fused.macs and plain.operations == fused.operations
    head = next(block for block in fused.memory if block.block == "head")
    pieces = -(-(128_256 // tensor) // 4096)
    inputs = 2 * 8192 * 4096 * 2  # the norm's output or its gradient
    piece = (2 + 2 + 4) * logits // pieces
    assert piece < head.workspace_B <= piece + 2 * inputs
    assert plain.footprint.activations - fused.footprint.activations > (4 * logits if tensor == 1 else 0.9e9)


def test_a_fused_loss_changes_no_description_where_it_is_not_used() -> None:
    assert "fused_loss" not in describe(FineTuning())
    assert describe(FineTuning(fused_loss=True))["fused_loss"] is True


def test_does_what_no_tensor_stands_for_come_with_the_layers_input() -> None:
    # 50 bytes are kept; the third operator makes 30 of them, the input has 5.
    assert with_rest({2: 30}, 50) == ((-1, 20), (2, 30))
    assert with_rest({-1: 5, 2: 30}, 50) == ((-1, 20), (2, 30))
    assert with_rest({2: 50}, 50) == ((2, 50),)


@pytest.mark.parametrize("mode", ["none", "selective", "full"])
def test_are_kept_bytes_written_once_and_read_once(mode: str) -> None:
    task = FineTuning(LoRA(4), batch=2, sequence=16, recomputation=mode)  # type: ignore[arg-type]
    workload = expand(load_model("gpt2"), task)
    kept = {
        stage.name: {block.name: sum(size for _, size in block.saved) for block in stage.blocks}
        for stage in workload.stages
        if stage.name != "update"
    }
    assert sum(kept["forward"].values()) > 0
    assert {name: size for name, size in kept["forward"].items() if size} == {
        name: size for name, size in kept["backward"].items() if size
    }
