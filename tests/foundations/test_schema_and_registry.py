"""Are all mistakes of a file found at once, with line, key, nearest name and fix?"""

from __future__ import annotations

from typing import Annotated

import pytest

from tierform.errors import Problem, TierformError, nearest
from tierform.files import parse_yaml
from tierform.provenance import Assumption, Constant, assumptions_first
from tierform.registry import Registry
from tierform.schema import FileModel, quantity, validate


class _Part(FileModel):
    clock: Annotated[Constant, quantity("Hz", above=0)]
    energy: Annotated[Constant, quantity("J", minimum=0)]
    lanes: int = 1


class _File(FileModel):
    name: str
    part: _Part


_GOOD = "name: x\npart:\n  clock: {value: 1 GHz, kind: published, source: isaac-2016}\n  energy: 2 pJ\n"


def test_does_a_constant_keep_its_evidence() -> None:
    part = validate(_File, parse_yaml(_GOOD, "f")).part
    assert part.clock == Constant(1e9, "Hz", "published", "isaac-2016")
    assert part.energy.kind == "assumed"
    assert part.energy.value == pytest.approx(2e-12)


def test_are_all_mistakes_reported_at_once_with_lines() -> None:
    text = "nmae: x\npart:\n  clok: 1 GHz\n  energy: -2 pJ\n  lanes: many\n"
    with pytest.raises(TierformError) as caught:
        validate(_File, parse_yaml(text, "f.yaml"))
    problems = {problem.key: problem for problem in caught.value.problems}
    assert problems["nmae"].nearest == "name"
    assert problems["nmae"].line == 1
    assert problems["part.clok"].nearest == "clock"
    assert problems["part.clok"].line == 3
    assert "at least 0" in problems["part.energy"].what
    assert problems["part.lanes"].line == 5
    assert {"name", "part.clock"} <= set(problems)


@pytest.mark.parametrize(
    ("clock", "word"),
    [
        ("1 GJ", "converts to Hz"),
        ("0 Hz", "greater than 0"),
        ("{value: 1 GHz, kind: guessed}", "kind is"),
        ("{value: 1 GHz, kind: published}", "needs a 'source'"),
        ("{value: 1 GHz, kind: assumed}", "needs a 'note'"),
        ("{kind: assumed, note: x}", "'value' is missing"),
        ("{value: 1 GHz, sorce: x}", "did you mean 'source'"),
        ("[1]", "a number with a unit"),
    ],
)
def test_is_each_wrong_constant_refused(clock: str, word: str) -> None:
    text = f"name: x\npart:\n  clock: {clock}\n  energy: 1 J\n"
    with pytest.raises(TierformError, match=word) as caught:
        validate(_File, parse_yaml(text, "f"))
    assert caught.value.problems[0].line == 3


def test_is_a_file_that_is_no_mapping_refused() -> None:
    for text in ("", "- 1\n", "just text\n"):
        with pytest.raises(TierformError, match="keys with values"):
            validate(_File, parse_yaml(text, "f"))


def test_does_a_registry_load_lazily_and_refuse_collisions() -> None:
    parts = Registry("shape", "tierform.no-such-group", {"path": "pathlib:Path", "broken": "no_such_module:x"})
    assert parts.get("path").__name__ == "Path"
    assert "path" in parts
    assert sorted(parts) == ["broken", "path"]
    with pytest.raises(TierformError, match="already registered"):
        parts.register("path", "os:sep")
    parts.register("mine", 42)
    assert parts.get("mine") == 42
    with pytest.raises(TierformError) as caught:
        parts.get("pth")
    assert caught.value.problems[0].nearest == "path"


def test_is_a_problem_told_with_place_value_and_fix() -> None:
    text = str(Problem("unknown chip", "a.yaml", 3, "chip", "atlus", "atleus", "See the list."))
    assert text == "a.yaml:3: chip: unknown chip (found 'atlus')\n    did you mean 'atleus'? See the list."
    assert nearest("ATLEUS", ["atleus", "a100"]) == "atleus"
    assert nearest("zzz", ["atleus", "a100"]) is None


def test_do_assumptions_come_before_stronger_evidence() -> None:
    lines = [Assumption("a", "1", "measured"), Assumption("b", "1", "assumed"), Assumption("a", "1", "measured")]
    assert [line.subject for line in assumptions_first(lines)] == ["b", "a"]


@pytest.mark.parametrize("value", ["99999999999", "1.5", "true", "'5'", "0", "-1", "null", ".inf", "1000001"])
def test_has_a_count_bounds_and_no_other_kind(value: str) -> None:
    from tierform.schema import Count

    class Part(FileModel):
        rows: Count

    with pytest.raises(TierformError, match=r"f\.yaml:1"):
        validate(Part, parse_yaml(f"rows: {value}\n", "f.yaml"))
    assert validate(Part, parse_yaml("rows: 1000000\n", "f.yaml")).rows == 10**6


def test_is_a_message_of_a_file_printable() -> None:
    from tierform.errors import Problem

    text = str(Problem("a \x1b[2J\u202eb", "x\x07.yaml", 3, "k\x9b", "v\x1b", "n\x1b", "f\x1b"))
    assert all(one.isprintable() or one in "\n\t" for one in text)
    assert "\\x1b[2J" in text
