"""What a cache of keys and values keeps, and in which units.

- `window` and `sinks`: the last tokens, and the first ones (StreamingLLM: Xiao et al., 2024).  The prompt is read in
  the same window.
- `heavy`: tokens that got the most attention so far (H2O: Zhang et al., 2023).  Each step adds its probabilities to a
  score of every token and takes the least one out: a kernel of its own over heads and tokens.
- `whole`: the share of heads of keys that keep every token, beside others that keep `window` and `sinks` alone
  (DuoAttention: Xiao et al., 2024).  Tokens kept are the mean over heads, in bytes and in the keys that are read.
- `budget`: no more tokens than this, by any rule that costs nothing (SnapKV-like eviction after the prompt).
- `block`: tokens of a page; a sequence keeps whole pages (PagedAttention: Kwon et al., 2023).
- `offload`: the share of the cache that waits in the tier behind the chip's memory and is read for every step.

What is kept bounds the keys that a new token sees, the bytes, and the context that fits.  A model's own sliding window
holds beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tierform.errors import Problem, TierformError
from tierform.workload.shares import share_problems

SCORE_OPERATIONS = 2.0  # add the probability, compare for the least


@dataclass(frozen=True, slots=True)
class KVPolicy:
    """What the cache keeps: 0 is no limit.

    `window` last tokens, `sinks` first ones, `heavy` hitters, at most `budget` tokens; in pages of `block` tokens;
    `offload` is the share that waits behind the chip's memory, `whole` the share of heads that keep every token.
    """

    window: int = 0
    sinks: int = 0
    heavy: int = 0
    budget: int = 0
    block: int = 1
    offload: float = 0.0
    whole: float = 0.0

    def __post_init__(self) -> None:
        problems = []
        for key in ("window", "sinks", "heavy", "budget", "block"):
            value, least = getattr(self, key), int(key == "block")
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                problems.append(Problem(f"must be a whole number of at least {least}", key=key, value=value))
        if not problems and (self.sinks or self.heavy) and not (self.window or self.budget):
            what = "a cache that keeps first tokens or heavy hitters keeps a window of the last ones, too"
            problems.append(Problem(what, key="window", value=self.window, fix="Give window, at least 1."))
        if not problems and self.budget and self.window and self.budget < self.window + self.sinks + self.heavy:
            what = "the budget is smaller than window, sinks and heavy hitters together"
            problems.append(Problem(what, key="budget", value=self.budget))
        problems += share_problems(self, "offload", "whole")
        if not problems and self.whole and not self.window:
            what, fix = "heads that keep every token stand beside others with a window", "Give window, at least 1."
            problems.append(Problem(what, key="window", value=self.window, fix=fix))
        if problems:
            raise TierformError(problems)

    def kept(self, tokens: int) -> int:
        """Tokens that stay of so many."""
        limit = self.window + self.sinks + self.heavy if self.window else self.budget
        few = min(tokens, limit) if limit else tokens
        return few + round(self.whole * (tokens - few))

    def held(self, tokens: int) -> int:
        """Places for tokens in whole pages."""
        return -(-self.kept(tokens) // self.block) * self.block
