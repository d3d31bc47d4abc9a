"""Does no code decide by a name or a missing attribute, and do files, records and class names stay within their limits?

The rooms that count (workload, chip, mapping, simulation) read what an operator, block or stage is from its record.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

import tierform

SOURCE = Path(tierform.__file__).parent
ROOT = SOURCE.parent.parent
TESTS = Path(__file__).parents[1]
COUNTING = ("workload", "chip", "mapping", "simulation")
# The names of files, models, formats, parameters and sections are looked up; those of what is counted are not.
OWNERS = {"operator", "operators", "block", "stage", "op", "item", "entry", "component", "part", "producer", "giver"}
TEXT = {"startswith", "endswith", "split", "partition", "rpartition", "find", "index", "removeprefix", "removesuffix"}
MOST_LINES, MOST_SKIPS, MOST_POSITIONAL = 400, 20, 6
# Objects of torch, whose attributes are another project's.
OF_TORCH = {"chip/gpu/measure.py", "workload/tracing/reader.py", "workload/tracing/translate.py"}


def _files(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (SOURCE / room).rglob("*.py"))


def _is_name(node: ast.AST) -> bool:
    """`operator.name`, `block.name`, ... of something that is counted."""
    if not isinstance(node, ast.Attribute) or node.attr != "name":
        return False
    owner = node.value
    last = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return last in OWNERS


def _decisions_by_name(tree: ast.AST) -> list[int]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            texts = [side for side in sides if isinstance(side, ast.Constant) and isinstance(side.value, str)]
            if texts and any(_is_name(side) for side in sides):
                found.append(node.lineno)
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and _is_name(called.value) and called.attr in TEXT:
            found.append(node.lineno)
        if isinstance(node, ast.Match) and _is_name(node.subject):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("room", COUNTING)
def test_does_no_code_decide_by_a_name(room: str) -> None:
    wrong = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in _files(room)
        for line in _decisions_by_name(ast.parse(path.read_text()))
    ]
    assert wrong == []


@pytest.mark.parametrize("room", (*COUNTING, "network", "memory", "thermal", "studies", "compat", "validation"))
def test_does_no_code_ask_for_an_attribute(room: str) -> None:
    wrong = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in _files(room)
        if path.relative_to(SOURCE).as_posix() not in OF_TORCH
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr"
    ]
    assert wrong == []


def test_can_the_scan_find_a_decision_by_name() -> None:
    found = _decisions_by_name(ast.parse("if operator.name == 'x' or item.operator.name.endswith('.recompute'): pass"))
    assert found == [1, 1]


def test_has_every_class_of_rooms_that_meet_a_name_of_its_own() -> None:
    """Private helpers of a file and the classes of command-line verbs are met by nobody."""
    rooms = (*COUNTING, "network", "memory", "thermal", "report", "validation")
    places = defaultdict(set)
    for path in [*_files(*rooms), *SOURCE.glob("*.py")]:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].add(path.relative_to(SOURCE).as_posix())
    twice = {name: sorted(files) for name, files in places.items() if len(files) > 1}
    assert twice == {}


def _records() -> set[str]:
    """Names of all dataclasses."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list):
                found.add(node.name)
    return found


def test_is_no_record_made_from_many_values_without_their_names() -> None:
    records, found = _records(), []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or len(node.args) <= MOST_POSITIONAL:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in records:
                found.append(f"{path.relative_to(SOURCE)}:{node.lineno} {name}")
    assert found == []


def test_does_every_file_fit_a_sitting() -> None:
    files = [*SOURCE.rglob("*.py"), *TESTS.rglob("*.py")]
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files}
    assert {name: number for name, number in lines.items() if number > MOST_LINES} == {}


def test_is_the_formatter_hardly_ever_switched_off() -> None:
    files = [*SOURCE.rglob("*.py"), *(path for path in TESTS.rglob("*.py") if path != Path(__file__))]
    skips = sum(len(re.findall(r"#\s*fmt:\s*(?:skip|off)", path.read_text())) for path in files)
    assert skips <= MOST_SKIPS
