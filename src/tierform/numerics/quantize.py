"""Quantizers on tensors: integers, NF4 and FP8, with a scale per tensor, channel, group or crossbar.

:func:`quantize_integers` gives integers and scales (what crossbar cells hold), :func:`fake_quantize` the rounded
values with straight-through gradients (what a digital engine computes).  Rounding is to nearest, ties to even; a block
of zeros gets scale 1.  Weight matrices are (outputs, inputs).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from tierform.errors import fail
from tierform.numerics.formats import Quantizer

# The 16 values of NF4: quantiles of the normal distribution, scaled to [-1, 1] (Dettmers et al., 2023, appendix E).
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
_FP8 = {"fp8": torch.float8_e4m3fn, "fp8-e4m3": torch.float8_e4m3fn, "fp8-e5m2": torch.float8_e5m2}
_CLIPPINGS = 32


def check_finite(values: Tensor, name: str) -> None:
    """TierformError when a tensor holds NaN or infinity."""
    if not bool(torch.isfinite(values).all()):
        bad = int((~torch.isfinite(values)).sum())
        fail("the values hold NaN or infinity", key=name, value=f"{bad} of {values.numel()}")


def blocks(values: Tensor, quantizer: Quantizer) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The values with everything that shares a scale along the last axis, and how to bring such a tensor back.

    Padding is zero and is cut off again; the leading axes number the scales.
    """
    shape = values.shape
    kind = quantizer.granularity
    if kind == "tensor":
        return values.reshape(1, -1), lambda grouped: grouped.reshape(shape)
    if kind == "channel":
        return values.reshape(shape[0], -1), lambda grouped: grouped.reshape(shape)
    if kind in ("group", "column"):
        size = quantizer.group if kind == "group" else quantizer.block[0]
        pad = -shape[-1] % size
        padded = nn.functional.pad(values, (0, pad))
        grouped = padded.reshape(*shape[:-1], -1, size)
        return grouped, lambda back: back.reshape(*shape[:-1], -1)[..., : shape[-1]]
    if values.dim() != 2:
        fail("crossbar-wise scales are for weight matrices", key="granularity", value=tuple(shape))
    inputs, outputs = quantizer.block
    n, k = shape
    padded = nn.functional.pad(values, (0, -k % inputs, 0, -n % outputs))
    tall, wide = padded.shape[0] // outputs, padded.shape[1] // inputs
    grouped = padded.reshape(tall, outputs, wide, inputs).permute(0, 2, 1, 3).reshape(tall, wide, -1)

    def back(grouped: Tensor) -> Tensor:
        square = grouped.reshape(tall, wide, outputs, inputs).permute(0, 2, 1, 3)
        return square.reshape(tall * outputs, wide * inputs)[:n, :k]

    return grouped, back


def _limits(grouped: Tensor, quantizer: Quantizer) -> tuple[Tensor, Tensor]:
    """Least and greatest value to represent, one per scale, by the quantizer's rule."""
    low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    if quantizer.symmetric:
        high = torch.maximum(high, -low)
        low = -high
    if quantizer.rule == "percentile":
        if quantizer.symmetric:
            high = _quantile(grouped.abs(), quantizer.percentile / 100)
            low = -high
        else:
            high = _quantile(grouped, quantizer.percentile / 100)
            low = _quantile(grouped, 1 - quantizer.percentile / 100)
    if not quantizer.symmetric:
        low, high = low.clamp(max=0), high.clamp(min=0)
    if quantizer.rule != "mse":
        return low, high
    best_low, best_high = low, high
    least = torch.full_like(high, torch.inf)
    for step in range(_CLIPPINGS):
        share = 1 - step * 0.8 / _CLIPPINGS
        error = (_rounded(grouped, low * share, high * share, quantizer) - grouped).square().mean(-1, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        best_low, best_high = torch.where(better, low * share, best_low), torch.where(better, high * share, best_high)
    return best_low, best_high


def _quantile(values: Tensor, share: float) -> Tensor:
    """A quantile along the last axis by its nearest rank (tensors of any length)."""
    rank = min(values.shape[-1], max(1, round(share * values.shape[-1])))
    return values.kthvalue(rank, dim=-1, keepdim=True).values


def _scale_and_zero(low: Tensor, high: Tensor, quantizer: Quantizer) -> tuple[Tensor, Tensor]:
    least, greatest = quantizer.integer_range
    if quantizer.symmetric:
        scale = high / greatest
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return scale, torch.zeros_like(scale)
    scale = (high - low) / greatest
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return scale, torch.round(-low / scale).clamp(least, greatest)


def _rounded(grouped: Tensor, low: Tensor, high: Tensor, quantizer: Quantizer) -> Tensor:
    if quantizer.format.startswith("int"):
        scale, zero = _scale_and_zero(low, high, quantizer)
        least, greatest = quantizer.integer_range
        return (torch.round(grouped / scale + zero).clamp(least, greatest) - zero) * scale
    top = torch.where(high > 0, high, torch.ones_like(high))
    if quantizer.format == "nf4":
        table = torch.tensor(NF4, dtype=grouped.dtype, device=grouped.device)
        middle = (table[1:] + table[:-1]) / 2
        return table[torch.bucketize((grouped / top).clamp(-1, 1), middle)] * top
    kind = _FP8[quantizer.format]
    scale = top / torch.finfo(kind).max
    limit = torch.finfo(kind).max
    return (grouped / scale).clamp(-limit, limit).to(kind).to(grouped.dtype) * scale


def quantize_integers(values: Tensor, quantizer: Quantizer) -> tuple[Tensor, Tensor, Tensor]:
    """Integers (int16), scales and zero points, each of the values' shape: value = (integer - zero) * scale."""
    if not quantizer.format.startswith("int"):
        fail("this format has no integers", key="format", value=quantizer.format)
    grouped, back = blocks(values.detach().float(), quantizer)
    scale, zero = _scale_and_zero(*_limits(grouped, quantizer), quantizer)
    least, greatest = quantizer.integer_range
    integers = torch.round(grouped / scale + zero).clamp(least, greatest)
    return (
        back(integers).to(torch.int16),
        back(scale.expand_as(grouped)).contiguous(),
        back(zero.expand_as(grouped)).to(torch.int16),
    )


class _StraightThrough(torch.autograd.Function):
    """Rounded values forward; gradients pass where the value was inside the range."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, quantizer: Quantizer) -> Tensor:
        grouped, back = blocks(values.detach().float(), quantizer)
        low, high = _limits(grouped, quantizer)
        if values.requires_grad:
            ctx.save_for_backward(back(((grouped >= low) & (grouped <= high)).to(values.dtype)))
        return back(_rounded(grouped, low, high, quantizer)).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: object) -> Any:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None


def fake_quantize(values: Tensor, quantizer: Quantizer) -> Tensor:
    """The values rounded to the quantizer's format, with straight-through gradients; NaN stays NaN."""
    return cast(Tensor, _StraightThrough.apply(values, quantizer))  # type: ignore[no-untyped-call]


class QuantizedLinear(nn.Module):
    """A digital linear layer with rounded weights and, optionally, inputs (per token) and outputs (KV cache)."""

    def __init__(
        self, inner: nn.Module, weight: Quantizer | None, inputs: Quantizer | None, outputs: Quantizer | None = None
    ) -> None:
        super().__init__()
        self.inner = inner
        self.weight_quantizer, self.input_quantizer, self.output_quantizer = weight, inputs, outputs

    def forward(self, x: Tensor) -> Tensor:
        """The layer on rounded operands."""
        if self.input_quantizer is not None:
            x = per_token(x, self.input_quantizer)
        if self.weight_quantizer is None:
            y = self.inner(x)
        else:
            matrix = cast(Tensor, self.inner.weight)
            turned = type(self.inner).__name__ == "Conv1D"
            rounded = fake_quantize(matrix.T if turned else matrix, self.weight_quantizer)
            y = nn.functional.linear(x, rounded, cast("Tensor | None", self.inner.bias))
        return y if self.output_quantizer is None else per_token(y, self.output_quantizer)


def per_token(x: Tensor, quantizer: Quantizer) -> Tensor:
    """Activations (..., features) rounded with one scale per token."""
    from dataclasses import replace

    rows = x.reshape(-1, x.shape[-1])
    return fake_quantize(rows, replace(quantizer, granularity="channel")).reshape(x.shape)


def quantize_model(
    model: nn.Module,
    weights: Quantizer | Callable[[str], Quantizer | None] | None,
    *,
    activations: Quantizer | None = None,
    kv_cache: Quantizer | None = None,
    inplace: bool = False,
) -> nn.Module:
    """The model with every static linear layer rounded, as a digital engine would run it.

    `weights` is one quantizer or a function of the module's name (None leaves a layer).  `kv_cache` rounds the outputs
    of the key and value projections.  TierformError when no layer is found or a weight is not finite.
    """
    import copy

    from tierform.numerics.placement import static_linears

    target = model if inplace else copy.deepcopy(model)
    found = static_linears(target)
    chosen: list[tuple[str, nn.Module, Quantizer | None, Quantizer | None]] = []
    for linear in found:
        check_finite(cast(Tensor, linear.module.weight), f"{linear.name}.weight")
        quantizer = weights(linear.name) if callable(weights) else weights
        cached = kv_cache if kv_cache is not None and linear.parts & {"k", "v"} else None
        chosen.append((linear.name, linear.module, quantizer, cached))
    if not chosen:
        fail("the model has no linear layer to quantize", value=type(model).__name__)
    for name, module, quantizer, cached in chosen:
        target.set_submodule(name, QuantizedLinear(module, quantizer, activations, cached))
    return target
