"""Number formats and which of them each class of operand uses.

A format is named as the field names it (``fp32``, ``bf16``, ``fp8``, ``int4``, ``nf4``); :func:`bits` gives its width.
A :class:`PrecisionPlan` says which format weights, activations, KV cache, gradients, master weights and optimizer
states use, with exceptions by module, such as ``M8F4``: 8-bit attention (MHA) weights, 4-bit FFN weights.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tierform.errors import fail

_BITS = {
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
PRECISIONS: tuple[str, ...] = tuple(_BITS)


def bits(precision: str) -> int:
    """Bits of one number in a format; TierformError with the nearest name for an unknown one."""
    if precision not in _BITS:
        fail("unknown number format", value=precision, choices=PRECISIONS, fix=f"Known: {', '.join(PRECISIONS)}.")
    return _BITS[precision]


@dataclass(frozen=True, slots=True)
class PrecisionPlan:
    """The format of every class of operand; `attention_weights` and `ffn_weights` override `weights` there.

    `gradients` is the format of gradients on their way back; `main_gradients` that of the weights' gradients, which
    wait for the update (None: as `gradients`).  fp32 main gradients make 18 bytes of each 16-bit weight under AdamW,
    not 16.
    """

    weights: str = "bf16"
    activations: str = "bf16"
    kv_cache: str = "bf16"
    gradients: str = "bf16"
    optimizer_states: str = "fp32"
    master_weights: str | None = "fp32"
    adapters: str = "bf16"
    attention_weights: str | None = None
    ffn_weights: str | None = None
    main_gradients: str | None = None

    def __post_init__(self) -> None:
        for name in (
            self.weights,
            self.activations,
            self.kv_cache,
            self.gradients,
            self.optimizer_states,
            self.adapters,
            self.master_weights,
            self.attention_weights,
            self.ffn_weights,
            self.main_gradients,
        ):
            if name is not None:
                bits(name)

    @property
    def weight_gradients(self) -> str:
        """Format of the gradients of weights."""
        return self.main_gradients or self.gradients

    def weight_precision(self, module: str) -> str:
        """Format of the weights of a module (``attention``, ``ffn``, ...)."""
        if module == "attention" and self.attention_weights:
            return self.attention_weights
        if module == "ffn" and self.ffn_weights:
            return self.ffn_weights
        return self.weights

    def with_weights(self, text: str) -> PrecisionPlan:
        """This plan with other weights: a format (``int8``), a width (``8``), or one by module (``M8F4``)."""
        match = re.fullmatch(r"M(\d+)F(\d+)", text)
        if match:
            attention, ffn = f"int{match.group(1)}", f"int{match.group(2)}"
            bits(attention), bits(ffn)
            return replace(self, attention_weights=attention, ffn_weights=ffn)
        name = f"int{text}" if text.isdigit() else text
        bits(name)
        return replace(self, weights=name, attention_weights=None, ffn_weights=None)
