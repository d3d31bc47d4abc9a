"""Number formats and which of them each class of operand uses.

A format is named as the field names it (``fp32``, ``bf16``, ``int4-g128``, ``nf4-64``: `tierform.workload.formats`);
:func:`bits` gives its width.
A :class:`PrecisionPlan` says which format weights, activations, KV cache, gradients, master weights and optimizer
states use, with exceptions by module, such as ``M8F4``: 8-bit attention (MHA) weights, 4-bit FFN weights.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tierform.errors import fail
from tierform.workload.formats import GGUF_BLOCKS, MIXTURES, PLAIN, format_of

NARROW_BITS = 8  # of both operands of a product of narrow inputs
PRECISIONS: tuple[str, ...] = tuple(PLAIN)


def bits(precision: str) -> int:
    """Bits of one number where it is computed with; TierformError with the nearest name for an unknown format."""
    return format_of(precision).bits


@dataclass(frozen=True, slots=True)
class PrecisionPlan:
    """The format of every class of operand; `attention_weights` and `ffn_weights` override `weights` there.

    `gradients` is the format of gradients on their way back; `main_gradients` that of the weights' gradients, which
    wait for the update (None: as `gradients`).  fp32 main gradients make 18 bytes of each 16-bit weight under AdamW,
    not 16.  In inference `matmul_inputs` is a format into which a kernel turns the inputs of those products in layers
    whose weights have at most 8 bits (W8A8), and `unpacked_weights` one into which a kernel of its own unpacks narrower
    weights before each.
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
    embedding_weights: str | None = None
    head_weights: str | None = None
    matmul_inputs: str | None = None
    unpacked_weights: str | None = None

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
            self.embedding_weights,
            self.head_weights,
            self.matmul_inputs,
            self.unpacked_weights,
        ):
            if name is not None:
                bits(name)
        if self.matmul_inputs is None:
            return
        narrow = [m for m in ("attention", "ffn") if bits(self.weight_precision(m)) <= NARROW_BITS]
        if not narrow or bits(self.matmul_inputs) > NARROW_BITS:
            fail(
                "products of narrow inputs need weights of at most 8 bits, and inputs of at most 8",
                key="matmul_inputs",
                value=self.matmul_inputs,
                fix="Give the weights a format such as int8-channel or fp8, or leave matmul_inputs out.",
            )

    @property
    def weight_gradients(self) -> str:
        """Format of the gradients of weights."""
        return self.main_gradients or self.gradients

    def weight_precision(self, module: str) -> str:
        """Format of the weights of a module (``attention``, ``ffn``, ...)."""
        own = {
            "attention": self.attention_weights,
            "ffn": self.ffn_weights,
            "embedding": self.embedding_weights,
            "head": self.head_weights,
        }
        return own.get(module) or self.weights

    def with_weights(self, text: str) -> PrecisionPlan:
        """This plan with other weights: a format (``int4-g128``), a width (``8``), or one by module (``M8F4``).

        Embedding and head keep their format where the new one is narrower, as quantizers of checkpoints keep them; a
        mixture of GGUF blocks has its own rule for them.
        """
        match = re.fullmatch(r"M([0-9]{1,2})F([0-9]{1,2})", text)
        if match:
            attention, ffn = f"int{match.group(1)}", f"int{match.group(2)}"
            bits(attention), bits(ffn)
            return replace(self, attention_weights=attention, ffn_weights=ffn)
        name = f"int{text}" if text.isdigit() else text
        bits(name)
        kept: dict[str, str | None] = {"embedding": None, "head": None}
        if name not in MIXTURES and name not in GGUF_BLOCKS:
            for part in ("embedding", "head"):
                own = self.weight_precision(part)
                kept[part] = own if bits(own) > bits(name) else None
        return replace(
            self,
            weights=name,
            attention_weights=None,
            ffn_weights=None,
            embedding_weights=kept["embedding"],
            head_weights=kept["head"],
        )
