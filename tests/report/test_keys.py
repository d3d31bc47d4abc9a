"""Does the reference of keys tell every key of every file, and does the page in docs/ say the same?"""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

import pytest

import tierform
from tierform import library
from tierform.chip.component import COMPONENTS
from tierform.files import read_yaml
from tierform.report.key_texts import CONFIG, RECORDS
from tierform.report.keys import FileReference, config_keys, page, references
from tierform.workload import families

REFERENCES = references()


def _row(reference: str, table: str, key: str) -> tuple[str, str]:
    (found,) = (
        row
        for part in REFERENCES
        if part.title == reference
        for one in part.tables
        if one.title == table
        for row in one.rows
        if row.key == key
    )
    return found.takes, found.default


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda one: one.title)
def test_has_every_key_a_description(reference: FileReference) -> None:
    silent = [f"{table.title}.{row.key}" for table in reference.tables for row in table.rows if not row.meaning]
    assert silent == []
    assert [table.title for table in reference.tables if not table.about] == []


def test_are_the_texts_of_a_job_those_of_its_fields() -> None:
    for record, texts in RECORDS.items():
        assert set(texts) == {item.name for item in fields(record)}, record.__name__


def test_are_the_texts_of_a_configuration_those_of_the_keys_that_families_read() -> None:
    asked, ignored = config_keys()
    assert set(CONFIG) == set(asked)
    assert not set(CONFIG) & ignored


def test_does_no_family_read_a_key_that_the_reference_does_not_know() -> None:
    # Found in the families' own source: every text given first to config.integer(...), config.flag(...), ...
    asked, ignored = config_keys()
    folder = Path(families.__file__).parent
    read: set[str] = set()
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if getattr(node.func.value, "id", "") == "config" and node.func.attr in (
                "integer",
                "layers",
                "number",
                "flag",
            ):
                read |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    assert len(read) > 60
    assert read <= set(asked) | ignored | {"architectures"}


def test_is_every_key_of_the_librarys_files_in_the_reference() -> None:
    known = {row.key for reference in REFERENCES for table in reference.tables for row in table.rows}
    for shelf in ("chips", "components", "runtimes"):
        for name in library.names(shelf):
            content = read_yaml(library.find(shelf, name)).content
            assert set(content) <= known, f"{shelf}/{name}"


def test_do_unit_bounds_default_and_choices_stand_in_the_reference() -> None:
    assert _row("Chip files", "NetworkFile", "clock") == ("a quantity in Hz, above 0", "needed")
    assert _row("Chip files", "NetworkFile", "router_cycles") == ("a whole number, at least 2, at most 64", "3")
    assert _row("Chip files", "PackageFile", "kind") == ("one of `planar`, `2.5d`, `3d`", "needed")
    assert _row("Chip files", "ChipFile", "pipelined") == ("true or false", "false")
    assert _row("Chip files", "ChipFile", "components") == ("names, each with keys of `ComponentFile`", "needed")
    assert _row("Job files", "LoRA", "targets") == ("a list of texts", "`q`, `v`")
    assert _row("Job files", "Parallelism", "tensor") == ("a whole number", "1")


def test_has_every_component_its_table() -> None:
    (reference,) = (one for one in REFERENCES if one.title == "Component files")
    titles = {table.title for table in reference.tables}
    assert {COMPONENTS.get(name).schema.__name__ for name in COMPONENTS} <= titles


def test_is_the_page_in_the_documents_what_the_schemas_say() -> None:
    written = Path(tierform.__file__).parents[2] / "docs" / "keys.md"
    assert written.read_text(encoding="utf-8") == page(), "run `make keys`"
