"""A mapping as plain data: which component runs each operator, and where each weight sits.

It can be written to YAML, edited by hand and read back (:mod:`tierform.mapping.mapping_file`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tierform.files import write_text
from tierform.workload.graph import Block, Stage
from tierform.workload.operator import Operator
from tierform.workload.parallel import MicroBatches
from tierform.workload.task import METHODS, TASKS, FineTuning, Task

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
    batch of each phase and the tokens of a micro-batch are cut into for pipelining.  `model` and `task` (as
    :func:`task_words` says it) are what it was made for.
    """

    chip: str
    assignments: dict[str, str]
    placements: tuple[WeightPlacement, ...]
    model: str = ""
    task: str = ""
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
            "model": self.model,
            "task": self.task,
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


def task_words(task: Task) -> str:
    """The kind of a task and its method in a few words: ``inference``, ``finetuning lora``."""
    kind = next((name for name, known in TASKS.items() if type(task) is known), type(task).__name__)
    method = task.method if isinstance(task, FineTuning) else None
    names = [name for name, known in METHODS.items() if type(method) is known]
    return " ".join([kind, *names])


def assignment_key(stage: Stage, block: Block, operator: Operator) -> str:
    """The name under which an operator's assignment stands: all runs of decode steps share one."""
    return stage.kind + "/" + block.name + "/" + operator.name
