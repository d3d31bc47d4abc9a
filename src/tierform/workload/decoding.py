"""Several tokens a step: what drafts them, how many are tried, how many are accepted, and how that is laid out.

| `draft` | the drafted tokens come from | a step costs |
|---|---|---|
| `model` | a smaller model with its own cache, a token at a time | k of its passes, a verification of k + 1 tokens |
| `planes` | the same weights, read at fewer bits | k passes with narrower weights, a verification |
| `skip` | the same model without some attention sublayers | k of its passes, a verification |
| `lookup` | earlier text with the same last words (on the host) | a verification |
| `medusa` | a head for each position on the last hidden state | the heads once, a verification of the tree |
| `eagle` | a layer and a joining matrix, a pass for each depth | those passes, a verification of the tree |
| `mtp` | a layer and a joining matrix for each position (multi-token prediction) | each of them once, a verification |
| `early-exit` | the first layers and the head: such a token is final | a part of the layers for the share that exits |

The acceptance is a number, or one for each position: the probability that a token is accepted if those before it were.
A step gives 1 + a1 + a1 a2 + ... tokens in the mean (Leviathan et al., 2023, for equal acceptance).  A tree of b1, b2,
... branches at each depth has b1 + b1 b2 + ... tokens; its acceptance is by depth, of the best branch.
Limits: sequences of a batch are verified together, each keeps its own number of tokens, and the step's mean is that of
one; an early exit does not make keys and values of the layers that it leaves out.
Sources: Leviathan et al. and Chen et al. (2023); Cai et al., Medusa (2024); Li et al., EAGLE (2024); DeepSeek-V3 (2024)
for multi-token prediction; Schuster et al., CALM (2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tierform.errors import Problem, TierformError, nearest
from tierform.workload.formats import format_of

DRAFTS = ("model", "planes", "skip", "lookup", "medusa", "eagle", "mtp", "early-exit")
TREES = ("medusa", "eagle")
MOST_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Decoding:
    """How several tokens are made in a step of decoding.

    `model` names the draft model; `planes` are the bits that a draft reads of each weight; `skip` the layers without
    attention, `exit_layer` the first layer that an early exit leaves out.  `tokens` are drafted in a step (0: as many
    as is best), or `tree` says the branches at each depth.  `acceptance` is one number or one for each position.
    `weights` is the format of a draft model's weights (empty: as the task's).
    """

    draft: Literal["model", "planes", "skip", "lookup", "medusa", "eagle", "mtp", "early-exit"]
    acceptance: tuple[float, ...] = (0.8,)
    tokens: int = 0
    tree: tuple[int, ...] = ()
    model: str = ""
    planes: int = 0
    skip: str = ""
    exit_layer: int = 0
    weights: str = ""

    def __post_init__(self) -> None:
        problems = []
        if self.draft not in DRAFTS:
            near = nearest(str(self.draft), DRAFTS)
            fix = f"Choose one of {', '.join(DRAFTS)}."
            problems.append(Problem("no such draft", key="draft", value=self.draft, nearest=near, fix=fix))
        problems += [
            Problem("an acceptance is a probability, from 0 to 1", key="acceptance", value=one)
            for one in self.acceptance
            if isinstance(one, bool) or not isinstance(one, (int, float)) or not 0 <= one <= 1
        ]
        if not self.acceptance:
            problems.append(Problem("at least one acceptance is needed", key="acceptance"))
        if not 0 <= self.tokens <= MOST_TOKENS:
            problems.append(Problem(f"0 to {MOST_TOKENS} tokens are drafted", key="tokens", value=self.tokens))
        if self.tree and (self.draft not in TREES or min(self.tree) < 1 or self.nodes > 1024):
            what = f"a tree of at most 1024 tokens is drafted by {' or '.join(TREES)}"
            problems.append(Problem(what, key="tree", value=self.tree))
        problems += self._own_problems()
        if problems:
            raise TierformError(problems)

    def _own_problems(self) -> list[Problem]:
        """What a draft needs, and what has no meaning for it."""
        owners = {"model": "model", "planes": "planes", "skip": "skip", "exit_layer": "early-exit", "weights": "model"}
        problems = []
        for key, owner in owners.items():
            value = getattr(self, key)
            if value and self.draft != owner:
                problems.append(Problem(f"has no meaning for a draft by {self.draft}", key=key, value=value))
            if not value and self.draft == owner and key != "weights":
                problems.append(Problem(f"a draft by {owner} needs it", key=key, value=value))
        if self.weights:
            try:
                format_of(self.weights)
            except TierformError as error:
                problems += error.problems
        return problems

    @property
    def positions(self) -> int:
        """Drafted tokens one after the other: the depth of the tree."""
        return len(self.tree) or max(1, self.tokens)

    @property
    def nodes(self) -> int:
        """Drafted tokens that a step verifies."""
        if not self.tree:
            return max(1, self.tokens)
        total, level = 0, 1
        for branches in self.tree:
            level *= branches
            total += level
        return total

    def tokens_a_step(self) -> float:
        """Mean tokens of a step, the target's own token among them."""
        return expected_tokens(self.acceptance, self.positions)

    def with_tokens(self, tokens: int) -> Decoding:
        """The same with another number of drafted tokens."""
        return replace(self, tokens=tokens)


def expected_tokens(acceptance: Sequence[float], tokens: int) -> float:
    """1 + a1 + a1 a2 + ...: the last given acceptance holds for all later positions."""
    total, chance = 1.0, 1.0
    for place in range(tokens):
        chance *= acceptance[min(place, len(acceptance) - 1)]
        total += chance
    return total
