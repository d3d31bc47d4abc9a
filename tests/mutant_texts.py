"""Mutants of source files, made by cosmic-ray: which there are, what their texts are, and which code differs.

A change that changes no program is no mutant: in an annotation; in what only a type checker imports; `is None` and
`== None`, which are the same for everything but arrays.
"""

from __future__ import annotations

import ast
import gc
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
# What is changed: folders and files of src/tierform.
CHANGED = (
    "workload",
    "mapping",
    "simulation",
    "report/tables.py",
    "chip/gpu/fusion.py",
    "chip/gpu/flash.py",
    "chip/gpu/device.py",
    "chip/crossbar/component.py",
    "chip/systolic/component.py",
    "chip/vector.py",
    "chip/pim.py",
)
LEFT_OUT = ("workload/tracing", "workload/families", "simulation/job_file.py", "simulation/cycle_fidelity.py")
# Changed lines that give the same figures, and why; they are told and not counted.
EQUIVALENT = {
    "rows = logits.elements / logits.shape[-1]": "a whole number of rows: the division is exact",
    "short = whole and left == groups - 1 - len(ends) and layers > 0": "never fewer are left than groups need",
}
# Operators of cosmic-ray that change what is computed; decorators, names of exceptions and types are left alone.
OPERATORS = (
    "BinaryOperator",
    "ComparisonOperator",
    "NumberReplacer",
    "UnaryOperator",
    "BooleanReplacer",
    "Conditional",
)


def files() -> Iterator[str]:
    """Every file that is changed, from the root of the project."""
    source = ROOT / "src" / "tierform"
    for path in sorted(source.rglob("*.py")):
        name = path.relative_to(source).as_posix()
        if any(name == key or name.startswith(f"{key}/") for key in CHANGED) and not name.startswith(LEFT_OUT):
            yield path.relative_to(ROOT).as_posix()


class Mutant(NamedTuple):
    """An operator of cosmic-ray, at one of the places of a file where it applies."""

    path: str
    operator: str
    place: int

    def made_in(self, text: str) -> str:
        """The text of the file with the mutant in it."""
        from cosmic_ray.mutating import mutate_code
        from cosmic_ray.plugins import get_operator

        return str(mutate_code(text, get_operator(self.operator)(), self.place) or text)


def mutants(path: str) -> list[Mutant]:
    """Every mutant of a file."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast((ROOT / path).read_text())))
    found: list[Mutant] = []
    for name in sorted(operator_names()):
        if any(wanted in name for wanted in OPERATORS):
            operator = get_operator(name)()
            number = sum(len(list(operator.mutation_positions(node))) for node in nodes)
            found += [Mutant(path, name, place) for place in range(number)]
    return found


class _Plain(ast.NodeTransformer):
    """Takes away what does not change a program."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST:
        return ast.Pass() if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        none = [isinstance(other, ast.Constant) and other.value is None for other in node.comparators]
        same: dict[type[ast.cmpop], ast.cmpop] = {ast.Is: ast.Eq(), ast.IsNot: ast.NotEq()}
        node.ops = [same.get(type(op), op) if given else op for op, given in zip(node.ops, none, strict=True)]
        return self.generic_visit(node)


def does_nothing(before: str, after: str) -> bool:
    """Whether two texts are the same program, or the second is none."""
    try:
        ast.parse(after)
    except SyntaxError:  # ``**`` before a dictionary is taken for a power
        return True
    one, other = (ast.dump(_Plain().visit(ast.parse(text))) for text in (before, after))
    return one == other


# How many results are remembered: one more or less changes no figure.
REMEMBERED = re.compile(r"Bounded\([\d_]+\)|^_FUSED_KEPT = \d+")


def why_equivalent(before: str, after: str) -> str:
    """Why a mutant gives the same figures; empty where that is not known."""
    old = before.splitlines()
    changed = next((line.strip() for line in after.splitlines() if line not in old), "")
    if REMEMBERED.search(changed):
        return "how much is remembered decides no figure"
    return EQUIVALENT.get(changed, "")


def changed_lines(before: str, after: str) -> str:
    """What differs, as lines with - and +."""
    import difflib

    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++")))


def statement(before: str, after: str) -> list[range]:
    """The lines of the innermost statement that differs, without statements in it; then those of its function."""
    old, new = before.splitlines(), after.splitlines()
    line = next(place for place, pair in enumerate(itertools.zip_longest(old, new), 1) if pair[0] != pair[1])
    around = [
        node
        for node in ast.walk(ast.parse(before))
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    inner = max(around, key=lambda node: node.lineno)
    inside = [node.lineno for node in ast.walk(inner) if isinstance(node, ast.stmt) and node.lineno > inner.lineno]
    parts = [range(inner.lineno, min(inside, default=(inner.end_lineno or line) + 1))]
    functions = [node for node in around if isinstance(node, ast.FunctionDef)]
    if functions:
        function = max(functions, key=lambda node: node.lineno)
        parts.append(range(function.body[0].lineno, (function.end_lineno or line) + 1))
    return parts


def _functions(code: CodeType) -> Iterator[CodeType]:
    """The code of every function that a module defines, not of those within functions."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_flags & 0x2:  # its names are local: a function, not the body of a class
                yield constant
            else:
                yield from _functions(constant)


def _body(code: CodeType) -> tuple[object, ...]:
    """What a module does by itself, without the insides of its functions."""
    constants = tuple(
        value if not isinstance(value, CodeType) else None if value.co_flags & 0x2 else _body(value)
        for value in code.co_consts
    )
    return code.co_code, code.co_names, tuple(map(repr, constants))


Exchange = tuple[CodeType, CodeType]


def exchanged(file: str, before: str, after: str) -> list[Exchange] | None:
    """The code of functions before and after; None where more than functions differ."""
    one, other = compile(before, file, "exec"), compile(after, file, "exec")
    if _body(one) != _body(other):
        return None
    pairs = list(zip(_functions(one), _functions(other), strict=True))
    differ = [(old, new) for old, new in pairs if old != new]
    if any(old.co_freevars != new.co_freevars or old.co_name.startswith("<") for old, new in differ):
        return None
    return differ or None


def put_in_place(exchange: list[Exchange]) -> bool:
    """Exchange the code of functions; False where a loaded module has none with such code."""
    file = exchange[0][0].co_filename
    loaded = [thing for thing in gc.get_objects() if isinstance(thing, FunctionType)]
    loaded = [thing for thing in loaded if thing.__code__.co_filename == file]
    found = set()
    for thing in loaded:
        for old, new in exchange:
            if thing.__code__ == old:
                thing.__code__ = new
                found.add(old)
    return not loaded or len(found) == len(exchange)
