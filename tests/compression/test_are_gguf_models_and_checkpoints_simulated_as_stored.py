"""Are GGUF files, plans and quantized folders simulated and packed in the formats in which they are stored?"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

import tierform
from tierform.cli.main import main
from tierform.errors import TierformError
from tierform.workload import Inference, load_model
from tierform.workload.formats import format_of

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from small_files import gguf_bytes, llama_gguf, small_decoder  # noqa: E402

# name -> (number in the file, weights of a block, bytes of a block)
BLOCKS = {"Q4_0": (2, 32, 18), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210), "F16": (1, 1, 2)}
HIDDEN, FFN, LAYERS, WORDS = 256, 512, 3, 64
TASK = Inference(batch=1, sequence=16, decode=2)


def mixed_gguf(path: Path, kinds: dict[str, list[str]], embedding: str = "Q6_K") -> int:
    """A file of zeros with these block formats by tensor and layer; the bytes of its matrices."""
    sizes = {
        "attn_q": (HIDDEN, HIDDEN),
        "attn_k": (HIDDEN // 2, HIDDEN),
        "attn_v": (HIDDEN // 2, HIDDEN),
        "attn_output": (HIDDEN, HIDDEN),
        "ffn_gate": (FFN, HIDDEN),
        "ffn_up": (FFN, HIDDEN),
        "ffn_down": (HIDDEN, FFN),
    }
    tensors, total = {}, 0

    def add(name: str, shape: tuple[int, ...], kind: str) -> None:
        nonlocal total
        number, weights, block_B = BLOCKS[kind]
        content = bytes(int(np.prod(shape)) // weights * block_B)
        total += len(content)
        tensors[f"{name}.weight"] = (shape, number, content)

    add("token_embd", (WORDS, HIDDEN), embedding)
    for layer in range(LAYERS):
        for name, shape in sizes.items():
            add(f"blk.{layer}.{name}", shape, kinds.get(name, ["Q4_K"] * LAYERS)[layer])
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{layer}.{name}.weight"] = ((HIDDEN,), 0, bytes(4 * HIDDEN))
    tensors["output_norm.weight"] = ((HIDDEN,), 0, bytes(4 * HIDDEN))
    values = {
        "general.architecture": "llama",
        "llama.block_count": LAYERS,
        "llama.context_length": 128,
        "llama.embedding_length": HIDDEN,
        "llama.feed_forward_length": FFN,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
    }
    path.write_bytes(gguf_bytes(values, tensors))
    return total


def test_does_every_matrix_of_a_gguf_file_take_the_bytes_that_the_file_gives_it(tmp_path: Path) -> None:
    path = tmp_path / "mixed.gguf"
    matrices_B = mixed_gguf(path, {"attn_v": ["Q6_K", "Q4_K", "Q6_K"], "ffn_down": ["Q6_K", "Q5_K", "F16"]})
    model = load_model(path)
    assert model.name == "mixed" and model.tied_embeddings and model.weights_format == "q4_k"
    found = tierform.simulate(str(path), TASK, "a100", thermal="none")
    norms_B = 2 * (2 * LAYERS + 1) * HIDDEN  # seven vectors of 256, in the activations' 16 bits
    assert found.memory_footprint_B["weights"] == matrices_B + norms_B
    plain = tierform.simulate(load_model(path), Inference(precision=None, batch=1, sequence=16, decode=2), "a100")
    assert plain.memory_footprint_B["weights"] == found.memory_footprint_B["weights"]


def test_does_a_layer_of_wider_matrices_take_longer(tmp_path: Path) -> None:
    # On a chip without launches' cost to hide behind, a decode step reads every matrix once: more bytes, more time.
    times = []
    for number, kind in enumerate(("Q4_K", "Q6_K", "F16")):
        path = tmp_path / f"{number}.gguf"
        mixed_gguf(path, {"ffn_down": [kind] * LAYERS, "ffn_up": [kind] * LAYERS})
        times.append(tierform.simulate(str(path), TASK, "h100", thermal="none").latency_s)
    assert times[0] < times[1] < times[2]


def test_are_layers_of_equal_formats_laid_out_together(tmp_path: Path) -> None:
    from tierform.workload import expand
    from tierform.workload.quantization_config import quantized

    path = tmp_path / "x.gguf"
    mixed_gguf(path, {"attn_v": ["Q6_K", "Q6_K", "Q4_K"]})
    model = load_model(path)
    work = expand(model, quantized(TASK, model))
    counts = [block.count for block in work.stages[0].waves[0].blocks]
    assert counts == [1, 2, 1, 1]  # embedding, two equal layers, the third, head
    assert [one.count for one in expand(model, TASK).stages[0].waves[0].blocks] == [1, 3, 1]  # the task's own formats


def test_does_a_task_with_narrow_weights_keep_its_own(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    mixed_gguf(path, {})
    task = tierform.Inference(batch=1, sequence=16, decode=2, precision=tierform.PrecisionPlan(weights="int8"))
    found = tierform.simulate(str(path), task, "a100", thermal="none")
    width = LAYERS * (3 * HIDDEN * HIDDEN + 3 * FFN * HIDDEN) + WORDS * HIDDEN
    assert found.memory_footprint_B["weights"] == width + 2 * (2 * LAYERS + 1) * HIDDEN


def test_are_files_without_narrow_matrices_like_any_folder(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(llama_gguf(small_decoder()))
    assert load_model(path).weights_format == ""
    small_decoder().save_pretrained(tmp_path / "folder")
    assert load_model(path).parameters == load_model(tmp_path / "folder").parameters


def test_does_the_command_take_a_gguf_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mixed.gguf"
    mixed_gguf(path, {})
    with pytest.raises(SystemExit) as ended:
        main(["simulate", str(path), "--chip", "a100", "--sequence", "16", "--decode", "2"])
    assert not ended.value.code
    assert "weights q4_k" in capsys.readouterr().out
    for wrong, told in (("none.gguf", "no such file"), (str(tmp_path / "bad.gguf"), "not a GGUF file")):
        (tmp_path / "bad.gguf").write_bytes(b"nothing that is a model file")
        with pytest.raises(SystemExit) as ended:
            main(["simulate", wrong, "--chip", "a100"])
        assert ended.value.code == 2 and told in capsys.readouterr().err


def test_are_parts_experts_and_missing_tensors_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    mixed_gguf(path, {})
    content = path.read_bytes()
    path.write_bytes(content.replace(b"blk.1.attn_v.weight", b"blk.1.attn_x.weight"))
    with pytest.raises(TierformError, match=r"blk.1.attn_v.weight"):
        load_model(path)
    path.write_bytes(content.replace(b"llama.attention.head_count_kv", b"llama.expert_count__________x"))
    assert load_model(path).kv_heads == 4  # an unknown key of the same length changes nothing else
    values = {"general.architecture": "llama", "llama.expert_count": 8}
    path.write_bytes(gguf_bytes(values, {"token_embd.weight": ((1, 32), 0, bytes(128))}))
    with pytest.raises(TierformError, match="8 experts"):
        load_model(path)


def test_are_damaged_files_refused_by_load_model_without_a_traceback(tmp_path: Path) -> None:
    path, draw = tmp_path / "x.gguf", np.random.default_rng(0)
    mixed_gguf(path, {"attn_v": ["Q6_K"] * LAYERS})
    content, refused = path.read_bytes(), 0
    for number in range(200):
        at = int(draw.integers(4, 2600))
        damaged = bytearray(content[:at] if number % 10 == 0 else content)
        if number % 10:
            damaged[at] = int(draw.integers(0, 256))
        path.write_bytes(damaged)
        try:
            load_model(path)
        except TierformError as error:
            refused += "x.gguf" in str(error)
    assert refused > 50


def _plan(model: Path, matrices: dict[str, str], skipped: list[str], method: str = "gptq") -> None:
    shapes = {name[: -len(".weight")]: list(one.shape) for name, one in small_decoder().state_dict().items()}
    content = {
        "schema": "tierform.compression-plan/1",
        "model": "LlamaForCausalLM",
        "method": method,
        "matrices": {
            name: {"shape": shapes[name], "format": form.partition("@")[0], "density": form.partition("@")[2] or "1"}
            for name, form in matrices.items()
        },
        "skipped": skipped,
    }
    (model / "compression-plan.json").write_text(json.dumps(content))


def test_is_a_compressed_folder_simulated_by_its_plan(tmp_path: Path) -> None:
    small_decoder().save_pretrained(tmp_path)
    plain = tierform.simulate(str(tmp_path), TASK, "a100", thermal="none").memory_footprint_B["weights"]
    up, down = "model.layers.0.mlp.up_proj", "model.layers.2.mlp.down_proj"
    _plan(tmp_path, {up: "int4-g32z", down: "float@2:4"}, ["model.layers.1.attention"])
    model = load_model(tmp_path)
    assert model.without_attention == (1,)
    found = tierform.simulate(str(tmp_path), TASK, "a100", thermal="none").memory_footprint_B["weights"]
    narrow = 96 * 64 * (2 - (4 + 20 / 32) / 8)  # up: 4 bits, a scale of 16 and a zero point of 4 for 32 inputs
    sparse = 96 * 64 * (2 - (8 + 1) / 8)  # down: half of the 16-bit numbers and two bits of place for each of these
    attention = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 64)  # q, o, k, v and the normalization before them
    assert found == pytest.approx(plain - narrow - sparse - attention, abs=2)


def test_are_wrong_plans_refused(tmp_path: Path) -> None:
    small_decoder().save_pretrained(tmp_path)
    _plan(tmp_path, {"model.layers.0.mlp.up_proj": "int9"}, [])
    with pytest.raises(TierformError, match="not a format"):
        load_model(tmp_path)
    _plan(tmp_path, {"model.layers.0.mlp.up_proj": "int4"}, ["model.layers.7.ffn"])
    with pytest.raises(TierformError, match="no such sublayer"):
        load_model(tmp_path)


def _quantized_folder(tmp_path: Path) -> tuple[Path, object]:
    """The small decoder with int8 rows (compressed-tensors, int-quantized) and the values that they stand for."""
    from safetensors.torch import save_file

    model, folder = small_decoder(), tmp_path / "w8"
    model.save_pretrained(folder)
    tensors = {}
    for name, one in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        if ".layers." not in name or one.dim() == 1:
            tensors[name] = one.clone()
            continue
        scale = one.abs().amax(1, keepdim=True) / 127
        integers = torch.round(one / scale)
        tensors[name] = integers.to(torch.int8)
        tensors[f"{name}_scale"] = scale
        with torch.no_grad():
            one.copy_(integers * scale)
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    weights = {"num_bits": 8, "type": "int", "strategy": "channel"}
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder, model


def test_is_a_quantized_folder_packed_as_the_values_that_it_stands_for(tmp_path: Path, monkeypatch) -> None:
    from tierform.store.to_torch import load_model as load_stored

    monkeypatch.setenv("TIERFORM_CACHE", str(tmp_path / "cache"))
    folder, model = _quantized_folder(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["store", "pack", str(folder), "-o", str(tmp_path / "x.tfs")])
    assert not ended.value.code
    ids = torch.tensor([[3, 5, 70, 9]])
    with torch.no_grad():
        found = load_stored(tmp_path / "x.tfs")(input_ids=ids).logits
        assert torch.allclose(found.float(), model(input_ids=ids).logits, atol=1e-5)
    assert load_model(folder).weights_format == "int8-channel"


def test_is_a_packed_gguf_file_the_model_of_the_file(tmp_path: Path, monkeypatch) -> None:
    from tierform.store.to_torch import load_model as load_stored

    monkeypatch.setenv("TIERFORM_CACHE", str(tmp_path / "cache"))
    model, path = small_decoder(), tmp_path / "x.gguf"
    path.write_bytes(llama_gguf(model))
    with pytest.raises(SystemExit) as ended:
        main(["store", "pack", str(path), "-o", str(tmp_path / "x.tfs")])
    assert not ended.value.code
    ids = torch.tensor([[3, 5, 70, 9]])
    with torch.no_grad():
        assert torch.allclose(load_stored(tmp_path / "x.tfs")(input_ids=ids).logits, model(input_ids=ids).logits)


def test_are_sizes_of_blocks_those_of_the_file_format() -> None:
    # Bytes of a block over its weights: q4_k 144 x 8 / 256 = 4.5, q6_k 210 x 8 / 256 = 6.5625 bits.
    for name, bits in (("q4_0", 4.5), ("q4_k", 4.5), ("q5_k", 5.5), ("q6_k", 6.5625), ("q8_0", 8.5)):
        assert format_of(name).bits_per_number() == bits
    assert struct.calcsize("<e") == 2
