"""Is every file and folder of every command read and written through the house's own types?"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tierform.cli.main import tierform
from tierform.cli.output import InputPath, OutputFile, OutputFolder
from tierform.errors import TierformError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="devices and pipes of POSIX systems")


def walk(group: click.Group, name: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for verb in group.list_commands(context):
        command = group.get_command(context, verb)
        assert command is not None
        if isinstance(command, click.Group):
            yield from walk(command, f"{name} {verb}")
        else:
            yield f"{name} {verb}".strip(), command


def outputs(kind: type[click.ParamType]) -> list[click.Parameter]:
    return [one for _, command in walk(tierform) for one in command.params if type(one.type) is kind]


def test_is_every_path_of_a_kind_that_is_checked() -> None:
    for name, command in walk(tierform):
        for parameter in command.params:
            if isinstance(parameter.type, (click.Path, click.File)):
                assert type(parameter.type) in (InputPath, OutputFile, OutputFolder), f"{name} {parameter.name}"


def test_is_what_a_help_line_calls_written_an_output() -> None:
    for name, command in walk(tierform):
        for parameter in command.params:
            text = getattr(parameter, "help", None) or ""
            if isinstance(parameter.type, click.Path) and (" write" in f" {text.lower()}" and "mapping" not in text):
                assert isinstance(parameter.type, (OutputFile, OutputFolder)), f"{name} {parameter.name}"


def test_does_every_output_refuse_before_any_work_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    files, folders = outputs(OutputFile), outputs(OutputFolder)
    assert len(files) > 30 and len(folders) >= 5
    for one in (*files, *folders):
        for path in (tmp_path / "none" / "x", tmp_path / "file" / "x", Path("a\0b")):
            with pytest.raises(TierformError):
                one.type.convert(str(path), one, None)
    for one in folders:
        with pytest.raises(TierformError, match="no folder"):
            one.type.convert(str(tmp_path / "file"), one, None)
        one.type.convert(str(tmp_path / "new"), one, None)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_do_all_file_outputs_take_devices_links_and_the_dash(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "there")
    for one in outputs(OutputFile):
        for path in (os.devnull, "-", str(tmp_path / "link")):
            assert str(one.type.convert(path, one, None)) == path
