"""Is a library file that was parsed before the same as one parsed anew, and is only that ever taken from the cache?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tierform import files, library
from tierform.files import parse_yaml, read_text, read_yaml
from tierform.kept_documents import keep, kept

ALL = [library.find(shelf, name) for shelf in library.SHELVES for name in library.names(shelf)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIERFORM_CACHE", str(tmp_path))
    return tmp_path / "documents"


def typed(content: object) -> object:
    """The content with the type of each value: 1 is neither 1.0 nor true."""
    if isinstance(content, dict):
        return {key: typed(value) for key, value in content.items()}
    return [typed(one) for one in content] if isinstance(content, list) else (type(content), content)


@pytest.mark.parametrize("path", ALL[::9], ids=lambda path: path.stem)
def test_is_a_kept_document_the_parsed_one(path: Path, folder: Path) -> None:
    parsed = parse_yaml(read_text(path), str(path))
    for _ in range(2):
        found = read_yaml(path)
        assert typed(found.content) == typed(parsed.content) and list(found.content) == list(parsed.content)
        assert found.lines == parsed.lines and found.file == parsed.file
    assert len(list(folder.iterdir())) == 1


def test_is_it_read_from_there_only_while_the_text_is_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = library.find("chips", "atleus")
    read_yaml(path)
    monkeypatch.setattr(files, "parse_yaml", lambda *_: pytest.fail("it was parsed again"))
    assert read_yaml(path).content["name"] == "atleus"
    text = read_text(path)
    assert kept(folder, path, text) is not None
    assert kept(folder, path, text + " ") is None
    assert kept(None, path, text) is None


def test_is_anything_else_in_the_cache_passed_over(folder: Path) -> None:
    path = library.find("chips", "atleus")
    text, right = read_text(path), read_yaml(path)
    (file,) = folder.iterdir()
    whole = json.loads(file.read_text())
    for wrong in (
        "",
        "{",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps({**whole, "text": "0"}),
        json.dumps({**whole, "lines": [[1, []]]}),
        json.dumps({**whole, "lines": [["x", "a"]]}),
        json.dumps({"text": whole["text"]}),
    ):
        file.write_text(wrong)
        assert kept(folder, path, text) is None
        assert read_yaml(path) == right
    file.unlink()
    file.mkdir()
    assert read_yaml(path) == right


def test_are_files_of_users_never_kept(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "atleus.yaml"
    own.write_text("a: 1\n")
    assert read_yaml(own).content == {"a": 1}
    assert not folder.exists()
    assert kept(folder, own, "a: 1\n") is None


def test_does_a_folder_that_cannot_be_written_harm_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("TIERFORM_CACHE", str(blocked))
    path = library.find("chips", "isaac")
    assert read_yaml(path).content["name"] == "isaac"
    keep(blocked / "documents", path, "", ({}, {}))
    monkeypatch.setenv("TIERFORM_CACHE", "off")
    assert read_yaml(path).content["name"] == "isaac"
