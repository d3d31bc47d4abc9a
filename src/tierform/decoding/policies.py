"""What a cache policy costs in quality: perplexity of a text with the keys and values that the policy keeps.

A window with sinks is run as attention that sees the first tokens and the last ones, which is what remains in the
cache (positions stay those of the text; Xiao et al., 2024).  Some heads may keep every token, chosen on calibration
text (:mod:`tierform.decoding.heads`).  A narrow cache rounds keys by channel over groups of
tokens and values by token over groups of channels, with a scale and a zero point each (KIVI: Liu et al., 2024); all
tokens are rounded, the newest, too.
Limits: models whose attention takes a mask of four dimensions, as transformers' decoders with eager or SDPA attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from tierform.decoding.heads import attention_dropped, masks_by_head, whole_heads
from tierform.decoding.loop import cache_name
from tierform.errors import fail
from tierform.workload.kv_policy import KVPolicy


@dataclass(frozen=True, slots=True)
class NarrowCache:
    """Bits of keys and values, and the tokens (keys) or channels (values) that share a scale and a zero point."""

    bits: int = 4
    group: int = 64
    by_channel: bool = True


def perplexities(
    model: Any,
    windows: Tensor,
    policy: KVPolicy | None = None,
    narrow: NarrowCache | None = None,
    *,
    whole: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
) -> float:
    """The perplexity of windows (count, tokens) of text under a policy and with a narrow cache; None: everything.

    Heads of keys (layers, heads) that are `whole` see every token, whatever the policy.
    """
    losses = []
    by_head: AbstractContextManager[None] = nullcontext()
    if policy is not None and whole is not None:
        by_head = masks_by_head(model, whole, _seen(windows.shape[1], policy))
    with torch.inference_mode(), by_head:
        for number, ids in enumerate(windows):
            given: dict[str, Any] = {}
            if policy is not None:
                given["attention_mask"] = mask_of(len(ids), policy, model.dtype)
            cache = Cache(layer_class_to_replicate=lambda: _NarrowLayer(narrow)) if narrow is not None else None  # type: ignore[arg-type]
            given |= {cache_name(model): cache, "use_cache": cache is not None}
            logits = model(input_ids=ids[None], **given).logits
            losses.append(float(nn.functional.cross_entropy(logits[0, :-1].float(), ids[1:])))
            if progress is not None:
                progress(number + 1)
    return math.exp(sum(losses) / len(losses))


def mask_of(tokens: int, policy: KVPolicy, dtype: torch.dtype) -> Tensor:
    """(1, 1, tokens, tokens): 0 where a token sees another, the least number elsewhere."""
    if policy.heavy:
        fail("heavy hitters depend on attention itself and are not run as a mask", key="--policy", value="heavy")
    mask = torch.full((tokens, tokens), torch.finfo(dtype).min, dtype=dtype)
    return mask.masked_fill(_seen(tokens, policy), 0.0)[None, None]


def choose_heads(model: Any, windows: Tensor, policy: KVPolicy) -> Tensor:
    """Which heads of keys (layers, heads) keep every token, as many as the policy says, chosen on windows of text."""
    return whole_heads(attention_dropped(model, windows, _seen(windows.shape[1], policy)), policy.whole)


def _seen(tokens: int, policy: KVPolicy) -> Tensor:
    """Which tokens (tokens, tokens) each sees."""
    window = policy.window or policy.budget
    at = torch.arange(tokens)
    distance = at[:, None] - at[None, :]
    seen = distance >= 0
    if window:
        seen &= (distance < window) | (at[None, :] < policy.sinks)
    return seen


def rounded(values: Tensor, bits: int, group: int, dimension: int) -> Tensor:
    """Values rounded to so many bits with a scale and a zero point for each `group` along a dimension."""
    moved = values.transpose(dimension, -1)
    size = moved.shape[-1]
    padded = torch.cat([moved, moved[..., -1:].expand(*moved.shape[:-1], -size % group)], -1)
    grouped = padded.reshape(*padded.shape[:-1], -1, group)
    low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    scale = ((high - low) / (2**bits - 1)).clamp(min=1e-8)
    back = ((grouped - low) / scale).round().mul(scale).add(low)
    result: Tensor = back.flatten(-2)[..., :size].transpose(dimension, -1)
    return result


class _NarrowLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer's cache whose keys and values are read back rounded."""

    def __init__(self, narrow: NarrowCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._narrow = narrow

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """All keys and values, rounded: (batch, heads, tokens, channels)."""
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        one = self._narrow
        along = -2 if one.by_channel else -1
        return rounded(keys, one.bits, one.group, along), rounded(values, one.bits, one.group, -1)
