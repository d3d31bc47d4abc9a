"""Which format each matrix gets: the least expected loss under a bound of bits, bytes, predicted latency or energy.

    latency=0.7      at most 0.7 of the time that the model takes as it is (or 12 ms)
    energy=0.7       likewise (or 3 mJ); bytes=0.3 (or 60 MB); bits=4.2 bits a weight

Time and energy are those of one decode step, as `tierform.simulate` has them for the whole model.  What a format costs
in one matrix is the difference that it makes when all matrices of its kind have it, shared among them.  The choice is
made by a price for each unit of cost (Everett's generalized Lagrange multipliers): every matrix takes the format of
least loss plus price times cost, and the price is raised until the bound holds; what is left of the bound is spent
where it takes off most.  The whole choice is then simulated, and the bound moved by what single costs missed.

Sources: Everett (Operations Research 11, 1963); Shoham and Gersho (IEEE Trans. ASSP 36, 1988).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING

from tierform.compression.formats import FLOAT, WeightFormat
from tierform.compression.plan import MatrixPlan, Plan
from tierform.errors import fail
from tierform.units import parse_quantity

if TYPE_CHECKING:
    from tierform.chip.description import Chip
    from tierform.simulation.runtime import Runtime
    from tierform.workload import Model
    from tierform.workload.task import Step

UNITS = {"latency": "s", "energy": "J", "bytes": "B", "bits": ""}
SIMULATED = ("latency", "energy")
CANDIDATES = ("int3-g128", "int4-g128", "int5-g128", "int6-g128", "int8-g128", "float")
_ROUNDS, _HALVINGS, _CLOSE = 6, 60, 1e-4
Costs = Mapping[str, Mapping[WeightFormat, float]]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound: of what, how much, and whether that is a share of the model as it is."""

    kind: str
    bound: float
    share: bool

    @classmethod
    def parse(cls, text: str) -> Target:
        """From ``latency=0.7``, ``latency=12 ms``, ``bits=4.2``; TierformError for anything else."""
        kind, _, value = (part.strip() for part in text.partition("="))
        fix = "For example latency=0.7, energy=0.5, bytes=60 MB or bits=4.25."
        if kind not in UNITS:
            fail("no such target", key="--target", value=kind, choices=UNITS, fix=fix)
        try:
            number: float | None = float(value)
        except ValueError:
            number = None
        if number is None:
            if kind == "bits":
                fail("bits are a plain number", key="--target", value=value, fix=fix)
            return cls(kind, parse_quantity(value, UNITS[kind], key="--target"), False)
        most = 16.0 if kind == "bits" else 1.0
        if not 0 < number <= most:
            fail(f"a number above 0 and at most {most:g} is needed", key="--target", value=value, fix=fix)
        return cls(kind, number, kind != "bits")

    def __str__(self) -> str:
        unit = "" if self.share or not UNITS[self.kind] else f" {UNITS[self.kind]}"
        return f"{self.kind}={self.bound:g}{unit}"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One decode step of a model as it is stored: seconds, joules, bytes of all weights, mean bits of the matrices.

    `products_s` are the seconds of its products with weights.
    """

    latency_s: float
    energy_J: float
    size_B: float
    bits: float
    products_s: float = 0.0

    def of(self, kind: str) -> float:
        """The figure that a target of this kind bounds."""
        return {"latency": self.latency_s, "energy": self.energy_J, "bytes": self.size_B, "bits": self.bits}[kind]


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """Where a model is predicted: one new token for each of `batch` sequences of `context` tokens."""

    model: Model
    chip: Chip
    runtime: Runtime
    batch: int = 1
    context: int = 128

    @classmethod
    def of(cls, folder: Path, chip: str, runtime: str, batch: int, context: int) -> DecodeStep:
        """From a model's folder and the names of a chip and a runtime; formats of the checkpoint do not count."""
        from tierform.chip.description import load_chip
        from tierform.simulation.runtime import load_runtime
        from tierform.workload import load_model

        model = replace(load_model(folder), weights_format="", inputs_format="", matrix_formats=None)
        return cls(model, load_chip(chip), load_runtime(runtime), batch, context)

    def predict(self, plan: Plan) -> Prediction:
        """What `tierform simulate` says of the model in a plan's formats."""
        from tierform.simulation import simulate
        from tierform.workload.matrix_formats import with_plan
        from tierform.workload.task import SequenceGroup, Step

        model = with_plan(self.model, plan.to_dict())
        task = Step((SequenceGroup(self.batch, 1, self.context),))
        found = simulate(model, task, self.chip, runtime=self.runtime, thermal="none")
        products = weight_products(model, task)
        products_s = fsum(row.busy_s for row in found.operators if (row.block, row.name) in products)
        return Prediction(found.latency_s, found.energy_J, plan.size_B, plan.bits_per_weight, products_s)


def weight_products(model: Model, task: Step) -> set[tuple[str, str]]:
    """Block and name of every product with a weight, to find its row in a result."""
    from tierform.workload import expand
    from tierform.workload.operator import Kind
    from tierform.workload.quantization_config import quantized

    blocks = expand(model, quantized(task, model)).stages[0].waves[0].blocks
    return {
        (block.name, one.name) for block in blocks for one in block.operators if one.kind is Kind.MATMUL and one.weight
    }


def plan_of(whole: Plan, chosen: Mapping[str, WeightFormat]) -> Plan:
    """A plan with these formats in the place of those of `whole`."""
    matrices = {name: replace(one, format=chosen.get(name, one.format)) for name, one in whole.matrices.items()}
    return replace(whole, matrices=matrices)


def single_costs(
    step: DecodeStep, whole: Plan, kinds: Mapping[str, str], formats: Sequence[WeightFormat], target: Target
) -> dict[str, dict[WeightFormat, float]]:
    """For every matrix what each format adds to the bounded figure of the model as it is (`whole`, all float).

    `kinds` says of what kind each matrix is (q, down, head): those of a kind are simulated together.
    """
    if target.kind not in SIMULATED:
        return {
            name: {form: _stored(one, form, target.kind) for form in formats} for name, one in whole.matrices.items()
        }
    base = step.predict(whole).of(target.kind)
    number = Counter(kinds.values())
    found: dict[tuple[str, WeightFormat], float] = {}
    for kind, count in number.items():
        for form in formats:
            if form == FLOAT:
                found[kind, form] = 0.0
                continue
            plan = plan_of(whole, {name: form for name, own in kinds.items() if own == kind})
            found[kind, form] = (step.predict(plan).of(target.kind) - base) / count
    return {name: {form: found[kinds[name], form] for form in formats} for name in whole.matrices}


def _allowed(costs: Costs, losses: Costs) -> dict[str, dict[WeightFormat, float]]:
    """The costs of those formats only that a matrix may have."""
    return {name: {form: costs[name][form] for form in own} for name, own in losses.items()}


def _stored(one: MatrixPlan, form: WeightFormat, kind: str) -> float:
    weights = one.shape[0] * one.shape[1]
    bits = weights * (form.bits_per_weight(one.shape[1]) - FLOAT.bits)
    return bits / 8 if kind == "bytes" else bits


def choose(losses: Costs, costs: Costs, most: float) -> dict[str, WeightFormat]:
    """The format of every matrix: least sum of losses with a sum of costs of at most `most`.

    TierformError where no choice is so cheap.
    """
    least = fsum(min(one.values()) for one in costs.values())
    if least > most:
        fail("no choice of these formats keeps to the bound", key="--target")

    def at(price: float) -> dict[str, WeightFormat]:
        return {
            name: min(own, key=lambda form: (losses[name][form] + price * own[form], own[form]))
            for name, own in costs.items()
        }

    def spent(chosen: Mapping[str, WeightFormat]) -> float:
        return fsum(costs[name][form] for name, form in chosen.items())

    if spent(at(0.0)) <= most:
        return at(0.0)
    low, high = 0.0, 1.0
    while spent(at(high)) > most:
        low, high = high, high * 8
        if high > 1e60:  # prices so high that losses do not count
            return {name: min(own, key=own.__getitem__) for name, own in costs.items()}
    for _ in range(_HALVINGS):
        middle = (low + high) / 2 if low else high / 8
        low, high = (middle, high) if spent(at(middle)) > most else (low, middle)
    chosen = at(high)
    left = most - spent(chosen)
    while True:  # what is left goes where it takes off most
        moves = [
            ((losses[name][chosen[name]] - losses[name][form]) / asked, name, form)
            for name, own in costs.items()
            for form in own
            if 0 < (asked := own[form] - own[chosen[name]]) <= left and losses[name][form] < losses[name][chosen[name]]
        ]
        if not moves:
            return chosen
        _, name, form = max(moves, key=lambda move: move[0])
        left -= costs[name][form] - costs[name][chosen[name]]
        chosen[name] = form


def cheapest(
    step: DecodeStep, whole: Plan, kinds: Mapping[str, str], losses: Costs, target: Target
) -> tuple[Costs, Plan, Prediction]:
    """(what every format adds, the plan of the cheapest formats everywhere, its prediction)."""
    formats = list(dict.fromkeys(form for own in losses.values() for form in own))
    costs = _allowed(single_costs(step, whole, kinds, formats, target), losses)
    floor = plan_of(whole, {name: min(own, key=own.__getitem__) for name, own in costs.items()})
    return costs, floor, step.predict(floor)


def bound_of(target: Target, before: Prediction) -> float:
    """The most that the bounded figure may be, of a model that was predicted `before` anything changed."""
    bound = target.bound * before.of(target.kind) if target.share else target.bound
    return bound * (1 + _CLOSE)


def within(
    step: DecodeStep, whole: Plan, kinds: Mapping[str, str], losses: Costs, target: Target, before: Prediction
) -> tuple[Plan, Prediction]:
    """The plan within the target and its prediction; TierformError where none is.

    Shares are those of a model that was predicted `before` any of its sublayers was left out.
    """
    most = bound_of(target, before)
    bound, base = most / (1 + _CLOSE), step.predict(whole).of(target.kind)
    costs, floor, least = cheapest(step, whole, kinds, losses, target)
    weights = sum(one.shape[0] * one.shape[1] for one in whole.matrices.values())
    scale = weights if target.kind == "bits" else 1  # bits of all weights together
    if (reached := least.of(target.kind)) > most:
        fail(
            f"the cheapest of these formats everywhere gives {target.kind} {reached:.4g} {UNITS[target.kind]}, "
            f"{reached / before.of(target.kind):.3f} of the model as it is",
            key="--target",
            value=str(target),
            fix="Give a wider target, more --formats, a larger --batch, or leave sublayers out, too (--leave-out).",
        )
    missed, best = 0.0, (floor, least)
    lowest = fsum(min(one.values()) for one in costs.values())
    for _ in range(_ROUNDS):
        chosen = choose(losses, costs, max(lowest, (bound - base - missed) * scale))
        plan = plan_of(whole, chosen)
        found = step.predict(plan)
        if found.of(target.kind) <= most:
            if expected_loss(losses, plan) <= expected_loss(losses, best[0]):
                best = plan, found
            if found.of(target.kind) >= bound * (1 - 0.002):
                break
        missed += (found.of(target.kind) - bound) if found.of(target.kind) > bound else 0.0
        if found.of(target.kind) <= bound:
            break
    return best


def expected_loss(losses: Costs, plan: Plan) -> float:
    """Nats a token that the plan is expected to cost, by rounding to nearest."""
    return fsum(losses[name][one.format] for name, one in plan.matrices.items())
