"""``tierform init chip|component|job|mapping|runtime|space``: a commented file to start from, which runs as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierform.cli.output import OutputFile

if TYPE_CHECKING:
    from pydantic import BaseModel

_FILES = ["chip", "component", "job", "mapping", "runtime", "space"]


@click.command("init")
@click.argument("file", type=click.Choice(_FILES))
@click.argument("output", type=OutputFile())
@click.option("--like", help="Entry of the library to start from; left out: a common one.")
@click.option("--type", "type_name", help="Type of a component: crossbar, systolic, vector, gpu, pim.")
@click.option("--model", default="bert-base", show_default=True, help="Model of a job, mapping or space.")
@click.option("--chip", "chip_name", default="atleus", show_default=True, help="Chip of a job, mapping or space.")
def command(file: str, output: Path, like: str | None, type_name: str | None, model: str, chip_name: str) -> None:
    """A commented file to start from; it runs as it is, and each key says what it does."""
    from tierform.cli.output import console
    from tierform.errors import fail
    from tierform.files import check_output, write_text

    check_output(output)
    if output.exists():
        fail("this file is there already", file=str(output), fix="Name another one; nothing is replaced.")
    if type_name is not None and file != "component":
        fail("only a component has a type", key="--type", value=type_name)
    if like is not None and file not in ("chip", "component", "runtime"):
        fail(f"a {file} is like no entry of the library", key="--like", value=like, fix="Use --model and --chip.")
    if file == "mapping":
        _mapping(output, model, chip_name)
    elif file == "job":
        write_text(output, _job(model, chip_name))
    elif file == "space":
        write_text(output, _space(model, chip_name, output.stem))
    elif file == "chip":
        write_text(output, _chip(like or "atleus", output.stem))
    elif file == "component":
        write_text(output, _component(like, type_name))
    else:
        write_text(output, _runtime(like or "ideal", output.stem))
    console().print(f"{output}: {_next_step(file, output)}")


def _next_step(file: str, output: Path) -> str:
    return {
        "chip": f"simulate with `tierform simulate bert-base --chip {output}`",
        "component": f"name it in a chip file as {{file: {output.name}}}",
        "job": f"simulate with `tierform simulate --job {output}`",
        "mapping": f"edit it and give it back with `tierform simulate MODEL --chip CHIP --mapping {output}`",
        "runtime": f"use it with `tierform simulate MODEL --chip CHIP --runtime {output}`",
        "space": f"see its size with `tierform explore {output} --dry-run`, and search it without that option",
    }[file]


# -- the files -----------------------------------------------------------------------------------------------------
def _chip(like: str, name: str) -> str:
    from tierform.chip.chip_file import SCHEMA, ChipFile
    from tierform.chip.description import load_chip

    chip = load_chip(like)
    assert chip.origin is not None
    content = {**chip.origin.content, "name": name}
    head = f"# A chip, begun from {like!r}.  Keys that are left out stand here behind a #, with their defaults.\n"
    return f"{head}schema: {SCHEMA}\n" + "".join(_commented(ChipFile, content, 0))


def _component(like: str | None, type_name: str | None) -> str:
    from tierform import library
    from tierform.chip.component import COMPONENTS
    from tierform.chip.parts import component_path, document_of
    from tierform.errors import fail

    wanted = type_name or "crossbar"
    schema = COMPONENTS.get(wanted).schema
    names = [like] if like else library.names("components")
    for name in names:
        content = document_of(component_path(name)).content
        if type_name is None and like is not None:
            schema = COMPONENTS.get(str(content["type"])).schema
        elif content["type"] != wanted:
            continue
        head = (
            f"# A component, begun from {name!r}.  Keys that are left out stand here behind a #, with their defaults.\n"
        )
        return head + "".join(_commented(schema, content, 0))
    return fail("no entry of the library is of this type", key="--type", value=wanted, fix="Name one with --like.")


def _runtime(like: str, name: str) -> str:
    from tierform import library
    from tierform.files import read_yaml
    from tierform.simulation.runtime import SCHEMA, RuntimeFile

    content = {**read_yaml(library.find("runtimes", like)).content, "name": name}
    content.pop("schema", None)
    head = f"# A runtime, begun from {like!r}: what the software adds to what the hardware takes.\n"
    return f"{head}schema: {SCHEMA}\n" + "".join(_commented(RuntimeFile, content, 0))


def _job(model: str, chip: str) -> str:
    from tierform.simulation.job_file import SCHEMA

    return f"""\
# A job: everything that is asked.  Simulate it with `tierform simulate --job FILE`.
schema: {SCHEMA}
# A model of the library (`tierform list models`), or a folder with config.json.
model: {model}
# A chip of the library (`tierform list chips`), or a chip file beside this one.
chip: {chip}
task:
  # inference, finetuning, training; `tierform schema job` has the keys of each.
  kind: inference
  batch: 1
  # Tokens of a prompt, and tokens that are made after it.
  sequence: 128
  decode: 0
# How several chips share the work: tensor, pipeline, data.
# parallelism: {{tensor: 1, pipeline: 1, data: 1}}
# What the software adds; ideal adds nothing.
runtime: ideal
# analytic, or cycle: transfers simulated cycle by cycle.
fidelity: analytic
# none, steady, or transient.
thermal: steady
# What happens to weights that do not fit in crossbars: stream or refuse.
overflow: stream
# best (of a few), plain (the first), or a mapping file.
mapping: best
"""


def _space(model: str, chip_name: str, name: str) -> str:
    from tierform.chip.description import load_chip
    from tierform.errors import fail

    chip = load_chip(chip_name)
    if not chip.memory or chip.network is None:
        fail("a space begins from a chip with a network and memory", key="--chip", value=chip_name)
    return f"""\
# Many designs: search them with `tierform explore FILE`; see their number and time with --dry-run.
schema: tierform.space/1
name: {name}
# A job file's keys: what every design is asked.
job:
  model: {model}
  task: {{kind: inference, batch: 1, sequence: 128}}
  chip: {chip_name}
# What differs: a path of the job, or of its chip behind `chip.`, with values, or from and to (log: true, whole: true).
parameters:
  width: {{path: chip.network.width, values: [64 bit, 128 bit, 256 bit]}}
  clock: {{path: chip.network.clock, from: 0.5 GHz, to: 2 GHz}}
  memory: {{path: chip.memory.0.count, values: [1, 2, 4]}}
# Least is best; {{figure: most}} wants it large.
objectives: [latency_s, energy_J, area_m2]
# Figures that no design may exceed: kelvin over the limit of a part, bytes that memory is short of, and any other.
limits: {{kelvin_over: 0}}
"""


def _mapping(output: Path, model: str, chip_name: str) -> None:
    from tierform.chip.description import load_chip
    from tierform.mapping import default_mapping
    from tierform.simulation.choose import task_on
    from tierform.workload import Inference, expand, load_model

    chip = load_chip(chip_name)
    task = task_on(Inference(batch=1, sequence=128), chip)
    default_mapping(chip, expand(load_model(model), task)).save(output)


# -- comments from the descriptions of keys ------------------------------------------------------------------------
def _commented(schema: type[BaseModel], content: dict[str, object], depth: int, told: bool = True) -> Iterator[str]:
    """The lines of a file: each key after its description, and those left out behind a #."""
    pad = "  " * depth
    for key, field in schema.model_fields.items():
        if key == "schema_":
            continue
        if told and field.description:
            yield from (f"{pad}# {line}\n" for line in _wrapped(field.description, 112 - len(pad)))
        if key in content:
            yield from _entry(key, content[key], _model_of(field.annotation), depth, told)
        elif told:
            default = field.get_default(call_default_factory=True)
            yield f"{pad}# {key}: {_flow(default) if _is_plain(default) else '...'}\n"


def _entry(key: str, value: Any, schema: type[BaseModel] | None, depth: int, told: bool) -> Iterator[str]:
    pad = "  " * depth
    if schema is None or not value or (isinstance(value, dict) and "value" in value):
        yield f"{pad}{key}: {_flow(value)}\n"
        return
    yield f"{pad}{key}:\n"
    if isinstance(value, list):
        for place, item in enumerate(value):
            lines = list(_commented(schema, item, depth + 2, told and place == 0))
            first = next(index for index, line in enumerate(lines) if not line.lstrip().startswith("#"))
            lines[first] = f"{pad}  - {lines[first].lstrip()}"
            yield from lines
    elif set(value) <= set(schema.model_fields):
        yield from _commented(schema, value, depth + 1, told)
    else:
        for place, (name, item) in enumerate(value.items()):
            yield f"{pad}  {name}:\n"
            yield from _commented(schema, item, depth + 2, told and place == 0)


def _model_of(annotation: object) -> type[BaseModel] | None:
    """The model of a key's value, of its entries or of its list."""
    from tierform.schema import models_in

    found = models_in(annotation)
    return found[0] if found else None


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (str, bool, int, float)) or value in ([], {}, ())


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width)


def _flow(value: object) -> str:
    """A value on one line, as YAML."""
    import json

    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, str):
        plain = value and all(one.isalnum() or one in " ._/-^²µ%" for one in value) and value[0].isalnum()
        word = (
            plain
            and value.strip() == value
            and value.lower() not in ("true", "false", "yes", "no", "on", "off", "null")
        )
        number = value.replace(".", "").replace("e", "").replace("-", "").replace("_", "").isdigit()
        return value if word and not number else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)
