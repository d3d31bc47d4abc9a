"""How fast decoding with drafts will be: its steps walked through texts that the target wrote, at measured pass times.

For every place of a text it is known, from the logits of target and draft, with which chance each drafted token is
accepted there.  A step after n of N tokens drafts d tokens, as many as are asked for, found, and still to come but one;
it takes d draft passes, a pass over d + 1 tokens and choosing them, and goes on after 1 to d + 1 tokens.  A draft whose
tokens were all accepted has not read the last of them: its next pass is over two.  The expected time from each place to
the end follows from the last place backwards.  Greedy texts are walked exactly, step by step.

Limit: behind a looked-up token that the text does not have nothing is known; it counts as rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

from tierform.decoding.measure import PassTimes

Chances = Sequence[NDArray[np.float64]]  # by place of a text: of each drafted token; NaN where it is not known


@dataclass(frozen=True, slots=True)
class Foreseen:
    """Of some texts: expected seconds, generated tokens, and drafted tokens that were looked at and accepted."""

    seconds: float
    tokens: int
    tried: float
    accepted: float

    @property
    def per_s(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    @property
    def acceptance(self) -> float:
        """Accepted ones of those that were looked at; 0 where nothing is drafted."""
        return self.accepted / self.tried if self.tried else 0.0


def foresee(texts: Sequence[Chances], times: PassTimes, count: int) -> Foreseen:
    """What `count` drafted tokens a step would take for these texts; the first token of each comes with its prompt."""
    found = [_walk(chances, times, count) for chances in texts]
    seconds, tried, accepted = (fsum(one[at] for one in found) for at in range(3))
    return Foreseen(seconds, sum(len(chances) - 1 for chances in texts), tried, accepted)


def best_of(texts: Sequence[Chances], times: PassTimes) -> int:
    """The number of drafted tokens with the most expected tokens a second."""
    return max(range(1, len(times.verify_s)), key=lambda count: foresee(texts, times, count).per_s)


def _walk(chances: Chances, times: PassTimes, count: int) -> tuple[float, float, float]:
    """Expected seconds, tried and accepted drafted tokens from the first place of a text to its end."""
    end = len(chances)
    ahead = np.zeros((end + 1, 2, 3))  # by whether the draft is behind
    for place in range(end - 1, 0, -1):
        drafted = min(count, end - place - 1, len(chances[place]))
        expected = np.array([[times.step_s(drafted, behind), 0.0, 0.0] for behind in (False, True)])
        reach = 1.0
        for depth, chance in enumerate(np.nan_to_num(chances[place][:drafted])):
            expected += (0.0, reach, reach * chance)
            expected += reach * (1.0 - chance) * ahead[place + depth + 1, 0]
            reach *= chance
        ahead[place] = expected + reach * ahead[place + drafted + 1, int(drafted > 0)]
    seconds, tried, accepted = ahead[1, 0] if end > 1 else ahead[0, 0]
    return float(seconds), float(tried), float(accepted)
