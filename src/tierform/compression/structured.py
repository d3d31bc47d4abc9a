"""Whole neurons and whole groups of heads taken out: a smaller model of the same kind, which any program runs faster.

A neuron of an FFN is scored by the size of its activation times that of its column in the last matrix; a group of heads
(those that share a key-value head) by the energy that it adds to the output.  The last matrix is then fitted anew to
the old output: W' = W H[:, S] H[S, S]^-1 for the inputs S that stay.  Every layer keeps the same number, so that the
configuration can say it.

Limits: heads need a configuration with ``head_dim``; sublayers whose matrices are found by their parts.
Sources: Ma et al., LLM-Pruner (NeurIPS 2023), for groups; the least-squares fit is the one of optimal brain surgery.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from tierform.compression.sites import Site
from tierform.compression.walk import InputStatistics, begin
from tierform.errors import fail


def prune_structure(
    model: Any, windows: Tensor, *, ffn: float = 1.0, heads: float = 1.0, multiple: int = 32
) -> dict[str, int]:
    """Keep shares of the FFN's neurons and of the groups of heads, in place; the new sizes by their configuration key.

    The number of neurons is a multiple of `multiple`.
    """
    config = model.config
    for key, share in (("ffn", ffn), ("heads", heads)):
        if not 0 < share <= 1:
            fail("a share above 0 and up to 1 is kept", key=key, value=share)
    sizes: dict[str, int] = {}
    width = int(getattr(config, "intermediate_size", 0))
    if ffn < 1:
        if not width:
            fail("the model's configuration does not say how wide its FFN is", key="ffn", value=type(config).__name__)
        sizes["intermediate_size"] = min(width, max(multiple, round(ffn * width / multiple) * multiple))
    if heads < 1:
        groups = getattr(config, "num_key_value_heads", None)
        if not groups or not getattr(config, "head_dim", None):
            fail("the model's configuration cannot have fewer heads", key="heads", value=type(config).__name__)
        kept = max(1, round(heads * groups))
        sizes["num_key_value_heads"] = kept
        sizes["num_attention_heads"] = config.num_attention_heads // groups * kept
    walk = begin(model, windows)
    for layer in walk:
        found = {part: one for one in walk.statistics() for site in one.sites for part in site.parts}
        sites = {part: site for site in walk.anatomy.of_layer(layer) for part in site.parts}
        if "intermediate_size" in sizes and "down" in sites:
            _thin_ffn(sites, found["down"], sizes["intermediate_size"], model)
        if "num_key_value_heads" in sizes and "o" in sites:
            _thin_heads(sites, found["o"], sizes["num_key_value_heads"], config, model)
    for key, value in sizes.items():
        setattr(config, key, value)
    return sizes


def _thin_ffn(sites: dict[str, Site], found: InputStatistics, size: int, model: nn.Module) -> None:
    last = sites["down"]
    score = found.norms * last.matrix.norm(dim=0)
    kept = score.topk(size).indices.sort().values
    fitted = _refit(last.matrix, found.hessian, kept)
    for part in ("up", "gate"):
        if part in sites:
            _replace(model, sites[part], sites[part].matrix[kept], kept)
    _replace(model, last, fitted, None)


def _thin_heads(sites: dict[str, Site], found: InputStatistics, groups: int, config: Any, model: nn.Module) -> None:
    width, old = int(config.head_dim), int(config.num_key_value_heads)
    per_group = int(config.num_attention_heads) // old * width
    last = sites["o"]
    matrix = last.matrix
    energy = (matrix @ found.hessian).mul(matrix).sum(0).view(old, per_group).sum(1)
    chosen = energy.topk(groups).indices.sort().values
    queries = _expand(chosen, per_group)
    keys = _expand(chosen, width)
    fitted = _refit(matrix, found.hessian, queries)
    _replace(model, sites["q"], sites["q"].matrix[queries], queries)
    for part in ("k", "v"):
        _replace(model, sites[part], sites[part].matrix[keys], keys)
    _replace(model, last, fitted, None)


def _expand(groups: Tensor, size: int) -> Tensor:
    return (groups[:, None] * size + torch.arange(size)).flatten()


def _refit(matrix: Tensor, hessian: Tensor, kept: Tensor) -> Tensor:
    """The matrix (outputs, kept inputs) with the least error on the calibration inputs."""
    inner = hessian[kept][:, kept].double()
    inner += torch.eye(len(kept), dtype=torch.float64) * 0.01 * float(inner.diagonal().mean())
    wanted = matrix.double() @ hessian[:, kept].double()
    fitted: Tensor = torch.linalg.solve(inner, wanted.T).T.float()
    return fitted


def _replace(model: nn.Module, site: Site, matrix: Tensor, rows: Tensor | None) -> None:
    """A smaller linear layer in the place of the old one, its bias cut by `rows`."""
    if site.transposed:
        fail("layers kept as (inputs, outputs) are not made smaller", key=site.name, value=type(site.module).__name__)
    bias = cast("Tensor | None", site.module.bias)
    new = nn.Linear(matrix.shape[1], matrix.shape[0], bias=bias is not None)
    with torch.no_grad():
        new.weight.copy_(matrix)
        if bias is not None:
            new.bias.copy_(bias if rows is None else bias[rows])
    model.set_submodule(site.name, new.requires_grad_(False))
