"""What a task keeps beyond the nearest memory on purpose, and which bytes of a mixture's experts a pass fetches.

Shares of the cache and of the experts wait behind the chip's memory.  A pass that touches some of the experts fetches
those of them that are not near.  Of these bytes some wait for the router (they are *late*: nothing is computed
meanwhile), the others cross beside the computation:

- a pass that touches every expert knows what it needs, and none is late;
- else without a predictor all are late;
- with one, as many experts as are missed are fetched ahead; those not among them (1 - `ahead`) are fetched besides,
  late.

Limits: popularity is the same in every layer, the cache is static, and assignments of tokens are independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tierform.workload import Inference, Step, Workload
from tierform.workload.expert_store import ExpertStore, store_of
from tierform.workload.operator import Kind, Operator


@dataclass(frozen=True, slots=True)
class Fetched:
    """Of the bytes of experts that an operator reads: how many times as many are fetched, and how many of them late."""

    share: float
    late: float


@dataclass(frozen=True, slots=True)
class ExpertsAside:
    """A mixture's experts of which some wait behind the memory.

    `weights` names their matrices, `size_B` are the bytes of all; `experts` of a layer, of which a token takes
    `per_token`, are on `chips`; `store` says how many are near.
    """

    weights: frozenset[str]
    size_B: int
    experts: int
    per_token: int
    store: ExpertStore
    chips: int = 1

    @property
    def away(self) -> float:
        """The share of the experts that is kept away."""
        return 1.0 - self.store.near(self.experts) / self.experts

    def near(self, away_B: float) -> int:
        """Experts of a layer that are near when so many bytes of them are away."""
        room = int(self.experts * max(0.0, 1.0 - away_B / self.size_B) + 1e-6)
        return min(self.store.near(self.experts), room)

    def fetched(self, operators: Sequence[Operator], near: int) -> dict[str, Fetched]:
        """By matrix, what a block's operators fetch when the `near` most popular experts are near."""
        sent: dict[str, int] = {}
        for one in operators:
            if one.kind is Kind.MATMUL and one.weight in self.weights:
                sent[one.weight or ""] = sent.get(one.weight or "", 0) + one.count * one.m
        return {name: self._fetched(rows * self.chips / self.per_token, near) for name, rows in sent.items()}

    def _fetched(self, tokens: float, near: int) -> Fetched:
        missed = self.store.missed(tokens, self.experts, self.per_token, near)
        if self.store.touched(round(tokens), self.experts, self.per_token) == self.experts:
            return Fetched(missed, 0.0)
        late = missed * (1.0 - self.store.ahead)
        return Fetched(missed + late if self.store.ahead else missed, late)


@dataclass(frozen=True, slots=True)
class Aside:
    """Shares of parts of the footprint that a task keeps beyond the nearest memory, and its experts."""

    shares: Mapping[str, float] = field(default_factory=dict)
    experts: ExpertsAside | None = None


NONE_ASIDE = Aside()


def keeps_aside(task: object) -> bool:
    """Whether a task keeps a share of its cache or of its experts behind the chip's memory."""
    if not isinstance(task, (Inference, Step)):
        return False
    return bool(task.kv is not None and task.kv.offload) or (task.experts is not None and task.experts.cached < 1)


def aside_of(workload: Workload) -> Aside:
    """What a workload's task keeps aside: its cache, its experts."""
    task = workload.task
    if not isinstance(task, (Inference, Step)) or not keeps_aside(task):
        return NONE_ASIDE
    shares = {"kv_cache": task.kv.offload} if task.kv is not None and task.kv.offload else {}
    store = store_of(task.experts, workload.model)
    if store is None or store.cached >= 1 or not workload.model.experts:
        return Aside(shares)
    held = [weight for weight in workload.weights if weight.groups > 1]
    model, size_B = workload.model, sum(weight.size_B for weight in held)
    names = frozenset(weight.name for weight in held)
    chips = workload.parallelism.expert
    made = ExpertsAside(names, size_B, model.experts, model.experts_per_token, store, chips)
    total = workload.footprint.weights
    shares["weights"] = made.away * size_B / total if total else 0.0
    return Aside(shares, made)
