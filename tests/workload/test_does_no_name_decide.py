"""Are names identifiers only: does renaming everything change nothing, and does no code look into a name?"""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from small_models import families, has_biases, methods, recomputations, small, tuning

import tierform.workload
from tierform.workload import (
    Attention,
    BitFit,
    Block,
    BlockKind,
    Inference,
    Kind,
    MicroBatches,
    Operator,
    Origin,
    Parallelism,
    Phase,
    Role,
    Shard,
    StageKind,
    Workload,
    expand,
)
from tierform.workload.contract import check_workload, renamed
from tierform.workload.footprint import peak_B
from tierform.workload.task import Method

ROOT = Path(tierform.workload.__file__).parent


@settings(max_examples=60, deadline=None)
@given(families, methods, recomputations)
def test_renaming_everything_changes_nothing(family: str, method: Method, recomputation: str) -> None:
    if isinstance(method, BitFit) and not has_biases(family):
        return
    task = tuning(method, recomputation, batch=3)
    one = expand(small(family), task, MicroBatches(training=2), parallelism=Parallelism(2, 2))
    other = renamed(one, lambda name: f"~{name[::-1]}")
    check_workload(other)
    assert other.footprint == one.footprint
    assert (other.macs, other.operations) == (one.macs, one.operations)
    for before, after in zip(one.occurrences(), other.occurrences(), strict=True):
        assert before[2].shape_key == after[2].shape_key
        assert (before[2].origin, before[2].shard, before[2].attention) == (
            after[2].origin,
            after[2].shard,
            after[2].attention,
        )
    for stage, same in zip(one.stages, other.stages, strict=True):
        for block, twin in zip(stage.blocks, same.blocks, strict=True):
            alone = [0] * len(block.operators)
            assert peak_B(block.operators, alone) == peak_B(twin.operators, alone)
            if stage.kind is StageKind.FORWARD:
                assert one.saved_B(block.name) == other.saved_B(twin.name)


def every(workload: Workload) -> list[tuple[StageKind, Block, Operator]]:
    return [(stage.kind, block, operator) for stage, block, operator, _ in workload.occurrences()]


@settings(max_examples=60, deadline=None)
@given(families, methods, recomputations)
def test_what_a_name_said_stands_there_as_data(family: str, method: Method, recomputation: str) -> None:
    """The names of our own operators still say it, so they can be held against the fields."""
    if isinstance(method, BitFit) and not has_biases(family):
        return
    for _, _, operator in every(expand(small(family), tuning(method, recomputation), parallelism=Parallelism(2))):
        name, origin = operator.name, operator.origin
        assert (operator.kind is Kind.COLLECTIVE) == bool(operator.collective)
        if name.endswith(".recompute"):
            assert origin is Origin.RECOMPUTED and operator.phase is Phase.BACKWARD
        elif operator.collective:
            assert origin is Origin.COLLECTIVE
        elif name.endswith(".update"):
            assert origin is Origin.UPDATE
        elif ".dequantize" in name:
            assert origin is Origin.DEQUANTIZE
        elif ".grad_weight" in name or ".grad_bias" in name:
            assert origin is Origin.WEIGHT_GRADIENT
            assert all(o.role is Role.GRADIENT and o.trainable for o in operator.outputs)
        elif ".gradient_add" in name or ".gradient_sum" in name:
            assert origin is Origin.GRADIENT_SUM
        elif ".grad_" in name:
            assert origin is Origin.INPUT_GRADIENT
        else:
            assert origin is Origin.MODEL and operator.phase is Phase.FORWARD, name
        for operand in (*operator.inputs, *operator.outputs):
            assert (operand.role is Role.MASTER_WEIGHT) == operand.name.endswith(".master")
            assert (operand.role is Role.OPTIMIZER_STATE) == (".state" in operand.name)
        core = any(word in name for word in (".scores", ".softmax", ".context", "attention.dropout", ".bias_add"))
        if core and ".gradient" not in name and not operator.collective:
            assert isinstance(operator.attention, Attention), name
            assert operator.shard is Shard.HEADS
        elif ".gradient" not in name:
            assert operator.attention is None, name


def test_a_block_knows_the_operator_whose_result_goes_on() -> None:
    """LLaMA: forward the residual after the FFN; backward the sum of the residual's and the attention's gradients."""
    workload = expand(small("llama"), tuning(tierform.workload.Full()))
    forward, backward = (next(b for b in s.blocks if b.kind is BlockKind.LAYER) for s in workload.stages[:2])
    assert forward.operators[forward.output].name == "ffn.residual"
    assert backward.operators[backward.output].outputs[0].name == "x.gradient"
    assert backward.operators[backward.output].origin is Origin.GRADIENT_SUM
    kinds = [b.kind for b in expand(small("t5"), Inference()).stages[0].blocks]
    assert kinds == [
        BlockKind.EMBEDDING,
        BlockKind.LAYER,
        BlockKind.EMBEDDING,
        BlockKind.EMBEDDING,
        BlockKind.LAYER,
        BlockKind.HEAD,
    ]


# -- the source --------------------------------------------------------------------------------------------------
LOOKS = {"startswith", "endswith", "removesuffix", "removeprefix", "partition", "rpartition", "split", "rsplit", "find"}
# A configuration's class names, module paths, plans' too, and ATen's operators are foreign words: reading them is these
# files' task.
FOREIGN = {
    "config.py",
    "matrix_formats.py",
    "models.py",
    "tracing/dispatched.py",
    "tracing/reader.py",
    "tracing/translate.py",
    "tracing/trace.py",
}


def is_name(node: ast.expr) -> bool:
    """Whether an expression is somebody's name: `x.name`, a variable called so, or text made of one."""
    if isinstance(node, ast.Attribute):
        return node.attr in ("name", "block", "weight") or is_name(node.value)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and is_name(node.func.value)
    return isinstance(node, ast.Name) and (node.id == "name" or node.id.endswith("_name"))


def is_text(node: ast.expr) -> bool:
    """Whether an expression is literal text, or a collection of it."""
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return any(is_text(item) for item in node.elts)
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def decisions(source: str) -> list[int]:
    """Lines that look into a name or compare one with literal text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOOKS:
            if is_name(node.func.value):
                found.append(node.lineno)
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(is_name(side) for side in sides) and any(is_text(side) for side in sides):
                found.append(node.lineno)
        elif isinstance(node, ast.Match) and is_name(node.subject):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_code_looks_into_a_name(path: Path) -> None:
    if path.relative_to(ROOT).as_posix() not in FOREIGN:
        assert decisions(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        'operator.name.endswith(".recompute")',
        'stage.name == "update"',
        '"lora" in operator.name',
        'name in ("q", "k")',
        'operator.name.removesuffix(".x").startswith("y")',
        'block.name.split(".")[0]',
    ],
)
def test_the_scan_finds_what_it_looks_for(line: str) -> None:
    assert decisions(f"found = {line}\n") != []


def test_the_scan_leaves_identity_alone() -> None:
    assert decisions("found = operator.name in operator.after or kind == 'x' or w.block == segment.name\n") == []


def test_a_renamed_workload_is_really_renamed() -> None:
    one = expand(small("bert"), Inference(sequence=8))
    other = renamed(one, lambda name: f"x{name}")
    names = [{o.name for _, _, o in every(w)} for w in (one, other)]
    assert names[1] == {f"x{name}" for name in names[0]}
    broken = replace(other.stages[0].blocks[0].operators[-1], after=("nobody",))
    assert broken.after == ("nobody",)
