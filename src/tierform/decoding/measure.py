"""How long passes take on this machine, and how often a draft is accepted.

Passes are timed by processor time where torch has one thread, else by the wall clock, as the median of repeats, at a
given context.  The acceptance is read off the logits of target and draft on the same text: the mean over its tokens of
the sum of min(p, q), or of equal first choices.  What follows from both is in `tierform.decoding.foreseen`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tierform.decoding.acceptance import overlap, verify
from tierform.decoding.drafts import Lookup, ModelDraft
from tierform.decoding.loop import Draft, Sampling, Stepper

REPEATS = 5
MOST = 8


def clock() -> Callable[[], float]:
    """Processor time with one thread, wall time with several."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


@dataclass(frozen=True, slots=True)
class PassTimes:
    """Seconds of a pass over 1, 2, ... tokens (`verify_s`), of one draft pass, of choosing for 1, 2, ... tokens.

    `behind_s`: what a draft's pass over two tokens takes more than over one.
    """

    verify_s: tuple[float, ...]
    draft_s: float
    choose_s: tuple[float, ...]
    behind_s: float = 0.0

    def step_s(self, count: int, behind: bool = False) -> float:
        """A step of `count` drafted tokens; a draft that is `behind` has not read its own last token yet."""
        catching_up_s = self.behind_s if behind and count else 0.0
        return count * self.draft_s + catching_up_s + self.verify_s[count] + self.choose_s[count]

    def token_s(self) -> float:
        """A token of plain decoding."""
        return self.verify_s[0] + self.choose_s[0]


def pass_times(model: Any, draft: Draft | None, context: list[int], sampling: Sampling, most: int = MOST) -> PassTimes:
    """Passes over 1 to `most` + 1 tokens after a context, a draft pass, and choosing."""
    target = Stepper(model)
    target.feed(context)
    verifying = [fed_s(target, context[: count + 1]) for count in range(most + 1)]
    draft_s = behind_s = 0.0
    if isinstance(draft, ModelDraft):
        beside = Stepper(draft.stepper.model)
        beside.feed(context)
        draft_s = fed_s(beside, context[:1])
        behind_s = max(0.0, fed_s(beside, context[:2]) - draft_s)
    choosing = [_chosen_s(model.config.vocab_size, count, sampling) for count in range(most + 1)]
    return PassTimes(tuple(verifying), draft_s, tuple(choosing), behind_s)


def fed_s(stepper: Stepper, tokens: list[int], repeats: int = REPEATS) -> float:
    """Seconds of a pass over these tokens, behind what the stepper has read: the median of repeats."""
    now, length, times = clock(), stepper.length, []
    for _ in range(repeats):
        begin = now()
        stepper.feed(tokens)
        times.append(now() - begin)
        stepper.keep(length)
    return median(times)


def _chosen_s(vocabulary: int, count: int, sampling: Sampling) -> float:
    now, random = clock(), np.random.default_rng(0)
    logits = torch.randn(count + 1, vocabulary)
    drafted = np.zeros((1, count), np.int64)
    times = []
    for _ in range(3):
        begin = now()
        p = sampling.probabilities(logits)
        q = np.stack([sampling.probabilities(logits[:1])[0] for _ in range(count)]) if count else p[:0]
        verify(p[None], q[None], drafted, random)
        times.append(now() - begin)
    return median(times)


def chances_of(
    model: Any, draft: Draft, texts: list[tuple[list[int], list[int]]], sampling: Sampling, count: int = MOST
) -> list[list[NDArray[np.float64]]]:
    """By text (prompt, what followed) and place in it: the chance of each of `count` drafted tokens to be accepted.

    They are read off the logits of target and draft on the target's own text.  A lookup is asked at each place; behind
    the first of its tokens that the text does not have nothing is known (NaN).
    """
    random = np.random.default_rng(0)
    found = []
    for prompt, answer in texts:
        p = _chances(model, prompt, answer, sampling)
        if isinstance(draft, ModelDraft):
            shared = overlap(p, _chances(draft.stepper.model, prompt, answer, sampling))
            found.append([shared[place : place + count] for place in range(len(answer))])
            continue
        assert isinstance(draft, Lookup)
        looked_up = [np.zeros(0)]  # the first token comes with the prompt
        for place in range(1, len(answer)):
            drafted, _ = draft.propose([*prompt, *answer[:place]], count, sampling, random)
            chances = np.full(len(drafted), np.nan)
            for depth, token in enumerate(drafted[: len(answer) - place]):
                chances[depth] = p[place + depth, token]
                if token != answer[place + depth]:
                    break
            looked_up.append(chances)
        found.append(looked_up)
    return found


def acceptance_of(draft: Draft, chances: list[list[NDArray[np.float64]]], count: int = MOST) -> list[float]:
    """Acceptance by position, of the chances of :func:`chances_of`.

    For a model the mean of the sum of min(p, q) is the same at each position.  A lookup is asked at each token for as
    many as `count`, and position j counts where the ones before it are right.
    """
    if isinstance(draft, ModelDraft):
        return [float(np.mean([place[0] for text in chances for place in text]))]
    known = np.full((sum(map(len, chances)), count), np.nan)
    for row, one in zip(known, (place for text in chances for place in text), strict=True):
        row[: len(one)] = one
    tried, right = (~np.isnan(known)).sum(0), np.nansum(known, 0)
    return [float(r / t) if t else 0.0 for r, t in zip(right, tried, strict=True)]


def _chances(model: Any, prompt: list[int], answer: list[int], sampling: Sampling) -> np.ndarray:
    """Distributions (tokens of the answer, vocabulary) that each token of the answer was, or would be, drawn from."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].float()
    return sampling.probabilities(logits[len(prompt) - 1 : -1])
