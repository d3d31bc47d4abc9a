"""One pass over the calibration text, layer by layer: each layer sees what the compressed layers before it give.

The inputs of the first layer are caught once.  Then every layer runs twice: once with hooks that gather what the
methods need of each matrix's input, and, after its matrices were compressed, once to make the next layer's inputs.
Memory holds one layer's statistics and the hidden states of all windows, whatever the model's depth.

Limits: layers that take the hidden states first and give them first, with the same other arguments for all windows of
one length, as transformers' decoders and encoders do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tierform.compression.sites import Anatomy, Site, anatomy
from tierform.errors import fail


class _Caught(Exception):
    """The first layer was reached."""


@dataclass(slots=True)
class InputStatistics:
    """What is known of one input of a layer, which one or more matrices read.

    `hessian` (inputs, inputs) is X^T X / tokens, `mean_abs` and `largest` are by input channel; `norm`, where it is
    not None, is the normalization that makes this input and nothing else.
    """

    sites: list[Site]
    hessian: Tensor
    mean_abs: Tensor
    largest: Tensor
    tokens: int = 0
    norm: nn.Module | None = None

    def finish(self) -> None:
        """From sums to means."""
        self.hessian /= max(self.tokens, 1)
        self.mean_abs /= max(self.tokens, 1)

    @property
    def norms(self) -> Tensor:
        """Root mean square of each input channel."""
        return self.hessian.diagonal().clamp(min=0).sqrt()


@dataclass(slots=True)
class Walk:
    """A model's layers with the hidden states that wait before the next one."""

    model: nn.Module
    anatomy: Anatomy
    states: list[Tensor]
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    layer: int = 0

    def statistics(self) -> list[InputStatistics]:
        """What the matrices of the next layer read, gathered over all windows; one record for each distinct input."""
        sites = self.anatomy.of_layer(self.layer)
        found: dict[str, InputStatistics] = {}
        first_reader: dict[int, tuple[Tensor, str]] = {}  # tensors are held, so that no number is used twice
        handles = []

        def note(site: Site) -> Callable[..., None]:
            def hook(_module: nn.Module, given: tuple[Any, ...]) -> None:
                x = given[0].detach()
                known = first_reader.setdefault(id(given[0]), (given[0], site.name))[1]
                if site.name not in found and known in found and known != site.name:
                    if site not in found[known].sites:
                        found[known].sites.append(site)
                    return
                if known != site.name:
                    return
                flat = x.reshape(-1, x.shape[-1]).float()
                if site.name not in found:
                    size = flat.shape[1]
                    found[site.name] = InputStatistics(
                        [site], torch.zeros(size, size), torch.zeros(size), torch.zeros(size)
                    )
                one = found[site.name]
                one.hessian.addmm_(flat.T, flat)
                one.mean_abs += flat.abs().sum(0)
                one.largest = torch.maximum(one.largest, flat.abs().amax(0))
                one.tokens += len(flat)

            return hook

        handles += [site.module.register_forward_pre_hook(note(site)) for site in sites]
        norms: dict[int, tuple[Tensor, nn.Module]] = {}
        for part in self.anatomy.layers[self.layer].modules():
            if part is not self.anatomy.layers[self.layer] and _is_norm(part):
                handles.append(
                    part.register_forward_hook(lambda module, _given, out: norms.__setitem__(id(out), (out, module)))
                )
        try:
            for index in range(len(self.states)):
                first_reader.clear()
                norms.clear()
                self._run(index)
                for reader, (_, name) in first_reader.items():
                    if reader in norms and name in found:
                        found[name].norm = norms[reader][1]
        finally:
            for handle in handles:
                handle.remove()
        for record in found.values():
            record.finish()
        return list(found.values())

    def advance(self) -> None:
        """Run the layer as it is now; its outputs become the next layer's inputs."""
        for index in range(len(self.states)):
            self.states[index] = self._run(index)
        self.layer += 1

    def _run(self, index: int) -> Tensor:
        arguments, named = self.arguments
        with torch.no_grad():
            out: Any = self.anatomy.layers[self.layer](self.states[index], *arguments, **named)
        result: Tensor = out[0] if isinstance(out, tuple) else out
        return result

    def __iter__(self) -> Iterator[int]:
        """Layer numbers; the caller compresses and the walk goes on by itself."""
        while self.layer < len(self.anatomy.layers):
            number = self.layer
            yield number
            if self.layer == number:
                self.advance()


def _is_norm(module: nn.Module) -> bool:
    """A module that has a vector as its weight and no further modules: a normalization."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() == 1 and not list(module.children())


def begin(model: nn.Module, windows: Tensor, *, key: str = "input_ids") -> Walk:
    """Catch what the first layer is given for every window (count, ...); each window is a batch of one."""
    parts = anatomy(model)
    states: list[Tensor] = []
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def catch(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        named = dict(named)
        hidden = given[0] if given else named.pop("hidden_states")
        states.append(hidden.detach())
        arguments.append((given[1:], {name: None if name == "past_key_values" else one for name, one in named.items()}))
        raise _Caught

    handle = parts.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    try:
        with torch.no_grad():
            for window in windows:
                try:
                    _call(model, key, window[None])
                except _Caught:
                    continue
                fail("the model does not call its layers in order", value=type(model).__name__)
    finally:
        handle.remove()
    return Walk(model, parts, states, arguments[0])


def _call(model: nn.Module, key: str, window: Tensor) -> object:
    if key == "input_ids" and getattr(getattr(model, "config", None), "use_cache", None) is not None:
        return model(input_ids=window, use_cache=False)
    return model(**{key: window})
