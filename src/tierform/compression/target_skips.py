"""Which sublayers are left out where formats alone do not reach a target.

Where a step is bound by launches of kernels, narrower weights save next to nothing, and a sublayer that is left out
saves all its kernels.  As long as the cheapest formats everywhere miss the bound, one more sublayer is left out: the
one that loses least for what it saves, among the most promising attention and FFN sublayers by cosine
(:mod:`tierform.compression.skipping`).  What a sublayer saves is simulated once for each kind; what leaving it out
loses is measured beside those that are left out already, with the other weights as they are.

Limits: greedy; losses of formats and of sublayers are taken to add up.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from tierform.compression.sites import anatomy
from tierform.compression.skipping import EXCHANGED, Trials
from tierform.errors import fail

WINDOWS = 4
Reached = Callable[[tuple[str, ...]], tuple[float, float]]
Say = Callable[[str], None]


def leave_out(
    model: nn.Module, windows: Tensor, begin: tuple[str, ...], kinds: dict[str, str], reached: Reached, say: Say
) -> tuple[str, ...]:
    """`begin` and as many more sublayers as the bound needs; TierformError where all would not do.

    `kinds` says of each sublayer that may go whether it is an attention or an FFN.  `reached` tells, of a model without
    these sublayers, the bounded figure in the cheapest formats, and the bound.
    """
    trials = Trials(model, windows[:WINDOWS])
    trials.left_out |= set(begin)
    try:
        left_out = begin
        found, bound = reached(left_out)
        saved: dict[str, float] = {}
        while found > bound:
            turned = trials.settle()
            least = trials.loss()
            candidates: list[str] = []
            for kind in dict.fromkeys(kinds.values()):
                own = [one for one, mine in kinds.items() if mine == kind and one not in left_out]
                own.sort(key=turned.__getitem__)
                if own and kind not in saved:
                    saved[kind] = found - reached((*left_out, own[-1]))[0]
                if len(own) > 1 and saved.get(kind, 0.0) > 0:  # the last one of a kind stays
                    candidates += own[-EXCHANGED:]
            if not candidates:
                fail("not even without most sublayers is the bound kept", key="--target", value=f"{found:.4g}")
            losses: dict[str, float] = {}
            for name in candidates:
                trials.left_out.add(name)
                losses[name] = trials.loss() - least
                trials.left_out.discard(name)
            name = min(losses, key=lambda one: _price(losses[one], saved[kinds[one]]))
            trials.left_out.add(name)
            left_out = (*left_out, name)
            found, bound = reached(left_out)
            say(f"leaving out {name}: {losses[name]:+.3f} nats a token")
        return left_out
    finally:
        trials.close()


def _price(lost: float, saved: float) -> float:
    """Loss for what is saved; of gains, the one that saves most."""
    return lost / saved if lost > 0 else lost * saved


def kinds_of(model: nn.Module) -> dict[str, str]:
    """Every sublayer that may be left out and its kind: the first layer stays, as caches are counted there."""
    return {name: site.sublayer for name, site in anatomy(model).sublayers.items() if site.layer > 0}
