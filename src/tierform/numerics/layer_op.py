"""The crossbars' product as one operation of torch: opaque to compilers, with a gradient that passes straight through.

A layer is known by its number, so that the operation's arguments are tensors and numbers alone.
"""

from __future__ import annotations

import itertools
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tierform.numerics.layer import CrossbarLinear

LAYERS: weakref.WeakValueDictionary[int, CrossbarLinear] = weakref.WeakValueDictionary()
NUMBERS = itertools.count(1)


@torch.library.custom_op("tierform::crossbar_linear", mutates_args=())
def _crossbar_linear(x: Tensor, weight: Tensor, number: int) -> Tensor:
    return _layer(number).multiply(x)


@_crossbar_linear.register_fake
def _(x: Tensor, weight: Tensor, number: int) -> Tensor:
    return x.new_empty(x.shape[0], _layer(number).out_features)


@torch.library.custom_op("tierform::crossbar_linear_backward", mutates_args=())
def _crossbar_linear_backward(gradient: Tensor, number: int) -> Tensor:
    return gradient @ _layer(number).effective


@_crossbar_linear_backward.register_fake
def _(gradient: Tensor, number: int) -> Tensor:
    return gradient.new_empty(gradient.shape[0], _layer(number).in_features)


def _keep(ctx: Any, inputs: Any, output: object) -> None:
    x, weight, number = inputs
    ctx.number = number
    ctx.save_for_backward(x if weight.requires_grad else None)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    (x,) = ctx.saved_tensors
    layer = _layer(ctx.number)
    to_input = torch.ops.tierform.crossbar_linear_backward(gradient.contiguous(), ctx.number)
    to_weight = None
    if x is not None:
        to_weight = x.T @ gradient if layer.transposed else gradient.T @ x
    return to_input, to_weight, None


_crossbar_linear.register_autograd(_backward, setup_context=_keep)


def _layer(number: int) -> CrossbarLinear:
    return LAYERS[number]
