"""Which attention or FFN sublayers a model can do without.

``cosine`` ranks sublayers by how little they turn the residual stream: the cosine between what enters and what leaves,
mean over tokens; the rank is taken anew after each choice.  ``loss`` takes the most promising by cosine and keeps, one
after another, the one whose loss is least.  ``exchange`` goes on from there: one that is left out comes back for one of
the most promising others, as long as that lowers the loss.
Sources: Men et al., ShortGPT (2024), for the cosine; He et al., What Matters in Transformers? (2024), for sublayers.
Limit: residual streams that a sublayer's last matrix is added to directly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tierform.compression.quality import window_losses
from tierform.compression.sites import anatomy
from tierform.errors import fail

RULES = ("cosine", "loss", "exchange")
EXCHANGED = 6  # of the others that are tried in the place of one
Say = Callable[[str], None]


def cosines(model: nn.Module, windows: Tensor) -> dict[str, float]:
    """For every sublayer the mean cosine between the residual stream before and after it."""
    parts = anatomy(model)
    sums = dict.fromkeys(parts.sublayers, 0.0)
    stream: dict[int, Tensor] = {}
    handles = []

    def enter(number: int) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            stream[number] = (given[0] if given else named["hidden_states"]).detach()

        return hook

    def leave(name: str, number: int) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, out: Tensor) -> None:
            before = stream[number]
            after = before + out.detach().view(before.shape)
            sums[name] += float(nn.functional.cosine_similarity(before.float(), after.float(), dim=-1).mean())
            stream[number] = after

        return hook

    for number, layer in enumerate(parts.layers):
        handles.append(layer.register_forward_pre_hook(enter(number), with_kwargs=True))
    for name, site in parts.sublayers.items():
        handles.append(site.module.register_forward_hook(leave(name, site.layer)))
    try:
        with torch.no_grad():
            for ids in windows:
                model(input_ids=ids[None])
    finally:
        for handle in handles:
            handle.remove()
    return {name: one / len(windows) for name, one in sums.items()}


class Trials:
    """Losses of a model on windows (count, length) without the sublayers in `left_out`; its weights stay as they are.

    `settle` keeps what every layer gives; a trial then runs from the first layer on whose sublayers differ.
    """

    def __init__(self, model: nn.Module, windows: Tensor) -> None:
        self.model, self.windows = model, windows
        self.left_out: set[str] = set()
        parts = anatomy(model)
        self._layers = list(parts.layers)
        self._layer_of = {name: site.layer for name, site in parts.sublayers.items()}
        self._settled: frozenset[str] | None = None
        self._given: list[list[Any]] = []  # by layer and window
        self._handles = [
            site.module.register_forward_hook(
                lambda _m, _g, out, name=name: torch.zeros_like(out) if name in self.left_out else out
            )
            for name, site in parts.sublayers.items()
        ]

    def settle(self) -> dict[str, float]:
        """Keep what the layers give without `left_out`; the cosines of all sublayers there."""
        given: list[list[Any]] = [[] for _ in self._layers]
        handles = [
            layer.register_forward_hook(lambda _m, _g, out, kept=kept: kept.append(out))
            for layer, kept in zip(self._layers, given, strict=True)
        ]
        try:
            found = cosines(self.model, self.windows)
        finally:
            for handle in handles:
                handle.remove()
        self._given, self._settled = given, frozenset(self.left_out)
        return found

    def loss(self) -> float:
        """Nats a token without the sublayers in `left_out`."""
        same = 0
        if self._settled is not None:
            changed = self.left_out ^ self._settled
            same = min((self._layer_of[name] for name in changed), default=len(self._layers))
        replayed = self._layers[:same]
        total = 0.0
        try:
            for number in range(len(self.windows)):
                for layer, kept in zip(replayed, self._given, strict=False):
                    layer.forward = lambda *_given, out=kept[number], **_named: out
                total += float(window_losses(self.model, self.windows[number : number + 1])[0])
        finally:
            for layer in replayed:
                vars(layer).pop("forward", None)
        return total / len(self.windows)

    def close(self) -> None:
        """Give the model back as it was."""
        for handle in self._handles:
            handle.remove()


def exchange(trials: Trials, names: list[str], say: Say | None = None) -> None:
    """Exchange sublayers that are left out for others in `names`, one by one, while the loss falls."""
    turned = trials.settle()
    least, improved = trials.loss(), True
    while improved:
        improved = False
        for back in sorted(trials.left_out, key=lambda name: turned[name]):
            others = sorted((name for name in names if name not in trials.left_out), key=lambda name: -turned[name])
            for name in others[:EXCHANGED]:
                trials.left_out ^= {back, name}
                loss = trials.loss()
                if loss < least:
                    least, improved = loss, True
                    turned = trials.settle()
                    if say is not None:
                        say(f"leaving out {name} instead of {back}: {loss:.3f} nats a token")
                    break
                trials.left_out ^= {back, name}


def choose_skips(
    model: nn.Module,
    windows: Tensor,
    count: int,
    *,
    by: str = "cosine",
    kinds: tuple[str, ...] = (),
    begin: tuple[str, ...] = (),
    say: Say | None = None,
) -> tuple[str, ...]:
    """The names of `count` sublayers to leave out, in the order chosen; `kinds` limits them to attention or ffn.

    `begin` are taken before any is chosen.
    """
    if by not in RULES:
        fail("unknown rule", key="--skip-by", value=by, choices=RULES, fix=f"Known: {', '.join(RULES)}.")
    names = [name for name in anatomy(model).sublayers if not kinds or name.rpartition(".")[2] in kinds]
    if not 0 < count < len(names):
        fail(f"1 to {len(names) - 1} of the {len(names)} sublayers can be left out", key="--skip", value=count)
    if len(begin) > count or not set(begin) <= set(names):
        fail(f"at most {count} sublayers of the model can be taken first", key="begin", value=begin, choices=names)
    trials = Trials(model, windows)
    trials.left_out |= set(begin)
    try:
        for number in range(len(begin), count):
            found = trials.settle()
            left = sorted((name for name in names if name not in trials.left_out), key=lambda name: -found[name])
            chosen = left[0]
            if by != "cosine":
                tried = {}
                for name in left[: max(4, 2 * (count - number))]:
                    trials.left_out.add(name)
                    tried[name] = trials.loss()
                    trials.left_out.discard(name)
                chosen = min(tried, key=tried.__getitem__)
            trials.left_out.add(chosen)
            if say is not None:
                say(f"leaving out {number + 1} of {count}: {chosen}")
        if by == "exchange":
            exchange(trials, names, say)
        return tuple(name for name in names if name in trials.left_out)
    finally:
        trials.close()
