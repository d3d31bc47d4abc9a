"""How many bytes are alive at one operator, and what of a table does a chip hold and read?  Every figure by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tierform.workload.footprint import peak_B
from tierform.workload.operator import Kind, Operand, Operator, Phase, Role, Shard
from tierform.workload.ops.embedding import embedding
from tierform.workload.tape import Formats, Learning, Tape


def numbers(name: str, count: int, role: Role = Role.ACTIVATION, **given: Any) -> Operand:
    return Operand(name, (count,), "int8", role, **given)


def step(inputs: list[Operand], outputs: list[Operand], count: int = 1) -> Operator:
    name, kind = outputs[0].name, Kind.ACTIVATION
    return Operator(name, kind, "ffn", Phase.FORWARD, tuple(inputs), tuple(outputs), count=count)


X, A, B, Y = numbers("x", 50), numbers("a", 40), numbers("b", 60), numbers("y", 10)
# x -> a -> b -> y: at the three operators 50 + 40, 40 + 60 and 60 + 10 bytes are alive.
CHAIN = [step([X], [A]), step([A], [B]), step([B], [Y])]
FAR = int("1000")


@pytest.mark.parametrize(
    ("together", "peak"),
    [
        ((0, 0, 0), 100),
        ((1, 2, 3), 100),
        ((3, 2, 1), 100),
        ((1, 1, 0), 50 + 40 + 60),
        ((2, 1, 1), 40 + 60 + 10),
        ((0, 3, 3), 40 + 60 + 10),
        ((1, 1, 1), 50 + 40 + 60 + 10),
        ((FAR, 2 * FAR - 1000, 0), 50 + 40 + 60),  # one number, whatever object holds it
    ],
)
def test_is_the_peak_that_of_what_runs_at_once(together: tuple[int, ...], peak: int) -> None:
    assert peak_B(CHAIN, together) == peak


def test_is_what_is_alive_at_one_operator_all_that_counts() -> None:
    """Weights, indices and gradients of weights are counted elsewhere; gradients of activations are alive here."""
    weight = numbers("w", 1000, Role.WEIGHT)
    learned = numbers("w.gradient", 1000, Role.GRADIENT, trainable=True)
    index = numbers("places", 1000, Role.INDEX)
    arriving, leaving = numbers("y.gradient", 30, Role.GRADIENT), numbers("x.gradient", 5, Role.GRADIENT)
    assert peak_B([step([arriving, weight, index], [leaving, learned])], [0]) == 30 + 5


def test_is_a_tensor_alive_from_its_first_operator_to_its_last() -> None:
    # x is read again by the last operator: 50 + 40 + 60 at the second, 50 + 60 + 10 at the last.
    assert peak_B([*CHAIN[:2], step([B, X], [Y])], [0, 0, 0]) == 50 + 40 + 60
    # One that is written in parts is as large as its largest; three equal groups have three of each.
    assert peak_B([step([numbers("x", 20)], [A]), step([X], [B])], [0, 0]) == 50 + 60
    assert peak_B([step([X], [A], count=3), step([A], [Y])], [0, 0]) == 3 * (50 + 40)


def test_is_nothing_counted_that_is_kept_or_hidden() -> None:
    assert peak_B(CHAIN, (0, 0, 0), kept=frozenset({"b"})) == 50 + 40
    assert peak_B(CHAIN, (0, 0, 0), hidden=frozenset({"a", "b"})) == 50
    assert peak_B([], []) == 0


FORMATS = Formats(*["int8"] * 10)


@pytest.mark.parametrize(
    ("shard", "held", "read", "made"),
    [
        # 10 rows of 6 numbers, 7 of them looked up, on 4 chips: 3 rows (of 10 / 4) or 2 columns (of 6 / 4) on each.
        (Shard.WHOLE, (10, 6), (7, 6), (7, 6)),
        (Shard.INPUT, (3, 6), (2, 6), (7, 6)),
        (Shard.HEADS, (10, 2), (7, 2), (7, 2)),
    ],
)
def test_which_part_of_a_table_does_a_chip_hold_and_read(
    shard: Shard, held: tuple[int, int], read: tuple[int, int], made: tuple[int, int]
) -> None:
    tape = Tape(FORMATS, Learning(), tensor=4)
    found = embedding(tape, "word", 10, 6, (7,), shard=shard)
    (table,), lookup = tape.parameters.values(), tape.operators[0]
    assert (table.shape, table.whole) == (held, 60)
    assert [one.shape for one in lookup.inputs if one.role is Role.WEIGHT] == [read]
    assert lookup.outputs[0].shape == made
    assert replace(lookup, name="").shard is shard
    # Partial sums are added up over the chips, columns stay where they are.
    assert [one.collective for one in tape.operators[1:]] == (["all_reduce"] if shard is Shard.INPUT else [])
    assert found.cut is (shard is Shard.HEADS)
