"""A GGUF file as an ordinary Hugging Face folder: names, the order of q and k rows, configuration and tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.gguf import GGUFFile, read_gguf

# The tensor names of a block, without "blk.N." and the ending.
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IGNORED = re.compile(r"rope_freqs\.weight|blk\.\d+\.attn_rot_embd")
# Words cut before merging, by the name the file gives its tokenizer; digits one by one or in runs.
_SINGLE_DIGITS = {"smollm": True, "gpt-2": False, "default": False}
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTROL = 3


def hugging_face_name(name: str, path: str = "") -> str | None:
    """The tensor's name in a Hugging Face decoder; None for what is not a weight of the model."""
    if name in _WHOLE:
        return _WHOLE[name]
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if found and found.group(2) in _BLOCK:
        return f"model.layers.{found.group(1)}.{_BLOCK[found.group(2)]}.{found.group(3)}"
    if _IGNORED.match(name):
        return None
    return fail("a tensor of unknown use", file=path, key=name, fix="Only dense decoders are read.")


def halves_first(matrix: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows of q or k as Hugging Face orders them: of every head the first of each rotated pair, then the second."""
    rows = matrix.shape[0]
    pairs = matrix.reshape(heads, rows // heads // 2, 2, *matrix.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(matrix.shape)


def gguf_tensors(file: GGUFFile) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every weight with its Hugging Face name, as float32, one at a time."""
    from tierform.compression.checkpoints.gguf_blocks import decode

    config = file.config()
    kind = file.architecture
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    with file.path.open("rb") as source:
        for tensor in file.tensors.values():
            name = hugging_face_name(tensor.name, str(file.path))
            if name is None:
                continue
            source.seek(tensor.offset)
            values = decode(source.read(tensor.size_B), tensor.format.name, tensor.format.size_B, tensor.shape)
            part = tensor.name.split(".")[-2]
            if kind.interleaved and part in heads:
                values = halves_first(values, heads[part])
            yield name, values


def tokenizer_json(file: GGUFFile) -> dict[str, object]:
    """The byte-level BPE tokenizer of a file, as the ``tokenizers`` library writes it."""
    kind, pre = file.values.get("tokenizer.ggml.model"), file.values.get("tokenizer.ggml.pre", "default")
    tokens, merges = file.values.get("tokenizer.ggml.tokens"), file.values.get("tokenizer.ggml.merges")
    if kind != "gpt2" or not isinstance(tokens, list) or not isinstance(merges, list):
        fail("only byte-level BPE tokenizers are read", file=str(file.path), key="tokenizer.ggml.model", value=kind)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    if pre in _SINGLE_DIGITS:
        cut = [{"type": "Digits", "individual_digits": True}, byte_level] if _SINGLE_DIGITS[pre] else [byte_level]
    elif pre == "qwen2":
        split = {"type": "Split", "pattern": {"Regex": _QWEN}, "behavior": "Isolated", "invert": False}
        cut = [split, {**byte_level, "use_regex": False}]
    else:
        known = [*_SINGLE_DIGITS, "qwen2"]
        fail(
            "how this tokenizer cuts words is not known",
            file=str(file.path),
            key="tokenizer.ggml.pre",
            value=pre,
            choices=known,
            fix=f"Known: {', '.join(known)}.",
        )
    kinds = file.values.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    special = [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number, (token, one) in enumerate(zip(tokens, kinds, strict=True))
        if one == _CONTROL
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cut},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in merges],
        },
    }


def _tokenizer_config(file: GGUFFile) -> dict[str, object]:
    tokens = file.values["tokenizer.ggml.tokens"]
    result: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    keys = (("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"), ("pad_token", "padding"))
    for name, key in keys:
        number = file.values.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(number, int) and 0 <= number < len(tokens):
            result[name] = tokens[number]
    if isinstance(file.values.get("tokenizer.chat_template"), str):
        result["chat_template"] = file.values["tokenizer.chat_template"]
    result["model_max_length"] = file.config()["max_position_embeddings"]
    return result


def convert_gguf(path: Path | str, folder: Path | str, *, half: bool = False) -> Path:
    """Write the model of a GGUF file as a Hugging Face folder; `half` stores float16, else float32.

    The folder is written under another name and renamed when it is whole.
    """
    import torch

    from tierform.compression.checkpoints.folder import write_folder

    file = read_gguf(path)
    kind = torch.float16 if half else torch.float32
    config = {**file.config(), "torch_dtype": "float16" if half else "float32"}
    tensors = {name: torch.from_numpy(values).to(kind) for name, values in gguf_tensors(file)}
    texts = {"config.json": config}
    if "tokenizer.ggml.model" in file.values:
        texts["tokenizer.json"] = tokenizer_json(file)
        texts["tokenizer_config.json"] = _tokenizer_config(file)
    return write_folder(
        Path(folder), tensors, {name: json.dumps(one, ensure_ascii=False) for name, one in texts.items()}
    )
