"""Requests that are made, not recorded: arrivals at a rate, with lengths of one's own.

Arrivals: Poisson; gamma (with a coefficient of variation: above 1 they come in clumps, Wang et al., BurstGPT, 2024);
bursts (quiet and busy spells of a given ratio); a day (a sine over 24 hours, thinned from a Poisson process, Lewis and
Shedler 1979).  Lengths: fixed, or lognormal around a mean.  Sessions: each has several turns, a turn's prompt holds all
that was said before, so a prefix cache finds it.  A seed is an argument; equal seeds give equal requests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tierform.errors import Problem, TierformError, nearest
from tierform.serving.requests import HashIds, Requests

Pattern = Literal["poisson", "gamma", "bursts", "diurnal", "even"]
DAY_S = 86400.0
TURN_TOKENS = 16  # an id stands for this many tokens of a session


@dataclass(frozen=True)
class Lengths:
    """Tokens of prompts or answers: `mean`, and the coefficient of variation of a lognormal (0: all equal)."""

    mean: float
    variation: float = 0.0

    def draw(self, generator: np.random.Generator, number: int) -> NDArray[np.int64]:
        """So many lengths, each at least 1."""
        if self.variation == 0:
            return np.full(number, max(1, round(self.mean)), np.int64)
        spread = np.log1p(self.variation**2)
        drawn = generator.lognormal(np.log(self.mean) - spread / 2, np.sqrt(spread), number)
        return np.clip(np.rint(drawn), 1, 2**24).astype(np.int64)


def arrivals(
    rate: float, number: int, pattern: Pattern = "poisson", *, variation: float = 2.0, ratio: float = 5.0, seed: int = 0
) -> NDArray[np.int64]:
    """Nanoseconds at which `number` requests arrive, `rate` a second on average.

    `variation` is gamma's coefficient of variation; `ratio` that of a busy spell's rate (or of noon's) to a quiet one's
    (or midnight's).
    """
    problems = [
        Problem("must be greater than 0", key=name, value=value)
        for name, value in (("rate", rate), ("variation", variation), ("ratio", ratio))
        if not value > 0
    ]
    if number < 1:
        problems.append(Problem("at least one request is needed", key="number", value=number))
    choices = get_args(Pattern)
    if pattern not in choices:
        fix = f"Choose one of {', '.join(choices)}."
        problems.append(
            Problem("not a known choice", key="pattern", value=pattern, nearest=nearest(pattern, choices), fix=fix)
        )
    if problems:
        raise TierformError(problems)
    generator = np.random.default_rng(seed)
    if pattern == "even":
        gaps = np.full(number, 1.0 / rate)
    elif pattern == "gamma":
        shape = 1.0 / variation**2
        gaps = generator.gamma(shape, 1.0 / (rate * shape), number)
    elif pattern == "poisson":
        gaps = generator.exponential(1.0 / rate, number)
    elif pattern == "bursts":
        # Spells of about 30 requests, one in two busy.
        busy = np.repeat(np.arange(number // 30 + 1) % 2 == 1, 30)[:number]
        quiet = rate * (1 + 1 / ratio) / 2
        gaps = generator.exponential(1.0, number) / np.where(busy, quiet * ratio, quiet)
    else:
        return _diurnal(rate, number, ratio, generator)
    times = np.cumsum(gaps) - gaps[0]
    return _nanoseconds(times)


def _nanoseconds(times: NDArray[np.float64]) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.rint(times * 1e9).astype(np.int64)
    return found


def _diurnal(rate: float, number: int, ratio: float, generator: np.random.Generator) -> NDArray[np.int64]:
    """A Poisson process whose rate is a sine over a day, least at its start."""
    swing = (ratio - 1) / (ratio + 1)
    found: list[NDArray[np.float64]] = []
    have, time = 0, 0.0
    while have < number:
        steps = np.cumsum(generator.exponential(1.0 / (rate * (1 + abs(swing))), 2 * number)) + time
        time = float(steps[-1])
        share = (1 - swing * np.cos(2 * np.pi * steps / DAY_S)) / (1 + abs(swing))
        found.append(steps[generator.random(len(steps)) < share])
        have += len(found[-1])
    times = np.concatenate(found)[:number]
    return _nanoseconds(times - times[0])


def generate(
    rate: float,
    number: int,
    prompt: Lengths,
    output: Lengths,
    pattern: Pattern = "poisson",
    *,
    variation: float = 2.0,
    ratio: float = 5.0,
    seed: int = 0,
) -> Requests:
    """`number` requests at `rate` a second."""
    times = arrivals(rate, number, pattern, variation=variation, ratio=ratio, seed=seed)
    generator = np.random.default_rng([seed, 1])
    return Requests(
        arrival_ns=times,
        prompt=prompt.draw(generator, number),
        output=output.draw(generator, number),
        source=f"{pattern}, {rate:g} requests/s, seed {seed}",
    )


def with_adapters(requests: Requests, number: int, seed: int = 0) -> Requests:
    """The same requests, each asking for one of `number` adapters: the k-th most popular with a weight of 1 / k.

    Popularity falls as a power law in traces of services with many adapters (Sheng et al., S-LoRA, 2023, draw it so).
    """
    weights = 1.0 / np.arange(1, number + 1)
    chosen = np.random.default_rng([seed, 3]).choice(number, len(requests), p=weights / weights.sum())
    return replace(requests, adapter=chosen.astype(np.int64))


def sessions(
    rate: float,
    number: int,
    turns: float,
    think_s: float,
    question: Lengths,
    answer: Lengths,
    *,
    answer_s: float = 10.0,
    closed: bool = False,
    seed: int = 0,
) -> Requests:
    """`number` sessions, `rate` a second, of `turns` turns on average; each turn says again all that was said before.

    A turn begins `answer_s` (how long an answer takes) and an exponential time to think after the one before.  This is
    an open loop: answers that take longer do not delay the next turn.  In a `closed` one a turn begins an exponential
    time to think after its answer has really come.
    """
    generator = np.random.default_rng([seed, 2])
    starts = arrivals(rate, number, seed=seed)
    counts = generator.geometric(1.0 / max(turns, 1.0), number)
    times, prompts, outputs, first_id, said_ids = [], [], [], [], []
    before_it, thinks = [], []
    identity, placed = 0, 0
    for start, count in zip(starts, counts, strict=True):
        asked, answered = question.draw(generator, count), answer.draw(generator, count)
        waits = generator.exponential(think_s, count) + answer_s
        waits[0] = 0.0
        thinks.append(np.rint(np.maximum(waits - answer_s, 0.0) * 1e9).astype(np.int64))
        before_it.append(np.concatenate(([-1], np.arange(placed, placed + count - 1))).astype(np.int64))
        placed += count
        before = np.concatenate(([0], np.cumsum(asked + answered)[:-1]))
        times.append(start + np.rint(np.cumsum(waits) * 1e9).astype(np.int64))
        prompts.append(before + asked)
        outputs.append(answered)
        said_ids.append((prompts[-1] + answered + TURN_TOKENS - 1) // TURN_TOKENS)
        first_id.append(np.full(count, identity))
        identity += int(said_ids[-1][-1])
    arrival, order = np.concatenate(times), np.argsort(np.concatenate(times), kind="stable")
    lengths, begins = np.concatenate(said_ids)[order], np.concatenate(first_id)[order]
    at = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    ids = np.arange(at[-1]) - np.repeat(at[:-1] - begins, lengths)
    place = np.empty(placed + 1, np.int64)
    place[order], place[-1] = np.arange(placed), -1
    after = place[np.concatenate(before_it)[order]] if closed else np.full(placed, -1)
    return Requests(
        arrival_ns=arrival[order],
        prompt=np.concatenate(prompts)[order],
        output=np.concatenate(outputs)[order],
        content=HashIds(at, ids.astype(np.int64), TURN_TOKENS, answers=True),
        source=f"{number} sessions, {rate:g} a second, {'closed, ' if closed else ''}seed {seed}",
        after=after,
        think_ns=np.concatenate(thinks)[order] if closed else np.zeros(placed, np.int64),
    )
