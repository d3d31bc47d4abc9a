"""The runtime: what the software adds to what the hardware takes.

A runtime is a library file (or a path) with its sources.  ``ideal`` adds nothing and lets components fuse operators;
``eager`` runs every operator as a kernel of its own and holds attention scores in memory, as code without fused
kernels does.  The result names the runtime that was used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from tierform import library
from tierform.chip.description import Chip
from tierform.errors import fail
from tierform.files import Document, read_yaml
from tierform.schema import FileModel, validate

SCHEMA = "tierform.runtime/1"


class RuntimeFile(FileModel):
    """A runtime file."""

    name: str = Field(description="Name of the runtime, as results print it.")
    description: str = Field("", description="What it stands for, in a sentence.")
    fuses_operators: bool = Field(
        True, description="Whether neighbouring operators run as one kernel where a component can; false: each its own."
    )


@dataclass(frozen=True, slots=True)
class Runtime:
    """A loaded runtime."""

    name: str
    description: str = ""
    fuses_operators: bool = True

    def attention_on(self, chip: Chip) -> Literal["fused", "tiled", "eager"]:
        """How attention's scores are held on this chip: never whole, whole only for backward, or whole."""
        fusers = list(chip.can.fusers.values())
        if not fusers:
            return "tiled"
        fuses = self.fuses_operators and any(part.fuses_attention for part in fusers)
        return "fused" if fuses else "eager"


IDEAL = Runtime("ideal", "adds nothing to what the hardware takes")


def load_runtime(name: str | Path) -> Runtime:
    """A runtime of the library by name, or from a YAML file; TierformError with every mistake and its line."""
    text = str(name)
    path = Path(text) if text.endswith((".yaml", ".yml")) else library.find("runtimes", text)
    document = read_yaml(path)
    if isinstance(document.content, dict) and "schema" in document.content:
        if document.content["schema"] != SCHEMA:
            fail(
                "this file has another schema",
                file=document.file,
                line=document.line_of(("schema",)),
                value=document.content["schema"],
                choices=[SCHEMA],
                fix=f"This version reads {SCHEMA}.",
            )
        content = {key: value for key, value in document.content.items() if key != "schema"}
        document = Document(content, document.file, document.lines)
    described = validate(RuntimeFile, document)
    return Runtime(described.name, described.description, described.fuses_operators)
