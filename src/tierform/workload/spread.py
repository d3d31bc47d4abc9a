"""Experts spread over chips: which chips share them, how many each holds, how many rows the busiest takes.

Two ways, as serving and training do it (``expert=e`` of :class:`~tierform.workload.parallel.Parallelism`):

- over the chips of a tensor group (e = tensor): every chip sees all tokens and computes its E / e experts whole; what
  they give is a partial sum, added by the all-reduce that follows the feed-forward part anyway (vLLM).
- over e of the copies of the model (e divides data): each token's rows go to the chips that hold its experts and come
  back, two all-to-alls in each pass (GShard: Lepikhin et al., ICLR 2021; DeepSpeed-MoE: Rajbhandari et al., ICML 2022).
  Each expert is then cut by tensor parallelism as a dense layer is.

All chips wait for the one whose experts are asked for most.  Where every chip has n of E experts and t of them all are
asked for, under independent routing, a chip's number has the mean t / e and the variance of draws without putting back,
n (t / E) (1 - t / E) (E - n) / (E - 1).  The e numbers add up to t: they are like e normal ones less their mean, whose
variance is 1 - 1 / e of one's.  So the largest lies above the mean by the mean largest of e normal numbers (Blom's
approximation, 1958) times the root of n (t / E) (1 - t / E) E / (E - 1); it is at most n.

With T tokens on a copy, k experts a token and no more said, each chip takes its even share: T k / e rows of a tensor
group, T k rows of e copies.  `imbalance` is the busiest chip's share over the mean (measured, or of a model of the
router); all wait for it.  `capacity` is the factor of Switch Transformers (Fedus et al., JMLR 2022): each expert has a
buffer of capacity * T k / E rows, which is padded and beyond which tokens are dropped: the chips do the same work
whatever the router says.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

from tierform.errors import Problem

if TYPE_CHECKING:
    from tierform.workload.models import Model
    from tierform.workload.parallel import Parallelism


@dataclass(frozen=True, slots=True)
class Spread:
    """Experts over `chips`; `copies`: of the copies of the model, not of a tensor group."""

    chips: int = 1
    copies: bool = False
    imbalance: float = 1.0
    capacity: float = 0.0

    @classmethod
    def of(cls, split: Parallelism) -> Spread:
        """What a split says."""
        copies = split.data > 1 and split.data % split.expert == 0 and split.expert > 1
        return cls(split.expert, copies, split.imbalance, split.capacity)

    @property
    def over_copies(self) -> bool:
        """Whether rows are exchanged."""
        return self.copies and self.chips > 1

    def shares(self, tokens: int, experts: int, per_token: int, touched: int, split: bool) -> list[tuple[int, int]]:
        """[(number of the busiest chip's experts, rows for each)] for `tokens` of one copy.

        `touched` of all `experts` are used by the tokens of all chips.
        """
        all_tokens = tokens * (self.chips if self.copies else 1)
        if self.capacity:
            rows = ceil(self.capacity * all_tokens * per_token / experts)
            return [(max(1, experts // self.chips), rows)]
        own = most_touched(touched, experts, self.chips)
        assigned = max(own, ceil(all_tokens * per_token / self.chips * self.imbalance))
        rows, rest = divmod(assigned, own)
        if split and own > 1 and not rest:
            return [(own - 1, rows), (1, rows)]
        return [(count, size) for count, size in ((own - rest, rows), (rest, rows + 1)) if count and size]


ONE_CHIP = Spread()


def most_touched(touched: int, experts: int, chips: int) -> int:
    """Experts that are asked for on the chip with most of them, expected; see the module's text."""
    held, share = experts // chips, min(1.0, touched / experts)
    spread = sqrt(held * share * (1 - share) * experts / max(experts - 1, 1))
    above = NormalDist().inv_cdf((chips - 0.375) / (chips + 0.25)) if chips > 1 else 0.0
    return max(1, min(held, round(touched / chips + above * spread)))


def expert_problems(model: Model, split: Parallelism) -> list[Problem]:
    """What spreading the experts asks for that a model does not give."""
    if split.expert == 1 and split.capacity == 0:
        return []
    if not model.experts:
        what = f"{model.name} has no experts"
        return [Problem(what, key="expert", value=split.expert, fix="Leave expert and capacity out.")]
    problems = []
    if model.experts % split.expert:
        near = max(e for e in range(1, split.expert + 1) if model.experts % e == 0)
        fix = f"Choose a divisor of {model.experts}, for example {near}."
        what = f"{model.experts} experts do not divide among {split.expert} chips"
        problems.append(Problem(what, key="expert", value=split.expert, fix=fix))
    if split.zero and Spread.of(split).over_copies:
        what = "experts that are spread over the copies are sharded already; sharded states beside that cannot be said"
        problems.append(Problem(what, key="zero", value=split.zero, fix="Leave zero at 0, or expert at 1."))
    if split.overlap and Spread.of(split).over_copies:
        what = "gradients of experts that are spread over the copies are reduced before the update"
        problems.append(Problem(what, key="overlap", value=True, fix="Leave overlap out, or expert at 1."))
    return problems
