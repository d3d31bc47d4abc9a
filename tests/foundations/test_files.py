"""Are files read as plain data with lines, hostile ones refused, and written whole or not at all?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierform.errors import TierformError
from tierform.files import atomic_path, key_steps, parse_yaml, read_json, read_text, write_json


def test_does_every_key_know_its_line() -> None:
    document = parse_yaml("a: 1\nb:\n  c: [1, 2]\n  d: {e: x}\n", "f.yaml")
    assert document.content == {"a": 1, "b": {"c": [1, 2], "d": {"e": "x"}}}
    assert document.line_of(("b", "d", "e")) == 4
    assert document.line_of(("b", "missing")) == 2


def test_are_steps_of_a_key_names_and_places() -> None:
    assert key_steps("package.dies.0.size") == ("package", "dies", 0, "size")
    assert key_steps("parts.².x") == ("parts", "²", "x")


@pytest.mark.parametrize(
    ("text", "word", "line"),
    [
        ("a: 1\na: 2\n", "twice", 2),
        ("a: &x [1]\nb: *x\n", "aliases", 1),
        ("a: !!python/object:os.system x\n", "tag", 1),
        ("a: !mine 3\n", "tag", 1),
        ("a: [1, 2\n", "expected", 2),
        ("a: " + "[" * 100 + "]" * 100 + "\n", "nested", 1),
        ("? [1, 2]\n: 3\n", "plain word", 1),
        ("a: 'cut", "end of stream", 1),
    ],
)
def test_is_hostile_or_broken_yaml_refused_with_its_line(text: str, word: str, line: int) -> None:
    with pytest.raises(TierformError, match=word) as caught:
        parse_yaml(text, "chip.yaml")
    problem = caught.value.problems[0]
    assert problem.file == "chip.yaml"
    assert problem.line == line


@given(st.text(max_size=200))
def test_does_no_text_crash_the_yaml_reader(text: str) -> None:
    try:
        parse_yaml(text, "x")
    except TierformError as error:
        assert error.problems


_PLAIN = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=10)


@given(
    st.recursive(
        _PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    )
)
def test_does_json_round_trip(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    path = tmp_path_factory.mktemp("json") / "x.json"
    write_json(path, content)
    assert read_json(path).content == content


@pytest.mark.parametrize("text", ['{"a": 1', '{"a": 1, "a": 2}', "[" * 100_000, "\x00", '{"a": 1}}'])
def test_is_broken_json_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(TierformError):
        read_json(path)


def test_is_a_missing_file_named_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "atleus.yaml").write_text("a: 1\n")
    with pytest.raises(TierformError) as caught:
        read_text(tmp_path / "atlues.yaml")
    assert caught.value.problems[0].nearest == "atleus.yaml"
    with pytest.raises(TierformError, match="folder"):
        read_text(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TierformError, match="UTF-8"):
        read_text(tmp_path / "binary")


def test_does_a_failed_write_leave_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_are_infinite_numbers_null_in_json(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": float("inf"), "b": [float("nan"), 1.5]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": None, "b": [None, 1.5]}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: " + "9" * 20, "too large"),
        ("a: -" + "9" * 5000, "too large"),
        ('a: "\\ud800"', "character"),
        ('a: "\\x1b[31m"', "control character"),
        ('"\\0": 1', "control character"),
        ("a: [" + "1," * 200_001 + "]", "entries"),
        ("? " * 3000 + "a", "nested"),
        ("- " * 3000 + "a", "nested"),
    ],
)
def test_is_what_no_parser_could_use_refused_with_its_line(text: str, word: str) -> None:
    with pytest.raises(TierformError, match=word):
        parse_yaml(text, "x.yaml")


def test_is_a_file_that_never_ends_or_is_no_text_refused(tmp_path: Path) -> None:
    if Path("/dev/zero").exists():
        with pytest.raises(TierformError, match="too large"):
            read_text("/dev/zero", 2**20)
    (tmp_path / "nul").write_bytes(b"a\nb\0c")
    with pytest.raises(TierformError, match="NUL") as caught:
        read_text(tmp_path / "nul")
    assert caught.value.problems[0].line == 2
    for name in ("a\0b", "a" * 5000):
        with pytest.raises(TierformError):
            read_text(tmp_path / name)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *(("1e5", "1e5"), ("1.5e3", 1500.0), ("0x1F", 31), ("0o17", 15), ("1_000", 1000), (".5", 0.5), ("-7", -7)),
        *(("yes", "yes"), ("true", True), ("FALSE", False), ("~", None), ("null", None), ("", None), ("1:30", "1:30")),
        *(("'12'", "12"), ("2001-01-01", "2001-01-01"), ("a b", "a b"), ("==", "==")),
    ],
)
def test_is_a_word_what_yaml_1_2_says(word: str, value: object) -> None:
    found = parse_yaml(f"a: {word}\n", "x.yaml").content["a"]
    assert found == value or (word == "1e5" and found == 1e5)
    assert type(found) is type(value) or word == "1e5"
