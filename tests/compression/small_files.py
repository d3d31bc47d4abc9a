"""A small decoder, and GGUF files made by hand."""

from __future__ import annotations

import struct

import numpy as np
import torch
import transformers


def small_decoder(seed: int = 0, layers: int = 3):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():  # inputs of unequal size by channel, as trained models have
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.copy_(torch.exp(0.8 * torch.randn_like(parameter)))
    return model


def gguf_bytes(values: dict, tensors: dict[str, tuple[tuple[int, ...], int, bytes]], alignment: int = 32) -> bytes:
    """A GGUF file of version 3: values by key, tensors as (shape, format number, content)."""

    def text(one: str) -> bytes:
        raw = one.encode()
        return struct.pack("<Q", len(raw)) + raw

    def value(one) -> bytes:
        if isinstance(one, bool):
            return struct.pack("<I?", 7, one)
        if isinstance(one, int):
            return struct.pack("<II", 4, one)
        if isinstance(one, float):
            return struct.pack("<If", 6, one)
        if isinstance(one, str):
            return struct.pack("<I", 8) + text(one)
        inner = 8 if isinstance(one[0], str) else 5
        body = b"".join(text(item) if inner == 8 else struct.pack("<i", item) for item in one)
        return struct.pack("<IIQ", 9, inner, len(one)) + body

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    head += b"".join(text(key) + value(one) for key, one in values.items())
    at, body = 0, b""
    for name, (shape, kind, content) in tensors.items():
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        head += struct.pack("<IQ", kind, at)
        padded = content.ljust(-(-len(content) // alignment) * alignment, b"\0")
        body += padded
        at += len(padded)
    return head.ljust(-(-len(head) // alignment) * alignment, b"\0") + body


def llama_gguf(model) -> bytes:
    """The small decoder as llama.cpp's converter writes it: float32, rows of q and k pair by pair."""
    config = model.config
    names = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    tensors = {}
    for name, parameter in model.named_parameters():
        array = parameter.detach().numpy()
        if name == "model.embed_tokens.weight":
            written = "token_embd.weight"
        elif name == "model.norm.weight":
            written = "output_norm.weight"
        else:
            _, _, number, rest = name.split(".", 3)
            written = f"blk.{number}.{names[rest.removesuffix('.weight')]}.weight"
            heads = {"self_attn.q_proj.weight": config.num_attention_heads, "self_attn.k_proj.weight": 2}.get(rest)
            if heads:
                array = array.reshape(heads, 2, array.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(array.shape)
        tensors[written] = (array.shape, 0, np.ascontiguousarray(array).tobytes())
    values = {
        "general.architecture": "llama",
        "llama.block_count": config.num_hidden_layers,
        "llama.context_length": 128,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "llama.rope.freq_base": 10000.0,
        "llama.rope.dimension_count": 16,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": ["<|end|>", *[chr(33 + one) for one in range(94)], "ab"],
        "tokenizer.ggml.token_type": [3] + [1] * 95,
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": 0,
    }
    return gguf_bytes(values, tensors)
