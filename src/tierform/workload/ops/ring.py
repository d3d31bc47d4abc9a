"""Attention over tokens that several chips share: ring attention (Liu, Zaharia, Abbeel, ICLR 2024), balanced.

N chips of a context group have S / N tokens of every sequence each.  A causal sequence is cut into 2 N chunks, of which
chip i has chunks i and 2 N - 1 - i (Llama 3 herd of models, 2024, section 3.3.2): every chip then does the same work.
Keys and values go round the ring while the attention of those at hand is computed.  With s = S / N tokens on a chip

    round 0           s queries, own s keys, causal           s (s + 1) / 2 pairs
    rounds 1 .. N-1   s queries, one chunk of s / 2 keys      s^2 / 2 pairs (or s / 2 queries, all s keys: as many)

for each head: N (s (s + 1) / 2 + (N - 1) s^2 / 2) = S (S + 1) / 2 over all chips, which is what one chip does alone.
Without a mask every round has all s^2 pairs.  Partial results are merged by their log-sum-exp, in each round.

Sent in each layer are N - 1 times the keys and values of s tokens forward.  Backward they are sent round again (they
are not kept), and beside them go their gradients, which gather every chip's part on the way and end at home: N times.
The gradient of a partial result is that of the whole, so merging costs nothing backward.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tierform.workload import arithmetic
from tierform.workload.operator import Attention, Kind, Origin, Shard
from tierform.workload.ops.attention import attention_core
from tierform.workload.ops.elementwise import pass_on
from tierform.workload.reverse import Reverse
from tierform.workload.tape import Entry, Shape, Tape, Value

RING = "ring"  # the collective in which every chip sends to the next and takes from the one before


def ring_attention(
    tape: Tape,
    q: Value,
    k: Value,
    v: Value,
    core: Attention,
    name: str,
    *,
    shape: Shape,
    masked: bool,
    dropout_probability: float = 0.0,
) -> Value:
    """The weighted values of this chip's queries over the tokens of all chips, of `shape`.

    `core` is that of this chip's own tokens.
    """
    members, before = tape.context, _taken(tape)
    back = _Gradients(tape, k, v, name, members)
    sends: list[Entry] = []
    rounds: list[list[Entry]] = []
    merges: list[Entry] = []
    cores: list[int] = []
    keys, values = k, v
    result: Value | None = None
    for turn in range(members):
        following = _send(tape, keys, values, f"{name}.ring{turn + 1}", members) if turn < members - 1 else None
        sends += _taken(tape)
        own = core
        if turn:
            tape.cores += 1
            own = replace(core, number=tape.cores, keys=core.keys // 2 if masked else core.keys, causal=False)
        label = name if not turn else f"{name}.round{turn}"
        seen_k, seen_v = back.view(keys, own, turn, 0), back.view(values, own, turn, 1)
        made = attention_core(tape, q, seen_k, seen_v, own, label, shape=shape, dropout_probability=dropout_probability)
        cores.append(own.number)
        rounds.append(_taken(tape))
        result = made if result is None else _merge(tape, result, made, f"{label}.merge")
        merges += _taken(tape)
        if following is not None:
            keys, values = following
    assert result is not None
    tape.merged |= dict.fromkeys(cores, result)
    # Walked backwards: merges, then the rounds from the chip's own keys on, as forward.
    tape.steps = [*before, *sends, *(step for steps in reversed(rounds) for step in steps), *merges]
    return result


def _taken(tape: Tape) -> list[Entry]:
    """The steps that were recorded since the last call."""
    found, tape.steps = tape.steps, []
    return found


def _send(tape: Tape, k: Value, v: Value, name: str, members: int) -> tuple[Value, Value]:
    """Keys and values of the chip before; they are not kept, but sent again where backward needs them."""
    pair = [Value(f"{name}.{which}", x.shape, x.precision, cut=x.cut) for which, x in (("k", k), ("v", v))]
    tape.emit(
        name,
        Kind.COLLECTIVE,
        "attention",
        (k, v),
        pair[0],
        outputs=tuple(value.operand() for value in pair),
        saved=(pair[1],),
        per_element=0.0,
        origin=Origin.COLLECTIVE,
        shard=Shard.HEADS,
        collective=RING,
        members=members,
        again=True,
        backward=lambda reverse, gradient: None,  # gradients go round on their own
    )
    pair[1].after = pair[0].after
    for made, given in zip(pair, (k, v), strict=True):
        made.grad = given.grad
    return pair[0], pair[1]


def _merge(tape: Tape, total: Value, part: Value, name: str) -> Value:
    """Both partial results, weighted by their sums of exponentials."""
    y = tape.value(f"{name}.out", total.shape, cut=total.cut)

    def backward(reverse: Reverse, dy: Value) -> None:
        pass_on(reverse, (total, part), dy)

    cost = arithmetic.MERGE
    return tape.emit(name, Kind.ELEMENTWISE, "attention", (total, part), y, per_element=cost, backward=backward)


@dataclass(slots=True)
class _Gradients:
    """Gradients of keys and values on their way round the ring."""

    tape: Tape
    k: Value
    v: Value
    name: str
    members: int
    parts: list[Value] = field(default_factory=list)  # of the present round
    total: tuple[Value, ...] = ()

    def view(self, x: Value, core: Attention, turn: int, which: int) -> Value:
        """What a round sees of the keys (`which` 0) or values at hand; its gradient joins those under way."""
        rows = core.sequences * core.keys
        seen = x.view((rows, x.elements // x.shape[0]) if rows < x.shape[0] else None)
        last = 0 if self.k.grad else 1  # the entries of a round are walked backwards: keys come last

        def backward(reverse: Reverse, gradient: Value) -> None:
            self.parts.append(gradient)
            if which == last:
                self._pass(reverse, turn)

        return self.tape.view(x, seen, backward)

    def _pass(self, reverse: Reverse, turn: int) -> None:
        """Add this round's gradients to those that came, and send the sum on; after the last round it is home."""
        parts, self.parts = tuple(self.parts), []
        if self.total:
            whole = self.total[0]
            summed = Value(f"{self.name}.kv.gradient{turn}", whole.shape, whole.precision, whole.role, cut=whole.cut)
            rows = (sum(part.elements for part in parts),)
            reverse.emit(
                f"{self.name}.gradient{turn}",
                Kind.ELEMENTWISE,
                ((whole, rows), *parts),
                summed,
                part="attention",
                written=rows,
                per_element=arithmetic.ADD,
                origin=Origin.GRADIENT_SUM,
            )
            parts = (summed,)
        learned = [x for x in (self.k, self.v) if x.grad]
        first = reverse.gradient_of(learned[0])
        moved = Value(
            f"{self.name}.kv.gradient.ring{turn + 1}",
            (sum(x.elements for x in learned),),
            first.precision,
            first.role,
            cut=first.cut,
        )
        reverse.emit(
            f"{self.name}.gradient.ring{turn + 1}",
            Kind.COLLECTIVE,
            parts,
            moved,
            part="attention",
            per_element=0.0,
            origin=Origin.COLLECTIVE,
            shard=Shard.HEADS,
            collective=RING,
            members=self.members,
        )
        self.total = (moved,)
        if turn == self.members - 1:
            for x in learned:
                home = reverse.gradient_of(x)
                home.after = moved.after
                reverse.arrive(x, home)
