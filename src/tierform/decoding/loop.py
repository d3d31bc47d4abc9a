"""The exact speculative loop on a transformers decoder: greedy, or sampling at a temperature.

Each step drafts k tokens, runs the target once over the last token and the drafted ones, keeps what `verify` accepts
and takes one token more.  Both caches are cut back to what was kept.  One sequence at a time.
Limits: with rounding, a pass over several tokens and passes over one may differ in the last bits of a logit, so greedy
choices can differ where two tokens tie to that precision (`Generated.margins` has the distance of each choice).
"""

from __future__ import annotations

import inspect
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch

from tierform.decoding.acceptance import Probabilities, draw, verify


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen: greedily (temperature 0), or from the softmax at a temperature."""

    temperature: float = 0.0

    def probabilities(self, logits: torch.Tensor) -> Probabilities:
        """(tokens, vocabulary) of logits as probabilities; a point where the choice is greedy."""
        if self.temperature == 0:
            found = np.zeros(tuple(logits.shape))
            found[np.arange(len(logits)), logits.argmax(-1).numpy()] = 1.0
            return found
        wide = (logits.double() / self.temperature).softmax(-1).numpy()
        return np.asarray(wide / wide.sum(-1, keepdims=True))


class Draft(Protocol):
    """What proposes tokens."""

    def begin(self, prompt: list[int]) -> None:
        """Forget every text and read this prompt."""
        ...

    def propose(
        self, context: list[int], count: int, sampling: Sampling, random: np.random.Generator
    ) -> tuple[list[int], Probabilities]:
        """At most `count` tokens after the context, and the distribution that each was drawn from."""
        ...

    def keep(self, length: int) -> None:
        """Forget what lies behind so many tokens."""
        ...


@dataclass(slots=True)
class Stepper:
    """A model with its cache: what was fed, and logits of what is fed next."""

    model: Any
    cache: Any = None
    length: int = 0

    def feed(self, tokens: list[int]) -> torch.Tensor:
        """The logits (tokens, vocabulary) after each of these further tokens."""
        from transformers import DynamicCache

        if self.cache is None:
            self.cache = DynamicCache()
        with torch.inference_mode():
            given = {cache_name(self.model): self.cache, "use_cache": True}
            out = self.model(input_ids=torch.tensor([tokens]), **given)
        self.length += len(tokens)
        logits: torch.Tensor = out.logits[0].float()
        return logits

    def keep(self, length: int) -> None:
        """Cut the cache back to so many tokens."""
        if length < self.length:
            self.cache.crop(length - self.length)
            self.length = length


def cache_name(model: Any) -> str:
    """The argument under which a model takes its cache: newer versions of transformers renamed it."""
    kind: type = type(model)
    return _cache_name(kind)


@lru_cache(maxsize=16)
def _cache_name(kind: type) -> str:
    known = inspect.signature(inspect.unwrap(kind.forward)).parameters  # type: ignore[attr-defined]
    return "cache" if "cache" in known else "past_key_values"


@dataclass(slots=True)
class Generated:
    """What came out of one prompt, with what was drafted and accepted at each position, and processor time."""

    tokens: list[int] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    steps: int = 0
    prompt_s: float = 0.0
    draft_s: float = 0.0
    verify_s: float = 0.0
    seconds: float = 0.0


def generate(
    model: Any,
    prompt: list[int],
    new: int,
    *,
    draft: Draft | None = None,
    count: int = 4,
    sampling: Sampling = Sampling(),
    random: np.random.Generator | None = None,
    stop: frozenset[int] = frozenset(),
) -> Generated:
    """`new` tokens after the prompt, with drafts of `count` tokens where a draft is given."""
    random = random or np.random.default_rng(0)
    target, found = Stepper(model), Generated()
    found.tried, found.accepted = [0] * count, [0] * count
    begin = time.process_time()
    first = target.feed(prompt)[-1:]
    if draft is not None:
        draft.begin(prompt)
    found.prompt_s = time.process_time() - begin
    context = list(prompt)
    _take(found, context, int(draw(sampling.probabilities(first), random)[0]), first[0])
    begin = time.process_time()
    while len(found.tokens) < new and found.tokens[-1] not in stop:
        wanted = min(count, new - len(found.tokens) - 1) if draft is not None else 0
        drafted: list[int] = []
        q = np.zeros((0, first.shape[-1]))
        if draft is not None and wanted:
            at = time.process_time()
            drafted, q = draft.propose(context, wanted, sampling, random)
            found.draft_s += time.process_time() - at
        at = time.process_time()
        logits = target.feed([context[-1], *drafted])
        found.verify_s += time.process_time() - at
        p = sampling.probabilities(logits)
        verdict = verify(p[None], q[None], np.array([drafted], dtype=np.int64).reshape(1, len(drafted)), random)
        kept, following = int(verdict.accepted[0]), int(verdict.following[0])
        for place in range(min(kept + 1, len(drafted))):
            found.tried[place] += 1
            found.accepted[place] += place < kept
        for place, token in enumerate([*drafted[:kept], following]):
            _take(found, context, token, logits[place])
            if token in stop:
                break
        target.keep(len(context) - 1)
        if draft is not None:
            draft.keep(len(context) - 1)
        found.steps += 1
    found.seconds = time.process_time() - begin
    return found


def _take(found: Generated, context: list[int], token: int, logits: torch.Tensor) -> None:
    """Append a token, with the distance of the two largest logits that it was chosen from."""
    top = logits.topk(2).values
    found.margins.append(float(top[0] - top[1]))
    found.tokens.append(token)
    context.append(token)
