"""Have the operands of every product the sizes that it multiplies, and does the contract notice each broken graph?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
from small_models import CONFIGS, METHODS, has_biases, small, tuning

from tierform.workload import (
    BitFit,
    FineTuning,
    Inference,
    Kind,
    Operand,
    Operator,
    Parallelism,
    SequenceGroup,
    Step,
    Task,
    Workload,
    expand,
)
from tierform.workload.contract import check_workload, renamed


def tasks(family: str) -> list[Task]:
    model = small(family)
    found: list[Task] = [Inference(batch=2, sequence=9, decode=3 if model.generative else 0)]
    if model.generative and family != "t5":  # which reads one sequence and writes another
        found.append(Step((SequenceGroup(2, 1, 7), SequenceGroup(1, 5, 0), SequenceGroup(3, 2, 4))))
    for method in METHODS:
        if not isinstance(method, BitFit) or has_biases(family):
            found += [tuning(method, mode, batch=3, sequence=10) for mode in ("none", "full")]
    return found


def shares_keys(operator: Operator) -> Fraction:
    """Of so many heads one has keys and values of its own."""
    record = operator.attention
    return Fraction(record.kv_heads, record.heads) if record is not None else Fraction(1)


@pytest.mark.parametrize("tensor", [1, 2])
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_are_m_k_and_k_n_and_m_n_numbers_multiplied(family: str, tensor: int) -> None:
    """Of each group `batch` times; heads of queries that share keys have one set of them among the operands."""
    found = 0
    for task in tasks(family):
        for _, block, operator, _ in expand(small(family), task, parallelism=Parallelism(tensor)).occurrences():
            if operator.kind is not Kind.MATMUL:
                continue
            found += 1
            b, m, n, k = operator.batch, operator.m, operator.n, operator.k
            sizes = [operator.inputs[0].elements, operator.inputs[1].elements, operator.outputs[0].elements]
            whole = [b * m * k, b * k * n, b * m * n]
            ratios = [Fraction(size, one) for size, one in zip(sizes, whole, strict=True)]
            shared = shares_keys(operator)
            assert ratios in ([1, 1, 1], [1, shared, 1], [1, 1, shared]), f"{block.name}/{operator.name}: {ratios}"
    assert found > 100


# -- the contract ---------------------------------------------------------------------------------------------------
WORK = expand(small("llama"), FineTuning(batch=2, sequence=8))


def changed(place: int, change: Callable[[Operator], Operator], work: Workload = WORK) -> Workload:
    """The workload with one operator of its second block (a layer) changed."""
    first = work.stages[0]
    block = first.waves[0].blocks[1]
    operators = list(block.operators)
    operators[place] = change(operators[place])
    blocks = (first.waves[0].blocks[0], replace(block, operators=tuple(operators)), *first.waves[0].blocks[2:])
    stage = replace(first, waves=(replace(first.waves[0], blocks=blocks),))
    return replace(work, stages=(stage, *work.stages[1:]))


def number_of(kind: Kind) -> int:
    return next(n for n, o in enumerate(WORK.stages[0].waves[0].blocks[1].operators) if o.kind is kind)


PRODUCT, LIGHT = number_of(Kind.MATMUL), number_of(Kind.NORMALIZATION)


def empty(operator: Operator) -> Operator:
    return replace(operator, inputs=(*operator.inputs, Operand("nothing", (3, 0), "bf16", operator.inputs[0].role)))


@pytest.mark.parametrize(
    ("place", "change", "told"),
    [
        (1, lambda o: replace(o, name=WORK.stages[0].waves[0].blocks[1].operators[0].name), "the name is taken"),
        (0, lambda o: replace(o, after=("later",)), "comes later"),
        (PRODUCT, lambda o: replace(o, weight="nobody's"), "unknown weight nobody's"),
        *((PRODUCT, lambda o, key=key: replace(o, **{key: 0}), "a size below 1") for key in ("batch", "m", "n", "k")),
        (PRODUCT, lambda o: replace(o, count=0), "a size below 1"),
        (PRODUCT, lambda o: replace(o, n=o.n + 1), "the result is too small"),
        (LIGHT, lambda o: replace(o, m=1, n=1, k=1), "multiply-accumulates outside a matmul"),
        (LIGHT, empty, "nothing has an empty shape"),
    ],
)
def test_is_a_broken_operator_noticed(place: int, change: Callable[[Operator], Operator], told: str) -> None:
    check_workload(WORK)
    with pytest.raises(AssertionError, match=told):
        check_workload(changed(place, change))


def test_is_a_broken_block_noticed() -> None:
    first = WORK.stages[0]
    blocks = first.waves[0].blocks
    for broken, told in (
        ((*blocks, blocks[0]), "two blocks of one name"),
        ((replace(blocks[0], count=0), *blocks[1:]), "an empty block"),
        ((replace(blocks[0], operators=()), *blocks[1:]), "an empty block"),
    ):
        stage = replace(first, waves=(replace(first.waves[0], blocks=broken),))
        with pytest.raises(AssertionError, match=told):
            check_workload(replace(WORK, stages=(stage, *WORK.stages[1:])))


@pytest.mark.parametrize(("key", "told"), [("parameters", "to parameters"), ("trainable_parameters", "trainable")])
def test_are_wrong_totals_noticed(key: str, told: str) -> None:
    for more in (1, -1):
        with pytest.raises(AssertionError, match=told):
            check_workload(replace(WORK, **{key: getattr(WORK, key) + more}))


def test_has_a_renamed_workload_other_names_and_nothing_else() -> None:
    """Turned round twice every name is what it was; once, no name is."""
    turned = renamed(WORK, lambda name: name[::-1] + "'")
    check_workload(turned)
    assert renamed(turned, lambda name: name[-2::-1]) == WORK

    def names(work: Workload) -> set[str]:
        found = {weight.name for weight in work.weights} | {weight.block for weight in work.weights}
        found |= {item.block for item in work.memory} | {stage.name for stage in work.stages}
        for _, block, operator, _ in work.occurrences():
            found |= {block.name, operator.name, *operator.after, *([operator.weight] if operator.weight else [])}
            found |= {operand.name for operand in (*operator.inputs, *operator.outputs)}
        return found

    assert names(turned) == {name[::-1] + "'" for name in names(WORK)}
