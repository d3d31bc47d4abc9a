"""For which operators of its layer does each one wait, for how much of them, and what does it take, by hand?"""

from __future__ import annotations

from typing import Any

from tierform import load_chip
from tierform.simulation.facts import BLOCK_INPUT, PREVIOUS_INPUT, facts_of
from tierform.workload.graph import Block
from tierform.workload.operator import Kind, Operand, Operator, Origin, Phase, Role


def numbers(name: str, count: int, role: Role = Role.ACTIVATION, form: str = "int8") -> Operand:
    return Operand(name, (count,), form, role)


def operator(
    name: str, kind: Kind, inputs: list[Operand], outputs: list[Operand], *after: str, **given: Any
) -> Operator:
    sizes = {"m": 1, "n": 1, "k": 1} if kind is Kind.MATMUL else {}
    made = {"part": "ffn", "phase": Phase.FORWARD, "after": after, **sizes, **given}
    return Operator(name=name, kind=kind, inputs=tuple(inputs), outputs=tuple(outputs), **made)


WEIGHT = numbers("w", 7, Role.WEIGHT)


def sources(*operators: Operator) -> list[tuple[tuple[int, bool, float], ...]]:
    return [fact.sources for fact in facts_of(Block("layer", 1, operators))]


def test_what_does_a_layer_take_of_its_input() -> None:
    """The first input that is neither a weight nor places in a table, of all groups."""
    places = numbers("places", 3, Role.INDEX)
    given = [WEIGHT, places, numbers("x", 20), numbers("y", 90)]
    assert sources(operator("a", Kind.NORMALIZATION, given, [numbers("a.y", 5)], count=3)) == [
        ((BLOCK_INPUT, False, 60.0),)
    ]
    assert sources(operator("a", Kind.EMBEDDING, [WEIGHT, places], [numbers("a.y", 5)])) == [
        ((BLOCK_INPUT, False, 0.0),)
    ]


def test_how_much_is_taken_of_what_another_gives() -> None:
    first = operator("a", Kind.NORMALIZATION, [numbers("x", 20)], [numbers("a.y", 40), numbers("a.z", 8)], count=2)
    # A part of its 96 bytes: 10 rows of the result under its name, in three groups; both results.
    part = operator("b", Kind.ACTIVATION, [numbers("a.y", 10), numbers("w", 7)], [numbers("b.y", 6)], "a", count=3)
    both = operator("c", Kind.ACTIVATION, [numbers("a.y", 40), numbers("a.z", 8)], [numbers("c.y", 6)], "a")
    # All of it under another name; never more than there is.
    view = operator("d", Kind.ACTIVATION, [numbers("seen", 11)], [numbers("d.y", 6)], "a")
    much = operator("e", Kind.ACTIVATION, [numbers("a.y", 99)], [numbers("e.y", 6)], "a", "b")
    found = sources(first, part, both, view, much)
    assert found[1:] == [
        ((0, False, 30.0),),
        ((0, False, 48.0),),
        ((0, False, 96.0),),
        ((0, False, 96.0), (1, False, 18.0)),
    ]


def test_who_waits_for_all_chunks() -> None:
    """Products of two activations, but not for softmax or light operators; products of weights never."""
    q = operator("q", Kind.MATMUL, [numbers("x", 20), WEIGHT], [numbers("q.y", 4)])
    p = operator("p", Kind.SOFTMAX, [numbers("q.y", 4)], [numbers("p.y", 4)], "q")
    e = operator("e", Kind.ELEMENTWISE, [numbers("q.y", 4)], [numbers("e.y", 4)], "q")
    n = operator("n", Kind.NORMALIZATION, [numbers("q.y", 4)], [numbers("n.y", 4)], "q")
    both = operator("both", Kind.MATMUL, [numbers("p.y", 4), numbers("q.y", 4)], [numbers("s", 9)], "q", "p", "e", "n")
    held = operator("held", Kind.MATMUL, [numbers("q.y", 4), WEIGHT], [numbers("h", 9)], "q")
    alone = operator("alone", Kind.MATMUL, [numbers("x", 4), numbers("x", 4)], [numbers("g", 9)])
    found = sources(q, p, e, n, both, held, alone)
    assert [whole for _, whole, _ in found[4]] == [True, False, False, True]
    assert [found[place][0][1] for place in (0, 1, 5, 6)] == [False, False, False, True]


def test_do_gathered_weights_come_before_what_uses_them() -> None:
    """A gather may begin with the layer before; operators with weights wait for all of it, other gathers do not."""
    gather = operator(
        "g", Kind.COLLECTIVE, [numbers("w", 2, Role.WEIGHT)], [WEIGHT], ahead=True, collective="all_gather"
    )
    uses = operator("u", Kind.MATMUL, [numbers("x", 20), WEIGHT], [numbers("u.y", 4)])
    light = operator("l", Kind.ACTIVATION, [numbers("u.y", 4)], [numbers("l.y", 4)], "u")
    reduces = operator("r", Kind.COLLECTIVE, [numbers("w", 4, Role.WEIGHT)], [WEIGHT], "l", collective="all_reduce")
    assert sources(gather, uses, light, reduces) == [
        ((PREVIOUS_INPUT, False, 0.0),),
        ((BLOCK_INPUT, False, 20.0), (0, True, 0.0)),
        ((1, False, 4.0),),
        ((2, False, 4.0),),
    ]
    # Without a gather it waits for its input alone.
    assert sources(uses) == [((BLOCK_INPUT, False, 20.0),)]


def test_what_is_known_of_an_operator() -> None:
    product = operator("p", Kind.MATMUL, [numbers("x", 20), WEIGHT], [numbers("y", 4)], part="adapter")
    unpacks = operator("d", Kind.ELEMENTWISE, [WEIGHT], [numbers("w2", 9, Role.WEIGHT)], origin=Origin.DEQUANTIZE)
    sends = operator("s", Kind.COLLECTIVE, [numbers("x", 20)], [numbers("z", 20)], collective="all_reduce")
    shown = [
        (f.matmul, f.has_weight, f.adapter, f.dequantizes, f.collective)
        for f in facts_of(Block("layer", 1, (product, unpacks, sends)))
    ]
    assert shown == [
        (True, True, True, False, False),
        (False, True, False, True, False),
        (False, False, False, False, True),
    ]


def test_have_operators_of_one_shape_one_key() -> None:
    """The key stands for what the cost depends on, whatever the name, in every block; another size has another."""
    one = operator("a", Kind.MATMUL, [numbers("x", 20), WEIGHT], [numbers("y", 4)])
    same = operator("b", Kind.MATMUL, [numbers("u", 20), WEIGHT], [numbers("v", 4)])
    other = operator("c", Kind.MATMUL, [numbers("u", 21), WEIGHT], [numbers("v", 4)])
    block = Block("layer", 1, (one, same, other))
    keys = [fact.key for fact in facts_of(block)]
    assert keys[0] == keys[1] != keys[2]
    assert facts_of(Block("another", 2, (same,)))[0].key == keys[0]
    assert facts_of(block) is facts_of(block)


def test_has_what_gives_two_results_another_key_than_what_takes_two_inputs() -> None:
    """Of three equal tensors one or two may come out: twice the operations, and another cost."""
    adds = operator("add", Kind.ELEMENTWISE, [numbers("x", 8), numbers("y", 8)], [numbers("z", 8)])
    splits = operator("split", Kind.ELEMENTWISE, [numbers("x", 8)], [numbers("y", 8), numbers("z", 8)])
    assert splits.operations == 2 * adds.operations
    one, other = (fact.key for fact in facts_of(Block("layer", 1, (adds, splits))))
    assert one != other
    vector = load_chip("atleus").components["vector"]
    assert vector.cost(splits).operations == 2 * vector.cost(adds).operations
