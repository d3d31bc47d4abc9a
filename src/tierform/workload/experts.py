"""Mixture of experts: a router, the experts that tokens are sent to, and their weighted sum.

How many distinct experts a pass touches is its expected value when each token picks k of E experts uniformly and
independently: E (1 - (1 - k/E)^tokens), rounded.  The tokens * k assignments are shared out evenly, so that the number
of multiply-accumulates is exact; where they do not divide, some experts take one row more and are operators of their
own. Real routing is less even: fewer experts are touched, and the busiest takes more rows.  Where several chips share
the experts, :mod:`tierform.workload.spread` says how many rows one of them takes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tierform.workload.expert_store import ExpertStore
from tierform.workload.layers import Pass, feed_forward_part
from tierform.workload.operator import Shard
from tierform.workload.ops import activation, add, combine, dispatch, enter, exchange, leave, linear, multiply, route
from tierform.workload.ops.linear import Experts
from tierform.workload.tape import Tape, Value

if TYPE_CHECKING:
    from tierform.workload.models import Model
    from tierform.workload.spread import Spread


def experts_touched(tokens: int, experts: int, per_token: int, store: ExpertStore | None = None) -> int:
    """Expected number of distinct experts that `tokens` tokens use, rounded to a whole number."""
    if store is not None and store.routing:
        return store.touched(tokens, experts, per_token)
    expected = experts * (1.0 - (1.0 - per_token / experts) ** tokens)
    return max(per_token, min(experts, round(expected)))


def shares(
    tokens: int, experts: int, per_token: int, split: bool = False, store: ExpertStore | None = None
) -> list[tuple[int, int]]:
    """[(number of experts, rows for each)]: all tokens * per_token assignments, evenly.

    `split` gives two groups even where all experts take the same number of rows.
    """
    touched = experts_touched(tokens, experts, per_token, store)
    rows, rest = divmod(tokens * per_token, touched)
    if split and touched > 1 and not rest:
        return [(touched - 1, rows), (1, rows)]
    return [(count, size) for count, size in ((touched - rest, rows), (rest, rows + 1)) if count and size]


def shares_of_chip(
    tokens: int, model: Model, spread: Spread, store: ExpertStore | None = None, split: bool = False
) -> list[tuple[int, int]]:
    """[(number of experts, rows for each)] of the busiest chip for `tokens` of one copy of the model."""
    chosen = model.experts_per_token
    if spread.chips == 1 and not spread.capacity:
        return shares(tokens, model.experts, chosen, split, store)
    seen = tokens * (spread.chips if spread.copies else 1)
    touched = experts_touched(seen, model.experts, chosen, store)
    return spread.shares(tokens, model.experts, chosen, touched, split)


def mixture(tape: Tape, model: Model, p: Pass, x: Value) -> Value:
    """Routed experts and, where the model has them, shared ones beside."""
    inside = enter(tape, x, p.tokens, "ffn")
    y = _routed(tape, model, p, inside, x)
    if model.shared_ffn_size:
        shared = feed_forward_part(tape, model, inside, model.shared_ffn_size, name="ffn.shared", gated=True)
        if model.shared_gate:
            gate = linear(tape, x, "ffn.shared_gate", 1, "ffn", quantizable=False)
            gate = activation(tape, gate, "ffn.shared_gate.sigmoid", "sigmoid", "ffn")
            gate = enter(tape, gate, p.tokens, "ffn.shared_gate")
            shared = multiply(tape, shared, gate, "ffn.shared_gate.multiply", "ffn")
        y = add(tape, y, shared, "ffn.shared_add", "ffn")
    return leave(tape, y, p.tokens, "ffn")


def _routed(tape: Tape, model: Model, p: Pass, x: Value, seen: Value) -> Value:
    """This chip's part of the routed experts' sum; the router sees `seen`, the tokens that this chip has outside."""
    chosen = model.experts_per_token
    logits = linear(tape, seen, "ffn.router", model.experts, "ffn", quantizable=False)
    gates = enter(tape, route(tape, logits, "ffn.routing", chosen), p.tokens, "ffn.gates")
    spread = tape.spread
    groups = shares_of_chip(p.tokens, model, spread, p.experts, p.split_experts)
    held = Experts(model.experts // spread.chips, chosen, chips=spread.chips, copies=spread.over_copies)
    whole = spread.chips > 1 and not spread.over_copies  # each chip of a tensor group has some of the experts, uncut
    suffixes = ["", *(f".rest{'' if index == 1 else index}" for index in range(1, len(groups)))]
    ways = [(count, rows, suffix) for (count, rows), suffix in zip(groups, suffixes, strict=True)]

    def product(sources: list[Value], which: str, n: int, shard: Shard) -> list[Value]:
        with tape.at_once():
            return [
                linear(
                    tape,
                    source,
                    f"ffn.experts.{which}{suffix}",
                    n,
                    "ffn",
                    rows=rows,
                    experts=replace(held, used=count),
                    weight=f"ffn.experts.{which}",
                    target=which,
                    shard=Shard.WHOLE if whole else shard,
                )
                for (count, rows, suffix), source in zip(ways, sources, strict=True)
            ]

    with tape.at_once():
        sent = [dispatch(tape, x, gates, "ffn.dispatch", count * rows, suffix) for count, rows, suffix in ways]
    if spread.over_copies:
        with tape.at_once():
            sent = [
                exchange(tape, value, f"ffn.dispatch{end}", spread.chips)
                for value, end in zip(sent, suffixes, strict=True)
            ]
    gate = product(sent, "gate", model.expert_ffn_size, Shard.OUTPUT)
    up = product(sent, "up", model.expert_ffn_size, Shard.OUTPUT)
    with tape.at_once():
        active = [
            activation(tape, value, f"ffn.experts.activation{suffix}", model.activation, "ffn")
            for value, suffix in zip(gate, suffixes, strict=True)
        ]
    with tape.at_once():
        hidden = [
            multiply(tape, a, b, f"ffn.experts.multiply{suffix}", "ffn")
            for a, b, suffix in zip(active, up, suffixes, strict=True)
        ]
    down = product(hidden, "down", model.hidden_size, Shard.INPUT)
    if spread.over_copies:
        with tape.at_once():
            down = [
                exchange(tape, value, f"ffn.combine{end}", spread.chips)
                for value, end in zip(down, suffixes, strict=True)
            ]
    return combine(tape, tuple(down), gates, "ffn.combine", x)
