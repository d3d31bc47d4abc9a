"""Do number formats take the bytes of real checkpoints, and are mistakes refused?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tierform.errors import TierformError
from tierform.validation.techniques import _TABLES, _footprints
from tierform.workload import Inference, Kind, Model, PrecisionPlan, Role, expand, load_model
from tierform.workload.formats import element, format_of, packed_B, resolved
from tierform.workload.operator import Origin
from tierform.workload.precision import bits as bits_of


def test_is_every_published_file_met_within_one_per_cent() -> None:
    points = list(_footprints(_TABLES))
    assert len(points) >= 14 and {p.source.split("-")[0] for p in points} >= {"gguf", "awq", "gptq", "nf4"}
    assert max(abs(point.relative_error) for point in points) < 0.003


@pytest.mark.parametrize(
    ("name", "bits", "inputs"),
    [
        # elements, then scales: 16 bits in 128; 16 + 4 in 64; 16 a row of 512; fp32 in 64; 8 in 64 and 32 in 16,384
        ("int4-g128", 4 + 16 / 128, 512),
        ("int4-g64z", 4 + 20 / 64, 512),
        ("int8-channel", 8 + 16 / 512, 512),
        ("nf4-64", 4.5, 512),
        ("nf4-64dq", 4 + 0.125 + 32 / 16384, 512),
        ("mxfp4", 4.25, 512),
        ("nvfp4", 4.5, 512),
        ("q4_k", 4.5, 512),  # 256 numbers in 144 bytes
        ("q6_k", 6.5625, 512),  # in 210 bytes
        ("q8_0", 8.5, 512),  # 32 numbers in 34 bytes
        ("planes-9", 9.0, 512),
        ("bf16@2:4", 16 / 2 + 1, 512),  # two of four, two bits of place for each
        ("bf16@0.25-bitmap", 4 + 1, 512),
        ("bf16@0.25-csr", 4 + 4 + 32 / 512, 512),
        ("q4_k:q6_k:0.5", (4.5 + 6.5625) / 2, 512),
    ],
)
def test_are_bits_a_number_those_of_the_format(name: str, bits: float, inputs: int) -> None:
    assert format_of(name).bits_per_number(inputs) == pytest.approx(bits)
    assert packed_B(512 * 100, name, inputs) == pytest.approx(512 * 100 * bits / 8, abs=1)


@pytest.mark.parametrize(
    ("name", "numbers", "size_B"),
    [
        # blocks of ggml: bytes of 256 or 32 numbers
        ("q2_k", 256, 84),
        ("q3_k", 256, 110),
        ("q4_0", 32, 18),
        ("q4_1", 32, 20),
        ("q5_k", 256, 176),
        # OCP microscaling: a byte of scale for 32 numbers; fp8 without scales
        ("mxfp6", 32, 25),
        ("mxfp8", 32, 33),
        ("fp8_e4m3", 32, 32),
        ("fp8_e5m2", 32, 32),
        # NF4 as QLoRA has it: 4 bits, 8 for 64 and 32 for 16,384
        ("nf4", 16384, 8192 + 256 + 4),
        ("nf4-128", 128, 64 + 4),
        ("nf4-128dq", 128 * 256, 16384 + 256 + 4),
        # the least and the most numbers of a group, with two bytes for each
        ("int4-g8", 8, 4 + 2),
        ("int2-g4096", 4096, 1024 + 2),
        ("int8-g8z", 8, 8 + 2 + 1),
        ("planes-1", 64, 8),
        ("planes-15", 64, 120),
        # 1 of 16 stays, with four bits of place; all of four with two; half of fp32 with 16 bits each and 32 a row
        ("bf16@1:16", 64, 8 + 2),
        ("int8@4:4", 64, 64 + 16),
        ("bf16@1-csr", 64, 128 + 128 + 4),
        ("fp32@0.5-csr", 64, 128 + 64 + 4),
        ("int4-g32@0.5-bitmap", 64, 16 + 8 + 4),
        ("int8-token", 64, 64 + 2),
    ],
)
def test_are_blocks_and_groups_as_many_bytes_as_their_definitions_say(name: str, numbers: int, size_B: int) -> None:
    assert packed_B(numbers, name, numbers) == size_B


def test_are_plain_formats_as_wide_as_their_names_say() -> None:
    wide = {"fp64": 64, "fp32": 32, "tf32": 32, "fp16": 16, "bf16": 16, "fp8": 8, "fp6": 6, "fp4": 4}
    wide |= {f"int{bits}": bits for bits in (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 32)}
    for name, bits in wide.items():
        assert (bits_of(name), packed_B(8, name), element(name)) == (bits, bits, name)
    # Partly filled bytes count whole; a fraction of a bit by rounding does not.
    assert [packed_B(n, "int3") for n in (1, 2, 3, 8, 9)] == [1, 1, 2, 3, 4]
    assert packed_B(3 * 32, "mxfp4", 96) == 3 * 17 and packed_B(33, "mxfp4", 33) == 18


@pytest.mark.parametrize("name", ["int4-g7", "int4-g4097", "nf4-7", "int1-g64", "bf16@5:4", "bf16@1.1-csr", "planes-0"])
def test_is_a_group_or_a_pattern_that_cannot_be_refused(name: str) -> None:
    with pytest.raises(TierformError, match="unknown number format"):
        format_of(name)


def test_are_plain_formats_counted_as_before() -> None:
    assert packed_B(3, "int4") == 2 and packed_B(5, "bf16") == 10
    assert element("int4-g128z") == "int4" and element("mxfp8") == "fp8" and element("q6_k") == "int6"


def test_does_a_mixture_follow_llama_cpps_rule() -> None:
    small, large = load_model("llama-3.1-8b"), load_model("llama-3.1-70b")
    # 32 layers: 0-3 and 28-31, and of 4-27 each third (6, 9, ... 27): 8 + 8 = 16, half of them
    assert resolved("q4_k_m", "ffn", "down", small) == "q4_k:q6_k:0.5"
    assert resolved("q4_k_m", "attention", "q", small) == "q4_k"
    assert resolved("q4_k_m", "head", None, small) == "q6_k"
    assert resolved("q4_k_m", "attention", "v", large).startswith("q5_k:q6_k:")
    assert resolved("int4-g128", "ffn", "down", small) == "int4-g128"
    # 70B: 80 layers, 0-9 and 70-79, and of 10-69 each third: 20 + 20; 5-bit blocks for the other values alone
    assert resolved("q4_k_m", "attention", "v", large) == "q5_k:q6_k:0.5"
    assert resolved("q4_k_m", "ffn", "down", large) == "q4_k:q6_k:0.5"
    assert resolved("q5_k_m", "ffn", "up", small) == "q5_k" and resolved("q5_k_m", "head", None, small) == "q6_k"
    # 22 layers: 0, 1 and 19 to 21, and of 2-18 each third (4, 7, ... 16): 2 + 3 + 5
    assert resolved("q4_k_m", "ffn", "down", replace(small, layers=22)) == f"q4_k:q6_k:{10 / 22:.6g}"
    # as many heads of keys as of queries (Llama 65B): no wider blocks for values
    assert resolved("q4_k_m", "attention", "v", replace(large, kv_heads=large.heads)) == "q4_k:q6_k:0.5"
    eight = replace(small, experts=8, experts_per_token=2)
    assert {resolved("q4_k_m", "attention", name, eight) for name in ("k", "v")} == {"q8_0"}
    assert resolved("q4_k_m", "attention", "q", eight) == "q4_k"
    # A table of words that is the head, too, has the head's blocks.
    assert resolved("q4_k_m", "embedding", None, small) == "q4_k"
    assert resolved("q4_k_m", "embedding", None, replace(small, tied_embeddings=True)) == "q6_k"


def test_is_a_mixture_as_wide_as_its_parts() -> None:
    """A quarter of the numbers in 210 bytes for 256, the others in 144; computed with as six bits."""
    found = format_of("q4_k:q6_k:0.25")
    assert found.bits_per_number() == pytest.approx((0.75 * 144 + 0.25 * 210) * 8 / 256)
    assert (found.element, found.bits) == ("int6", 6)


def _weights(model: Model, plan: PrecisionPlan) -> dict[str, str]:
    return {weight.name: weight.precision for weight in expand(model, Inference(precision=plan)).weights}


def test_do_embedding_head_and_norms_stay_as_quantizers_leave_them() -> None:
    found = _weights(load_model("llama-3.1-8b"), PrecisionPlan(master_weights=None).with_weights("int4-g128"))
    assert found["ffn.down"] == found["attention.q"] == "int4-g128"
    assert {found["embedding.word"], found["head.logits"], found["attention_norm.weight"]} == {"bf16"}
    whole = _weights(load_model("llama-3.1-8b"), PrecisionPlan(weights="int4-g128", master_weights=None))
    assert whole["head.logits"] == "int4-g128"


def test_are_inputs_of_products_quantized_once_for_all_that_read_them() -> None:
    plan = replace(PrecisionPlan(master_weights=None).with_weights("int8"), matmul_inputs="int8")
    work = expand(load_model("llama-3.1-8b"), Inference(sequence=64, precision=plan))
    layer = next(block for block in work.stages[0].blocks if block.count == 32)
    made = [operator for operator in layer.operators if operator.origin is Origin.QUANTIZE]
    products = [o for o in layer.operators if o.kind is Kind.MATMUL and o.weight is not None]
    assert len(made) == 4  # of the two normalizations, of attention's values, of the gated hidden state
    assert len(products) == 7 and {o.inputs[0].precision for o in products} == {"int8"}
    assert {o.widest for o in products} == {"int8"} and {o.outputs[0].precision for o in products} == {"bf16"}


def test_are_inputs_narrowed_only_where_the_weights_are_narrow() -> None:
    # Meta's checkpoint of Llama 3.1 405B in fp8 keeps its attention in bf16.
    plan = PrecisionPlan(master_weights=None).with_weights("fp8")
    plan = replace(plan, attention_weights="bf16", matmul_inputs="fp8")
    work = expand(load_model("llama-3.1-8b"), Inference(sequence=64, precision=plan))
    layer = next(block for block in work.stages[0].blocks if block.count == 32)
    made = [operator for operator in layer.operators if operator.origin is Origin.QUANTIZE]
    inputs = {
        (o.part, o.inputs[0].precision) for o in layer.operators if o.kind is Kind.MATMUL and o.weight is not None
    }
    assert len(made) == 2 and inputs == {("attention", "bf16"), ("ffn", "fp8")}


def test_are_weights_unpacked_by_a_kernel_where_that_is_asked() -> None:
    plan = PrecisionPlan(master_weights=None, unpacked_weights="bf16").with_weights("nf4-64")
    work = expand(load_model("llama-2-7b"), Inference(sequence=8, precision=plan))
    layer = next(block for block in work.stages[0].blocks if block.count == 32)
    made = [operator for operator in layer.operators if operator.origin is Origin.DEQUANTIZE]
    assert len(made) == 7
    assert sum(o.size_B for operator in made for o in operator.outputs) == 2 * 202_375_168
    assert all(o.role is Role.WEIGHT for operator in made for o in operator.outputs)


UNKNOWN = ["int4-g4", "int9", "nf4-8192", "q4_k_x", "mxfp5", "planes-16", "bf16@5-csr", "", "int²", "int4-g１２８"]
UNKNOWN += ["nf4-" + "6" * 6000, "int4@1.2.3-csr", "int4@0-csr", "int4@0:4", "int4@4:2", "int4@2:4@2:4"]
UNKNOWN += ["int4@2:4" * 2000, "bf16:int4:1.5", "bf16:int4:1..5", "bf16:int4:1e5", "int4@" + "9" * 6000 + ":4"]


@pytest.mark.parametrize("name", UNKNOWN, ids=[name[:20] for name in UNKNOWN])
def test_is_an_unknown_format_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(TierformError, match="unknown number format"):
        format_of(name)


def test_is_a_share_read_however_it_is_written() -> None:
    assert format_of("bf16@.25-csr") == format_of("bf16@0.25-csr") == format_of("bf16@2.5e-1-csr")
    assert format_of("bf16@1e-05-bitmap").bits_per_number() == pytest.approx(16e-5 + 1)
    assert format_of("int4:int8:0").bits_per_number() == 4 and format_of("int4:int8:1.0").bits_per_number() == 8


def test_are_narrow_inputs_with_wide_weights_refused() -> None:
    with pytest.raises(TierformError, match="matmul_inputs"):
        PrecisionPlan(matmul_inputs="int8")


def test_how_wide_are_blocks_of_microscaled_formats() -> None:
    """OCP Microscaling 1.0: 32 values share one scale of 8 bits."""
    for name, bits in (("mxfp4", 4), ("mxfp6", 6), ("mxfp8", 8)):
        assert packed_B(3200, name, 3200) == 100 * (32 * bits // 8 + 1)
