"""A mapping as plain data: which component runs each operator, and where each weight sits.

It can be written to YAML, edited by hand and read back; reading checks every name, number and tile against the chip
and the workload, all at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from tierform.chip.description import Chip
from tierform.errors import Problem, TierformError, nearest
from tierform.files import Document, read_yaml, write_text
from tierform.schema import FileModel, validate
from tierform.workload.graph import Block, Stage, Workload
from tierform.workload.operator import Kind, Operator
from tierform.workload.parallel import MicroBatches

SCHEMA = "tierform.mapping/1"
# Where collectives between several chips run; not a component of the chip.
INTERCONNECT = "interconnect"


@dataclass(frozen=True, slots=True)
class WeightPlacement:
    """Where the weight of a block's operator sits.

    `crossbars` is for one weight in one layer; `copies` is 2 where a transposed one is held beside it for the backward
    pass.  A resident weight has `replicas` of them in each of `layers` layers, all in cells before the task begins.
    One that is not resident is written to a shared region for every pass.  `tiles` names the tiles of each resident
    layer.
    """

    block: str
    weight: str
    component: str
    crossbars: int
    layers: int
    replicas: int
    resident: bool
    trainable: bool
    tiles: tuple[tuple[int, ...], ...]
    copies: int = 1

    @property
    def total_crossbars(self) -> int:
        """Crossbars of all layers, copies and replicas, 0 when it is not resident."""
        return self.crossbars * self.copies * self.replicas * self.layers if self.resident else 0


@dataclass(frozen=True)
class Mapping:
    """Who runs what, where weights sit, and how the input is cut.

    `assignments` maps ``stage/block/operator`` to a component.  `micro_batches` and `chunks` are how many parts the
    batch of each phase and the tokens of a micro-batch are cut into for pipelining.
    """

    chip: str
    assignments: dict[str, str]
    placements: tuple[WeightPlacement, ...]
    micro_batches: MicroBatches = field(default_factory=MicroBatches)
    chunks: int = 1
    notes: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return hash((self.chip, tuple(sorted(self.assignments.items())), self.placements, self.micro_batches))

    def component(self, stage: Stage, block: Block, operator: Operator) -> str:
        """The component that runs an operator."""
        return self.assignments[assignment_key(stage, block, operator)]

    def placements_of(self, block: str, weight: str | None) -> tuple[WeightPlacement, ...]:
        """The placements of a weight: one, or a resident and a streamed part of its layers."""
        return tuple(item for item in self.placements if item.weight == weight and item.block == block)

    def crossbars_used(self, component: str) -> int:
        """Crossbars of a component that hold resident weights."""
        return sum(item.total_crossbars for item in self.placements if item.component == component)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in the YAML file."""
        assigned: dict[str, dict[str, dict[str, str]]] = {}
        for key, component in self.assignments.items():
            stage, block, operator = key.split("/", 2)
            assigned.setdefault(stage, {}).setdefault(block, {})[operator] = component
        return {
            "schema": SCHEMA,
            "chip": self.chip,
            "micro_batches": asdict(self.micro_batches),
            "chunks": self.chunks,
            "assignments": assigned,
            "weights": [
                {
                    "block": item.block,
                    "weight": item.weight,
                    "component": item.component,
                    "crossbars": item.crossbars,
                    "copies": item.copies,
                    "layers": item.layers,
                    "replicas": item.replicas,
                    "resident": item.resident,
                    "trainable": item.trainable,
                    "tiles": [list(tiles) for tiles in item.tiles],
                }
                for item in self.placements
            ],
        }

    def save(self, path: Path | str) -> None:
        """Write the mapping as YAML."""
        import io

        from ruamel.yaml import YAML

        writer = YAML()
        writer.default_flow_style = None
        writer.width = 118
        text = io.StringIO()
        writer.dump(self.to_dict(), text)
        write_text(
            path,
            "# A mapping: change components, replicas or tiles and give it back with --mapping.\n" + text.getvalue(),
        )


def assignment_key(stage: Stage, block: Block, operator: Operator) -> str:
    """The name under which an operator's assignment stands: all runs of decode steps share one."""
    return f"{stage.kind.value}/{block.name}/{operator.name}"


class WeightFile(FileModel):
    """Where one weight sits."""

    block: str = Field(description="Block of layers that the weight belongs to.")
    weight: str = Field(description="Name of the weight in its block.")
    component: str = Field(description="Component that holds it.")
    crossbars: int = Field(description="Crossbars of one weight in one layer.")
    copies: int = Field(1, description="2 where a transposed copy is held beside it for backward.")
    layers: int = Field(description="Layers of the block that this entry stands for.")
    replicas: int = Field(description="Copies of a resident weight that share the tokens; more are faster.")
    resident: bool = Field(
        description="Whether it is in the cells before the task; false: written to a shared region for every pass."
    )
    trainable: bool = Field(False, description="Whether it learns and the update writes it; then it has no replicas.")
    tiles: list[list[int]] = Field(description="Tiles of each resident layer; they load the network and get hot.")


class MicroBatchFile(FileModel):
    """Into how many parts the batch of each phase is cut."""

    prefill: int = Field(default=1, description="Parts of the batch of prompts.")
    decode: int = Field(default=1, description="Parts of the batch of decode steps.")
    training: int = Field(default=1, description="Parts of the batch of forward and backward.")


class MappingFile(FileModel):
    """A whole mapping file."""

    schema_: str = Field(SCHEMA, description="Layout of the file; written as `schema`.")
    chip: str = Field(description="Chip that the mapping is for; another one is refused.")
    micro_batches: MicroBatchFile = Field(MicroBatchFile(), description="Parts of the batch, phase by phase.")
    chunks: int = Field(1, description="Chunks of tokens that flow from operator to operator one after the other.")
    assignments: dict[str, dict[str, dict[str, str]]] = Field(
        description="Component that runs each operator: stage, block, operator."
    )
    weights: list[WeightFile] = Field([], description="Where the weights in crossbars sit.")


def load_mapping(path: Path | str, chip: Chip, workload: Workload) -> Mapping:
    """A mapping file for this chip and workload; TierformError with every mistake and its line."""
    document = read_yaml(path)
    if isinstance(document.content, dict) and document.content.get("schema") == SCHEMA:
        content = {key: value for key, value in document.content.items() if key != "schema"}
        document = Document(content, document.file, document.lines)
    described = validate(MappingFile, document)
    problems = [
        *_chip_problems(described, document, chip),
        *_assignment_problems(described, document, chip, workload),
        *_weight_problems(described, document, chip),
    ]
    if problems:
        raise TierformError(problems)
    return Mapping(
        chip=described.chip,
        assignments={
            f"{stage}/{block}/{operator}": component
            for stage, blocks in described.assignments.items()
            for block, operators in blocks.items()
            for operator, component in operators.items()
        },
        placements=tuple(
            WeightPlacement(
                block=w.block,
                weight=w.weight,
                component=w.component,
                crossbars=w.crossbars,
                layers=w.layers,
                replicas=w.replicas,
                resident=w.resident,
                trainable=w.trainable,
                tiles=tuple(tuple(tiles) for tiles in w.tiles),
                copies=w.copies,
            )
            for w in described.weights
        ),
        micro_batches=MicroBatches(**described.micro_batches.model_dump()),
        chunks=described.chunks,
        notes=(f"mapping read from {Path(path).name}",),
    )


def _chip_problems(described: MappingFile, document: Document, chip: Chip) -> list[Problem]:
    problems = []
    if described.chip != chip.name:
        problems.append(
            Problem(
                f"the mapping is for another chip than {chip.name!r}",
                document.file,
                document.line_of(("chip",)),
                "chip",
                described.chip,
            )
        )
    problems += [
        Problem("must be at least 1", document.file, document.line_of(path), ".".join(path), value)
        for path, value in (
            (("chunks",), described.chunks),
            *((("micro_batches", key), value) for key, value in described.micro_batches),
        )
        if value < 1
    ]
    return problems


def _assignment_problems(described: MappingFile, document: Document, chip: Chip, workload: Workload) -> list[Problem]:
    problems = []
    needed = {
        (stage.kind.value, block.name, operator.name): operator for stage, block, operator, _ in workload.occurrences()
    }
    given = {
        (stage, block, operator): component
        for stage, blocks in described.assignments.items()
        for block, operators in blocks.items()
        for operator, component in operators.items()
    }
    for key, component in given.items():
        line = document.line_of(("assignments", *key))
        shown = "assignments." + ".".join(key)
        if key not in needed:
            close = nearest("/".join(key), ["/".join(item) for item in needed])
            problems.append(Problem("the workload has no such operator", document.file, line, shown, None, close))
        elif needed[key].kind is Kind.COLLECTIVE and component == INTERCONNECT:
            continue
        elif component not in chip.components:
            problems.append(
                Problem(
                    "the chip has no such component",
                    document.file,
                    line,
                    shown,
                    component,
                    nearest(component, chip.components),
                )
            )
        elif not chip.components[component].supports(needed[key]):
            able = [name for name, other in chip.components.items() if other.supports(needed[key])]
            problems.append(
                Problem(
                    "this component cannot run the operator",
                    document.file,
                    line,
                    shown,
                    component,
                    None,
                    f"Able: {', '.join(able) or 'none'}.",
                )
            )
    missing = [key for key in needed if key not in given]
    problems += [
        Problem(
            "this operator is not assigned",
            document.file,
            document.line_of(("assignments",)),
            "assignments." + ".".join(key),
        )
        for key in missing[:5]
    ]
    return problems


def _weight_problems(described: MappingFile, document: Document, chip: Chip) -> list[Problem]:
    problems = []
    tiles_by_component = {name: set(chip.tiles_of(name)) for name in chip.components}
    used: dict[str, int] = {}
    for index, weight in enumerate(described.weights):
        at = ("weights", index)
        if weight.component not in tiles_by_component:
            line = document.line_of((*at, "component"))
            problems.append(
                Problem(
                    "the chip has no such component",
                    document.file,
                    line,
                    f"weights.{index}.component",
                    weight.component,
                    nearest(weight.component, chip.components),
                )
            )
            continue
        valid = tiles_by_component[weight.component]
        for tiles in weight.tiles:
            for tile in tiles:
                if tile not in valid:
                    place = f"{min(valid)} to {max(valid)}"
                    problems.append(
                        Problem(
                            f"no tile of this number holds {weight.component!r}",
                            document.file,
                            document.line_of((*at, "tiles")),
                            f"weights.{index}.tiles",
                            tile,
                            None,
                            f"Its tiles are {place}.",
                        )
                    )
        if min(weight.crossbars, weight.copies, weight.layers, weight.replicas) < 1:
            problems.append(
                Problem(
                    "crossbars, copies, layers and replicas must be at least 1",
                    document.file,
                    document.line_of(at),
                    f"weights.{index}",
                )
            )
        if weight.resident and len(weight.tiles) != weight.layers:
            problems.append(
                Problem(
                    f"needs one list of tiles for each of {weight.layers} layers",
                    document.file,
                    document.line_of((*at, "tiles")),
                    f"weights.{index}.tiles",
                    len(weight.tiles),
                )
            )
        if weight.resident:
            each = weight.crossbars * weight.copies * weight.replicas
            used[weight.component] = used.get(weight.component, 0) + each * weight.layers
    for name, count in used.items():
        available = chip.can.holders[name].crossbars if name in chip.can.holders else 0
        if count > available:
            problems.append(
                Problem(
                    f"{count} crossbars are used and {name!r} has {available}",
                    document.file,
                    document.line_of(("weights",)),
                    "weights",
                    None,
                    None,
                    "Use fewer replicas or layers.",
                )
            )
    return problems
