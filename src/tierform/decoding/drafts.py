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
Source of lookup: Saxena, Prompt Lookup Decoding (2023).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tierform.compression.checkpoints.folder import load_language_model, load_tokenizer
from tierform.compression.sites import anatomy
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
    seen: int = 0

    @classmethod
    def of(cls, model: Any) -> ModelDraft:
        """A draft by this model."""
        return cls(Stepper(model))

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
    _unused: list[int] = field(default_factory=list)

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
    """In the place of an attention sublayer that is left out."""

    def forward(self, hidden_states: torch.Tensor, *given: object, **named: object) -> tuple[torch.Tensor, None]:
        """Nothing is added to the residual stream."""
        return torch.zeros_like(hidden_states), None


def without_attention(model: Any, layers: str) -> Any:
    """The model without attention in these layers; all weights are the same tensors."""
    parts = anatomy(model)
    chosen = numbers_of(layers, len(parts.layers), "--draft skip")
    problem = ""
    if any("self_attn" not in dict(layer.named_children()) for layer in parts.layers):
        problem = "layers of this model have no attention of their own to skip (those of Llama and its kin have)"
    elif 0 in chosen:
        problem = "the first layer's attention counts the cached tokens and stays"
    if problem:
        raise TierformError([Problem(problem, key="--draft", value=f"skip:{layers}")])
    shared: dict[int, Any] = {id(one): one for one in (*model.parameters(), *model.buffers())}
    made = copy.deepcopy(model, shared)
    own = anatomy(made).layers
    for number in sorted(chosen):
        own[number].self_attn = _NoAttention()
    return made.eval()


def at_planes(model: Any, what: str) -> Any:
    """The model with the matrices of its layers read at so many planes from a store of them."""
    made = copy.deepcopy(model)
    read_from_store(made, int(what))
    return made.eval()


def read_from_store(model: Any, planes: int) -> int:
    """Pack the matrices of a model's layers as fp16 planes, read them back at so many; the bytes of those planes."""
    from tempfile import TemporaryDirectory

    from tierform.store import Store, pack_tensors

    sites = anatomy(model).sites
    with TemporaryDirectory(prefix="tierform-planes-") as folder:
        path = Path(folder) / "weights.tfs"
        pack_tensors(((site.name, site.matrix.half().numpy()) for site in sites), path)
        with Store(path) as store:
            for site in sites:
                site.set_matrix(torch.from_numpy(store.read(site.name, planes).astype(np.float32)))
            return int(store.count.planes_B)
