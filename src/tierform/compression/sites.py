"""Which matrices of a model are compressed, which of them read the same input, and what its sublayers are.

A model is anything with a list of equal layers (the longest ``nn.ModuleList`` that holds linear layers): any decoder
or encoder of transformers.  Embeddings, heads and normalizations are no sites.  A sublayer is the attention or the FFN
of a layer; it ends in the matrix whose output is added to the residual stream.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from tierform.errors import Problem, TierformError, fail
from tierform.numerics.placement import static_linears

_LAST = {"attention": "o", "ffn": "down"}


@dataclass(frozen=True, slots=True)
class Site:
    """One matrix: its module, layer number, sublayer (attention, ffn, other) and parts (q, up, ...)."""

    name: str
    module: nn.Module
    layer: int
    sublayer: str
    parts: frozenset[str]
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        rows, columns = cast(Tensor, self.module.weight).shape
        return (columns, rows) if self.transposed else (rows, columns)

    @property
    def matrix(self) -> Tensor:
        """The weight as (outputs, inputs), float32."""
        weight = cast(Tensor, self.module.weight).detach()
        return (weight.T if self.transposed else weight).float()

    def set_matrix(self, values: Tensor) -> None:
        """Replace the weight by (outputs, inputs)."""
        weight = cast(Tensor, self.module.weight)
        with torch.no_grad():
            weight.copy_(values.T if self.transposed else values)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A model's layers in order (their name and modules) and its sites."""

    prefix: str
    layers: nn.ModuleList
    sites: tuple[Site, ...]

    def of_layer(self, number: int) -> list[Site]:
        """The sites of one layer."""
        return [site for site in self.sites if site.layer == number]

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of every site."""
        return {site.name: site.shape for site in self.sites}

    @property
    def sublayers(self) -> dict[str, Site]:
        """The matrix that ends each sublayer, by ``<layer>.attention`` or ``<layer>.ffn``."""
        return {
            f"{self.prefix}.{site.layer}.{site.sublayer}": site
            for site in self.sites
            if _LAST.get(site.sublayer, "") in site.parts
        }


def anatomy(model: nn.Module) -> Anatomy:
    """The layers and sites of a model; TierformError when it has none, or a weight holds NaN."""
    linears = static_linears(model)
    lists = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    counts = {
        name: sum(linear.name.startswith(f"{name}.") for linear in linears) if len(part) else 0 for name, part in lists
    }
    best = max(lists, key=lambda one: (counts[one[0]], -len(one[0])), default=None)
    if best is None or not counts[best[0]]:
        fail("the model has no list of layers with matrices to compress", value=type(model).__name__)
    prefix, layers = best
    sites = []
    for linear in linears:
        found = re.match(re.escape(prefix) + r"\.(\d+)\.", linear.name)
        if found:
            sites.append(
                Site(linear.name, linear.module, int(found.group(1)), linear.role, linear.parts, linear.transposed)
            )
    problems = [
        Problem("the weights hold NaN or infinity", key=f"{site.name}.weight")
        for site in sites
        if not bool(torch.isfinite(site.matrix).all())
    ]
    if problems:
        raise TierformError(problems)
    return Anatomy(prefix, layers, tuple(sites))


def skip_sublayers(model: nn.Module, names: tuple[str, ...] | list[str]) -> None:
    """Leave sublayers out: their last matrix (and bias) gives nothing, so the residual stream passes by."""
    known = anatomy(model).sublayers
    for name in names:
        if name not in known:
            fail("the model has no such sublayer", key="skipped", value=name, choices=known)
        module = known[name].module
        with torch.no_grad():
            cast(Tensor, module.weight).zero_()
            if module.bias is not None:
                cast(Tensor, module.bias).zero_()
