"""Number formats: how wide a number is where it is computed with, and what it takes where it is stored.

| name | stands for |
|---|---|
| `int4-g128`, `int4-g64z` | integers, a 16-bit scale for 128 (64) successive inputs; `z`: a zero point of 4 bits |
| `int8-channel`, `int8-token` | one 16-bit scale for all inputs of an output (weights), for all features of a token |
| `nf4-64`, `nf4-64dq` | NF4, a 32-bit scale for 64 numbers; `dq`: scales of 8 bits, with one of 32 for 256 |
| `nf4` | as `nf4-64dq`, which QLoRA uses |
| `mxfp4`, `mxfp6`, `mxfp8` | 8-bit power-of-two scales for 32 numbers (OCP Microscaling 1.0, 2023) |
| `nvfp4` | 8-bit scales for 16 numbers (NVIDIA Blackwell) |
| `fp8_e4m3`, `fp8_e5m2` | 8-bit floats |
| `planes-9` | the nine highest bit planes of 16-bit floats |
| `q4_k`, `q6_k`, `q8_0`, ... | blocks of llama.cpp's GGUF files |
| `bf16@2:4`, `int4-g128@0.3-csr` | a sparse matrix (`tierform.workload.reduced`) |
| `q4_k_m`, `q5_k_m` | mixtures of those blocks by matrix and layer, as llama.cpp's quantizer chooses them |

Plain names (`bf16`, `int8`, `fp8`) have no scales: a chip's own fixed-point numbers.  A mixture such as `q4_k_m` is
resolved for each matrix (:func:`resolved`); layers stay equal, so a matrix that is wider in some layers has the mean
width of all of them.
Sources: Frantar et al. (GPTQ, 2023) and Lin et al. (AWQ, 2024) for groups with zero points; Dettmers et al. (QLoRA,
2023); llama.cpp's quantizer (ggml-org, 2023 to 2025) for blocks and mixtures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING

from tierform.errors import fail

if TYPE_CHECKING:
    from tierform.workload.models import Model

SCALE_BITS = 16
PLAIN = {
    "fp64": 64,
    "fp32": 32,
    "tf32": 32,
    "fp16": 16,
    "bf16": 16,
    "fp8": 8,
    "fp6": 6,
    "fp4": 4,
    "nf4": 4,
    "int32": 32,
    "int16": 16,
    "int12": 12,
    "int8": 8,
    "int7": 7,
    "int6": 6,
    "int5": 5,
    "int4": 4,
    "int3": 3,
    "int2": 2,
    "int1": 1,
}
_DOUBLE = 8 / 64 + 32 / (64 * 256)  # bits a number of double-quantized scales
# name -> (the plain format that is computed with, bits a number of scales beside it)
_NAMED = {
    "nf4": ("nf4", _DOUBLE),
    "fp8_e4m3": ("fp8", 0.0),
    "fp8_e5m2": ("fp8", 0.0),
    "mxfp4": ("fp4", 8 / 32),
    "mxfp6": ("fp6", 8 / 32),
    "mxfp8": ("fp8", 8 / 32),
    "nvfp4": ("fp4", 8 / 16),
    "q2_k": ("int2", 84 * 8 / 256 - 2),
    "q3_k": ("int3", 110 * 8 / 256 - 3),
    "q4_0": ("int4", 18 * 8 / 32 - 4),
    "q4_1": ("int4", 20 * 8 / 32 - 4),
    "q4_k": ("int4", 144 * 8 / 256 - 4),
    "q5_k": ("int5", 176 * 8 / 256 - 5),
    "q6_k": ("int6", 210 * 8 / 256 - 6),
    "q8_0": ("int8", 34 * 8 / 32 - 8),
}
GGUF_BLOCKS = ("q2_k", "q3_k", "q4_0", "q4_1", "q4_k", "q5_k", "q6_k", "q8_0")
MIXTURES = {"q4_k_m": "q4_k", "q5_k_m": "q5_k"}  # the block of most matrices
EXAMPLES = ("int8-channel", "int4-g128", "int4-g64z", "nf4-64", "mxfp4", "nvfp4", "q4_k_m", "fp8_e4m3")
_SHARE = r"[01]?\.\d{1,17}|[01]|\d(?:\.\d{1,17})?e-\d{1,3}"
_GROUPED = re.compile(r"int([2-8])-(?:g(\d{1,4})(z?)|(channel|token))|nf4-(\d{1,4})(dq)?", re.ASCII)
_SPARSE = re.compile(rf"([^@]+)@(?:([1-9]\d?):([1-9]\d?)|({_SHARE})-(csr|bitmap))", re.ASCII)
_PLANES = re.compile(r"planes-([1-9]|1[0-5])")
_MIXED = re.compile(rf"(\w+):(\w+):({_SHARE})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Format:
    """`element` is the plain format that a number is computed with; `extra` bits a number are scales and zero points.

    `row_bits` are those of each row of a matrix (one scale for all its inputs).  `pattern`: n of m numbers stay.
    """

    element: str
    bits: int
    extra: float = 0.0
    row_bits: int = 0
    pattern: str = ""

    def bits_per_number(self, inputs: int = 0) -> float:
        """Bits of a stored number, with its part of the scales of a row of `inputs` numbers."""
        return self.bits + self.extra + (self.row_bits / inputs if inputs else 0.0)


@lru_cache(maxsize=256)
def format_of(name: str) -> Format:
    """The format of a name; TierformError with the nearest name for an unknown one."""
    if name in _NAMED:
        element, extra = _NAMED[name]
        return Format(element, PLAIN[element], extra)
    if name in PLAIN:
        return Format(name, PLAIN[name])
    if name in MIXTURES:
        return format_of(MIXTURES[name])
    thin = _SPARSE.fullmatch(name)
    if thin and 0 < _density(thin) <= 1:
        return _sparse(format_of(thin[1]), thin)
    planes = _PLANES.fullmatch(name)
    if planes:
        return Format("bf16", 16, int(planes[1]) - 16.0)
    mixed = _MIXED.fullmatch(name)
    if mixed and float(mixed[3]) <= 1:
        return _mean(format_of(mixed[1]), format_of(mixed[2]), float(mixed[3]))
    grouped = _GROUPED.fullmatch(name)
    if grouped is None or (size := int(grouped[2] or grouped[5] or 64)) < 8 or size > 4096:
        choices = (*PLAIN, *_NAMED, *MIXTURES, *EXAMPLES)
        fix = (
            f"Known: {', '.join(PLAIN)}; with scales, for example: {', '.join(EXAMPLES)} (groups of 8 to 4096 numbers)."
        )
        fail("unknown number format", value=name, choices=tuple(dict.fromkeys(choices)), fix=fix)
    if grouped[1] is None:
        return Format("nf4", 4, 8 / size + 32 / (size * 256) if grouped[6] else 32 / size)
    bits = int(grouped[1])
    if grouped[4]:
        return Format(f"int{bits}", bits, row_bits=SCALE_BITS)
    return Format(f"int{bits}", bits, (SCALE_BITS + (bits if grouped[3] else 0)) / size)


def _density(thin: re.Match[str]) -> float:
    return int(thin[2]) / int(thin[3]) if thin[2] else float(thin[4])


def _sparse(dense: Format, thin: re.Match[str]) -> Format:
    """The numbers that stay, where they stand, and the scales of the dense matrix."""
    if thin[2]:
        kept, of = int(thin[2]), int(thin[3])
        share, index, row = _density(thin), kept * max(1, (of - 1).bit_length()) / of, 0
    else:
        share = float(thin[4])
        index, row = (16 * share, 32) if thin[5] == "csr" else (1.0, 0)
    pattern = f"{thin[2]}:{thin[3]}" if thin[2] else ""
    extra = dense.extra + index - (1 - share) * dense.bits
    return Format(dense.element, dense.bits, extra, dense.row_bits + row, pattern)


def _mean(narrow: Format, wide: Format, share: float) -> Format:
    """As wide to compute with as the wider one; stored, `share` of the numbers are in it."""
    stored = (1 - share) * narrow.bits_per_number() + share * wide.bits_per_number()
    return Format(wide.element, wide.bits, stored - wide.bits)


def packed_B(numbers: int, name: str, inputs: int = 0) -> int:
    """Bytes of so many numbers, packed, with scales and zero points, in rows of `inputs`."""
    form = format_of(name)
    if not form.extra and not form.row_bits:
        return -(-numbers * form.bits // 8)
    return ceil(numbers * form.bits_per_number(inputs) / 8 - 1e-9)


def element(name: str) -> str:
    """The plain format that numbers of a format are computed with."""
    return format_of(name).element


def resolved(name: str, part: str, target: str | None, model: Model, own: tuple[tuple[str, str], ...] = ()) -> str:
    """The format of one matrix of a model: of a mixture its block there, of a sparse model with its zeros.

    `own` are the formats of this layer's matrices, where each has its own.
    """
    found = next((form for matrix, form in own if matrix == target), None) or _in_mixture(name, part, target, model)
    sparse = model.sparsity and target is not None and part in ("attention", "ffn") and "@" not in found
    return f"{found}@{model.sparsity}" if sparse else found


def _in_mixture(name: str, part: str, target: str | None, model: Model) -> str:
    """The format of one matrix where `name` is a mixture over a model's matrices; any other name stays.

    llama.cpp's rule: the head has 6-bit blocks; values and the FFN's last matrix have them in the first and the last
    eighth of the layers and in every third between; 70B models of 80 layers have 5-bit blocks for the other values;
    models of eight experts 8-bit ones for keys and values.
    """
    if name not in MIXTURES:
        return name
    block = MIXTURES[name]
    if part == "head" or (part == "embedding" and model.tied_embeddings):
        return "q6_k"
    if target in ("k", "v") and model.experts == 8:
        return "q8_0"
    if target not in ("v", "down"):
        return block
    layers = max(1, model.layers)
    eighth = layers // 8
    wider = sum(i < eighth or i >= 7 * layers // 8 or (i - eighth) % 3 == 2 for i in range(layers)) / layers
    large = layers == 80 and model.heads != model.kv_heads
    narrow = "q5_k" if target == "v" and large else block
    return f"{narrow}:q6_k:{wider:.6g}"
