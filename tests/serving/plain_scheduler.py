"""A scheduler of vLLM's semantics in plain Python, slow and short: what the compiled one is held against.

Requests are lists of tokens, blocks are objects in dictionaries and deques; nothing here is shared with the product.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class PlainEngine:
    blocks: int
    block_size: int = 16
    max_num_seqs: int = 128
    max_num_batched_tokens: int = 2048
    max_model_len: int = 1 << 30
    enable_prefix_caching: bool = False
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    scheduler_reserve_full_isl: bool = True
    async_scheduling: bool = False
    policy: str = "fcfs"
    drafts: int = 0
    acceptance: float = 0.5
    lookahead: int = 0
    seed: int = 0
    stages: int = 1
    first_ns: int = 0


def accepted_drafts(engine: PlainEngine, request: int, tokens: int, drafts: int) -> int:
    """Drafts before the first rejected one; each has a number of its own, made by SplitMix64."""
    word = (1 << 64) - 1
    start = engine.seed * 0x9E3779B97F4A7C15 + request * 0xD1B54A32D192ED03
    for place in range(drafts):
        mixed = (start + (tokens + place + 1) * 0x9E3779B97F4A7C15) & word
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & word
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & word
        mixed ^= mixed >> 31
        if (mixed >> 11) / 2**53 >= engine.acceptance:
            return place
    return drafts


@dataclass(eq=False)
class PlainRequest:
    number: int
    arrival_ns: int
    prompt: list[object]
    output: int
    priority: int = 0
    computed: int = 0
    placeholders: int = 0
    drafts: int = 0
    flying: int = 0
    generated: int = 0
    owned: list[int] = field(default_factory=list)
    cached: int = 0
    hit: int = -1
    scheduled_ns: int = -1
    first_ns: int = -1
    last_ns: int = -1
    preemptions: int = 0
    state: str = "waiting"

    @property
    def tokens(self) -> int:
        return len(self.prompt) + self.generated

    def token(self, place: int) -> object:
        return self.prompt[place] if place < len(self.prompt) else ("out", self.number, place)


@dataclass
class PlainStep:
    start_ns: int
    duration_ns: int
    entries: list[tuple[int, int, int]]  # request, new, computed
    checked: dict[int, int]  # drafts that are verified, by request
    preempted: list[int]
    free: int
    running: int
    waiting: int


class PlainPool:
    """Blocks in order of their last use, oldest first; each knows whose content it holds."""

    def __init__(self, engine: PlainEngine) -> None:
        self.size, self.caching = engine.block_size, engine.enable_prefix_caching
        self.free: dict[int, None] = dict.fromkeys(range(1, engine.blocks))
        self.uses = [0] * engine.blocks
        self.content: list[object] = [None] * engine.blocks
        self.where: dict[object, dict[int, None]] = {}
        self.hashes: dict[int, list[object]] = {}

    def key(self, request: PlainRequest, index: int) -> object:
        chain = self.hashes.setdefault(request.number, [])
        while len(chain) <= index:
            at = len(chain)
            parts = tuple(request.token(at * self.size + i) for i in range(self.size))
            chain.append(hash((chain[-1] if chain else None, parts)))
        return chain[index]

    def hits(self, request: PlainRequest) -> list[int]:
        found: list[int] = []
        if not self.caching:
            return found
        for index in range((request.tokens - 1) // self.size):
            holders = self.where.get(self.key(request, index))
            if not holders:
                break
            found.append(next(iter(holders)))
        return found

    def take(self, number: int) -> list[int]:
        taken = []
        for _ in range(number):
            block = next(iter(self.free))
            del self.free[block]
            if self.content[block] is not None:
                del self.where[self.content[block]][block]
                self.content[block] = None
            self.uses[block] = 1
            taken.append(block)
        return taken

    def touch(self, blocks: list[int]) -> None:
        for block in blocks:
            if self.uses[block] == 0:
                del self.free[block]
            self.uses[block] += 1

    def remember(self, request: PlainRequest, tokens: int) -> None:
        if not self.caching:
            return
        for index in range(request.cached, tokens // self.size):
            block, key = request.owned[index], self.key(request, index)
            self.content[block] = key
            self.where.setdefault(key, {})[block] = None
        request.cached = max(request.cached, tokens // self.size)

    def give_back(self, request: PlainRequest) -> None:
        for block in reversed(request.owned):
            self.uses[block] -= 1
            if self.uses[block] == 0:
                self.free[block] = None
        request.owned, request.cached = [], 0


class PlainScheduler:
    def __init__(self, engine: PlainEngine) -> None:
        self.engine, self.pool = engine, PlainPool(engine)
        self.waiting: deque[PlainRequest] = deque()
        self.running: list[PlainRequest] = []

    def add(self, request: PlainRequest) -> None:
        self.waiting.append(request)
        self._sort()

    def _sort(self) -> None:
        if self.engine.policy == "priority":
            self.waiting = deque(sorted(self.waiting, key=lambda r: (r.priority, r.arrival_ns, r.number)))

    def _allocate(self, request: PlainRequest, new: int, hits: list[int], whole: bool, ahead: int = 0) -> bool:
        size, pool = self.engine.block_size, self.pool
        past = request.computed + len(hits) * size
        evictable = sum(1 for block in hits if pool.uses[block] == 0)
        held = len(hits) + len(request.owned)
        if whole and max(-(-request.tokens // size) - held, 0) + evictable > len(pool.free):
            return False
        need = max(-(-min(past + new + ahead, self.engine.max_model_len) // size) - held, 0)
        if need + evictable > len(pool.free):
            return False
        pool.touch(hits)
        request.owned += hits
        request.cached = max(request.cached, len(hits))
        request.owned += pool.take(need)
        pool.remember(request, min(past + new, request.tokens))
        return True

    def _preempt(self, request: PlainRequest) -> None:
        self.pool.give_back(request)
        request.computed = 0
        request.drafts = 0
        request.preemptions += 1
        request.state = "preempted"
        self.waiting.appendleft(request)
        self._sort()

    def schedule(self, now: int) -> PlainStep:
        engine, budget = self.engine, self.engine.max_num_batched_tokens
        chosen: dict[PlainRequest, tuple[int, int]] = {}
        preempted: list[int] = []
        place = 0
        while place < len(self.running) and budget > 0:
            request = self.running[place]
            done = request.computed + 2 - request.placeholders >= len(request.prompt) + request.output
            if request.placeholders > 0 and done:
                place += 1
                continue
            new = request.tokens + request.drafts + request.placeholders - request.computed
            if 0 < engine.long_prefill_token_threshold < new:
                new = engine.long_prefill_token_threshold
            new = min(new, budget, engine.max_model_len - 1 - request.computed)
            if new <= 0:
                place += 1
                continue
            fits = True
            while not self._allocate(request, new, [], False, engine.lookahead):
                if engine.policy == "priority":
                    victim = max(self.running, key=lambda r: (r.priority, r.arrival_ns))
                    self.running.remove(victim)
                    if victim in chosen:
                        budget += chosen.pop(victim)[0]
                        place -= 1
                else:
                    victim = self.running.pop()
                self._preempt(victim)
                preempted.append(victim.number)
                if victim is request:
                    fits = False
                    break
            if not fits:
                break
            chosen[request] = (new, request.computed)
            budget -= new
            place += 1
        while not preempted and self.waiting and budget > 0 and len(self.running) < engine.max_num_seqs:
            request = self.waiting[0]
            if engine.stages > 1 and request.flying:
                break
            hits = self.pool.hits(request)
            past = len(hits) * engine.block_size
            new = request.tokens - past
            if 0 < engine.long_prefill_token_threshold < new:
                new = engine.long_prefill_token_threshold
            if not engine.enable_chunked_prefill and new > budget:
                break
            new = min(new, budget)
            if not self._allocate(request, new, hits, engine.scheduler_reserve_full_isl):
                break
            self.waiting.popleft()
            self.running.append(request)
            request.state, request.computed = "running", past
            if request.hit < 0:
                request.hit, request.scheduled_ns = past, now
            chosen[request] = (new, past)
            budget -= new
        entries, checked = [], {}
        for request, (new, past) in chosen.items():
            entries.append((request.number, new, past))
            request.computed += new
            drafts = request.computed - request.tokens - request.placeholders
            if drafts >= 0:
                checked[request.number] = drafts
                request.flying += 1
                request.drafts = 0
            if engine.async_scheduling and drafts >= 0:
                request.placeholders += 1 + drafts
                request.drafts = engine.drafts
        return PlainStep(now, 0, entries, checked, preempted, len(self.pool.free), len(self.running), len(self.waiting))

    def finish(self, step: PlainStep, requests: list[PlainRequest], now: int) -> list[PlainRequest]:
        """The tokens of a step return; gives the requests that ended."""
        ended = []
        for number, _, _ in step.entries:
            request = requests[number]
            if request.state == "finished" or number not in step.checked:
                continue
            drafts = step.checked[number]
            request.flying -= 1
            kept = accepted_drafts(self.engine, number, request.tokens, drafts)
            request.generated = min(request.generated + 1 + kept, request.output)
            if request.state == "running":
                request.computed -= drafts - kept
            request.last_ns = now
            if request.first_ns < 0:
                request.first_ns = now
            if self.engine.async_scheduling:
                request.placeholders -= 1 + drafts
            elif request.state == "running":
                request.drafts = self.engine.drafts
            if request.generated >= request.output:
                if request.state == "running":
                    self.running.remove(request)
                else:
                    self.waiting.remove(request)
                request.state = "finished"
                self.pool.give_back(request)
                ended.append(request)
            elif self.engine.async_scheduling and request.state == "running":
                self.pool.remember(request, request.computed - request.placeholders)
        return ended


def reference_ns(step: PlainStep) -> int:
    """The oracle of the scheduler traces."""
    tokens = sum(new for _, new, _ in step.entries)
    contexts = sum(past + 1 for _, new, past in step.entries if new == 1)
    pairs = sum(new * past + new * (new + 1) // 2 for _, new, past in step.entries if new > 1)
    return 4_000_000 + 20_000 * tokens + 20 * contexts + 3 * pairs // 5


def run_plain(
    engine: PlainEngine, requests: list[PlainRequest], seconds: Callable[[PlainStep], int] = reference_ns
) -> list[PlainStep]:
    """Serve all requests on one replica; gives every step."""
    scheduler, steps, now, coming = PlainScheduler(engine), [], 0, 0
    in_flight: deque[tuple[PlainStep, int]] = deque()
    stage_free, host_free = [0] * engine.stages, 0
    depth = 2 if engine.async_scheduling else engine.stages
    while coming < len(requests) or scheduler.waiting or scheduler.running or in_flight:
        while coming < len(requests) and requests[coming].arrival_ns <= now:
            scheduler.add(requests[coming])
            coming += 1
        if not scheduler.waiting and not scheduler.running and not in_flight:
            now = requests[coming].arrival_ns
            continue
        if now < host_free:  # it launches the first step, whose kernels it has to load
            now = host_free
            continue
        step = scheduler.schedule(now)
        if step.entries:
            step.start_ns = max(now, stage_free[0])
            more = 0 if steps else engine.first_ns
            host_free = max(host_free, now + more)
            share = max(1, (seconds(step) + more) // engine.stages)
            end = now
            for stage in range(engine.stages):
                end = stage_free[stage] = max(end, stage_free[stage]) + share
            step.duration_ns = end - step.start_ns
            steps.append(step)
            in_flight.append((step, end))
        if in_flight and (len(in_flight) == depth or not step.entries):
            step, now = in_flight.popleft()
            scheduler.finish(step, requests, now)
    return steps
