"""The text of a BookSim2 configuration: ``key = value;`` with ``//`` comments, numbers, words, lists in braces.

Reading takes time in proportion to the text.  Numbers are plain decimal ones of bounded length; what is no number and
no list is a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tierform.errors import Problem, nearest

MAX_BYTES = 4 * 2**20
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_\-/.+(){},]*", re.ASCII)
LARGEST = 2**31 - 1


class Reporter:
    """Collects problems with their places."""

    def __init__(self, file: str, lines: dict[str, int | None]) -> None:
        self.file, self.lines = file, lines
        self.problems: list[Problem] = []

    def add(
        self, key: str, what: str, value: object = None, choices: Iterable[str] = (), fix: str | None = None
    ) -> None:
        """Note that the value of `key` is wrong."""
        line = self.lines.get(key)
        place = self.file if key not in self.lines or line is not None else "command line"
        near = nearest(str(value), choices) if value is not None and choices else None
        self.problems.append(Problem(what=what, file=place, line=line, key=key, value=value, nearest=near, fix=fix))


def statements(text: str, file: str) -> tuple[dict[str, Any], dict[str, int | None], list[Problem]]:
    """The keys of a configuration with their values and lines, and what is no statement."""
    plain = re.sub(r"//[^\n]*", "", text)
    settings: dict[str, object] = {}
    lines: dict[str, int | None] = {}
    problems: list[Problem] = []
    line = 1
    pieces = plain.split(";")
    for number, piece in enumerate(pieces):
        body = piece.lstrip()
        line += piece.count("\n", 0, len(piece) - len(body))
        inside = body.count("\n")
        key, equals, value = body.rstrip().partition("=")
        last = number == len(pieces) - 1
        if body.strip():
            if last or not equals or not _KEY.fullmatch(key.strip()):
                shown = body.splitlines()[0]
                problems.append(Problem("this is not 'key = value;'", file, line, value=shown))
            else:
                settings[key.strip()] = value_of(value)
                lines[key.strip()] = line
                if "\0" in value or not _WORD.fullmatch(re.sub(r"\s+", "", value)):
                    problems.append(Problem("this is no number, word or list", file, line, key.strip(), value.strip()))
        line += inside
        if len(problems) > 50:
            break
    return settings, lines, problems


def value_of(text: str) -> int | float | str:
    """A whole number, a number, or the text without spaces."""
    compact = re.sub(r"\s+", "", text)
    if _INTEGER.fullmatch(compact):
        return int(compact)
    if _NUMBER.fullmatch(compact):
        return float(compact)
    return compact


def parts_of(value: object) -> list[str]:
    """The parts of ``{a,b}``, or the value itself as a single part."""
    text = str(value)
    if not text.startswith("{"):
        return [text] if text else []
    parts, depth, start = [], 0, 1
    for index, letter in enumerate(text):
        if letter == "{":
            depth += 1
        elif letter == "}":
            depth -= 1
        if (letter == "," and depth == 1) or (letter == "}" and depth == 0):
            if index > start:
                parts.append(text[start:index])
            start = index + 1
    return parts


def balanced(value: object) -> bool:
    """Whether braces and brackets open and close in pairs, and a list ends where its brace closes."""
    depth: list[str] = []
    text = str(value)
    for index, letter in enumerate(text):
        if letter in "{(":
            depth.append(letter)
        elif letter in "})":
            if not depth or depth.pop() != {"}": "{", ")": "("}[letter]:
                return False
            if not depth and text[0] == "{" and index < len(text) - 1:
                return False
    return not depth


def numbers(report: Reporter, key: str, value: object, kind: type = float) -> list[Any]:
    """The numbers of a list, or the one number; every part that is none is reported."""
    found: list[object] = []
    for part in parts_of(value):
        number = value_of(part)
        whole = isinstance(number, int)
        if isinstance(number, str) or (kind is int and not whole) or not abs(number) <= LARGEST:
            report.add(key, "a whole number is needed" if kind is int else "a number is needed", part)
        else:
            found.append(kind(number))
    return found
