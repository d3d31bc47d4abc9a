"""Quantized checkpoints (compressed-tensors, GPTQ, AWQ) as ordinary models with the values their integers stand for.

All three pack integers of b bits into 32-bit words, lowest bits first, 32 integers in b words without a gap, with a
scale and a zero point for each group of inputs.  compressed-tensors (``pack-quantized``) packs along the inputs of
(outputs, inputs) and counts integers from the middle, its zero points along the outputs; GPTQ packs along the inputs of
(inputs, outputs) and stores each zero point less one (not in its second version); AWQ packs along the outputs, in the
order of :data:`_AWQ_ORDER`.  Where inputs were reordered by their activations, ``g_idx`` says the group of each.
compressed-tensors' ``int-quantized`` and ``float-quantized`` hold int8 or fp8 numbers as they are, with scales by
tensor, output, group or block.

Limits: GPTQ of 2, 3, 4 and 8 bits, AWQ of 4 (layout GEMM); no sparse compressed-tensors and no 4-bit floats.
Sources: the compressed-tensors, AutoGPTQ and AutoAWQ checkpoint formats.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tierform.errors import fail

_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # where output k of eight lies in its word
METHODS = ("compressed-tensors", "gptq", "awq")
FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision", "dense")
_BESIDE = (".k_scale", ".v_scale", ".q_scale", ".input_scale", ".output_scale")  # of activations and caches


def quantization_of(folder: Path) -> dict[str, object] | None:
    """The ``quantization_config`` of a folder's configuration, or None."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = config.get("quantization_config") if isinstance(config, dict) else None
    return found if isinstance(found, dict) else None


def unpack(words: Tensor, bits: int) -> Tensor:
    """The integers of 32-bit words, lowest bits first, along the last axis: (..., n) to (..., n 32 / bits).

    Integers lie one behind the other, over the edges of words where `bits` does not divide 32.
    """
    wide = words.to(torch.int64) & 0xFFFFFFFF
    count = words.shape[-1] * 32 // bits
    first = torch.arange(count, dtype=torch.int64) * bits
    place, shift = first // 32, first % 32
    low = wide[..., place] >> shift
    high = wide[..., (place + 1).clamp(max=words.shape[-1] - 1)] << (32 - shift)  # what lies in the next word
    found: Tensor = torch.where(shift + bits > 32, low | high, low) & (2**bits - 1)
    return found


def _unpack_apart(words: Tensor, bits: int) -> Tensor:
    """As :func:`unpack`, where each word holds whole integers only, as older compressed-tensors pack."""
    shifts = torch.arange(32 // bits, dtype=torch.int64) * bits
    wide = words.to(torch.int64) & 0xFFFFFFFF
    found: Tensor = ((wide[..., None] >> shifts) & (2**bits - 1)).flatten(-2)
    return found


def pack(integers: Tensor, bits: int) -> Tensor:
    """The opposite of :func:`unpack`: (..., m) to (..., m bits / 32) of int32, for whole words."""
    ones = (integers.to(torch.int64)[..., None] >> torch.arange(bits)) & 1
    grouped = ones.reshape(*integers.shape[:-1], -1, 32)
    whole = (grouped << torch.arange(32)).sum(-1)
    result: Tensor = torch.where(whole >= 2**31, whole - 2**32, whole).to(torch.int32)
    return result


def _spread(values: Tensor, shape: tuple[int, int], groups: Tensor | None) -> Tensor:
    """Scales or zero points for each of (outputs, inputs): by tensor, output, block, or `groups` of the inputs."""
    values = values.float().reshape(-1, values.shape[-1] if values.dim() else 1)
    outputs, inputs = shape
    rows, columns = values.shape
    if columns > 1:
        index = groups if groups is not None else torch.arange(inputs) // -(-inputs // columns)
        values = values[:, index]
    if 1 < rows < outputs:
        values = values.repeat_interleave(-(-outputs // rows), 0)[:outputs]
    return values


def from_compressed(parts: dict[str, Tensor], bits: int) -> Tensor:
    """(outputs, inputs) of a compressed-tensors layer, packed or not."""

    def integers_of(words: Tensor, count: int) -> Tensor:
        apart = words.shape[-1] != -(-count * bits // 32)
        found: Tensor = (_unpack_apart if apart else unpack)(words, bits)[:, :count] - 2 ** (bits - 1)
        return found

    packed = "weight_packed" in parts
    if packed:
        outputs, inputs = (int(one) for one in parts["weight_shape"])
        integers = integers_of(parts["weight_packed"], inputs).float()
    else:
        integers = parts["weight"].float()
        outputs, inputs = integers.shape
    groups = parts["weight_g_idx"].long() if "weight_g_idx" in parts else None
    if "weight_zero_point" in parts:
        zero = parts["weight_zero_point"]
        if packed and zero.dtype == torch.int32 and zero.shape[0] != outputs:
            zero = integers_of(zero.T.contiguous(), outputs).T
        integers = integers - _spread(zero, (outputs, inputs), groups)
    values: Tensor = integers * _spread(parts["weight_scale"], (outputs, inputs), groups)
    return values


def from_gptq(parts: dict[str, Tensor], bits: int, *, plus_one: bool = True) -> Tensor:
    """(outputs, inputs) of a GPTQ layer; `plus_one` False for the second version of the format."""
    integers = unpack(parts["qweight"].T.contiguous(), bits).float()
    scales = parts["scales"].float()
    zeros = ((unpack(parts["qzeros"], bits)[:, : scales.shape[1]] + plus_one) % 2**bits).float()
    inputs = integers.shape[1]
    group = parts["g_idx"].long() if "g_idx" in parts else torch.arange(inputs) // -(-inputs // len(scales))
    values: Tensor = (integers - zeros[group].T) * scales[group].T
    return values


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


def _readers(settings: dict[str, Any], file: str) -> tuple[tuple[str, ...], Callable[[dict[str, Tensor], str], Tensor]]:
    """What belongs to a layer, and what gives its weight from that and its name."""
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
        widths = _compressed_widths(settings, file)
        ends = (*(f"weight_{end}" for end in ("packed", "scale", "zero_point", "shape", "g_idx")), "weight")
        return ends, lambda parts, name: from_compressed(parts, widths(name))
    bits = int(settings.get("bits") or settings.get("w_bit") or 0)
    if bits not in (2, 3, 4, 8) or (method == "awq" and bits != 4):
        fail("GPTQ of 2, 3, 4 or 8 bits and AWQ of 4 bits are read", file=file, key="bits", value=bits)
    if method == "gptq":
        first = settings.get("checkpoint_format", "gptq") != "gptq_v2"
        return ("qweight", "qzeros", "scales", "g_idx"), lambda parts, _: from_gptq(parts, bits, plus_one=first)
    layout = str(settings.get("version") or "gemm").lower()
    if layout != "gemm":
        fail("AWQ's layout GEMM is read", file=file, key="version", value=layout)
    return ("qweight", "qzeros", "scales"), lambda parts, _: from_awq(parts, bits)


def _compressed_widths(settings: dict[str, Any], file: str) -> Callable[[str], int]:
    """The width of a layer by its name, as the first of the ``config_groups`` that targets it says."""
    form = str(settings.get("format") or "pack-quantized")
    if form not in FORMATS:
        fail("this format of compressed-tensors is not read", file=file, key="format", value=form, choices=FORMATS)
    if (settings.get("sparsity_config") or {}).get("format", "dense") != "dense":
        fail("sparse checkpoints are not read", file=file, key="sparsity_config")
    groups: list[tuple[list[str], int]] = []
    for one in (settings.get("config_groups") or {}).values():
        weights = one.get("weights") or {}
        width = int(weights.get("num_bits") or 0)
        if not 1 <= width <= 8 or (weights.get("type") == "float" and width != 8):
            fail("integers of 1 to 8 bits and floats of 8 are read", file=file, key="config_groups", value=width)
        groups.append(([str(target) for target in one.get("targets") or ["Linear"]], width))
    if not groups:
        fail("a group with `weights` is needed", file=file, key="config_groups")

    def width_of(name: str) -> int:
        for exact in (True, False):  # a layer's name, or a pattern of names, goes before its class
            for targets, width in groups:
                for target in targets:
                    pattern = target.startswith("re:") and re.match(target[3:], name) is not None
                    if (exact and (pattern or target == name)) or (not exact and target in ("Linear", "Embedding")):
                        return width
        return fail("no group of the configuration names this layer", file=file, key=name)

    return width_of


def plain_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a quantized folder, layers with integers as float32 weights."""
    from safetensors.torch import load_file

    settings = quantization_of(folder) or {}
    ends, read = _readers(settings, str(folder / "config.json"))
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found.update(load_file(file))
    layers = {name.rpartition(".")[0] for name in found if name.endswith((".qweight", ".weight_scale"))}
    result = {
        name: one for name, one in found.items() if name.rpartition(".")[0] not in layers and not name.endswith(_BESIDE)
    }
    for layer in sorted(layers):
        parts = {end: found[f"{layer}.{end}"] for end in ends if f"{layer}.{end}" in found}
        result.update({n: t for n, t in found.items() if n.rpartition(".")[0] == layer and n.endswith(".bias")})
        try:
            result[f"{layer}.weight"] = read(parts, layer)
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
