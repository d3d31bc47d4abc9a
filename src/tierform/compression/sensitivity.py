"""How much a model's loss rises when one of its matrices is rounded: measured once, for every matrix and format.

To second order the loss rises by half the sum of g^2 e^2 over tokens and a matrix' outputs, g being the loss' gradient
there and e the error of the output (the diagonal of the Fisher matrix; labels are drawn from the model's own answers).
One pass forward and backward over a few calibration windows keeps inputs and gradients token by token, since the
tokens of the largest inputs (massive activations) are not those of the largest gradients; the errors are those of
rounding to nearest, one product for each matrix and format.

Limits: errors of several matrices, and of neighbouring tokens, are taken to add up; a method that rounds better (GPTQ)
is taken to gain the same share everywhere.  The head counts as one more matrix.
Sources: LeCun, Denker and Solla, Optimal Brain Damage (NeurIPS 1989); Dong et al., HAWQ (ICCV 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tierform.compression.formats import WeightFormat
from tierform.compression.rounding import make_grid
from tierform.compression.sites import Site, anatomy
from tierform.compression.walk import InputStatistics

WINDOWS = 4
Progress = Callable[[str, int, int], None]


def head_site(model: Any) -> Site | None:
    """The output head of a language model as a matrix like others; None where it has none."""
    found = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if not isinstance(found, nn.Linear):
        return None
    name = next(name for name, module in model.named_modules() if module is found)
    return Site(name, found, -1, "head", frozenset({"head"}), False)


def head_statistics(model: nn.Module, site: Site, windows: Tensor) -> InputStatistics:
    """What the head reads, over all windows."""
    inputs = site.shape[1]
    record = InputStatistics([site], torch.zeros(inputs, inputs), torch.zeros(inputs), torch.zeros(inputs))

    def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        flat = given[0].detach().reshape(-1, inputs).float()
        record.hessian.addmm_(flat.T, flat)
        record.mean_abs += flat.abs().sum(0)
        record.largest = torch.maximum(record.largest, flat.abs().amax(0))
        record.tokens += len(flat)

    handle = site.module.register_forward_pre_hook(note)
    try:
        with torch.no_grad():
            for window in windows:
                model(input_ids=window[None])
    finally:
        handle.remove()
    record.finish()
    return record


def rises(
    model: nn.Module,
    windows: Tensor,
    formats: Sequence[WeightFormat],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, dict[WeightFormat, float]]:
    """For every matrix, and the head, the nats a token that each format is expected to cost."""
    head = head_site(model)
    sites = [*anatomy(model).sites, *([head] if head is not None else [])]
    inputs, gradients = _kept(model, sites, windows[:WINDOWS], seed, progress)
    tokens = windows[:WINDOWS].numel()
    found: dict[str, dict[WeightFormat, float]] = {}
    for number, site in enumerate(sites):
        matrix, costs = site.matrix, {}
        for form in formats:
            if form.kind == "float":
                costs[form] = 0.0
                continue
            grid = make_grid(matrix, form, search=False)
            off = grid.values(grid.nearest(matrix)).sub_(matrix)
            rise = 0.0
            for x, squares in zip(inputs[site.name], gradients[site.name], strict=True):
                rise += float(((x @ off.T).square_() * squares).sum())
            costs[form] = 0.5 * rise / tokens
        found[site.name] = costs
        if progress is not None:
            progress("measuring sensitivities", number + 1, len(sites))
    return found


def _kept(
    model: nn.Module, sites: Sequence[Site], windows: Tensor, seed: int, progress: Progress | None
) -> tuple[dict[str, list[Tensor]], dict[str, list[Tensor]]]:
    """By site and window: the inputs (tokens, inputs), and the squared gradients of the summed loss at its outputs."""
    inputs: dict[str, list[Tensor]] = {site.name: [] for site in sites}
    outputs: dict[str, list[Tensor]] = {site.name: [] for site in sites}
    flat: dict[int, tuple[Tensor, Tensor]] = {}  # what several matrices read is kept once
    handles = []

    def note(site: Site) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            x = given[0]
            known = flat.setdefault(id(x), (x, x.detach().reshape(-1, site.shape[1]).float()))
            inputs[site.name].append(known[1])

            def add(gradient: Tensor) -> None:
                outputs[site.name].append(gradient.reshape(-1, site.shape[0]).float().square().bfloat16())

            out.register_hook(add)  # type: ignore[no-untyped-call]

        return hook

    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    handles.append(embedding.register_forward_hook(lambda _m, _g, out: out.detach().requires_grad_(True)))
    handles += [site.module.register_forward_hook(note(site)) for site in sites]
    kept = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in kept:
        parameter.requires_grad_(False)
    draw = torch.Generator().manual_seed(seed)
    try:
        with torch.enable_grad():
            for number, window in enumerate(windows):
                flat.clear()
                logits = model(input_ids=window[None]).logits[0].float()
                answers = torch.multinomial(logits.detach().softmax(-1), 1, generator=draw)[:, 0]
                loss = nn.functional.cross_entropy(logits, answers, reduction="sum")
                loss.backward()  # type: ignore[no-untyped-call]
                if progress is not None:
                    progress("gradients on the calibration text", number + 1, len(windows))
    finally:
        for handle in handles:
            handle.remove()
        for parameter, learned in kept:
            parameter.requires_grad_(learned)
    return inputs, outputs
