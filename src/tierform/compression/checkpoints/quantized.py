"""Quantized checkpoints (compressed-tensors, GPTQ, AWQ) as ordinary models with the values their integers stand for.

All three pack integers of `bits` bits into 32-bit words, lowest bits first, with a scale and a zero point for each
group of inputs.  compressed-tensors packs along the inputs of (outputs, inputs) and counts integers from the middle;
GPTQ packs along the inputs of (inputs, outputs) and stores each zero point less one; AWQ packs along the outputs, in
the order of :data:`_AWQ_ORDER`.
Sources: the compressed-tensors, AutoGPTQ and AutoAWQ checkpoint formats.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tierform.errors import fail

_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # where output k of eight lies in its word
METHODS = ("compressed-tensors", "gptq", "awq")


def quantization_of(folder: Path) -> dict[str, object] | None:
    """The ``quantization_config`` of a folder's configuration, or None."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = config.get("quantization_config") if isinstance(config, dict) else None
    return found if isinstance(found, dict) else None


def unpack(words: Tensor, bits: int) -> Tensor:
    """The integers of 32-bit words, lowest bits first, along the last axis: (..., n) to (..., n 32 / bits)."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int64)
    wide = words.to(torch.int64) & 0xFFFFFFFF
    found: Tensor = ((wide[..., None] >> shifts) & (2**bits - 1)).flatten(-2)
    return found


def pack(integers: Tensor, bits: int) -> Tensor:
    """The opposite of :func:`unpack`: (..., m) to (..., m bits / 32) of int32."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int64)
    grouped = integers.to(torch.int64).reshape(*integers.shape[:-1], -1, 32 // bits) << shifts
    whole = grouped.sum(-1)
    result: Tensor = torch.where(whole >= 2**31, whole - 2**32, whole).to(torch.int32)
    return result


def _spread(values: Tensor, size: int) -> Tensor:
    """Values by group of the last axis, for each of `size` inputs."""
    found: Tensor = values.repeat_interleave(-(-size // values.shape[-1]), -1)[..., :size]
    return found


def from_compressed(parts: dict[str, Tensor], bits: int) -> Tensor:
    """(outputs, inputs) of a compressed-tensors layer, packed or not."""
    scale = parts["weight_scale"].float()
    if "weight_packed" in parts:
        outputs, inputs = (int(one) for one in parts["weight_shape"])
        integers = unpack(parts["weight_packed"], bits)[:outputs, :inputs].float() - 2 ** (bits - 1)
    else:
        integers = parts["weight"].float()
        inputs = integers.shape[-1]
    if "weight_zero_point" in parts:
        zero = parts["weight_zero_point"]
        if "weight_packed" in parts and zero.dtype == torch.int32:
            zero = unpack(zero.T.contiguous(), bits).T[: integers.shape[0]] - 2 ** (bits - 1)
        integers = integers - _spread(zero.float().reshape(-1, zero.shape[-1]), inputs)
    values: Tensor = integers * _spread(scale.reshape(-1, scale.shape[-1]), inputs)
    return values


def from_gptq(parts: dict[str, Tensor], bits: int, *, plus_one: bool = True) -> Tensor:
    """(outputs, inputs) of a GPTQ layer; `plus_one` False for the second version of the format."""
    integers = unpack(parts["qweight"].T.contiguous(), bits).float()
    scales = parts["scales"].float()
    zeros = unpack(parts["qzeros"], bits)[:, : scales.shape[1]].float() + plus_one
    inputs = integers.shape[1]
    group = parts["g_idx"].long() if "g_idx" in parts else torch.arange(inputs) // -(-inputs // len(scales))
    return (integers - zeros[group].T) * scales[group].T


def from_awq(parts: dict[str, Tensor], bits: int) -> Tensor:
    """(outputs, inputs) of an AWQ layer."""
    order = torch.tensor(_AWQ_ORDER)

    def in_order(words: Tensor) -> Tensor:
        found = unpack(words, bits)
        eights: Tensor = found.reshape(*found.shape[:-1], -1, 8)[..., order].flatten(-2)
        return eights

    integers, zeros = in_order(parts["qweight"]).float(), in_order(parts["qzeros"]).float()
    group = torch.arange(len(integers)) // -(-len(integers) // len(zeros))
    return ((integers - zeros[group]) * parts["scales"].float()[group]).T.contiguous()


def _readers(settings: dict[str, Any], file: str) -> tuple[tuple[str, ...], Callable[[dict[str, Tensor]], Tensor]]:
    method = str(settings.get("quant_method"))
    if method not in METHODS:
        fail(
            "this kind of quantized checkpoint is not read",
            file=file,
            key="quant_method",
            value=method,
            choices=METHODS,
            fix=f"Read are: {', '.join(METHODS)}.",
        )
    if method == "compressed-tensors":
        groups = settings.get("config_groups") or {}
        widths = {int((one.get("weights") or {}).get("num_bits", 0)) for one in groups.values()}
        if len(widths) != 1:
            fail("layers of one width are read", file=file, key="config_groups", value=sorted(widths))
        bits = widths.pop()
        ends = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight")
        return ends, lambda parts: from_compressed(parts, bits)
    bits = int(settings.get("bits") or settings.get("w_bit") or 0)
    if bits not in (2, 4, 8) or (method == "awq" and bits != 4):
        fail("GPTQ of 2, 4 or 8 bits and AWQ of 4 bits are read", file=file, key="bits", value=bits)
    if method == "gptq":
        first = settings.get("checkpoint_format", "gptq") != "gptq_v2"
        return ("qweight", "qzeros", "scales", "g_idx"), lambda parts: from_gptq(parts, bits, plus_one=first)
    return ("qweight", "qzeros", "scales"), lambda parts: from_awq(parts, bits)


def plain_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a quantized folder, layers with integers as float32 weights."""
    from safetensors.torch import load_file

    settings = quantization_of(folder) or {}
    ends, read = _readers(settings, str(folder / "config.json"))
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found.update(load_file(file))
    layers = {name.rpartition(".")[0] for name in found if name.endswith((".qweight", ".weight_scale"))}
    result = {name: one for name, one in found.items() if name.rpartition(".")[0] not in layers}
    for layer in sorted(layers):
        parts = {end: found[f"{layer}.{end}"] for end in ends if f"{layer}.{end}" in found}
        result.update({n: t for n, t in found.items() if n.rpartition(".")[0] == layer and n.endswith(".bias")})
        try:
            result[f"{layer}.weight"] = read(parts)
        except (KeyError, RuntimeError, IndexError) as error:
            fail(f"the layer's integers, scales and zero points do not fit: {error}", file=str(folder), key=layer)
    return result


def load_quantized(folder: Path, kind: str) -> object:
    """A model of an auto class of transformers, in float32, from a quantized folder."""
    import transformers

    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings.pop("quantization_config", None)
    model_type = settings.pop("model_type")
    config = transformers.AutoConfig.for_model(model_type, **settings)
    model = getattr(transformers, kind).from_config(config, dtype=torch.float32)
    missing, unexpected = model.load_state_dict({n: t.float() for n, t in plain_tensors(folder).items()}, strict=False)
    tied = {"lm_head.weight"} if getattr(config, "tie_word_embeddings", False) else set()
    if unexpected or set(missing) - tied:
        wrong = sorted([*unexpected, *(set(missing) - tied)])
        fail("the checkpoint's tensors are not the model's", file=str(folder), value=wrong[:4])
    model.tie_weights()
    return model.eval()
