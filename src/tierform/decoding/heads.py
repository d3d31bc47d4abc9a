"""Which heads of keys keep every token, where the others keep sinks and a window.

A few heads look far back (they copy and retrieve); most look at the first tokens and the last ones.  Heads are ranked
by the attention that they pay, on calibration text, to tokens that the policy would drop: the mean over queries that
have any, summed over the heads of queries that share the keys.  The share of heads with the most keeps every token.
Source of the idea: Xiao et al., DuoAttention (2024), which learns the choice; here it is read off the attention.
Limits: one choice for all texts; models whose attention takes a mask by name and returns its probabilities when eager.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tierform.compression.sites import anatomy
from tierform.decoding.drafts import attention_places
from tierform.errors import fail


def attentions(model: Any) -> list[nn.Module]:
    """The attention modules of a model's layers, in order."""
    parts = anatomy(model)
    places = attention_places(parts)
    if len(places) < len(parts.layers):
        fail("not every layer of this model has an attention of its own", key="--policy", value="whole")
    return [layer.get_submodule(places[number]) for number, layer in enumerate(parts.layers)]


def heads_of_keys(model: Any) -> int:
    """Heads of keys and values in a layer."""
    config = model.config
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def attention_dropped(model: Any, windows: Tensor, seen: Tensor) -> Tensor:
    """Of each head of keys (layers, heads), the mean attention to tokens that `seen` (tokens, tokens) leaves out."""
    modules, groups = attentions(model), heads_of_keys(model)
    found = torch.zeros(len(modules), groups, dtype=torch.float64)
    causal = torch.ones_like(seen).tril()
    left_out = causal & ~seen
    queries = left_out.any(-1)

    def hook(number: int) -> Callable[..., None]:
        def add(_: nn.Module, __: object, out: Any) -> None:
            chances = (
                [one for one in out[1:] if isinstance(one, Tensor) and one.dim() == 4] if isinstance(out, tuple) else []
            )
            if not chances:
                fail("the model's attention does not return its probabilities", key="--policy", value="whole")
            far = (chances[0][0].float() * left_out).sum(-1)[:, queries].mean(-1)  # of each head of queries
            found[number] += far.view(groups, -1).sum(-1).double()

        return add

    handles = [module.register_forward_hook(hook(number)) for number, module in enumerate(modules)]
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            for ids in windows:
                model(input_ids=ids[None], use_cache=False)
    finally:
        model.set_attn_implementation(before)
        for handle in handles:
            handle.remove()
    return found / len(windows)


def whole_heads(dropped: Tensor, share: float) -> Tensor:
    """The `share` of all heads (layers, heads) with the most attention to what would be dropped: True."""
    count = round(share * dropped.numel())
    chosen = torch.zeros(dropped.numel(), dtype=torch.bool)
    chosen[dropped.flatten().argsort(descending=True, stable=True)[:count]] = True
    return chosen.view(dropped.shape)


@contextmanager
def masks_by_head(model: Any, whole: Tensor, seen: Tensor) -> Iterator[None]:
    """Attention in which heads that are `whole` see all earlier tokens, the others what `seen` lets them."""
    least = torch.finfo(model.dtype).min
    every, some = (
        torch.zeros(seen.shape, dtype=model.dtype).masked_fill(~one, least)
        for one in (torch.ones_like(seen).tril(), seen)
    )
    shared = int(model.config.num_attention_heads) // heads_of_keys(model)

    def hook(number: int) -> Callable[..., Any]:
        kinds = whole[number].repeat_interleave(shared)

        def put(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
            if "attention_mask" not in named:
                fail("the model's attention takes no mask by name", key="--policy", value="whole")
            mask = torch.where(kinds[:, None, None], every, some)[None]
            return given, named | {"attention_mask": mask}

        return put

    handles = [
        module.register_forward_pre_hook(hook(number), with_kwargs=True)
        for number, module in enumerate(attentions(model))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
