"""Requests as arrays: when each arrives, how long its prompt and its answer are, and what its prompt says.

What a prompt says is known as token ids, or as ids of its blocks (as Mooncake publishes them), or not at all.  It
matters to a prefix cache only: :meth:`Requests.block_keys` gives numbers that are equal where the tokens of a KV block
and all tokens before them are equal.  They are 57-bit hashes of the chain: of a million different blocks, two are taken
for equal with a chance of 4e-6.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tierform.errors import Problem, TierformError

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
MOST_TOKENS = 2**30


@dataclass(frozen=True)
class BlockKeys:
    """Keys of the KV blocks of prompts.

    `shared` (n,) counts the blocks of a request whose content others may have; each key stands for `1 << shift` of
    them; those of a request begin at `at` (n,).
    """

    shared: Int32
    at: Int64
    keys: Int64
    shift: int = 0


class Content(Protocol):
    """What prompts say."""

    def block_keys(self, prompt: Int64, output: Int64, block_size: int) -> BlockKeys:
        """Keys of blocks of `block_size` tokens of all requests."""
        ...

    def take(self, chosen: Int64) -> Content:
        """The content of some of the requests."""
        ...


@njit(cache=True, nogil=True)
def _mixed(value, more):  # type: ignore[no-untyped-def]
    """A number that depends on both (the finalizer of MurmurHash3, Appleby 2011)."""
    value = value * 31 + more
    value = (value ^ ((value >> 33) & 0x7FFFFFFF)) * -49064778989728563
    value = (value ^ ((value >> 33) & 0x7FFFFFFF)) * -4265267296055464877
    return value ^ ((value >> 33) & 0x7FFFFFFF)


@njit(cache=True, nogil=True)
def _chained(at, ids, every):  # type: ignore[no-untyped-def]
    """Of each request's ids, one after the other: a key after every `every` ids."""
    total = 0
    for request in range(len(at) - 1):
        total += (at[request + 1] - at[request] + every - 1) // every
    keys = np.empty(total, np.int64)
    start = np.empty(len(at) - 1, np.int64)
    place = 0
    for request in range(len(at) - 1):
        start[request] = place
        chain = np.int64(0x5851F42D4C957F2D)
        for index in range(at[request], at[request + 1]):
            chain = _mixed(chain, ids[index])
            if (index - at[request] + 1) % every == 0 or index == at[request + 1] - 1:
                keys[place] = chain & 0x1FFFFFFFFFFFFFF
                place += 1
    return start, keys


@njit(cache=True, nogil=True)
def _spanning(at, ids, shared, tokens, size):  # type: ignore[no-untyped-def]
    """Keys of blocks that lie across ids of `tokens` tokens: of each block, the pieces of ids that it holds."""
    total = 0
    for request in range(len(shared)):
        total += shared[request]
    keys = np.empty(total, np.int64)
    start = np.empty(len(shared), np.int64)
    place = 0
    for request in range(len(shared)):
        start[request] = place
        chain = np.int64(0x5851F42D4C957F2D)
        for block in range(shared[request]):
            token = block * size
            while token < (block + 1) * size:
                here = min(tokens - token % tokens, (block + 1) * size - token)
                chain = _mixed(_mixed(chain, ids[at[request] + token // tokens]), (token % tokens) * tokens + here)
                token += here
            keys[place] = chain & 0x1FFFFFFFFFFFFFF
            place += 1
    return start, keys


@dataclass(frozen=True)
class HashIds:
    """Ids of a prompt's blocks of `tokens` tokens: those of request i are ``ids[at[i]:at[i + 1]]``.

    `answers`: the ids go on over the answer, so that a later prompt that holds it finds it in a cache.
    """

    at: Int64
    ids: Int64
    tokens: int = 512
    answers: bool = False

    def block_keys(self, prompt: Int64, output: Int64, block_size: int) -> BlockKeys:
        """Keys of blocks of `block_size` tokens of all requests."""
        said = prompt + output if self.answers else prompt
        known = np.minimum(said, (self.at[1:] - self.at[:-1]) * self.tokens)
        shared = (known // block_size).astype(np.int32)
        blocks = self.tokens // block_size
        if self.tokens % block_size == 0 and blocks <= 32 and blocks & (blocks - 1) == 0:
            start, keys = _chained(self.at, self.ids, 1)
            return BlockKeys(shared, start, keys, blocks.bit_length() - 1)
        start, keys = _spanning(self.at, self.ids, shared, self.tokens, block_size)
        return BlockKeys(shared, start, keys)

    def take(self, chosen: Int64) -> HashIds:
        """The content of some of the requests."""
        at, ids = _taken(self.at, self.ids, chosen)
        return HashIds(at, ids, self.tokens, self.answers)


@dataclass(frozen=True)
class TokenIds:
    """Token ids of prompts, and of answers where these are known: those of request i are ``ids[at[i]:at[i + 1]]``."""

    at: Int64
    ids: Int64

    def block_keys(self, prompt: Int64, output: Int64, block_size: int) -> BlockKeys:
        """Keys of blocks of `block_size` tokens of all requests."""
        known = np.minimum(prompt + output, self.at[1:] - self.at[:-1])
        start, keys = _chained(self.at, self.ids, block_size)
        return BlockKeys((known // block_size).astype(np.int32), start, keys)

    def take(self, chosen: Int64) -> TokenIds:
        """The content of some of the requests."""
        return TokenIds(*_taken(self.at, self.ids, chosen))


def _taken(at: Int64, ids: Int64, chosen: Int64) -> tuple[Int64, Int64]:
    lengths = (at[1:] - at[:-1])[chosen]
    start = np.concatenate(([0], np.cumsum(lengths)))
    index = np.arange(start[-1]) + np.repeat(at[chosen] - start[:-1], lengths)
    return start, ids[index]


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests in order of arrival; arrays of one length.

    `arrival_ns` counts from the start of the trace.  `priority` is smaller for those that go first (vLLM's meaning),
    and names the class whose SLO applies.  `content` is what prompts say, where it is known.  `id` is their name in
    the trace, by default their number.

    `after` makes a closed loop: request i comes `think_ns[i]` after request ``after[i]`` is done (or refused), whenever
    that is; -1 for one that comes by itself.  `adapter` is the number of the low-rank adapter that a request asks for;
    -1 for the model as it is.  The arrival of one that follows is only its place in the order.
    """

    arrival_ns: Int64
    prompt: Int64
    output: Int64
    priority: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    content: Content | None = None
    id: tuple[str, ...] = ()
    source: str = "given"
    after: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    think_ns: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    adapter: Int64 = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        number = len(self.arrival_ns)
        for name, value in (("after", -1), ("think_ns", 0), ("adapter", -1)):
            given = np.ascontiguousarray(getattr(self, name), np.int64)
            object.__setattr__(self, name, given if len(given) else np.full(number, value, np.int64))
        for name in ("arrival_ns", "prompt", "output", "priority"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.int64))
        if len(self.priority) == 0:
            object.__setattr__(self, "priority", np.zeros(number, np.int64))
        problems = [
            Problem("arrays of one length are needed", key=name, value=len(getattr(self, name)))
            for name in ("prompt", "output", "priority", "after", "think_ns", "adapter")
            if len(getattr(self, name)) != number
        ]
        if not problems:
            for name in ("arrival_ns", "prompt", "output", "think_ns"):
                values = getattr(self, name)
                if number and values.min() < 0:
                    at = int(np.argmax(values < 0))
                    problems.append(Problem(f"must not be negative (request {at})", key=name, value=int(values[at])))
                if name in ("prompt", "output") and number and values.max() > MOST_TOKENS:
                    problems.append(Problem(f"at most {MOST_TOKENS} tokens", key=name, value=int(values.max())))
            if number and (np.diff(self.arrival_ns) < 0).any():
                at = int(np.argmax(np.diff(self.arrival_ns) < 0)) + 1
                problems.append(Problem("must be in order of arrival", key="arrival_ns", value=f"request {at}"))
            problems += self._loops()
        if problems:
            raise TierformError(problems)

    def _loops(self) -> list[Problem]:
        """What is wrong with `after`: each comes after an earlier one, and two never after the same."""
        place = np.flatnonzero(self.after >= 0)
        late = place[self.after[place] >= place]
        problems = [
            Problem("must come after an earlier request", key="after", value=f"request {one}") for one in late[:1]
        ]
        if not problems and len(np.unique(self.after[place])) < len(place):
            problems.append(Problem("two requests come after the same one", key="after"))
        return problems

    def __len__(self) -> int:
        return len(self.arrival_ns)

    @property
    def seconds(self) -> float:
        """From the start to the last arrival."""
        return float(self.arrival_ns[-1]) * 1e-9 if len(self) else 0.0

    def first(self, number: int) -> Requests:
        """The first `number` requests."""
        return self.take(np.arange(min(number, len(self))))

    def take(self, chosen: Int64) -> Requests:
        """Some of the requests, in order of arrival."""
        chosen = np.sort(np.asarray(chosen, np.int64))
        place = np.full(len(self) + 1, -1)
        place[chosen] = np.arange(len(chosen))
        return Requests(
            arrival_ns=self.arrival_ns[chosen],
            prompt=self.prompt[chosen],
            output=self.output[chosen],
            priority=self.priority[chosen],
            content=self.content.take(chosen) if self.content is not None else None,
            id=tuple(self.id[int(one)] for one in chosen) if self.id else (),
            source=self.source,
            after=place[self.after[chosen]],
            think_ns=self.think_ns[chosen],
            adapter=self.adapter[chosen],
        )

    def faster(self, factor: float) -> Requests:
        """The same requests at `factor` times the load: every arrival that much earlier."""
        from dataclasses import replace

        if not factor > 0:
            raise TierformError([Problem("must be greater than 0", key="load", value=factor)])
        return replace(self, arrival_ns=np.rint(self.arrival_ns / factor).astype(np.int64))

    def block_keys(self, block_size: int) -> BlockKeys:
        """Keys of the KV blocks of all prompts; nothing is shared where no content is known."""
        if self.content is None:
            return BlockKeys(np.zeros(len(self), np.int32), np.zeros(len(self), np.int64), np.zeros(1, np.int64))
        return self.content.block_keys(self.prompt, self.output, block_size)
