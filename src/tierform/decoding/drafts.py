"""What drafts: a model with the target's tokenizer, the target at fewer planes or without sublayers, earlier text.

| text | draft |
|---|---|
| `model:NAME` | another model (a folder or a fetched model) with the same tokens |
| `planes:9` | the target's matrices read at nine bit planes from the same store, the rest filled with the middle |
| `skip:21-29` | the target without attention in these layers; its weights are shared, not copied |
| `lookup` | what followed the last three, two or one tokens when they stood there last |

Drafts by planes and by skipping need no second copy of the weights: a store has every precision in one.  On a CPU in
plain torch planes are unpacked into whole numbers, so they draft no faster than the target; what they would gain where
the narrower read is faster is predicted.
Decoders of any family: the attention that is skipped is the smallest module of a layer that holds its attention's
matrices; experts that are stacked in one parameter are read at planes, too.
Limit: a layer whose attention and FFN are one module can be drafted at planes alone.
Source of lookup: Saxena, Prompt Lookup Decoding (2023).
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass, replace
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tierform.compression.checkpoints.folder import load_language_model, load_tokenizer, model_folder
from tierform.compression.sites import Anatomy, anatomy
from tierform.decoding.acceptance import Probabilities, draw
from tierform.decoding.loop import Draft, Sampling, Stepper
from tierform.errors import Problem, TierformError, fail, nearest
from tierform.units import whole_number
from tierform.workload.reduced import numbers_of

KINDS = ("model", "planes", "skip", "lookup")
LONGEST_MATCH = 3


@dataclass(slots=True)
class ModelDraft:
    """A model that drafts a token at a time, with its own cache."""

    stepper: Stepper

    @classmethod
    def of(cls, model: Any) -> ModelDraft:
        """A draft by this model."""
        return cls(Stepper(model))

    def begin(self, prompt: list[int]) -> None:
        """See :class:`tierform.decoding.loop.Draft`."""
        self.stepper.keep(0)
        self.stepper.feed(prompt)

    def propose(
        self, context: list[int], count: int, sampling: Sampling, random: np.random.Generator
    ) -> tuple[list[int], Probabilities]:
        """See :class:`tierform.decoding.loop.Draft`."""
        tokens: list[int] = []
        chances = []
        fed = context[self.stepper.length :]
        for _ in range(count):
            logits = self.stepper.feed(fed)[-1:]
            q = sampling.probabilities(logits)
            tokens.append(int(draw(q, random)[0]))
            chances.append(q[0])
            fed = tokens[-1:]
        return tokens, np.array(chances)

    def keep(self, length: int) -> None:
        """See :class:`tierform.decoding.loop.Draft`."""
        self.stepper.keep(length)


@dataclass(slots=True)
class Lookup:
    """Drafts what followed the context's last tokens where they stood before."""

    vocabulary: int
    longest: int = LONGEST_MATCH

    def begin(self, prompt: list[int]) -> None:
        """Nothing is kept."""

    def propose(
        self, context: list[int], count: int, sampling: Sampling, random: np.random.Generator
    ) -> tuple[list[int], Probabilities]:
        """See :class:`tierform.decoding.loop.Draft`; nothing where nothing matches."""
        tokens = _continuation(context, count, self.longest)
        chances = np.zeros((len(tokens), self.vocabulary))
        chances[np.arange(len(tokens)), tokens] = 1.0
        return tokens, chances

    def keep(self, length: int) -> None:
        """Nothing is kept."""


def _continuation(context: list[int], count: int, longest: int) -> list[int]:
    words = np.array(context)
    for size in range(min(longest, len(context) - 1), 0, -1):
        tail = words[-size:]
        views = np.lib.stride_tricks.sliding_window_view(words[:-1], size)
        places = np.flatnonzero((views == tail).all(1))
        if len(places):
            begin = int(places[-1]) + size
            return [int(one) for one in words[begin : begin + count]]
    return []


def read_draft(text: str, target: Any, name: str | Path) -> Draft:
    """The draft that a text names, for a loaded target; TierformError for one that cannot be."""
    kind, _, what = text.partition(":")
    match kind:
        case "lookup":
            return Lookup(int(target.config.vocab_size))
        case "model":
            return ModelDraft.of(_other_model(what, target, name))
        case "skip":
            return ModelDraft.of(without_attention(target, what))
        case "planes":
            return ModelDraft.of(at_planes(target, what))
    near = nearest(kind, KINDS)
    return fail("no such draft", key="--draft", value=text, choices=[near] if near else KINDS, fix=f"Known: {KINDS}.")


def draft_problems(text: str, count: int | None, name: str | Path) -> list[Problem]:
    """What can be said to be wrong of a draft before anything is loaded."""
    kind, _, what = text.partition(":")
    if kind not in KINDS:
        fix = f"Known: {', '.join(KINDS)}."
        return [Problem("no such draft", key="--draft", value=text, nearest=nearest(kind, KINDS), fix=fix)]
    problems = []
    if kind == "model" and not what:
        problems.append(Problem("write model:NAME", key="--draft", value=text))
    elif kind == "model":
        try:
            model_folder(what)
        except TierformError as error:
            problems += [replace(one, key="--draft") for one in error.problems]
    if kind == "planes" and not 2 <= (whole_number(what) or 0) <= 15:
        problems.append(Problem("write planes:NUMBER, 2 to 15", key="--draft", value=text))
    if kind == "lookup" and what:
        problems.append(Problem("lookup takes nothing behind it", key="--draft", value=text))
    if kind == "skip" and not what:
        problems.append(Problem("write skip:21-29", key="--draft", value=text))
    return problems


def _other_model(what: str, target: Any, name: str | Path) -> Any:
    model, tokenizer = load_language_model(what)
    own = load_tokenizer(name)
    if tokenizer.get_vocab() != own.get_vocab():
        known = f"{len(tokenizer.get_vocab()):,} and {len(own.get_vocab()):,} entries"
        fix = "Take a smaller model of the same family."
        fail(f"the draft has another tokenizer than its target ({known})", key="--draft", value=what, fix=fix)
    return model


class _NoAttention(nn.Module):
    """In the place of an attention sublayer that is left out: nothing is added to the residual stream.

    It gives as many results as the sublayer did (`results`; 0 is a tensor alone).  Where the sublayer itself adds the
    `residual` that it is given (at this place of its arguments), that is its result.
    """

    def __init__(self, results: int, residual: int) -> None:
        super().__init__()
        self.results, self.residual = results, residual

    def forward(self, *given: torch.Tensor, **named: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor | None, ...]:
        """The first argument's zeros, or the residual stream as it came."""
        hidden = given[0] if given else named["hidden_states"]
        if self.residual < 0:
            passed = torch.zeros_like(hidden)
        else:
            passed = given[self.residual] if self.residual < len(given) else named["residual"]
        return (passed, *[None] * (self.results - 1)) if self.results else passed


def without_attention(model: Any, layers: str) -> Any:
    """The model without attention in these layers; all weights are the same tensors."""
    parts = anatomy(model)
    chosen = numbers_of(layers, len(parts.layers), "--draft skip")
    places = attention_places(parts)
    problem = ""
    if any(number not in places for number in range(len(parts.layers))):
        problem = "not every layer of this model has an attention of its own to skip"
    elif 0 in chosen:
        problem = "the first layer's attention counts the cached tokens and stays"
    if problem:
        raise TierformError([Problem(problem, key="--draft", value=f"skip:{layers}")])
    results = _results(model, [parts.layers[number].get_submodule(places[number]) for number in sorted(chosen)])
    shared: dict[int, Any] = {id(one): one for one in (*model.parameters(), *model.buffers())}
    made = copy.deepcopy(model, shared)
    own = anatomy(made).layers
    for number, count in zip(sorted(chosen), results, strict=True):
        parent, _, name = places[number].rpartition(".")
        holder = own[number].get_submodule(parent)
        setattr(holder, name, _NoAttention(count, _residual_place(getattr(holder, name))))
    return made.eval()


def attention_places(parts: Anatomy) -> dict[int, str]:
    """By layer, the path in it of the smallest module that holds all of its attention's matrices."""
    found = {}
    for number in range(len(parts.layers)):
        begin = f"{parts.prefix}.{number}."
        names = [
            site.name.removeprefix(begin).split(".")[:-1]
            for site in parts.of_layer(number)
            if site.sublayer == "attention"
        ]
        shared = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, zip(*names, strict=False))]
        if shared:
            found[number] = ".".join(shared)
    return found


def _results(model: Any, modules: list[nn.Module]) -> list[int]:
    """How many results each module gives in a pass over two tokens; 0 where it gives a tensor alone."""
    found: dict[int, int] = {}

    def hook(module: nn.Module, _: object, out: object) -> None:
        found[id(module)] = len(out) if isinstance(out, tuple) else 0

    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        with torch.inference_mode():
            model(input_ids=torch.tensor([[0, 1]]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return [found[id(module)] for module in modules]


def _residual_place(module: nn.Module) -> int:
    """The place among its arguments of the residual stream that an attention adds itself; -1 where it adds none."""
    known = list(inspect.signature(module.forward).parameters)
    return known.index("residual") if "residual" in known else -1


def at_planes(model: Any, what: str) -> Any:
    """The model with the matrices of its layers read at so many planes from a store of them."""
    made = copy.deepcopy(model)
    read_from_store(made, int(what))
    return made.eval()


def read_from_store(model: Any, planes: int) -> int:
    """Pack the matrices of a model's layers as fp16 planes, read them back at so many; the bytes of those planes."""
    from tempfile import TemporaryDirectory

    from tierform.store import Store, pack_tensors

    parts = anatomy(model)
    sites = {site.name: site for site in parts.sites}
    stacks = {
        name: one
        for name, one in parts.layers.named_parameters()
        if one.dim() == 3  # experts, one above the other
    }
    with TemporaryDirectory(prefix="tierform-planes-") as folder:
        path = Path(folder) / "weights.tfs"
        whole = chain(
            ((name, site.matrix.half().numpy()) for name, site in sites.items()),
            ((name, one.detach().flatten(0, 1).half().numpy()) for name, one in stacks.items()),
        )
        pack_tensors(whole, path)
        with Store(path) as store:

            def read(name: str) -> torch.Tensor:
                return torch.from_numpy(store.read(name, planes).astype(np.float32))

            for name, site in sites.items():
                site.set_matrix(read(name))
            with torch.no_grad():
                for name, one in stacks.items():
                    one.copy_(read(name).view(one.shape))
            return int(store.count.planes_B)
