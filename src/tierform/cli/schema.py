"""``tierform schema chip|component TYPE|job|runtime|mapping``: JSON Schema of a file, for editors."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tierform.cli.output import OutputFile

_FILES = ["chip", "component", "job", "runtime", "mapping"]


@click.command("schema")
@click.argument("file", type=click.Choice(_FILES))
@click.argument("type_name", required=False, metavar="[TYPE]")
@click.option("-o", "--output", type=OutputFile(), help="Write the schema here, not on the screen.")
def command(file: str, type_name: str | None, output: Path | None) -> None:
    """JSON Schema of a chip, component, job, runtime or mapping file; descriptions of keys are the manual.

    A component needs its type: crossbar, systolic, vector, gpu, pim.
    """
    from tierform.errors import fail
    from tierform.files import write_text

    if (file == "component") != (type_name is not None):
        what = "a component needs its type" if file == "component" else f"a {file} file has no types"
        fail(what, value=type_name, fix="For example: tierform schema component crossbar")
    text = json.dumps(_schema(file, type_name or ""), indent=1, ensure_ascii=False) + "\n"
    if output is not None:
        write_text(output, text)
    else:
        click.echo(text, nl=False)


def _schema(file: str, type_name: str) -> dict[str, object]:
    if file == "job":
        from tierform.simulation.job_schema import job_schema

        return job_schema()
    from tierform.schema import json_schema

    if file == "chip":
        from tierform.chip.chip_file import SCHEMA, ChipFile

        return json_schema(ChipFile, SCHEMA)
    if file == "mapping":
        from tierform.mapping.mapping_file import MappingFile
        from tierform.mapping.plan import SCHEMA as MAPPING

        return json_schema(MappingFile, MAPPING)
    if file == "runtime":
        from tierform.simulation.runtime import SCHEMA as RUNTIME
        from tierform.simulation.runtime import RuntimeFile

        return json_schema(RuntimeFile, RUNTIME)
    from tierform.chip.component import COMPONENTS

    return json_schema(COMPONENTS.get(type_name).schema)
